"""File of decoded images, read and filled by any number of processes."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import warnings
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .own_files import open_own

_IN_MEMORY = "/proc/"  # files in memory are links there
_FORMAT = b"decoded images, version 3\n".ljust(32, b"\0")
_HEADER = 64  # bytes: the format and a checksum of the layout
_HEAD = np.dtype([("check", "<u4"), ("number", "<i4")])  # of each row
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ImageCache:
    """File of decoded images of one shape, read and filled by any number of processes.

    Each image is stored with a number, such as its label, and a checksum. Images left incomplete
    by a killed process or a power failure therefore count as missing, as do those of a file that is
    cut short.

    Args:
        path: Path of the file; created if missing, emptied if its header is another.
        count: Number of images.
        shape: Shape of each image, such as (channels, height, width).
        bits: Bits per channel: 8 for uint8, 16 for uint16.

    Raises:
        OSError: the file cannot be created, is a link, or belongs to others.
    """

    def __init__(
        self, path: str | os.PathLike[str], count: int, shape: tuple[int, ...], bits: int = 8
    ) -> None:
        self.path, self.count, self.shape, self.bits = path, count, shape, bits
        in_memory = os.fspath(path).startswith(_IN_MEMORY)
        flags = os.O_RDWR | os.O_CREAT
        descriptor = os.open(path, os.O_RDWR) if in_memory else open_own(path, flags)
        # read instead of mapped: a mapped file that is cut short ends the process (SIGBUS)
        self._file = open(descriptor, "r+b", buffering=0)  # noqa: SIM115
        self._row, self._full_disk = row_type(shape, bits), False
        self._begin()

    def __reduce__(self) -> tuple[Any, ...]:  # for spawned data workers
        return type(self), (self.path, self.count, self.shape, self.bits)

    def reserve(self) -> None:
        """Allocates the whole file, so that a full disk cannot break it later.

        Raises:
            OSError: no space left.
        """
        if sys.platform == "linux":
            size = cache_size(self.count, self.shape, self.bits)
            os.posix_fallocate(self._file.fileno(), 0, size)

    def size(self) -> int:
        """Returns the size of all images in bytes."""
        return self.count * self._row.itemsize

    def full(self) -> bool:
        """Returns whether all images are cached."""
        check = bytearray(4)
        return all(self._read(self._offset(i), check) and any(check) for i in range(self.count))

    def put(self, index: int, image: Tensor, number: int) -> None:
        """Stores an image of this shape and its number; warns if the disk is full."""
        row = np.zeros((), self._row)
        row["image"], row["number"] = image.numpy(), number
        row["check"] = checksum(row["image"], number)
        try:
            self._write(self._offset(index), row.tobytes())
        except OSError as error:
            if error.errno not in _FULL:
                raise
            if not self._full_disk:
                warnings.warn(
                    f"The disk is full, so images missing in {self.path} are decoded again.",
                    stacklevel=2,
                )
            self._full_disk = True

    def get(self, indices: np.ndarray) -> tuple[Tensor, Tensor, list[int]]:
        """Returns images [n, *shape], numbers [n], and positions of missing ones.

        Checksums are computed in each call, because another machine may write to a file on a
        network disk.
        """
        images = np.zeros((len(indices), *self.shape), self._row["image"].base)
        heads = np.zeros(len(indices), _HEAD)
        into_heads, into_images = heads.view(np.uint8).data, images.reshape(-1).view(np.uint8).data
        a, b = heads.itemsize, self._row["image"].itemsize
        for i, index in enumerate(indices.tolist()):
            buffers = into_heads[a * i : a * (i + 1)], into_images[b * i : b * (i + 1)]
            self._read(self._offset(index), *buffers)
        pairs = enumerate(zip(heads["check"].tolist(), heads["number"].tolist(), strict=True))
        missing = [i for i, (check, number) in pairs if check != checksum(images[i], number)]
        numbers = heads["number"].astype(np.int64)
        return torch.from_numpy(images), torch.from_numpy(numbers), missing

    def _begin(self) -> None:
        """Writes the header, and empties a file with another one."""
        layout = repr((self.count, self.shape, self.bits)).encode()
        header = _FORMAT + hashlib.sha256(layout).digest()
        found = bytearray(_HEADER)
        if not self._read(0, found) or found != header:
            if any(found):
                self._file.truncate(0)
            self._write(0, header)
        size = cache_size(self.count, self.shape, self.bits)
        if os.fstat(self._file.fileno()).st_size < size:
            self._file.truncate(size)  # sparse zeros take no disk space

    def _offset(self, index: int) -> int:
        return _HEADER + index * self._row.itemsize

    def _read(self, offset: int, *buffers: bytearray | memoryview) -> bool:
        """Fills buffers from the file; returns False if the file ends before."""
        size = sum(map(len, buffers))
        if sys.platform != "win32":
            return os.preadv(self._file.fileno(), buffers, offset) == size
        self._file.seek(offset)  # Windows does not fork, so no process shares the position
        return sum(self._file.readinto(buffer) for buffer in buffers) == size

    def _write(self, offset: int, content: bytes) -> None:
        if sys.platform == "win32":
            self._file.seek(offset)
            self._file.write(content)
        else:
            os.pwrite(self._file.fileno(), content, offset)


def row_type(shape: tuple[int, ...], bits: int = 8) -> np.dtype:
    """Returns the NumPy type of one row of a cache file: checksum, number, image."""
    return np.dtype([*_HEAD.descr, ("image", f"<u{bits // 8}", shape)])


def checksum(image: np.ndarray, number: int) -> int:
    """Returns the CRC-32 of an image with its number; never 0, the mark of a missing image."""
    return zlib.crc32(image.data, number & 0xFFFFFFFF) or 1


def cache_size(count: int, shape: tuple[int, ...], bits: int = 8) -> int:
    """Returns the size in bytes of a cache for `count` images of this shape."""
    return _HEADER + count * row_type(shape, bits).itemsize
