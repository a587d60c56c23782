"""What lies where in a tar file of the WebDataset convention: members KEY.jpg with an optional KEY.cls."""

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

# Of each image: where its bytes begin, how many they are, and its label; NO_LABEL, or BAD_LABEL for what is none.
RECORD = np.dtype([("offset", "<i8"), ("size", "<i8"), ("label", "<i4")])
NO_LABEL, BAD_LABEL = -1, -2
MAX_CLASSES = 1_000_000
LABEL_BYTES = 32  # more is no label


def list_images(file: BinaryIO, shard: str, endings: frozenset[str]) -> np.ndarray:
    """The images of a tar file, in their order, as an array of RECORD. Headers and labels are read, images skipped.

    The key of a member is its path up to the first dot of its last part, and what follows is its kind: one of the
    `endings` (lower case, with the dot; matched in any case) for an image, `.cls` for its label, a whole number in
    ASCII. Other members are passed over, and those whose last part begins with a dot.

    Args:
        file: A tar file, open and seekable.
        shard: Its name, for errors.
        endings: Of images.

    Raises:
        ValueError: it is no tar file, is damaged or cut off, holds no image, or two images of one key.
    """
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    for member, kind, content in _members(file, shard):
        key = member.name.removesuffix(kind)
        if kind.lower() == ".cls":
            labels[key] = _label(content)
        elif kind.lower() in endings:
            if key in images:
                raise ValueError(
                    f"shard {shard!r} holds two images of the key {key!r}; give each a key of its own, or choose one "
                    "kind of them with extensions"
                )
            images[key] = member.offset_data, member.size
    if not images:
        shown = " ".join(sorted(endings)[:6]) + (f" and {len(endings) - 6} more" if len(endings) > 6 else "")
        raise ValueError(f"shard {shard!r} holds no image; looked for members KEY.jpg or the like, ending in {shown}")
    return np.array([(*place, labels.get(key, NO_LABEL)) for key, place in images.items()], RECORD)


def member_at(file: BinaryIO, shard: str, offset: int) -> str:
    """The name of the member whose content begins at `offset`."""
    return next((member.name for member, _, _ in _members(file, shard) if member.offset_data == offset), "?")


def _members(file: BinaryIO, shard: str) -> Iterator[tuple[tarfile.TarInfo, str, bytes]]:
    """The members KEY.kind of a tar file, with their `.kind`, and the contents of those that are labels."""
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (it holds nothing but the file)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ValueError(
            f"shard {shard!r} is no tar file ({error}); give tar files, and none that are compressed"
        ) from error
    try:
        while member := archive.next():
            stem, dot, kind = member.name.rpartition("/")[2].partition(".")
            if stem and dot and member.isreg() and not member.issparse():
                is_label = kind.lower() == "cls" and member.size <= LABEL_BYTES
                yield member, dot + kind, _read(file, member.offset_data, member.size) if is_label else b""
        end = archive.offset
        after = _read(file, end, tarfile.BLOCKSIZE)
        if after.strip(b"\0") or len(after) not in (0, tarfile.BLOCKSIZE):  # which tarfile takes for the end
            raise ValueError(f"no header at byte {end}")
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ValueError(f"shard {shard!r} is cut off or damaged ({error}); write or fetch it again") from error


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _label(content: bytes) -> int:
    text = content.strip()
    return int(text) if text.isdigit() and int(text) < MAX_CLASSES else BAD_LABEL
