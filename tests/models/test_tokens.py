import math

import pytest
import torch
from torch import nn

from diffusion_framework.models.conditioning import LabelEmbedding
from diffusion_framework.models.tokens import (
    TokenAttention,
    patch_grid,
    patchify,
    sin_cos_positions,
    unpatchify,
)


@pytest.mark.parametrize(("height", "width", "size"), [(8, 12, 4), (6, 4, 2), (3, 5, 1), (4, 4, 4)])
def test_patches_are_cut_row_by_row_and_unpatchify_inverts_that(height, width, size):
    x = torch.randn(2, 3, height, width)
    patches = patchify(x, size)
    rows, columns = patch_grid((height, width), size)
    assert patches.shape == (2, rows * columns, size * size * 3)
    for row in range(rows):
        for column in range(columns):
            cut = x[:, :, row * size : (row + 1) * size, column * size : (column + 1) * size]
            assert torch.equal(
                patches[:, row * columns + column].reshape(2, size, size, 3),
                cut.permute(0, 2, 3, 1),
            )
    assert torch.equal(unpatchify(patches, size, rows), x)


def plain_attention(layer: TokenAttention, x, context):
    """Computes softmax attention head by head, with the weights of the layer."""
    q, kv = layer.to_q(x), layer.to_kv(context)
    width = q.shape[-1] // layer.heads
    heads = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        k, v = kv[..., : q.shape[-1]][..., part], kv[..., q.shape[-1] :][..., part]
        scores = (q[..., part] @ k.mT / math.sqrt(width)).exp()
        heads.append(scores / scores.sum(-1, keepdim=True) @ v)
    return layer.to_out(torch.cat(heads, dim=-1))


def test_attention_is_softmax_attention():
    x, other = torch.randn(2, 5, 12, dtype=torch.float64), torch.randn(2, 7, 4, dtype=torch.float64)
    to_self, to_other = TokenAttention(12, 3).double(), TokenAttention(12, 3, 4).double()
    torch.testing.assert_close(to_self(x), plain_attention(to_self, x, x))
    torch.testing.assert_close(to_other(x, other), plain_attention(to_other, x, other))


def test_attention_does_not_depend_on_the_order_of_tokens():
    x, other = torch.randn(2, 5, 12), torch.randn(2, 7, 4)
    order, other_order = torch.randperm(5), torch.randperm(7)
    to_self, to_other = TokenAttention(12, 3), TokenAttention(12, 3, 4)
    torch.testing.assert_close(to_self(x[:, order]), to_self(x)[:, order])
    torch.testing.assert_close(
        to_other(x[:, order], other[:, other_order]), to_other(x, other)[:, order]
    )


def test_attention_gives_fused_kernels_contiguous_channels(monkeypatch):
    seen = []
    attend = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional,
        "scaled_dot_product_attention",
        lambda *qkv, **mask: seen.extend(qkv) or attend(*qkv, **mask),
    )
    TokenAttention(12, 3, 4)(torch.randn(2, 5, 12), torch.randn(2, 7, 4))
    assert [tensor.shape[1] for tensor in seen] == [3, 3, 3]
    assert all(tensor.stride(-1) == 1 for tensor in seen)


def test_positions_are_sines_and_cosines_of_row_and_column():
    rows, columns, dim = 3, 5, 16
    positions = sin_cos_positions(rows, columns, dim)
    for row in range(rows):
        for column in range(columns):
            waves = [10_000 ** (-i / 4) for i in range(4)]
            expected = [
                f(p * w) for p in (row, column) for f in (math.sin, math.cos) for w in waves
            ]
            torch.testing.assert_close(positions[row * columns + column], torch.tensor(expected))


def test_inner_products_of_positions_depend_only_on_their_offset():
    grid = sin_cos_positions(6, 7, 32).reshape(6, 7, 32)
    near, far = grid[1, 2] @ grid[2, 4], grid[4, 3] @ grid[5, 5]
    torch.testing.assert_close(near, far)
    assert near > grid[1, 2] @ grid[5, 6]


def test_each_label_has_its_own_vector_and_needs_classes():
    embed = LabelEmbedding(3, 4)
    vectors = embed(torch.tensor([2, 0, 2]))
    assert torch.equal(vectors[0], vectors[2]) and not torch.equal(vectors[0], vectors[1])
    assert LabelEmbedding(None, 4)(None) is None
    for embed, labels in (
        (LabelEmbedding(3, 4), None),
        (LabelEmbedding(None, 4), torch.tensor([0])),
    ):
        with pytest.raises(ValueError, match=r"num_classes=.* and labels .* give both or neither"):
            embed(labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: patch_grid((8, 9), 2), r"divisible by patch_size, got \(8, 9\) and 2"),
        (lambda: patch_grid((8, 8), 0), "and 0"),
        (lambda: patch_grid((0, 8), 2), r"\(0, 8\)"),
        (lambda: TokenAttention(10, 4), "divisible by heads, got 10 and 4"),
        (lambda: TokenAttention(10, 0), "got 10 and 0"),
        (lambda: sin_cos_positions(2, 2, 6), "divisible by 4, .*got 6"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
