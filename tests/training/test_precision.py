"""The choice of mixed_precision=auto."""

import pytest
import torch

from diffusion_framework.training.precision import choose_precision

SMALL, LARGE = torch.nn.Linear(10, 10), torch.nn.Linear(1000, 1000)


@pytest.fixture(autouse=True)
def _not_launched(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.mark.parametrize("wanted", ["no", "bf16"])
def test_an_explicit_precision_is_kept(wanted):
    assert choose_precision(wanted, SMALL) == choose_precision(wanted, LARGE) == wanted


def test_auto_follows_the_launcher(monkeypatch):
    for told in ("bf16", "fp16"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told)
        assert choose_precision("auto", SMALL) == told
    monkeypatch.setenv(
        "ACCELERATE_MIXED_PRECISION", "no"
    )  # also set by a launcher without an option
    assert choose_precision("auto", LARGE) == EXPECTED


EXPECTED = (
    "bf16" if getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() else "no"
)  # missing before torch 2.6


def test_auto_on_a_cpu():
    assert choose_precision("auto", SMALL) == "no"
    assert choose_precision("auto", LARGE) == EXPECTED
