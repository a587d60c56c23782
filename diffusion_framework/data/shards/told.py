"""The conditions in the members of a sample beside its image: .cls, .txt and .json."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..images.metadata import Metadata

NO_LABEL, BAD_LABEL = -1, -2
MAX_CLASSES = 1_000_000
MAX_LABEL_BYTES = 32  # longer contents are not labels
MAX_BYTES = 2**20  # of a text, or of a JSON object


@dataclass(frozen=True)
class Told:
    """Members that are conditions.

    Args:
        labels: Whether KEY.cls holds the class, or the key of KEY.json that does.
        captions: Whether KEY.txt holds the text, or the keys of KEY.json, separated by commas.
        vectors: Keys of KEY.json whose numbers form a vector.
    """

    labels: bool | str = False
    captions: bool | str = False
    vectors: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Endings of the members that each image needs, besides that of the label."""
        in_json = isinstance(self.captions, str) or self.vectors
        return (".txt",) * (self.captions is True) + (".json",) * bool(in_json)

    @property
    def listed(self) -> str:
        """What a list of images depends on."""
        key = self.labels if isinstance(self.labels, str) else ""
        return f"{key} {self.needs}"

    @property
    def most_bytes(self) -> dict[str, int]:
        """Largest size of the members to read, by their endings."""
        found = {".cls": MAX_LABEL_BYTES} | dict.fromkeys(self.needs, MAX_BYTES)
        return found | ({".json": MAX_BYTES} if isinstance(self.labels, str) else {})

    def label(self, members: dict[str, bytes]) -> int:
        """Returns the class in the members of a sample, NO_LABEL or BAD_LABEL."""
        if not isinstance(self.labels, str):
            text = members.get(".cls")
            return NO_LABEL if text is None else _label(text.strip().decode("ascii", "replace"))
        try:
            row = json.loads(members.get(".json", b"{}"))
            value = row.get(self.labels)
        except (ValueError, AttributeError, RecursionError):  # no JSON, or no object
            return BAD_LABEL
        return NO_LABEL if value is None else _label(str(value))

    def values(self, members: dict[str, bytes], name: Callable[[], str]) -> dict[str, Any]:
        """Returns the text and the vector in the members of a sample, by name.

        Args:
            members: Contents by ending.
            name: Returns the name of the image, for errors.

        Raises:
            ValueError: a member that is not UTF-8 or not a JSON object, a missing key, an empty
                text, or a number that is not finite.
        """
        try:
            return self._values(members)
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, TypeError) as error:
            raise ValueError(
                f"{name()}: Expected text in UTF-8 and an object in JSON beside it, got an error "
                f"({error!s:.80}). Fix: write the member again."
            ) from error
        except ValueError as error:
            message, _, fix = str(error).partition(" Fix: ")
            raise ValueError(f"{name()}: {message} Fix: {fix}") from error

    def _values(self, members: dict[str, bytes]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.captions is True:
            found["text"] = members[".txt"].decode().strip()
        if ".json" in self.needs:
            row = json.loads(members[".json"].decode())
            if not isinstance(row, dict):
                raise TypeError("not an object")  # told like other damage
            table = Metadata("", ["its .json"], ["it"], [row])
            if isinstance(self.captions, str):
                keys = [key.strip() for key in self.captions.split(",")]
                found["text"] = table.texts(keys, "captions")[0]
            if self.vectors:
                found["vector"] = torch.from_numpy(table.vectors(self.vectors, "vectors")[0])
        if found.get("text") == "":
            raise ValueError("Expected a caption, got an empty one. Fix: write it.")
        return found


def _label(text: str) -> int:
    """Returns a class number, or BAD_LABEL unless it is an integer below MAX_CLASSES."""
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_LABEL_BYTES
    return int(text) if is_number and int(text) < MAX_CLASSES else BAD_LABEL
