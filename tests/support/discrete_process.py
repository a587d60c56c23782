"""A tiny discrete process, and its variational bound computed from betas alone."""

import numpy as np
from scipy.stats import norm

from diffusion_framework.process.schedules import Betas

BETAS = np.array([0.02, 0.05, 0.13, 0.3, 0.55, 0.8])
SCHEDULE = Betas(tuple(BETAS))


def levels(step):
    """Returns the levels one step noisier than discrete step 0, 1, ..., at it, and at its end."""
    at = [SCHEDULE.at(i / len(BETAS)) for i in range(len(BETAS) + 1)]
    return at[min(step + 2, len(BETAS))], at[step + 1], at[step]


def term_by_hand(x0, x, eps_hat, step, variance, share):
    """Computes each entry's term of the bound in nats from betas.

    It follows Ho et al. 2020, eq. 5-8 and 13, and Nichol & Dhariwal 2021, eq. 15.
    """
    alpha_bar = np.cumprod(1 - BETAS)
    previous = np.append(1.0, alpha_bar[:-1])
    posterior_var = BETAS * (1 - previous) / (1 - alpha_bar)
    clipped = np.append(posterior_var[1], posterior_var[1:])
    log_var = {
        "small": np.log(clipped[step]),
        "large": np.log(np.append(posterior_var[1], BETAS[1:])[step]),
        "learned": 2 * share - 1,
        "learned_range": share * np.log(BETAS[step]) + (1 - share) * np.log(clipped[step]),
    }[variance]
    x0_hat = (x - np.sqrt(1 - alpha_bar[step]) * eps_hat) / np.sqrt(alpha_bar[step])

    def mean(x0):
        of_x0 = np.sqrt(previous[step]) * BETAS[step] / (1 - alpha_bar[step])
        return (
            of_x0 * x0 + np.sqrt(1 - BETAS[step]) * (1 - previous[step]) / (1 - alpha_bar[step]) * x
        )

    if step == 0:
        std = np.exp(0.5 * log_var)
        upper = np.where(x0 > 0.999, np.inf, x0 + 1 / 255)
        lower = np.where(x0 < -0.999, -np.inf, x0 - 1 / 255)
        return -np.log(norm.cdf(upper, mean(x0_hat), std) - norm.cdf(lower, mean(x0_hat), std))
    true = np.log(posterior_var[step])
    gap = (mean(x0) - mean(x0_hat)) ** 2
    return 0.5 * (-1 + log_var - true + np.exp(true - log_var) + gap * np.exp(-log_var))
