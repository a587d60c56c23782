import pytest
import torch

from diffusion_framework import X0, Cosine, Eps, MinSNR, V
from diffusion_framework.losses import output_weight


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_equals_its_definition(gamma):
    at = Cosine().at(torch.linspace(0.02, 0.98, 49, dtype=torch.float64))
    snr = at.alpha**2 / at.sigma**2
    clipped = snr.clamp(max=gamma)
    for objective, expected in ((X0(), clipped), (Eps(), clipped / snr), (V(), clipped / (snr + 1))):
        torch.testing.assert_close(output_weight(MinSNR(gamma), objective, at), expected)


def test_weights_have_their_limits_at_both_ends():
    ends = Cosine(clip_min=1e-300).at(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert output_weight(MinSNR(), X0(), ends).tolist() == pytest.approx([5.0, 0.0])
    assert output_weight(MinSNR(), Eps(), ends).tolist() == pytest.approx([0.0, 1.0])
    assert output_weight(MinSNR(), V(), ends).tolist() == pytest.approx([0.0, 0.0])


def test_weighted_output_error_is_weighted_x0_error():
    x, out, other = torch.randn(3, 1, 6, dtype=torch.float64)
    for t in (0.1, 0.5, 0.9):
        at = Cosine().at(torch.tensor([t], dtype=torch.float64))
        snr = (at.alpha**2 / at.sigma**2).item()
        for objective in (X0(), Eps(), V()):
            on_output = output_weight(MinSNR(), objective, at) * (out - other) ** 2
            on_x0 = min(snr, 5.0) * (objective.prediction(out, x, at).x0 - objective.prediction(other, x, at).x0) ** 2
            torch.testing.assert_close(on_output, on_x0)


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_gamma(gamma):
    with pytest.raises(ValueError, match="gamma > 0"):
        MinSNR(gamma)
