"""What mixed_precision: auto stands for."""

import pytest
import torch

from diffusion_framework.training.precision import choose_precision

SMALL, LARGE = torch.nn.Linear(10, 10), torch.nn.Linear(1000, 1000)


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.mark.parametrize("wanted", ["no", "bf16"])
def test_what_was_asked_for_is_taken(wanted):
    assert choose_precision(wanted, SMALL) == choose_precision(wanted, LARGE) == wanted


def test_auto_is_as_the_launcher_was_told(monkeypatch):
    for told in ("bf16", "fp16"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told)
        assert choose_precision("auto", SMALL) == told
    monkeypatch.setenv(
        "ACCELERATE_MIXED_PRECISION", "no"
    )  # which it says also when it was told nothing
    assert choose_precision("auto", LARGE) == EXPECTED


EXPECTED = (
    "bf16" if getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() else "no"
)  # older ones have none


def test_auto_on_a_cpu():
    assert choose_precision("auto", SMALL) == "no"
    assert choose_precision("auto", LARGE) == EXPECTED
