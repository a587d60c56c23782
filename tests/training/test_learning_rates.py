"""A learning rate schedule of the user's own."""

import pytest
import torch
from runs import assert_resumes_exactly, trainer

from diffusion_framework.storage.checkpoint import Checkpoint
from diffusion_framework.training import LearningRate, Previews

IMAGES = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def falling(share):
    return 0.5**share


def test_a_function_gives_the_share_of_the_peak():
    rate = LearningRate(falling, warmup_steps=10)
    assert [rate.at(step, 2.0, num_steps=110) for step in (0, 9, 10, 60, 110)] == [
        pytest.approx(value) for value in (0.2, 2.0, 2.0, 2.0 * 0.5**0.5, 1.0)
    ]


def test_a_run_resumes_exactly_and_names_another_function(tmp_path):
    options = {"learning_rate": LearningRate(falling, 2), "previews": Previews(every=0)}
    assert_resumes_exactly(IMAGES, tmp_path, **options)
    stored = Checkpoint.find(tmp_path / "cut").config["trainer"]["learning_rate"]
    name, _, shares = stored["schedule"].partition(": ")
    assert name == f"{__name__}.falling" and shares == "1, 0.840896, 0.707107, 0.594604, 0.5"

    def falling_faster(share):
        return 0.25**share

    falling_faster.__qualname__ = "falling"  # as after an edit of its file
    changed = {**options, "learning_rate": LearningRate(falling_faster, 2), "train_num_steps": 7}
    with pytest.warns(
        UserWarning, match=r"learning_rate.schedule: .*0.840896.* before, .*0.707107.* now"
    ):
        trainer(IMAGES, tmp_path / "cut", **changed).train(resume=True)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("cosin", "among constant, linear, cosine, got 'cosin'. Fix: write 'cosine'"),
        (
            lambda share: -share,
            r"at least 0 from learning_rate.schedule\(0.25\), got -0.2",
        ),
        (lambda share: None, r"from learning_rate.schedule\(0\), got None. Fix: return the share"),
        (lambda share: float("nan"), "got nan"),
    ],
)
def test_what_is_not_a_schedule_is_refused(schedule, message):
    with pytest.raises(ValueError, match=message):
        LearningRate(schedule)
