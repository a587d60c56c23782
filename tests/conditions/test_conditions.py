"""Tests of what every conditioner guarantees, and of all conditions of a model together."""

import copy
import math

import pytest
import torch

from diffusion_framework.conditions import (
    BoundConditions,
    Conditioner,
    Conditions,
    Images,
    Labels,
    Observations,
    Text,
    Tokens,
    Vectors,
)
from diffusion_framework.spaces import Unbounded
from diffusion_framework.storage.config import from_config, to_config

BATCH, SHAPE = 6, (3, 8, 8)
KINDS = {
    "labels": lambda dropout=0.0: Labels(5, dropout=dropout),
    "image": lambda dropout=0.0: Images(dropout=dropout),
    "vector": lambda dropout=0.0: Vectors(
        3, statistics=Unbounded(mean=0.5, std=2.0), dropout=dropout
    ),
    "tokens": lambda dropout=0.0: Tokens(4, 7, dropout=dropout),
    "text": lambda dropout=0.0: Text(4, 7, dropout=dropout),
    "observations": lambda dropout=0.0: fitted(
        Observations({"state": 3}, steps=2, dropout=dropout)
    ),
}


def fitted(conditioner):
    conditioner.observe(value("observations"))
    conditioner.finish()
    return conditioner


def value(kind, batch=BATCH):
    generator = torch.Generator().manual_seed(len(kind))
    random = lambda *shape: torch.rand(batch, *shape, generator=generator)  # noqa: E731
    return {
        "labels": torch.arange(batch) % 5,
        "image": random(3, 16, 12),
        "vector": random(3),
        "tokens": random(5, 4),
        "text": [f"a heart, number {i}" for i in range(batch)],
        "observations": {"state": random(2, 3)},
    }[kind]


def built(**conditioners):
    return Conditions(conditioners, SHAPE)


@pytest.mark.parametrize("kind", KINDS)
def test_keywords_have_one_row_per_sample_and_none_has_the_same_shapes(kind):
    conditioner = KINDS[kind](0.5)
    conditioner.build(SHAPE)
    encoded = conditioner(value(kind))
    assert tuple(encoded) == conditioner.keywords
    none = conditioner.none(BATCH)
    for keyword, tensor in encoded.items():
        assert (
            len(tensor) == BATCH
            and tensor.shape == none[keyword].shape
            and tensor.dtype == none[keyword].dtype
        )
        assert torch.isfinite(tensor).all() and torch.isfinite(none[keyword]).all()
    one = conditioner(value(kind, 1))
    assert all(one[k].shape[1:] == encoded[k].shape[1:] for k in encoded)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_replaces_its_share_of_samples_by_none_in_all_keywords(kind):
    conditioner = KINDS[kind](0.25)
    conditioner.build(SHAPE)
    generator = torch.Generator().manual_seed(0)
    given = value(kind, 2000)
    encoded, dropped = conditioner(given), conditioner(given, drop=True, generator=generator)
    none = conditioner.none(2000)
    same = {
        k: [torch.equal(a, b) for a, b in zip(dropped[k], encoded[k], strict=True)] for k in encoded
    }
    gone = {
        k: [torch.equal(a, b) for a, b in zip(dropped[k], none[k], strict=True)] for k in encoded
    }
    for keyword in encoded:
        assert all(a or b for a, b in zip(same[keyword], gone[keyword], strict=True))
    first = conditioner.keywords[0]
    share = sum(gone[first]) / 2000
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / 2000)
    assert conditioner.encode(given).keys() == dropped.keys()
    again = conditioner(given, drop=True, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(again[k], dropped[k]) for k in dropped)


