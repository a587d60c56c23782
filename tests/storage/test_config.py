import copy
import json
import pickle

import pytest
import torch
from toys import tiny_unet

from diffusion_framework import DDIM, Cosine, GaussianDiffusion, Sigmoid
from diffusion_framework.process.schedules import NoiseSchedule
from diffusion_framework.samplers import Sampler
from diffusion_framework.storage.config import RecordsArguments, to_config


@pytest.mark.parametrize(
    "text", [None, "", "{", '{"class_path": "os.system"}', json.dumps(Cosine().to_config())]
)
def test_a_file_without_a_sampler_is_refused_in_one_line(tmp_path, text):
    if text is not None:
        (tmp_path / "sampler.json").write_text(text)
    with pytest.raises(
        ValueError,
        match=r"expected a (JSON file|class of diffusion_framework|sampler), got .* Fix: ",
    ) as error:
        Sampler.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_options_are_saved_and_checked(tmp_path):
    DDIM(eta=0.25).save_pretrained(tmp_path)
    Sigmoid(start=-2.0, tau=0.7).save_pretrained(tmp_path)
    assert Sampler.from_pretrained(tmp_path) == DDIM(eta=0.25)
    assert NoiseSchedule.from_pretrained(tmp_path) == Sigmoid(start=-2.0, tau=0.7)
    with pytest.raises(ValueError, match="Expected eta in"):
        Sampler.from_config({"class_path": "diffusion_framework.DDIM", "init_args": {"eta": 3.0}})
    with pytest.raises(
        ValueError, match="expected an option of DDIM, got 'etta'. Fix: write 'eta'"
    ):
        Sampler.from_config({"class_path": "diffusion_framework.DDIM", "init_args": {"etta": 0.5}})


class Levels(RecordsArguments):
    def __init__(self, levels=None):
        self.levels = levels


@pytest.mark.parametrize(
    "levels", [{8: 2}, {"a": {8: 2}}, [{8: 2}], {("a", 1): 2}, [int], {"norm": len}], ids=repr
)
def test_arguments_that_would_come_back_changed_are_not_recorded(levels):
    """Keys of dictionaries come back as words: {8: 2} would be {"8": 2}."""
    assert to_config(Levels(levels))["init_args"] is None


@pytest.mark.parametrize("levels", [{"8": 2}, [1, (2, 3.5)], None, {"a": [None, True]}], ids=repr)
def test_other_arguments_are_recorded(levels):
    recorded = json.loads(json.dumps(to_config(Levels(levels))["init_args"]["levels"]))
    assert recorded == json.loads(json.dumps(levels))


class Lenient(RecordsArguments, torch.nn.Module):
    def __init__(self, width, **others):
        super().__init__()
        self.others = others


@pytest.mark.parametrize(
    ("make", "fix"),
    [
        (lambda: DDIM(etta=1), r"DDIM: expected one of its options, got 'etta'. Fix: write 'eta'."),
        (lambda: tiny_unet(dim_mult=(1,)), "Fix: write 'dim_mults'."),
        (lambda: Cosine(3, tauu=1), "Fix: write 'tau'."),
        (lambda: GaussianDiffusion(tiny_unet(), objektive="v"), "Fix: write 'objective'."),
    ],
)
def test_a_wrong_keyword_is_answered_with_the_nearest_option(make, fix):
    with pytest.raises(TypeError, match=fix):
        make()


def test_a_constructor_that_takes_any_keyword_is_left_alone():
    assert Lenient(3, depth=2).others == {"depth": 2}
    assert pickle.loads(pickle.dumps(DDIM(eta=0.5))) == copy.deepcopy(DDIM(eta=0.5))
