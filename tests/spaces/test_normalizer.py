"""`Normalizer`, compared with plain loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffusion_framework.spaces import Normalizer

RNG = np.random.default_rng(0)
STDS, MEANS = [1.0, 100.0, 1e-3, 0.0], [0.0, 300.0, 5.0, 512.0]  # the last number is constant
VALUES = RNG.normal(size=(50, 4)) * STDS + MEANS


def slow(values, mode):
    """Normalises one number at a time."""
    result = np.empty_like(values)
    for column in range(values.shape[1]):
        numbers = [float(v) for v in values[:, column]]
        if mode == "limits":
            middle, size = (min(numbers) + max(numbers)) / 2, (max(numbers) - min(numbers)) / 2
        else:
            middle = sum(numbers) / len(numbers)
            size = math.sqrt(sum((v - middle) ** 2 for v in numbers) / len(numbers))
        for row, number in enumerate(numbers):
            result[row, column] = (number - middle) / (size or 1.0)
    return result


@pytest.mark.parametrize("mode", ["limits", "gaussian"])
def test_both_modes_equal_a_slow_implementation_and_are_undone(mode):
    normalizer = Normalizer(modes={"state": mode})
    normalizer.fit({"state": VALUES, "other": VALUES[:, :1]})
    values = torch.from_numpy(VALUES).float()
    normal = normalizer.normalize("state", values)
    # float32 rounds a spread of 1e-3 around 5 coarsely
    np.testing.assert_allclose(normal.numpy(), slow(VALUES, mode), atol=2e-3)
    torch.testing.assert_close(normalizer.unnormalize("state", normal), values)
    assert normalizer.is_bounded("state") == (mode == "limits")
    assert normalizer.streams == ["state", "other"]


def test_a_constant_number_becomes_zero_and_stays_itself():
    normalizer = Normalizer()
    normalizer.fit({"state": VALUES})
    assert (normalizer.normalize("state", torch.from_numpy(VALUES))[:, 3] == 0).all()
    assert (normalizer.unnormalize("state", torch.zeros(2, 4))[:, 3] == 512).all()
    one_off = torch.tensor([[0.0, 300, 5, 513]])
    assert torch.isfinite(normalizer.normalize("state", one_off)).all()


def test_each_step_of_windows_has_a_range_of_its_own():
    windows = RNG.normal(size=(30, 5, 2)) * np.arange(1, 6)[:, None]
    normalizer = Normalizer()
    normalizer.fit({"action": windows})
    normal = normalizer.normalize("action", torch.from_numpy(windows))
    ones = torch.ones(5, 2, dtype=torch.float64)
    torch.testing.assert_close(normal.amax(0), ones, atol=1e-6, rtol=0)
    torch.testing.assert_close(normal.amin(0), -ones, atol=1e-6, rtol=0)


def test_angles_become_sine_and_cosine():
    normalizer = Normalizer(angles={"state": [1]})
    state = torch.tensor([[0.0, 0.1], [1.0, 2.0], [2.0, 6.2]])
    normalizer.fit({"state": state})
    normal = normalizer.normalize("state", state)
    torch.testing.assert_close(normal[:, 0], torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(
        normal[:, 1:], torch.stack([state[:, 1].sin(), state[:, 1].cos()], dim=1)
    )
    turned = normalizer.normalize("state", state + torch.tensor([0.0, 2 * math.pi]))
    torch.testing.assert_close(turned, normal, atol=1e-5, rtol=0)


def test_weights_carry_what_it_was_fitted_to():
    fitted = Normalizer()
    fitted.fit({"observation.state": VALUES, "action": VALUES[:, :2]})
    fresh = Normalizer()
    fresh.build({"observation.state": (4,), "action": (2,)})
    assert fresh.needs_fit
    fresh.load_state_dict(fitted.state_dict())
    assert fresh.streams == ["observation.state", "action"]
    values = torch.from_numpy(VALUES).float()
    assert torch.equal(
        fresh.normalize("observation.state", values), fitted.normalize("observation.state", values)
    )


def test_batches_add_up_to_the_whole():
    whole, parts = Normalizer(modes={"b": "gaussian"}), Normalizer(modes={"b": "gaussian"})
    whole.fit({"a": VALUES, "b": VALUES})
    parts.build({"a": (4,), "b": (4,)})
    assert parts.needs_fit and not whole.needs_fit
    for first in range(0, 50, 8):
        parts.observe(dict.fromkeys(("a", "b"), VALUES[first : first + 8]))
    parts.finish()
    for one, other in zip(whole.buffers(), parts.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=0)


def test_bad_input_is_named():
    normalizer = Normalizer()
    with pytest.raises(
        ValueError,
        match=r"Expected a fitted stream \(no streams yet\), got 'state'. Fix: fit the",
    ):
        normalizer.normalize("state", torch.zeros(1, 4))
    with pytest.raises(ValueError, match="Expected finite numbers in 'state'"):
        normalizer.fit({"state": np.array([[1.0], [np.nan]])})
    normalizer.fit({"state": VALUES})
    with pytest.raises(ValueError, match=r"Expected 'state' \[\.\.\., 4\], got \[1, 3\]"):
        normalizer.normalize("state", torch.zeros(1, 3))
    with pytest.raises(ValueError, match="Expected the mode 'limits' or 'gaussian', got 'minmax'"):
        Normalizer(modes={"state": "minmax"})