@pytest.mark.parametrize("kind", KINDS)
def test_none_has_parameters_only_with_dropout_and_they_always_have_gradients(kind):
    """Distributed training fails if a process does not use a parameter."""
    assert not any(True for name, _ in KINDS[kind](0.0).named_parameters() if name == "nothing")
    conditioner = KINDS[kind](1e-9)
    conditioner.build(SHAPE)
    dropped = conditioner(value(kind), drop=True)
    if hasattr(conditioner, "nothing"):
        sum(v.float().sum() for v in dropped.values()).backward()
        assert conditioner.nothing.grad is not None


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_does_not_synchronise_with_the_device(kind):
    conditioner = KINDS[kind](0.5)
    conditioner.build(SHAPE)
    conditioner = conditioner.to("meta")
    given = value(kind)
    if isinstance(given, dict):
        given = {k: v.to("meta") for k, v in given.items()}
    elif kind != "text":  # which are no tensors
        given = given.to("meta")
    for mode in (True, False):
        encoded = conditioner.train(mode)(given, drop=mode)
        assert all(v.device.type == "meta" for v in encoded.values())
    assert not conditioner.needs_fit


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_moved_to_the_conditioner(kind):
    conditioner = KINDS[kind](0.5)
    conditioner.build(SHAPE)
    conditioner.to("meta")
    if kind != "tokens":  # a mask on the meta device has no values to check
        assert all(v.device.type == "meta" for v in conditioner(value(kind)).values())


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_rebuilt_from_its_config(kind):
    conditioner = KINDS[kind](0.5)
    again = from_config(to_config(conditioner), Conditioner)
    assert to_config(again) == to_config(conditioner)
    again.load_state_dict(conditioner.state_dict())
    for one in (conditioner, again):
        one.build(SHAPE)
    one, two = again(value(kind)), conditioner(value(kind))
    assert all(torch.equal(one[k], two[k]) for k in one)


def test_all_conditions_are_bound_once():
    kinds = {kind: make for kind, make in KINDS.items() if kind != "text"}  # it gives tokens too
    conditions = built(**{kind: make(0.1) for kind, make in kinds.items()})
    values = {kind: value(kind) for kind in kinds}
    bound = conditions.bind(values, BATCH)
    assert set(bound.keywords) == {"labels", "image", "vector", "tokens", "token_mask", "context"}
    assert bound.values == values
    copied = copy.deepcopy(conditions).bind(values)
    assert all(torch.equal(v, copied.keywords[k]) for k, v in bound.keywords.items())


def test_without_replaces_some_conditions_by_none_and_changes_nothing_else():
    conditions = built(labels=Labels(5, dropout=0.1), vector=KINDS["vector"](0.1), image=Images())
    values = {name: value(name) for name in conditions}
    bound = conditions.bind(values)
    before = bound.keywords
    free = bound.without()
    assert (free.keywords["labels"] == 5).all() and (free.keywords["vector"] == 0).all()
    assert torch.equal(free.keywords["image"], before["image"])  # trained without dropout
    only = bound.without(["labels"])
    assert (only.keywords["labels"] == 5).all() and torch.equal(
        only.keywords["vector"], before["vector"]
    )
    assert all(torch.equal(bound.keywords[k], before[k]) for k in before)
    with pytest.raises(AttributeError):
        bound.values = {}
    for name, message in (
        ("image", "trained with dropout, got image. Fix: .*condition_dropout"),
        ("vectr", "conditions image, labels, vector, got 'vectr'. Fix: write 'vector'"),
    ):
        with pytest.raises(ValueError, match=message):
            bound.without([name])
    with pytest.raises(ValueError, match="trained with dropout, got none"):
        built(image=Images()).bind({"image": value("image")}).without()


def test_one_value_is_repeated_for_the_batch_when_sampling():
    conditions = built(labels=Labels(5), vector=KINDS["vector"](), image=Images())
    image, vector = value("image")[0], value("vector")[0]
    one = conditions.bind(
        {"labels": 3, "vector": vector.tolist(), "image": image.numpy()}, 4
    ).keywords
    many = conditions.bind(
        {"labels": [3] * 4, "vector": [vector.tolist()] * 4, "image": [image] * 4}
    ).keywords
    assert all(torch.equal(one[k], many[k]) for k in one)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_condition_is_none_when_sampling_if_training_dropped_it(kind):
    conditions = built(**{kind: KINDS[kind](0.5)})
    none = conditions[kind].none(4)
    for values in ({}, {kind: None}):
        bound = conditions.bind(values, 4, all_needed=False)
        assert all(torch.equal(bound.keywords[k], none[k]) for k in none)
    for names in (None, [kind]):
        with pytest.raises(ValueError, match=f"a value for {kind} to guide towards, got none"):
            bound.without(names)
    for wrong in (lambda: conditions.bind({}, 4), lambda: conditions.bind({}, 4, drop=True)):
        with pytest.raises(ValueError, match=f"Expected a value for {kind}, got none"):
            wrong()
    with pytest.raises(ValueError, match=f"Expected a value for {kind}, got none"):
        built(**{kind: KINDS[kind](0.0)}).bind({}, 4, all_needed=False)


