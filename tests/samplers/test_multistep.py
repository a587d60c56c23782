import mpmath
import numpy as np
import pytest
from scipy.integrate import quad

from diffusion_framework.samplers.multistep import mean_weights, moments


@pytest.mark.parametrize("z", [-30, -5, -2.01, -1.99, -1e-3, -1e-9, 0, 1e-9, 1e-3, 0.5, 1.99, 2.01, 5, 40, 600])
def test_moments_equal_the_integrals(z):
    with mpmath.workdps(40):
        total = mpmath.quad(lambda u: mpmath.exp(z * (u - 1)), [0, 0.5, 1])
        for k, moment in enumerate(moments(4, z)):
            exact = mpmath.quad(lambda u, k=k: u**k * mpmath.exp(z * (u - 1)), [0, 0.5, 1]) / total
            assert moment == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("z", [-3.0, 0.0, 0.7, 4.0])
@pytest.mark.parametrize("nodes", [(0.0,), (0.0, -1.0), (0.0, -0.4, -2.0), (0.0, -1.0, -2.0, -3.5), (1.0, 0.0, -0.7)])
def test_the_weights_average_polynomials_exactly(nodes, z):
    rng = np.random.default_rng(0)
    polynomial = np.polynomial.Polynomial(rng.normal(size=len(nodes)))
    total, _ = quad(lambda u: np.exp(z * u), 0, 1)
    exact, _ = quad(lambda u: polynomial(u) * np.exp(z * u) / total, 0, 1)
    weights = mean_weights(nodes, z)
    assert sum(w * polynomial(node) for w, node in zip(weights, nodes, strict=True)) == pytest.approx(exact, rel=1e-10)


def test_even_steps_give_the_weights_of_adams_bashforth():
    assert mean_weights((0.0, -1.0)) == pytest.approx((3 / 2, -1 / 2))
    assert mean_weights((0.0, -1.0, -2.0)) == pytest.approx((23 / 12, -16 / 12, 5 / 12))
    assert mean_weights((0.0, -1.0, -2.0, -3.0)) == pytest.approx((55 / 24, -59 / 24, 37 / 24, -9 / 24))


def test_equal_nodes_are_refused():
    with pytest.raises(ValueError, match="different levels"):
        mean_weights((0.0, 0.0))
