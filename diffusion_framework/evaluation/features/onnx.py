"""Features of a network in an ONNX file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...data import ImageDataset
from ...parts.extras import require
from .base import FeatureExtractor, FeatureNetwork, local_file, to_rgb


class ONNXNetwork(FeatureNetwork):
    """Features of an ONNX network.

    Args:
        session: Session of onnxruntime, with one input of floats [batch, 3, height, width].
        size: (height, width) that images are resized to.
        mean: Mean to subtract, in [0, 1], for red, green and blue.
        std: Standard deviation to divide by.
    """

    def __init__(
        self, session: Any, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        super().__init__()
        self.session, self.size = session, size
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def forward(self, images: Tensor) -> Tensor:
        values = (resized(to_rgb(images.cpu()), self.size) - self.mean) / self.std
        (name,) = (one.name for one in self.session.get_inputs())
        first, *_ = self.session.run(None, {name: values.numpy().astype(np.float32)})
        return torch.from_numpy(first).flatten(1)


@dataclass(frozen=True)
class ONNX(FeatureExtractor):
    """Features of a network in an ONNX file, its first output.

    Args:
        path: ONNX file with one input of floats [batch, 3, height, width].
        size: Side of the square images that the network takes, in pixels.
        mean: Mean to subtract from values in [0, 1], for red, green and blue.
        std: Standard deviation to divide by.
    """

    path: str
    size: int = 224
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    comparable: ClassVar[str] = "comparable with figures of the same file only"

    @property
    def name(self) -> str:
        digest = hashlib.sha256(Path(local_file(self.path, "--features.path")).read_bytes())
        return f"{Path(self.path).stem}-{digest.hexdigest()[:8]}"

    def network(
        self, images: ImageDataset | None, device: torch.device, *, show_progress: bool = True
    ) -> FeatureNetwork:
        onnxruntime = require("onnxruntime", "features of an ONNX network")

        path = local_file(self.path, "--features.path")
        try:
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base class
            cause = " ".join(str(error).split())
            raise ValueError(
                f"{path}: expected an ONNX network, got {cause:.200}. Fix: choose another file."
            ) from error
        if len(inputs := session.get_inputs()) != 1:
            raise ValueError(
                f"{path}: expected a network with one input, got {len(inputs)}. "
                "Fix: export one that takes images alone."
            )
        return ONNXNetwork(session, (self.size, self.size), self.mean, self.std).eval()


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns uint8 images as floats in [0, 1] of (height, width), with antialiasing."""
    values = images.float() / 255
    if tuple(values.shape[2:]) == size:
        return values
    return F.interpolate(values, size, mode="bilinear", antialias=True).clamp(0, 1)
