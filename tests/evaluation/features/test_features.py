"""Feature extractors: their images, weights and errors."""

import sys
import urllib.request

import numpy as np
import pytest
import torch
from torchvision import models

from diffusion_framework.data import Digits
from diffusion_framework.evaluation.features import (
    ONNX,
    DINOv2,
    Inception,
    Own,
    Torchvision,
    features_of,
    read_images,
    to_rgb,
)
from diffusion_framework.evaluation.features.fidelity import FidelityNetwork
from diffusion_framework.evaluation.features.torchvision import ClassifierFeatures

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """A machine whose downloads are refused, without cached weights."""
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers proxies


def test_own_features_are_the_same_again_and_then_come_from_the_cache(tmp_path):
    digits, extractor = Digits(labels=True, split="train"), Own(steps=3)
    images, _ = read_images(digits, range(20))
    networks = [extractor.network(digits, CPU, show_progress=False)]
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    written = file.stat().st_mtime_ns
    networks.append(extractor.network(digits, CPU, show_progress=False))  # from the cache
    assert file.stat().st_mtime_ns == written
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)  # a damaged file is made again
    networks.append(extractor.network(digits, CPU, show_progress=False))
    assert file.stat().st_mtime_ns != written
    first, *others = (network(images) for network in networks)
    assert first.shape == (20, 128)
    assert first.std(0).mean() > 0
    assert all(torch.equal(first, other) for other in others)


def test_other_images_or_options_have_other_features(tmp_path):
    for labels, steps in ((True, 1), (False, 1), (True, 2)):
        digits = Digits(labels=labels, split="train")
        network = Own(steps=steps).network(digits, CPU, show_progress=False)
        assert list(network.class_names) == digits.class_names
    assert len([*(tmp_path / "cache").rglob("*.safetensors")]) == 3


def test_own_features_tell_digits_that_they_have_not_seen():
    train, test = (Digits(labels=True, split=split) for split in ("train", "test"))
    network = Own(steps=60).network(train, CPU, show_progress=False)
    images, labels = read_images(test, range(len(test)))
    seen = network.classify(features_of(network, iter(images.split(100)), show_progress=False))
    assert (seen == labels).float().mean() > 0.85


def test_unlabelled_features_tell_a_turned_image():
    digits = Digits(split="train")
    network = Own(steps=60).network(digits, CPU, show_progress=False)
    images, _ = read_images(Digits(split="test"), range(100))
    turned = [network.head(network(images.rot90(k, (2, 3)))).argmax(1) == k for k in range(4)]
    assert torch.stack(turned).float().mean() > 0.7


def test_rgb_of_grey_and_transparent_images():
    grey = torch.arange(4, dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert torch.equal(to_rgb(grey), grey.repeat(1, 3, 1, 1))
    clear = torch.zeros(1, 4, 1, 2, dtype=torch.uint8)
    clear[..., 1] = torch.tensor([10, 20, 30, 255], dtype=torch.uint8)[None, :, None]
    assert to_rgb(clear)[0, :, 0].T.tolist() == [[255, 255, 255], [10, 20, 30]]
    with pytest.raises(ValueError, match="got 2"):
        to_rgb(torch.zeros(1, 2, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_torchvision_features_are_the_input_of_the_last_linear_layer(name):
    torch.manual_seed(0)
    classifier = models.get_model(name, weights=None).eval()
    linear = [layer for layer in classifier.modules() if type(layer) is torch.nn.Linear]
    if not linear:
        with pytest.raises(ValueError, match=r"last linear layer.*Fix: "):
            ClassifierFeatures(classifier, None)
        return
    seen = []
    hook = linear[-1].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    preset = models.get_model_weights(name).DEFAULT.transforms()
    images = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    with torch.no_grad():
        classifier(preset(images))
        hook.remove()
        assert torch.allclose(ClassifierFeatures(classifier, preset)(images), seen[0])


def test_onnx_features_are_those_of_the_file(tmp_path):
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    weight = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
            onnx.helper.make_node("Flatten", ["mean"], ["flat"]),
            onnx.helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "features",
        [value("x", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [value("y", onnx.TensorProto.FLOAT, ["batch", 5])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "net.onnx")
    extractor = ONNX(str(tmp_path / "net.onnx"), size=8, mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    found = extractor.network(None, CPU)(images)
    values = (images / 255).mean((2, 3)) - torch.tensor([0.5, 0.4, 0.3])
    exact = values / torch.tensor([0.1, 0.2, 0.3]) @ torch.from_numpy(weight)
    assert torch.allclose(found, exact, atol=1e-5)
    (tmp_path / "net.onnx").write_bytes(b"not a network")
    with pytest.raises(ValueError, match=r"net\.onnx: expected an ONNX network.*Fix: "):
        extractor.network(None, CPU)


def test_inception_takes_bytes_as_torch_fidelity_does():
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_base").FeatureExtractorBase

    class Means(extractor):
        @staticmethod
        def get_provided_features_list():
            return ("means",)

        def forward(self, x):
            assert x.dtype == torch.uint8 and x.shape[1] == 3
            return (x.float().mean((2, 3)),)

    network = FidelityNetwork(Means("means", ["means"]))
    grey = torch.full((2, 1, 4, 4), 7, dtype=torch.uint8)
    assert network(grey).tolist() == [[7.0] * 3] * 2


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("extractor", "message"),
    [
        (Inception(), "weights of inception-v3-compat to download"),
        (DINOv2("s"), "weights of dinov2-vit-s-14 to download"),
        (Torchvision("resnet18"), "weights of torchvision's resnet18 to download"),
        (Torchvision("resnet81"), "a model of torchvision.*resnet18"),
        (Torchvision("resnet18", "IMAGENET"), "weights of torchvision.*IMAGENET1K_V1"),
        (ONNX("missing.onnx"), "--features.path: expected an existing file, got missing.onnx"),
    ],
)
def test_what_is_missing_is_said_in_one_line(extractor, message):
    if isinstance(extractor, Inception | DINOv2):
        pytest.importorskip("torch_fidelity")
    with pytest.raises(ValueError, match=message) as error:
        extractor.network(None, CPU, show_progress=False)
    assert "Fix: " in str(error.value) and "\n" not in str(error.value)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r"torch-fidelity.*pip install .*\[features\]"):
        Inception().network(None, CPU)


@pytest.mark.parametrize("options", [{"steps": 0}, {"size": 8}, {"images": 0}])
def test_own_features_have_sensible_options(options):
    with pytest.raises(ValueError, match=r"Expected .* of at least .* Fix: "):
        Own(**options)
