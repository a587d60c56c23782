"""Search for the image files below a folder."""

import os
from collections import deque
from typing import NamedTuple

from ...parts.counting import counted


class Scan(NamedTuple):
    """Result of `scan_folder`.

    Attributes:
        folder: Absolute path of the folder.
        paths: Paths of the image files relative to `folder`, with forward slashes, sorted.
        dangling_links: Number of links to a missing target.
        other_files: Number of files with other endings.
    """

    folder: str
    paths: list[str]
    dangling_links: int
    other_files: int


def scan_folder(folder: str | os.PathLike[str], endings: tuple[str, ...]) -> Scan:
    """Lists all files below `folder` with one of the `endings`.

    Hidden files and folders are left out. Links are followed, but each file or folder counts once.
    Its path is the real one if that lies below `folder`, otherwise that of a link.

    Args:
        folder: Folder to search; `~` is expanded.
        endings: File endings in lower case with the dot; they match in any case.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: `folder` is empty or a file, or the folder holds no image file.
        OSError: a subfolder cannot be read.
    """
    given = os.fspath(folder)
    root = os.path.abspath(os.path.expanduser(given))
    if not given:
        raise ValueError(
            "Expected the path of an image folder, got an empty folder. Fix: set folder."
        )
    if not os.path.exists(root):
        raise FileNotFoundError(
            f"Expected an existing folder, got {root!r}. Fix: check the path given as folder."
        )
    if not os.path.isdir(root):
        raise ValueError(f"Expected a folder, got the file {root!r}. Fix: give its folder.")
    paths, other_files, dangling_links = walk(root, endings)
    if not paths:
        shown = " ".join(endings[:6]) + (
            f" and {len(endings) - 6} more" if len(endings) > 6 else ""
        )
        dangling = f" and {counted(dangling_links, 'dangling link')}" if dangling_links else ""
        raise ValueError(
            f"Expected images in {root!r}, got 0 images among "
            f"{counted(other_files, 'file')}{dangling} (endings searched: {shown}). "
            "Fix: check the folder, or list its endings in extensions."
        )
    return Scan(root, sorted(paths), dangling_links, other_files)


def walk(root: str, endings: tuple[str, ...]) -> tuple[list[str], int, int]:
    """Walks a folder breadth-first, real folders before linked ones.

    Returns:
        Relative paths of the image files, unsorted; the number of other files; the number of
        dangling links.
    """
    paths: list[str] = []
    other_files = 0
    visited: set[str] = set()
    file_links: list[tuple[str, str]] = []  # (path, real path); real files take precedence
    folders, folder_links = deque([("", os.path.realpath(root))]), deque[tuple[str, str]]()
    dangling_links = 0
    while folders or folder_links:
        prefix, real = folders.popleft() if folders else folder_links.popleft()
        if real in visited:
            continue
        visited.add(real)
        with os.scandir(real) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = prefix + entry.name
            is_image = entry.name.lower().endswith(endings)
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if os.path.isdir(target):
                    folder_links.append((path + "/", target))
                elif os.path.isfile(target) and is_image:
                    file_links.append((path, target))
                elif not os.path.exists(target):
                    dangling_links += 1
            elif entry.is_dir():
                folders.append((path + "/", entry.path))
            elif is_image and entry.is_file():  # opening a named pipe would block forever
                paths.append(path)
            else:
                other_files += 1
    return paths + new_files(file_links, visited, endings), other_files, dangling_links


def new_files(
    links: list[tuple[str, str]], visited: set[str], endings: tuple[str, ...]
) -> list[str]:
    """Selects one link for each target that `walk` did not list itself.

    Args:
        links: Pairs (path of the link, real path of its target).
        visited: Real paths of the visited folders.
        endings: File endings of images.
    """
    paths, taken = [], set()
    for path, target in sorted(links):
        folder, name = os.path.split(target)
        listed = folder in visited and name.lower().endswith(endings) and not name.startswith(".")
        if not listed and target not in taken:
            taken.add(target)
            paths.append(path)
    return paths
