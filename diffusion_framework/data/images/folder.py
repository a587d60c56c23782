"""A folder of pictures as a data set."""

import hashlib
import os
from typing import Literal

import PIL
from beartype import beartype

from diffusion_framework.data.images.encoded import EncodedImages, file_endings
from diffusion_framework.data.images.scan import Scan, scan_folder


class ImageFolder(EncodedImages):
    """All pictures in a folder and its sub-folders, in the order of their relative paths.

    Hidden files and folders are left out. Symbolic links are followed, but each file counts once.

    Attributes:
        paths: each image's path relative to `folder`, with forward slashes.
        dangling_links: how many links to nowhere were left out.
    """

    @beartype
    def __init__(
        self,
        folder: str | os.PathLike,
        image_size: int | tuple[int, int] = 64,
        channels: int = 3,
        *,
        labels: bool = False,
        crop: Literal["center", "random"] = "center",
        background: tuple[int, int, int] = (255, 255, 255),
        broken: Literal["error", "skip"] = "error",
        convert_image_to: str | None = None,
        seed: int = 0,
        extensions: list[str] | None = None,
        value_range: tuple[int | float, int | float] | None = None,
        bits: Literal[8, 16] | None = None,
    ):
        """Lists the folder; decodes nothing yet.

        Args:
            folder: The folder, searched with all its sub-folders.
            image_size: Side of the square images, or [height, width]. Cropped to fit, never stretched.
            channels: 1 for grey, 3 for RGB, 4 for RGBA, which keeps transparency.
            labels: Give each image with the number of its first sub-folder, in the order of their names.
            crop: Where to crop: center, or random for another place in each epoch.
            background: Red, green and blue (0 to 255) behind transparent pixels, for 1 and 3 channels.
            broken: An image that cannot be decoded is an error, or skip: warn, and take the next one.
            convert_image_to: A Pillow mode that colours go through, such as L for grey pictures in RGB.
            seed: Of the random crops.
            extensions: File endings to take, such as [png, jpg]; null for all pictures that Pillow reads.
            value_range: Smallest and largest value of all pictures of more than 8 bits; null is that of their
                type, or [0, 1] for floats.
            bits: 16 keeps the depth of such pictures, 8 does not; null is 16 if the first picture is one.

        Raises:
            FileNotFoundError: if the folder does not exist.
            ValueError: if it is not a folder, holds no image, holds an image outside of the sub-folders with
                labels, or if an option is out of its range.
        """
        super().__init__(image_size, channels, crop, background, broken, convert_image_to, seed, value_range, bits)
        self.extensions = file_endings(extensions)
        scan = scan_folder(folder, tuple(self.extensions))
        self.folder, self.paths, self.dangling_links = scan.folder, scan.paths, scan.dangling_links
        self.worth_caching = crop == "center"
        self.labels: list[int] | None = None
        if labels:
            self.class_names, self.labels = classes_of(scan)

    def __repr__(self) -> str:
        shown = self.extensions[:6] + ([f"{len(self.extensions) - 6} more"] if len(self.extensions) > 6 else [])
        return f"ImageFolder({self.folder!r}, endings {' '.join(shown)})"

    def __len__(self) -> int:
        return len(self.paths)

    def encoded(self, index: int) -> tuple[str, int | None]:
        return os.path.join(self.folder, self.paths[index]), None if self.labels is None else self.labels[index]

    def fingerprint(self) -> str:
        """A hash of the relative paths. File contents are not read."""
        return hashlib.sha256(b"\0".join(map(os.fsencode, self.paths))).hexdigest()

    def version(self) -> str:
        """A hash of the relative paths, sizes and times of change, and of which Pillow decodes them."""
        found = hashlib.sha256(PIL.__version__.encode())
        for path in self.paths:
            try:
                status = os.stat(os.path.join(self.folder, path))
                found.update(os.fsencode(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0"))
            except OSError:  # will be reported when it is read
                found.update(os.fsencode(f"{path}\0"))
        return found.hexdigest()


def classes_of(scan: Scan) -> tuple[list[str], list[int]]:
    """Sorted names of the first-level sub-folders that hold images, and each image's number among them."""
    for path in scan.paths:
        if "/" not in path:
            raise ValueError(
                f"image {path!r} lies directly in {scan.folder!r}: with labels, each image must lie in a "
                "sub-folder named after its class; move it, or set labels: false"
            )
    names = [path.partition("/")[0] for path in scan.paths]
    class_names = sorted(set(names))
    number = {name: label for label, name in enumerate(class_names)}
    return class_names, [number[name] for name in names]
