"""Files of samples, as other evaluators read and write them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...storage.replacing import replacing


def save_samples(images: Tensor, path: str | os.PathLike[str], labels: Tensor | None) -> None:
    """Writes uint8 images [n, channels, height, width] as an npz file, and makes its folder.

    The file holds `arr_0` [n, height, width, channels] and, with labels, `arr_1` [n].
    """
    arrays = [images.permute(0, 2, 3, 1).contiguous().numpy()]
    arrays += [] if labels is None else [labels.numpy()]
    with replacing(Path(path)) as file:
        np.savez(file, *arrays)


def load_samples(path: str | os.PathLike[str]) -> Tensor:
    """Returns the uint8 images [n, channels, height, width] of an npz file.

    Raises:
        ValueError: If the file holds no `arr_0` of uint8 images [n, height, width, channels].
        OSError: If the file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images = arrays["arr_0"]
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: expected an npz file of samples with arr_0, got {error}. "
            "Fix: choose another file."
        ) from error
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3, 4):
        raise ValueError(
            f"{path}: expected arr_0 of uint8 [n, height, width, channels], got {images.dtype} "
            f"{list(images.shape)}. Fix: choose a file of images."
        )
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
