"""Networks of torch-fidelity: the Inception of the common Fréchet distance, and DINOv2."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ...data import ImageDataset
from ...parts.extras import require
from .base import FeatureExtractor, FeatureNetwork, missing_weights, to_rgb


class FidelityNetwork(FeatureNetwork):
    """Features of a network of torch-fidelity.

    Args:
        extractor: Feature extractor of torch-fidelity, with one list of features.
    """

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> Tensor:
        (features,) = self.extractor(to_rgb(images).contiguous())
        return features.flatten(1)


@dataclass(frozen=True)
class Inception(FeatureExtractor):
    """The Inception v3 of the published Fréchet inception distances, from torch-fidelity.

    Images are resized to 299 pixels as in the original TensorFlow code. The weights are downloaded.

    Args:
        weights: File of the weights in torch-fidelity's format; null downloads them.
    """

    weights: str | None = None
    comparable: ClassVar[str] = "comparable with published FID and KID at equal numbers of samples"

    @property
    def name(self) -> str:
        return "inception"

    def network(
        self, images: ImageDataset | None, device: torch.device, *, show_progress: bool = True
    ) -> FeatureNetwork:
        return _load("inception-v3-compat", "2048", self.weights, device)


@dataclass(frozen=True)
class DINOv2(FeatureExtractor):
    """DINOv2, by torch-fidelity; its distances agree better with people than Inception's.

    See Stein et al. 2023. Code and weights are downloaded by torch.hub, which runs that code.

    Args:
        size: Size of the network: s, b, l or g.
    """

    size: Literal["s", "b", "l", "g"] = "b"
    comparable: ClassVar[str] = "comparable with published FD-DINOv2 of the same network"

    @property
    def name(self) -> str:
        return f"dinov2-{self.size}"

    def network(
        self, images: ImageDataset | None, device: torch.device, *, show_progress: bool = True
    ) -> FeatureNetwork:
        return _load(f"dinov2-vit-{self.size}-14", "dinov2", None, device)


def _load(name: str, layer: str, weights: str | None, device: torch.device) -> FeatureNetwork:
    require("torch_fidelity", f"features of {name}")
    from torch_fidelity.utils import create_feature_extractor

    try:
        extractor = create_feature_extractor(
            name, [layer], cuda=False, feature_extractor_weights_path=weights, verbose=False
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise missing_weights(name, error) from error
    return FidelityNetwork(extractor).to(device).eval()
