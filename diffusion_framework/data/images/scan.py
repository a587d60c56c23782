"""The pictures below a folder: found once, in one order, whatever links there are."""

import os
from collections import deque
from typing import NamedTuple


class Scan(NamedTuple):
    """Paths relative to `folder`, with forward slashes, sorted; and how many links lead nowhere."""

    folder: str
    paths: list[str]
    dangling_links: int


def scan_folder(folder: str | os.PathLike[str], endings: tuple[str, ...]) -> Scan:
    """All files below `folder` with one of the `endings` (lower case, with the dot; matched in any case).

    Names that begin with a dot are left out. Links are followed; a file or folder reached more than once
    counts once, where it truly lies rather than where a link to it does.

    Raises:
        FileNotFoundError: if the folder does not exist.
        ValueError: if it is not a folder, or holds no such file.
        OSError: if a sub-folder cannot be read.
    """
    given = os.fspath(folder)
    root = os.path.abspath(os.path.expanduser(given))
    if not given:
        raise ValueError("no image folder given: folder is empty")
    if not os.path.exists(root):
        raise FileNotFoundError(f"image folder {root!r} does not exist; check the path given as folder")
    if not os.path.isdir(root):
        raise ValueError(f"image folder {root!r} is a file; give the folder that holds the images")
    paths, other_files, dangling_links = walk(root, endings)
    if not paths:
        shown = " ".join(endings[:6]) + (f" and {len(endings) - 6} more" if len(endings) > 6 else "")
        dangling = f" and {dangling_links} links that lead nowhere" if dangling_links else ""
        raise ValueError(
            f"image folder {root!r}: found 0 images among {other_files} files{dangling}; looked for {shown}; "
            "check the folder, or name the endings with extensions"
        )
    return Scan(root, sorted(paths), dangling_links)


def walk(root: str, endings: tuple[str, ...]) -> tuple[list[str], int, int]:
    """Relative paths of the pictures, unsorted; how many other files there are; how many dangling links."""
    paths: list[str] = []
    other_files = 0
    visited: set[str] = set()
    file_links: list[tuple[str, str]] = []  # (path, real path), kept back so that real files come first
    folders, folder_links = deque([("", os.path.realpath(root))]), deque[tuple[str, str]]()
    dangling_links = 0
    while folders or folder_links:
        below, real = folders.popleft() if folders else folder_links.popleft()
        if real in visited:
            continue
        visited.add(real)
        with os.scandir(real) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = below + entry.name
            is_picture = entry.name.lower().endswith(endings)
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                if os.path.isdir(target):
                    folder_links.append((path + "/", target))
                elif os.path.isfile(target) and is_picture:
                    file_links.append((path, target))
                elif not os.path.exists(target):
                    dangling_links += 1
            elif entry.is_dir():
                folders.append((path + "/", entry.path))
            elif is_picture and entry.is_file():  # a pipe of that name would wait for ever
                paths.append(path)
            else:
                other_files += 1
    return paths + new_files(file_links, visited, endings), other_files, dangling_links


def new_files(links: list[tuple[str, str]], visited: set[str], endings: tuple[str, ...]) -> list[str]:
    """The links (path, real path) whose file was not found in a visited folder itself, one for each file."""
    paths, taken = [], set()
    for path, target in sorted(links):
        holder, name = os.path.split(target)
        found_itself = holder in visited and name.lower().endswith(endings) and not name.startswith(".")
        if not found_itself and target not in taken:
            taken.add(target)
            paths.append(path)
    return paths
