"""Features of torchvision's classifiers."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...data import ImageDataset
from ...parts import unknown_name
from .base import FeatureExtractor, FeatureNetwork, missing_weights, to_rgb


class ClassifierFeatures(FeatureNetwork):
    """The input of a classifier's last linear layer.

    Args:
        classifier: Classifier of RGB images; its last linear layer is removed.
        preset: Its transform of uint8 images.

    Raises:
        ValueError: If the classifier has no linear layer.
    """

    def __init__(self, classifier: nn.Module, preset: Any) -> None:
        super().__init__()
        layers = [name for name, layer in classifier.named_modules() if type(layer) is nn.Linear]
        if not layers:
            raise ValueError(
                f"--features.model: expected a network with a last linear layer, got "
                f"{type(classifier).__name__}. Fix: choose another, such as resnet50."
            )
        parent, _, last = layers[-1].rpartition(".")
        classifier.get_submodule(parent)._modules[last] = nn.Identity()
        self.classifier, self.preset = classifier, preset

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.preset(to_rgb(images))).flatten(1)


@dataclass(frozen=True)
class Torchvision(FeatureExtractor):
    """Features of a classifier of torchvision; its weights are downloaded.

    Args:
        model: Name of the classifier, such as resnet50, convnext_tiny or vit_b_16.
        weights: Name of its weights, such as IMAGENET1K_V2.
    """

    model: str = "resnet50"
    weights: str = "DEFAULT"
    comparable: ClassVar[str] = "comparable with figures of the same network and weights only"

    @property
    def name(self) -> str:
        return f"{self.model}-{self.weights}".lower()

    def network(
        self, images: ImageDataset | None, device: torch.device, *, show_progress: bool = True
    ) -> FeatureNetwork:
        from torchvision import models  # takes seconds

        known = models.list_models(module=models)
        if self.model not in known:
            raise unknown_name("--features.model", "a model of torchvision", self.model, known)
        choices = models.get_model_weights(self.model)
        if self.weights not in (names := ["DEFAULT", *choices.__members__]):
            raise unknown_name("--features.weights", "weights of torchvision", self.weights, names)
        weights = choices[self.weights]
        try:
            classifier = models.get_model(self.model, weights=weights, progress=show_progress)
        except (OSError, RuntimeError) as error:
            raise missing_weights(f"torchvision's {self.model}", error) from error
        return ClassifierFeatures(classifier, weights.transforms()).to(device).eval()
