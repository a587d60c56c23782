"""Muon takes orthogonal steps of matrices, and those of AdamW for other weights."""

import copy

import pytest
import torch
from torch import nn
from toys import tiny_unet

from diffusion_framework.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (30, 30), (1, 40)])
def test_the_step_has_the_singular_vectors_of_the_momentum(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.mT @ orthogonalised(matrix) @ v.mT
    values = inside.diagonal()
    assert (inside - values.diag()).abs().max() < 1e-9
    assert values.min() > 0.5 and values.max() < 1.3
    assert not orthogonalised(torch.zeros(shape)).any()


def trained(network, optimizer, steps=4):
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return dict(network.named_parameters())


def test_other_weights_take_the_steps_of_adamw():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(4, 8), nn.Linear(8, 5))
    other, options = copy.deepcopy(network), {"lr": 0.02, "betas": (0.8, 0.95)}
    decay = {"weight_decay": 0.1}
    ours = trained(network, Muon(network.parameters(), **options, **decay))
    theirs = trained(other, torch.optim.AdamW(other.parameters(), **options, **decay))
    for name in ours:
        same = torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6)
        assert same == (ours[name].ndim == 1), name


@pytest.mark.skipif("Muon" not in vars(torch.optim), reason="PyTorch has it from 2.9 on")
def test_matrices_take_the_steps_of_pytorch():
    """PyTorch computes in bfloat16."""
    one = nn.Linear(12, 30, bias=False)
    two, options = copy.deepcopy(one), {"lr": 0.1, "weight_decay": 0.1}
    ours = trained(one, Muon(one.parameters(), **options))["weight"]
    same_size = {"adjust_lr_fn": "match_rms_adamw"}
    theirs = trained(two, torch.optim.Muon(two.parameters(), **options, **same_size))["weight"]
    assert (ours - theirs).abs().max() < 0.02 * (ours - nn.Linear(12, 30).weight).abs().max()


def test_steps_have_the_size_of_those_of_adamw_and_convolutions_are_matrices():
    network = tiny_unet(dim=16)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    after = trained(network, Muon(network.parameters(), lr=1e-2), 1)
    for name, weight in after.items():
        step = (before[name] - weight) / 1e-2
        if weight.ndim > 1:
            assert 0.13 < step.square().mean().sqrt() < 0.26, name
            matrix = step.flatten(1)
            smaller = matrix if len(matrix) <= matrix.shape[1] else matrix.mT
            gram = smaller @ smaller.mT / (0.04 * max(matrix.shape))
            assert (gram - gram.diagonal().diag()).abs().max() < 0.6, name
