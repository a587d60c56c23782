"""Callbacks see the run, ask for checkpoints and its end, and may fail without losing a step."""

import csv

import faulty
import pytest
import soak
import torch
from runs import assert_same_run, trainer

from diffusion_framework.cli.commands import COMMANDS
from diffusion_framework.cli.common import run as run_command
from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints, step_of
from diffusion_framework.training import Callback, Previews, Trainer, ValidationOptions

IMAGES = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
QUICK = {"previews": Previews(every=0)}


class Notes(Callback):
    def __init__(self, **at):
        self.seen, self.runs, self.at = [], [], at

    def on_start(self, run):
        self.seen.append(f"start {run.step}")

    def on_step(self, run):
        self.seen.append(run.step)
        self.runs.append(run)
        for ask, step in self.at.items():
            if run.step == step:
                {"save": run.save, "stop": run.stop}[ask]()

    def on_end(self, run):
        self.seen.append(f"end {run.step}")


def steps(folder):
    return [step_of(path) for path in list_checkpoints(folder)]


def test_callbacks_see_every_step_and_change_no_result(tmp_path):
    notes, options = Notes(save=2), {**QUICK, "validation": IMAGES[:4]}
    run = trainer(IMAGES, tmp_path / "seen", callbacks=[notes], **options)
    run.train()
    assert notes.seen == ["start 0", 1, 2, 3, 4, 5, 6, "end 6"]
    assert steps(tmp_path / "seen") == [2, 3, 6], "one of them was asked for"
    for seen in notes.runs:
        assert (seen.num_steps, seen.is_main_process, seen.learning_rate) == (6, True, 1e-4)
        assert seen.model is run.model and seen.averaged is run.averaged
        assert seen.results_folder == tmp_path / "seen" and seen.loss.ndim == 0
        assert ("validation_loss" in seen.metrics) == (seen.step > 3), "those before this step"
        assert "\n" not in repr(seen)
    with pytest.raises(AttributeError):
        notes.runs[0].step = 3
    losses = {int(row["step"]): row for row in csv.DictReader((tmp_path / "seen/log.csv").open())}
    mean = (notes.runs[0].loss + notes.runs[1].loss) / 2
    assert float(losses[2]["loss"]) == pytest.approx(float(mean), rel=1e-4)
    trainer(IMAGES, tmp_path / "alone", **options).train()
    assert_same_run(tmp_path / "seen", tmp_path / "alone")


def test_a_run_that_a_callback_stops_ends_as_usual_and_resumes(tmp_path):
    notes = Notes(stop=4)
    trainer(IMAGES, tmp_path / "cut", callbacks=[notes]).train()
    assert notes.seen[-2:] == [4, "end 4"] and steps(tmp_path / "cut") == [3, 4]
    assert (tmp_path / "cut" / "samples" / "step-00000004.png").exists()
    again = Notes()
    options = {"validation": IMAGES[:4], "validation_options": ValidationOptions(every=1)}
    trainer(IMAGES, tmp_path / "cut", callbacks=[again], **options).train(resume=True)
    assert again.seen == ["start 4", 5, 6, "end 6"]
    assert not again.runs[0].metrics and again.runs[1].metrics


@pytest.mark.parametrize("method", ["on_start", "on_step", "on_end"])
def test_an_error_of_a_callback_loses_no_step(tmp_path, method):
    class Failing(Notes):
        def fail(self, run):
            if method != "on_step" or run.step == 2:
                raise RuntimeError("mine")

    setattr(Failing, method, Failing.fail)
    run = trainer(IMAGES, tmp_path, callbacks=[Failing()], **QUICK)
    with pytest.raises(RuntimeError, match="mine"):
        run.train()
    assert steps(tmp_path) == {"on_start": [], "on_step": [2], "on_end": [3, 6]}[method]


@pytest.mark.parametrize("fails", [False, True])
def test_what_one_process_asks_for_or_fails_at_ends_all_of_them(tmp_path, fails):
    errors, callback = tmp_path / "errors", faulty.OnOneProcess(step=2, fails=fails)
    run = soak.start(tmp_path / "run", 2, errors=errors, callbacks=[callback])
    assert soak.end(run) == ([1, 1] if fails else [0, 0])
    assert steps(tmp_path / "run") == [2]
    assert ("RuntimeError: mine" in errors.read_text()) == fails


class OnlyMethods:
    """Not derived from Callback."""

    def on_start(self, run): ...
    def on_step(self, run): ...
    def on_end(self, run): ...


def test_three_methods_are_a_callback_and_less_is_refused(tmp_path):
    trainer(IMAGES, tmp_path / "run", callbacks=[OnlyMethods()])

    class Two:
        def on_start(self, run): ...
        def on_step(self, run): ...

    for wrong, fix in (
        ([Two()], "derive its class from training.Callback"),
        ([Notes], r"make one by Notes\(...\)"),
        (Notes(), r"write callbacks=\[...\]"),
    ):
        with pytest.raises(ValueError, match=f"Expected callbacks .*Fix: {fix}"):
            trainer(IMAGES, tmp_path / "run", callbacks=wrong)


def test_the_command_line_names_callbacks_and_a_file_only_those_of_trusted_packages(
    capsys, tmp_path
):
    plans = []

    def command(*, trainer, trust=()):
        plans.append(trainer)

    def run(*words):
        run_command(command, words, "train", COMMANDS["train"])
        return [one.build() for one in plans.pop().options["callbacks"]]

    command.__annotations__ = {"trainer": Trainer, "trust": tuple[str, ...]}
    name = f"{__name__}.OnlyMethods"
    assert [*map(type, run("--trainer.callbacks", f"{name},{name}"))] == [OnlyMethods] * 2
    (tmp_path / "file.yaml").write_text(f"trainer: {{callbacks: [{name}]}}")
    words = ["--config", str(tmp_path / "file.yaml")]
    with pytest.raises(SystemExit):
        run(*words)
    assert "--trust" in capsys.readouterr().err
    assert isinstance(run(*words, "--trust", __name__.split(".")[0])[0], Callback)


def test_a_checkpoint_is_saved_between_calls_of_train(tmp_path):
    run = trainer(IMAGES, tmp_path, **QUICK)
    with pytest.raises(ValueError, match="a run that paused, got 'one at step 0'. Fix: train"):
        run.save()
    run.train()
    before = list_checkpoints(tmp_path)[-1].stat().st_mtime_ns
    run.save()
    assert list_checkpoints(tmp_path)[-1].stat().st_mtime_ns == before, "it was saved already"
    run.tasks.saved = 0
    run.save()
    checkpoint = Checkpoint.find(tmp_path)
    checkpoint.verify()
    assert list_checkpoints(tmp_path)[-1].stat().st_mtime_ns > before and checkpoint.step == 6
    trainer(IMAGES, tmp_path, train_num_steps=7, **QUICK).train(resume=True)


def test_inside_a_callback_the_trainer_itself_does_not_save(tmp_path):
    class Saving(Notes):
        def on_step(self, run):
            whole.save()

    whole = trainer(IMAGES, tmp_path, callbacks=[Saving()], **QUICK)
    with pytest.raises(ValueError, match=r"or use run.save\(\)"):
        whole.train()
