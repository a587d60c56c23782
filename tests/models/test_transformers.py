"""Laws that both transformers on image patches obey: RIN and DiT."""

import pytest
import torch
from toys import QUIET, randomised, tiny_dit, tiny_rin

from diffusion_framework import GaussianDiffusion, Trainer
from diffusion_framework.data import Digits
from diffusion_framework.losses import LogitNormal, UniformOn
from diffusion_framework.models.dit import DiTBlock
from diffusion_framework.models.tokens import patchify, unpatchify
from diffusion_framework.process.objectives import Velocity
from diffusion_framework.training import Previews

NETWORKS = pytest.mark.parametrize("make", [tiny_rin, tiny_dit])


def inputs(network, batch=2):
    return torch.randn(batch, network.channels, *network.image_size), torch.rand(batch)


@NETWORKS
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("image_size", [8, (8, 12), (16, 4)])
def test_output_is_shaped_like_the_input_and_starts_at_zero(make, channels, image_size):
    network = make(channels=channels, image_size=image_size)
    x, time = inputs(network)
    assert torch.equal(network(x, time), torch.zeros_like(x))
    assert (
        make(channels=channels, image_size=image_size, learned_variance=True)(x, time).shape[1]
        == 2 * channels
    )


@NETWORKS
def test_every_input_and_every_parameter_affects_the_output(make):
    network = randomised(make(self_condition=True, num_classes=3))
    x, time = inputs(network)
    labels = torch.tensor([0, 2])
    latents = {"latents": torch.randn(2, *network.first_latents.shape)} if make is tiny_rin else {}
    out = network(x, time, x, labels=labels, **latents)
    assert not torch.allclose(out, network(x + 0.1, time, x, labels=labels, **latents))
    assert not torch.allclose(out, network(x, time / 2, x, labels=labels, **latents))
    assert not torch.allclose(out, network(x, time, None, labels=labels, **latents))
    assert not torch.allclose(out, network(x, time, x, labels=labels.flip(0), **latents))
    out.square().sum().backward()
    unused = [
        name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().sum() == 0
    ]
    assert not unused


@NETWORKS
def test_no_estimate_means_an_estimate_of_zeros(make):
    network = randomised(make(self_condition=True))
    x, time = inputs(network)
    assert torch.equal(network(x, time), network(x, time, torch.zeros_like(x)))


@NETWORKS
def test_samples_of_a_batch_do_not_affect_each_other(make):
    network = randomised(make())
    x, time = inputs(network, batch=5)
    torch.testing.assert_close(
        network(x, time)[1:3], network(x[1:3], time[1:3]), rtol=1e-4, atol=1e-5
    )


@NETWORKS
def test_only_positional_embeddings_distinguish_patches(make):
    """With one embedding for all positions, permuting patches permutes the outputs."""
    network = randomised(make(image_size=(8, 12), channels=2))
    x, time = inputs(network)
    order = torch.randperm(24)

    def reordered(x):
        return unpatchify(patchify(x, 2)[:, order], 2, 4)

    assert not torch.allclose(network(reordered(x), time), reordered(network(x, time)), atol=1e-3)
    network.positions.data[:] = network.positions.data[0].clone()
    torch.testing.assert_close(
        network(reordered(x), time), reordered(network(x, time)), rtol=1e-4, atol=1e-5
    )


@NETWORKS
def test_compiles_without_graph_breaks(make):
    network = randomised(make(num_classes=2))
    x, time = inputs(network)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    labels = torch.tensor([0, 1])
    torch.testing.assert_close(compiled(x, time, labels=labels), network(x, time, labels=labels))


@NETWORKS
def test_bf16_autocast_stays_close_to_float32(make):
    network = randomised(make(dim=16, num_classes=3))
    x, time = inputs(network)
    labels = torch.tensor([0, 1])
    expected = network(x, time, labels=labels)
    with torch.autocast("cpu", torch.bfloat16):
        out = network(x, time, labels=labels)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).norm() < 0.05 * expected.norm()


@NETWORKS
def test_a_checkpoint_restores_the_network(make, tmp_path):
    diffusion = GaussianDiffusion(
        randomised(make(num_classes=10, learned_variance=True)), timesteps=3
    )
    options = {
        **QUIET,
        "num_samples": 1,
        "previews": Previews(sampling_steps=1),
        "train_batch_size": 4,
    }
    trainer = Trainer(
        diffusion,
        Digits(labels=True),
        train_num_steps=2,
        results_folder=tmp_path / "run",
        **options,
    )
    trainer.train()
    again = GaussianDiffusion.from_pretrained(tmp_path / "run", weights="model")
    labels = torch.tensor([3, 4])
    samples = [d.sample(2, seed=0, show_progress=False, labels=labels) for d in (diffusion, again)]
    assert torch.equal(*samples) and samples[0].std() > 0


