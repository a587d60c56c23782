"""Index of the images in a tar file of the WebDataset convention: KEY.jpg with optional KEY.cls."""

import tarfile
from collections.abc import Iterator
from hashlib import blake2b
from typing import BinaryIO

import numpy as np

# One row for each image: offset and size of its content in bytes; its label, NO_LABEL or
# BAD_LABEL (KEY.cls does not hold a class number); and the `digest` of its content.
RECORD = np.dtype([("offset", "<i8"), ("size", "<i8"), ("label", "<i4"), ("digest", "<u8")])
NO_LABEL, BAD_LABEL = -1, -2
MAX_CLASSES = 1_000_000
MAX_LABEL_BYTES = 32  # longer contents are not labels
_END = bytes(2 * tarfile.BLOCKSIZE)
_PADDING = 2**16  # bytes after the end that must be zeros


def list_images(file: BinaryIO, shard: str, endings: frozenset[str]) -> np.ndarray:
    """Lists the images of a tar file, reading only headers and labels.

    The key of a member is its path up to the first dot of the file name; the rest is its ending.
    A member is an image if its ending is one of `endings`, and a label if its ending is `.cls`: an
    integer in ASCII. Other members and hidden files are ignored.

    Args:
        file: Tar file, open and seekable.
        shard: Name of the shard, for errors.
        endings: Endings of images in lower case with the dot; they match in any case.

    Returns:
        Array of RECORD, one row for each image, in the order of the file.

    Raises:
        ValueError: the file is not a tar file, is damaged or truncated, or holds no image, or two
            images of one key.
    """
    images: dict[str, tuple[int, int, int]] = {}
    labels: dict[str, int] = {}
    for member, ending, content in _members(file, shard):
        key = member.name.removesuffix(ending)
        if ending.lower() == ".cls":
            labels[key] = _label(content)
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
    rows = [
        (start, size, labels.get(key, NO_LABEL), seen)
        for key, (start, size, seen) in images.items()
    ]
    return np.array(rows, RECORD)


def digest(head: bytes, tail: bytes) -> int:
    """Returns a hash of 64 bits from the first and the last block of an image's content.

    Reading them costs nothing, because the headers lie beside them. The last block of a compressed
    image changes with its pixels.
    """
    block = tarfile.BLOCKSIZE
    return int.from_bytes(blake2b(head[:block] + tail[-block:], digest_size=8).digest(), "little")


def member_at(file: BinaryIO, shard: str, offset: int) -> str:
    """Returns the name of the member with content at `offset`, or '?'."""
    return next(
        (member.name for member, _, _ in _members(file, shard) if member.offset_data == offset), "?"
    )


def _members(file: BinaryIO, shard: str) -> Iterator[tuple[tarfile.TarInfo, str, bytes]]:
    """Yields each regular member with a key, with its ending, and with its content if a label.

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
                is_label = ending.lower() == "cls" and member.size <= MAX_LABEL_BYTES
                yield (
                    member,
                    dot + ending,
                    _read(file, member.offset_data, member.size) if is_label else b"",
                )
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


def _label(content: bytes) -> int:
    """Parses the content of KEY.cls; BAD_LABEL unless it is an integer below MAX_CLASSES."""
    text = content.strip()
    return int(text) if text.isdigit() and int(text) < MAX_CLASSES else BAD_LABEL
