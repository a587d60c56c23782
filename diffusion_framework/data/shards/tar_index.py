"""Index of the images in a tar file of the WebDataset convention: KEY.jpg with optional KEY.cls,
KEY.txt and KEY.json."""

import tarfile
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import BinaryIO

import numpy as np

from .told import Told

# One row for each image: offset and size of its content in bytes; its label, NO_LABEL or
# BAD_LABEL (not a class number); the `digest` of its content; and, for KEY.txt and KEY.json,
# offset and size of what is read, and a hash of it. A missing member has the offset 0.
RECORD = np.dtype(
    [
        ("offset", "<i8"),
        ("size", "<i8"),
        ("label", "<i4"),
        ("digest", "<u8"),
        (".txt", "<i8", 2),
        (".json", "<i8", 2),
        ("told", "<u8"),
    ]
)
_TOLD = (".txt", ".json")
_END = bytes(2 * tarfile.BLOCKSIZE)
_PADDING = 2**16  # bytes after the end that must be zeros


def list_images(
    file: BinaryIO, shard: str, endings: frozenset[str], told: Told | None = None
) -> np.ndarray:
    """Lists the images of a tar file, reading only headers, labels and other conditions.

    The key of a member is its path up to the first dot of the file name; the rest is its ending.
    A member is an image if its ending is one of `endings`, and a label if its ending is `.cls`: an
    integer in ASCII. Other members and hidden files are ignored.

    Args:
        file: Tar file, open and seekable.
        shard: Name of the shard, for errors.
        endings: Endings of images in lower case with the dot; they match in any case.
        told: Members that are conditions; None for the labels alone.

    Returns:
        Array of RECORD, one row for each image, in the order of the file.

    Raises:
        ValueError: the file is not a tar file, is damaged or truncated, or holds no image, or two
            images of one key.
    """
    told = Told() if told is None else told
    images: dict[str, tuple[int, int, int]] = {}
    beside: dict[str, dict[str, bytes]] = {}
    places: dict[tuple[str, str], tuple[int, int]] = {}
    for member, ending, content in _members(file, shard, told.most_bytes):
        key = member.name.removesuffix(ending)
        if content is not None:
            beside.setdefault(key, {})[ending.lower()] = content
            places[key, ending.lower()] = member.offset_data, member.size
        elif ending.lower() in endings:
            if key in images:
                raise ValueError(
                    "Expected one image for each key, "
                    f"got two of the key {key!r} in shard {shard!r}. "
                    "Fix: give each image its own key, or select one ending with extensions."
                )
            start, size = member.offset_data, member.size
            head = _read(file, start, min(size, tarfile.BLOCKSIZE))
            tail = _read(file, start + size - len(head), len(head))
            images[key] = start, size, digest(head, tail)
    if not images:
        shown = " ".join(sorted(endings)[:6]) + (
            f" and {len(endings) - 6} more" if len(endings) > 6 else ""
        )
        raise ValueError(
            f"Expected images in shard {shard!r}, got none. "
            f"Fix: name the members KEY.jpg or KEY with another ending in extensions ({shown})."
        )
    nowhere = 0, 0
    rows = []
    for key, (start, size, seen) in images.items():
        members = beside.get(key, {})
        needed = {ending: members.get(ending, b"") for ending in told.needs}
        text, row = (places.get((key, e), nowhere) if e in needed else nowhere for e in _TOLD)
        seen_beside = digest_of(needed) if needed else 0
        rows.append((start, size, told.label(members), seen, text, row, seen_beside))
    return np.array(rows, RECORD)


def digest_of(members: Mapping[str, bytes]) -> int:
    """Returns a hash of 64 bits of the contents of members by ending."""
    content = b"".join(ending.encode() + members[ending] for ending in sorted(members))
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")


def digest(head: bytes, tail: bytes) -> int:
    """Returns a hash of 64 bits from the first and the last block of an image's content.

    Reading them costs nothing, because the headers lie beside them. The last block of a compressed
    image changes with its pixels.
    """
    block = tarfile.BLOCKSIZE
    return int.from_bytes(blake2b(head[:block] + tail[-block:], digest_size=8).digest(), "little")


def member_at(file: BinaryIO, shard: str, offset: int) -> str:
    """Returns the name of the member with content at `offset`, or '?'."""
    members = _members(file, shard, {})
    return next((member.name for member, _, _ in members if member.offset_data == offset), "?")


def _members(
    file: BinaryIO, shard: str, most_bytes: Mapping[str, int]
) -> Iterator[tuple[tarfile.TarInfo, str, bytes | None]]:
    """Yields each regular member with a key, with its ending, and with its content or None.

    Contents are those of the endings in `most_bytes`, up to so many bytes.

    Raises:
        ValueError: the file is not a tar file, or is damaged or truncated.
    """
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - owns only `file`
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Expected an uncompressed tar file, got shard {shard!r} ({error}). "
            "Fix: decompress it, or give tar files."
        ) from error
    try:
        while archive.offset and (member := archive.next()):  # 0 without a first member
            stem, dot, ending = member.name.rpartition("/")[2].partition(".")
            if stem and dot and member.isreg() and not member.issparse():
                is_read = member.size <= most_bytes.get(dot + ending.lower(), -1)
                content = _read(file, member.offset_data, member.size) if is_read else None
                yield member, dot + ending, content
        end = archive.offset
        after = _read(file, end, _PADDING)
        # tarfile takes a damaged header, and the end of a file cut short, for the end
        if after[: tarfile.BLOCKSIZE].strip(b"\0"):
            raise ValueError(f"no header at byte {end}")
        if not after.startswith(_END):
            raise ValueError(f"no end of two blocks of zeros at byte {end}")
        if after.strip(b"\0"):
            raise ValueError(f"further content after its end at byte {end}")
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Expected a whole tar file, got the truncated or damaged shard {shard!r} ({error}). "
            "Fix: write or download it again."
        ) from error


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