@NETWORKS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 9}, r"divisible by patch_size, got \(9, 9\) and 2"),
        ({"image_size": (8, 7)}, r"got \(8, 7\) and 2"),
        ({"patch_size": 3}, r"got \(8, 8\) and 3"),
        ({"heads": 3}, "divisible by heads, got (8|12) and 3"),
        ({"channels": 0}, "channels=0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, options, message):
    if make is tiny_rin and "heads" in options:
        options = {"heads": 3, "latent_dim": 12}
    with pytest.raises(ValueError, match=message) as error:
        make(**options)
    assert "\n" not in str(error.value)


@NETWORKS
@pytest.mark.parametrize(("num_classes", "labels"), [(None, torch.tensor([0, 1])), (3, None)])
def test_labels_without_classes_and_classes_without_labels_are_refused(make, num_classes, labels):
    network = make(num_classes=num_classes)
    with pytest.raises(ValueError, match="give both or neither"):
        network(*inputs(network), labels=labels)


def test_fixed_positions_need_a_width_divisible_by_four():
    with pytest.raises(ValueError, match="divisible by 4, .*got 6"):
        tiny_dit(dim=6)


def test_an_untrained_dit_block_is_the_identity_and_its_gates_get_gradients():
    block = DiTBlock(12, 3)
    x, embedding = torch.randn(2, 5, 12), torch.randn(2, 12)
    out = block(x, embedding)
    assert torch.equal(out, x)
    (out * torch.randn_like(out)).sum().backward()
    gates = block.modulate.linear.weight.grad.chunk(6)
    assert all(gates[i].abs().sum() > 0 for i in (2, 5)), "gates must be able to leave 0"


def test_a_dit_block_computes_adaptive_layer_norm():
    block = randomised(DiTBlock(12, 3))
    x, embedding = torch.randn(2, 5, 12), torch.randn(2, 12)
    parts = block.modulate.linear(torch.nn.functional.silu(embedding)).reshape(2, 6, 12)

    def branch(layer, x, scale, shift, gate):
        normal = (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, correction=0, keepdim=True) + 1e-6
        ).sqrt()
        return x + gate[:, None] * layer(normal * (1 + scale[:, None]) + shift[:, None])

    expected = branch(block.attention, x, *parts.unbind(1)[:3])
    expected = branch(block.mlp, expected, *parts.unbind(1)[3:])
    torch.testing.assert_close(block(x, embedding), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bottleneck", [1, 3])
def test_a_bottleneck_bounds_the_rank_of_the_embedding_of_patches(bottleneck):
    """Each patch of 4 x 4 pixels would otherwise have 16 numbers."""
    whole, narrow = (
        randomised(tiny_dit(dim=32, patch_size=4, self_condition=False, bottleneck=width)).double()
        for width in (None, bottleneck)
    )
    patches = patchify(torch.randn(30, 1, 8, 8, dtype=torch.float64), 4)
    for network, rank in ((whole, 16), (narrow, bottleneck)):
        embedded = network.embed_patches(patches) - network.embed_patches(patches * 0)
        assert torch.linalg.matrix_rank(embedded.flatten(0, 1)) == rank
    x, time = torch.randn(2, 1, 8, 8, dtype=torch.float64), torch.rand(2)
    narrow(x, time).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in narrow.embed_patches.parameters())
    with pytest.raises(ValueError, match="bottleneck of at least 1, or None for none, got 0. Fix"):
        tiny_dit(bottleneck=0)


def test_a_transformer_that_predicts_clean_images_learns_with_the_loss_of_jit():
    """Its loss is the squared error of the velocity, whose time is at least 0.05."""
    model = GaussianDiffusion(
        tiny_dit(patch_size=4, bottleneck=3, self_condition=False),
        noise_schedule="flow",
        objective="x0",
        loss_weight=UniformOn(Velocity(), 400.0),
        times=LogitNormal(0.8, 0.8),
        train_prob_self_cond=0.0,
    )
    data = torch.rand(6, 1, 8, 8)
    loss = model(data, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(loss) and loss > 0
    t = model.times.draw(
        model.schedule, model.times.uniform(6, data.device, torch.Generator().manual_seed(0))
    ).at.t
    x0 = model.encode(data, {})
    velocity = (0 - x0) / t.clamp(min=0.05)[:, None, None, None]  # an untrained network says 0
    torch.testing.assert_close(loss, velocity.square().mean().to(loss))