def test_conditions_are_dropped_independently():
    count = 4000
    conditions = built(labels=Labels(5, dropout=0.2), vector=KINDS["vector"](0.5))
    values = {"labels": torch.zeros(count, dtype=torch.long), "vector": torch.ones(count, 3)}
    generator = torch.Generator().manual_seed(0)
    keywords = conditions.bind(values, count, drop=True, generator=generator).keywords
    no_label = keywords["labels"] == 5
    no_vector = (keywords["vector"] == 0).all(dim=1)
    for dropped, rate in ((no_label, 0.2), (no_vector, 0.5), (no_label & no_vector, 0.1)):
        share = dropped.float().mean().item()
        assert abs(share - rate) < 4 * math.sqrt(rate * (1 - rate) / count)


def test_one_value_is_not_repeated_in_training():
    conditions = built(labels=Labels(5))
    with pytest.raises(ValueError, match=r"Expected labels \[batch\], got \[\]"):
        conditions.bind({"labels": 3}, 4, drop=True)
    with pytest.raises(ValueError, match="Expected a value of labels for each of 4 samples, got 1"):
        conditions.bind({"labels": [3]}, 4, drop=True)


def test_images_are_flipped_with_the_data():
    conditions = built(labels=Labels(5), image=Images())
    values = {
        "labels": value("labels"),
        "image": value("image"),
        "mask": torch.ones(BATCH, dtype=torch.bool),
    }
    where = torch.tensor([True, False] * 3)
    assert conditions.flips
    flipped = conditions.flip(values, where)
    assert flipped["labels"] is values["labels"] and flipped["mask"] is values["mask"]
    assert torch.equal(flipped["image"][0], values["image"][0].flip(-1))
    assert torch.equal(flipped["image"][1], values["image"][1])


def test_no_conditions_give_no_keywords():
    bound = Conditions().bind({}, 3)
    assert isinstance(bound, BoundConditions) and bound.keywords == {}


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: built(labels=Labels(2)).bind({}),
            "Expected a value for labels, got none. Fix: pass labels=",
        ),
        (lambda: built(labels=Labels(2)).bind({"labels": None}), "Expected a value for labels"),
        (
            lambda: built().bind({"label": [0]}),
            "Expected no conditions, got label. Fix: leave it out",
        ),
        (
            lambda: built(labels=Labels(2)).bind({"labels": [0], "lables": [0]}),
            "Expected conditions labels, got lables. Fix: write labels=",
        ),
        (
            lambda: built(labels=Labels(2)).bind({"labels": [0, 1]}, 3),
            "Expected a value of labels for each of 3 samples, got 2",
        ),
        (
            lambda: built(labels=Labels(2), vector=KINDS["vector"]()).bind(
                {"labels": [0], "vector": value("vector")}
            ),
            "Expected a value of vector for each of 1 samples, got 6",
        ),
        (
            lambda: built(a=Labels(2), b=Labels(3)),
            "got 'labels' from 'a' and 'b'. Fix: set keyword=",
        ),
        (
            lambda: built(values=Labels(2)),
            "Expected an unreserved Python name for a condition, got 'values'",
        ),
        (
            lambda: built(training=Labels(2)),
            "Expected an unreserved Python name for a condition, got 'training'",
        ),
        (
            lambda: built(**{"a b": Labels(2)}),
            "Expected an unreserved Python name for a condition, got 'a b'",
        ),
        (
            lambda: Conditions({"seed": Labels(2)}, SHAPE, {"seed"}),
            "Expected an unreserved Python name .*, got 'seed'",
        ),
        (lambda: Labels(2, dropout=1.0), r"Expected dropout in \[0, 1\), got 1.0"),
    ],
)
def test_errors_are_one_line_with_a_fix(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value) and "Fix: " in str(error.value)
