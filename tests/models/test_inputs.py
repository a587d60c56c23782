"""A network that is called directly names the input of a wrong shape, on one line."""

import pytest
import torch
from toys import tiny_dit, tiny_rin, tiny_unet

OPTIONS = {
    "num_classes": 3,
    "image_channels": 2,
    "vector_dim": 5,
    "token_dim": 6,
    "augmentation": True,
}
WHOLE = {
    "x": torch.rand(2, 1, 8, 8),
    "time": torch.rand(2),
    "self_cond": torch.rand(2, 1, 8, 8),
    "labels": torch.tensor([0, 3]),
    "image": torch.rand(2, 2, 8, 8),
    "vector": torch.rand(2, 5),
    "tokens": torch.rand(2, 4, 6),
    "token_mask": torch.ones(2, 4, dtype=torch.bool),
    "augmentation": torch.zeros(2, 9),
}
WRONG = [
    ("x", torch.rand(1, 8, 8), r"\[batch, 1, 8, 8\].*, got \[1, 8, 8\]"),
    ("x", torch.rand(2, 3, 8, 8), r"\[batch, 1, 8, 8\].*, got \[2, 3, 8, 8\]"),
    ("x", torch.rand(2, 1, 8, 9), r"\[batch, 1, 8, 8\].*, got \[2, 1, 8, 9\]"),
    ("time", torch.rand(()), r"\[2\], got \[\]"),
    ("time", 0.5, r"\[2\], got 0.5"),
    ("time", torch.rand(3), r"\[2\], got \[3\]"),
    ("self_cond", torch.rand(1, 1, 8, 8), r"\[2, 1, 8, 8\], got \[1, 1, 8, 8\]"),
    ("labels", torch.tensor([[0], [1]]), r"\[2\], got \[2, 1\]"),
    ("image", torch.rand(2, 2, 4, 4), r"\[2, 2, 8, 8\], got \[2, 2, 4, 4\]"),
    ("vector", torch.rand(2, 4), r"\[2, 5\], got \[2, 4\]"),
    ("tokens", torch.rand(2, 4, 7), r"\[2, 4, 6\], got \[2, 4, 7\]"),
    ("tokens", torch.rand(2, 6), r"\[2, 0, 6\], got \[2, 6\]"),
    ("augmentation", torch.zeros(2, 8), r"\[2, 9\], got \[2, 8\]"),
    ("token_mask", torch.ones(2, 3), r"\[2, 4\], got \[2, 3\]"),
]


@pytest.mark.parametrize("make", [tiny_unet, tiny_dit, tiny_rin])
def test_a_wrong_shape_names_the_input(make):
    network = make(**OPTIONS)
    assert network(**WHOLE).shape == WHOLE["x"].shape
    for name, value, message in WRONG:
        with pytest.raises(ValueError, match=f"^Expected {name} of shape {message}. F") as caught:
            network(**{**WHOLE, name: value})
        assert "\n" not in str(caught.value)


def test_each_network_says_which_other_sizes_it_takes():
    assert tiny_unet()(torch.rand(2, 1, 12, 8), torch.rand(2)).shape == (2, 1, 12, 8)
    with pytest.raises(ValueError, match=r"\[batch, 1, 8, 8\], or multiples of 2, got"):
        tiny_unet()(torch.rand(2, 1, 7, 7), torch.rand(2))
    with pytest.raises(ValueError, match=r"x of shape \[batch, 1, 8, 8\], got \[2, 1, 12, 8\]"):
        tiny_dit()(torch.rand(2, 1, 12, 8), torch.rand(2))
    with pytest.raises(ValueError, match="Expected latents of shape"):
        tiny_rin()(WHOLE["x"], WHOLE["time"], latents=torch.rand(2, 1, 3))
