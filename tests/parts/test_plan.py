"""Plans of names and options, and their errors."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import diffusion_framework as df
from diffusion_framework.data import TrainingDataset
from diffusion_framework.parts import BadPart, NotTrusted, Typed, convert, options, plan
from diffusion_framework.parts.search import load_class
from diffusion_framework.parts.signatures import REQUIRED
from diffusion_framework.parts.table import TABLE
from diffusion_framework.process.schedules import Betas
from diffusion_framework.samplers import Churn, Sampler

CLASSES = sorted(
    {load_class(home) for row in TABLE.values() for home in row.values()},
    key=lambda cls: cls.__name__,
)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_option_accepts_its_typed_default(cls):
    """The default of each option, typed as a flag, is read as that default."""
    for option in options(cls).values():
        if option.default is REQUIRED or not isinstance(
            option.default, bool | int | float | str | tuple | None
        ):
            continue
        word = option.default if isinstance(option.default, str) else json.dumps(option.default)
        value = convert(Typed(word), option.hint, where=f"--{option.name}", default=option.default)
        assert value == option.default and type(value) is type(option.default), option
        if isinstance(option.default, int | float) and not isinstance(option.default, bool):
            with pytest.raises(BadPart, match=rf"--{option.name}: .*number.*'abc'"):
                convert(Typed("abc"), option.hint, where=f"--{option.name}", default=option.default)


@pytest.mark.parametrize(
    "name",
    ["dpm_solver", "DPMSolver", "dpmsolver", "DPM_SOLVER", "diffusion_framework.x.DPMSolver"],
)
def test_names_ignore_case_and_underscores(name):
    assert plan(name, Sampler).build() == df.DPMSolver()
    assert plan({"class_path": name, "init_args": {"order": 3}}, Sampler).build() == df.DPMSolver(
        order=3
    )


def test_a_schedule_is_given_by_name_by_class_or_with_options():
    def schedule(node):
        network = {"class_path": "UNet", "init_args": {"dim": 8, "dim_mults": [1], "image_size": 4}}
        whole = {"init_args": {"model": network, "noise_schedule": node}}
        return plan(whole, df.GaussianDiffusion).build().schedule

    assert schedule("cosine") == schedule("Cosine") == schedule(Typed("COSINE")) == df.Cosine()
    assert schedule({"class_path": "cosine", "init_args": {"tau": Typed("2")}}) == df.Cosine(
        tau=2.0
    )
    assert schedule(
        {"class_path": "diffusion_framework.Betas", "init_args": {"betas": [0.1, 0.2]}}
    ) == Betas((0.1, 0.2))


def test_options_without_a_class_go_to_the_default():
    assert plan({"class_path": "Churn", "init_args": {"sampler": {}}}, Sampler).build() == Churn()
    changed = plan({"class_path": "Langevin", "init_args": {"sampler": "ddpm"}}, Sampler).build()
    assert changed.sampler == df.DDPM()


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("DDIMM", r"--sampler: expected a sampler, got 'DDIMM'\. Fix: write 'DDIM'\."),
        (
            {"class_path": "DDIM", "init_args": {"etaa": 1}},
            r"--sampler\.etaa: expected an option of DDIM, got 'etaa'\. Fix: write 'eta'\.",
        ),
        (
            {"class_path": "DDIM", "init_args": {"eta": Typed("abc")}},
            r"--sampler\.eta: expected a number, got 'abc'\. Fix: give a number, such as 0\.5\.",
        ),
        ({"class_path": "DDIM", "init_args": {"eta": True}}, "expected a number, got True"),
        ({"class_path": "DDIM", "init_args": {"eta": float("nan")}}, "expected a number, got nan"),
        (
            {"class_path": "DPMSolver", "init_args": {"order": 1.5}},
            "expected a whole number, got 1.5",
        ),
        ({"class_path": "DPMSolver", "init_args": {"order": 10**30}}, "expected a whole number"),
        (
            {"class_path": "DPMSolver", "init_args": {"predict": "epss"}},
            r"expected x0 or eps, got 'epss'\. Fix: write 'eps'\.",
        ),
        ({"class_path": "DDIM", "init_args": {}, "extra": 1}, "got 'extra' beside them"),
        ({"class_path": "DDIM", "init_args": [1]}, "expected options of DDIM"),
        ({"class_path": ["DDIM"]}, "expected the name of a class, got"),
        ({"class_path": "Cosine"}, "expected a sampler, got 'Cosine'"),
        ({"class_path": "DDIM", "init_args": None}, "recorded arguments of DDIM, got null.*model="),
        ({"class_path": "Churn", "init_args": {"sampler": 3}}, "expected a sampler, got 3"),
        ({"class_path": "__main__.Mine"}, "class of the script that saved it.*model="),
        (
            {"eta": 1},
            "the name of a sampler, got options alone. Fix: choose one of AdaptiveDPMSolver, ",
        ),
        (3, "expected a sampler, got 3"),
    ],
)
def test_an_error_is_one_line_with_a_remedy(node, message):
    with pytest.raises(BadPart, match=message) as error:
        plan(node, Sampler, where="--sampler")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_file_names_no_class_of_another_package_unless_trusted(tmp_path, monkeypatch):
    node = {"class_path": "torch.nn.Linear", "init_args": {"in_features": 1, "out_features": 2}}
    with pytest.raises(NotTrusted, match="a class of diffusion_framework, got torch.nn.Linear"):
        plan(node, nn.Module)
    assert plan(node, nn.Module, trust=("torch",)).build().out_features == 2
    assert (
        plan({**node, "class_path": Typed("torch.nn.Linear")}, nn.Module).build().out_features == 2
    )
    (tmp_path / "reexporting.py").write_text("from torch.nn import Linear")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadPart, match="which comes from torch.nn"):
        plan({**node, "class_path": "reexporting.Linear"}, nn.Module, trust=("reexporting",))


def test_a_typed_name_must_be_of_the_right_kind():
    with pytest.raises(BadPart, match="a sampler, got 'os.system'"):
        plan(Typed("os.system"), Sampler)
    with pytest.raises(BadPart, match=r"that can be imported, got no\.such\.Thing"):
        plan(Typed("no.such.Thing"), Sampler)


def test_options_without_annotation_take_only_plain_data():
    class Loose(nn.Module):
        def __init__(self, anything, function: "object" = None):
            super().__init__()
            self.anything = anything

    inner = {"class_path": "os.system", "init_args": {"command": "true"}}
    with pytest.raises(BadPart, match="expected plain data"):
        convert({"a": [inner]}, options(Loose)["anything"].hint, where="x")
    assert convert({"a": [1, None]}, options(Loose)["anything"].hint) == {"a": [1, None]}


def test_options_set_by_the_caller_are_ignored_in_files_and_refused_when_typed():
    given = {
        "image_size": "the network",
        "channels": "the network",
    }
    node = {"class_path": "Digits", "init_args": {"image_size": 4}}
    with pytest.raises(
        BadPart, match="--data.image_size: expected no value, as the network determines it, got '4'"
    ):
        plan(
            {"class_path": "Digits", "init_args": {"image_size": Typed("4")}},
            TrainingDataset,
            where="--data",
            given=given,
        )
    assert plan(node, TrainingDataset, given=given).build(
        image_size=(8, 8), channels=1
    ).image_size == (8, 8)


def test_a_missing_option_is_named_and_described():
    with pytest.raises(
        BadPart, match=r"--data\.folder: expected a value, got none\. Fix: set it \(.*folder"
    ):
        plan(
            "ImageFolder",
            TrainingDataset,
            where="--data",
            given={"image_size": "", "channels": ""},
        )


@pytest.mark.parametrize("word", ["a b", "new\nline", "no", "1e3", "~", "[x", "a: b", "null"])
def test_a_typed_path_is_taken_literally(word):
    assert convert(Typed(word), str | Path) == word if word not in ("null",) else True
    assert convert(Typed(word), str) == word


def test_a_part_is_built_on_the_meta_device():
    network = {"class_path": "UNet", "init_args": {"dim": 8, "dim_mults": [1], "image_size": 4}}
    with torch.device("meta"):
        built = plan({"init_args": {"model": network}}, df.GaussianDiffusion).build()
    assert {p.device.type for p in built.parameters()} == {"meta"}
