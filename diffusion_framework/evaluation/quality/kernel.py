"""The kernel distance between sets of features (Bińkowski et al. 2018)."""

import torch
from beartype import beartype
from jaxtyping import jaxtyped
from torch import Tensor

from .estimate import Estimate
from .frechet import Features, check_features, check_same_features

_ROWS = 2048  # rows of a kernel matrix in memory


@jaxtyped(typechecker=beartype)
def kernel_distance(a: Features, b: Features) -> Estimate:
    """Returns the squared maximum mean discrepancy of the kernel `(x·y / features + 1)³`.

    The estimate is unbiased and uses all pairs, so its expectation does not depend on the number of
    samples, and it can be negative. Bińkowski et al. average subsets instead. The standard error
    is that of the jackknife over both sets.

    Args:
        a: Features [samples, features].
        b: Features of the other set.

    Raises:
        ValueError: If a set has fewer than two samples or values that are not finite, or the sets
            have different numbers of features.
    """
    check_features(a)
    check_features(b)
    check_same_features(a.shape[1], b.shape[1])
    x, y = a.double(), b.double()
    m, n = len(x), len(y)
    within_x, within_y = _row_sums(x, x) - _diagonal(x), _row_sums(y, y) - _diagonal(y)
    across_x, across_y = _row_sums(x, y), _row_sums(y, x)
    total = across_x.sum()

    def distance(x_pairs: Tensor, y_pairs: Tensor, cross: Tensor) -> Tensor:
        return x_pairs + y_pairs - 2 * cross

    x_pairs, y_pairs = within_x.sum() / (m * (m - 1)), within_y.sum() / (n * (n - 1))
    value = distance(x_pairs, y_pairs, total / (m * n))
    if min(m, n) < 3:
        return Estimate(value.item(), float("nan"))
    # The same with one sample left out, for each sample.
    x_left = (within_x.sum() - 2 * within_x) / ((m - 1) * (m - 2))
    y_left = (within_y.sum() - 2 * within_y) / ((n - 1) * (n - 2))
    without_x = distance(x_left, y_pairs, (total - across_x) / ((m - 1) * n))
    without_y = distance(x_pairs, y_left, (total - across_y) / (m * (n - 1)))
    variance = sum(
        (k - 1) / k * (left - left.mean()).square().sum()
        for k, left in ((m, without_x), (n, without_y))
    )
    return Estimate(value.item(), float(variance) ** 0.5)


def _kernel(product: Tensor, features: int) -> Tensor:
    return (product / features + 1) ** 3


def _diagonal(x: Tensor) -> Tensor:
    return _kernel(x.square().sum(1), x.shape[1])


def _row_sums(x: Tensor, y: Tensor) -> Tensor:
    """Returns the sum over y of the kernel, for each x."""
    rows = [_kernel(part @ y.T, x.shape[1]).sum(1) for part in x.split(_ROWS)]
    return torch.cat(rows)
