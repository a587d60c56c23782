"""Quantiles of the beta distribution, against SciPy."""

import numpy as np
import pytest
from scipy.special import betaincinv

from diffusion_framework.samplers.grids.beta_quantiles import beta_quantiles

SHAPES = (0.01, 0.1, 0.6, 1.0, 2.0, 30.0, 1000.0)
SHARES = np.concatenate([np.linspace(1, 0, 41), [1e-6, 1 - 1e-6]])


@pytest.mark.parametrize("alpha", SHAPES)
@pytest.mark.parametrize("beta", SHAPES)
def test_quantiles_are_those_of_scipy(alpha, beta):
    found = beta_quantiles(SHARES.tolist(), alpha, beta)
    np.testing.assert_allclose(found, betaincinv(alpha, beta, SHARES), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shapes", [(0.0, 1.0), (1.0, -1.0), (1e9, 1.0), (float("nan"), 1.0)])
def test_shapes_out_of_range_are_an_error(shapes):
    with pytest.raises(ValueError, match=r"Expected alpha and beta from .* Fix: "):
        beta_quantiles([0.5], *shapes)
