import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import commands
import numpy as np
import pytest
import torch
from PIL import Image

from diffusion_framework import GaussianDiffusion
from diffusion_framework.cli.messages import one_line_warnings
from diffusion_framework.parts import read_yaml
from diffusion_framework.policies import Policy
from diffusion_framework.storage.checkpoint import Checkpoint, list_checkpoints
from diffusion_framework.storage.config import from_config
from diffusion_framework.trainable import Trainable
from diffusion_framework.training.options import differences

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "--diffusion.model.dim=8",
    "--diffusion.model.dim_mults=[1,2]",
    "--diffusion.model.blocks=1",
    "--diffusion.timesteps=4",
    "--trainer.train_num_steps=2",
    "--trainer.train_batch_size=4",
    "--trainer.save_and_sample_every=1",
    "--trainer.num_samples=4",
    "--trainer.previews.sampling_steps=2",
    "--trainer.loading.num_workers=0",
    "--trainer.logging.progress=false",
]


def train(*words):
    commands.train([*SMALL, *map(str, words)])


def sample(*words):
    commands.sample([str(word) for word in (*words, "--progress=false")])


def evaluate(*words):
    commands.evaluate([str(word) for word in (*words, "--progress=false")])


def script(name, *words, check=True, cwd=ROOT.parent):
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, check=False, timeout=120
    )
    assert not check or done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    results = tmp_path_factory.mktemp("run") / "digits"
    train(f"--trainer.results_folder={results}")
    return results


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures öß \n here"
    folder.mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 17, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.JPG")
    return folder


def test_without_options_the_digits_are_trained(digits_run):
    config = Checkpoint.find(digits_run).config
    assert config["data"]["class_path"].endswith(".Digits")
    assert config["diffusion"]["init_args"]["model"]["init_args"]["image_size"] == 8
    assert config["trainer"]["train_num_steps"] == 2


def test_the_scripts_work_from_anywhere(pictures, tmp_path):
    results = tmp_path / "results"
    small = [word for word in SMALL if "results_folder" not in word]
    flags = ["--diffusion.model.image_size=16", "--trainer.results_folder", results]
    done = script("train.py", "--data.folder", pictures, *small, *flags)
    assert "diffusion sample" in done.stdout
    config = Checkpoint.find(results).config
    assert config["data"]["init_args"]["image_size"] == [16, 16]
    assert config["diffusion"]["init_args"]["noise_schedule"] == "sigmoid"

    output = tmp_path / "out"
    options = [
        "--sampler",
        "DDIM",
        "--sampler.eta",
        "0.5",
        "--steps",
        "3",
        "--seed",
        "1",
        "--output",
        output,
    ]
    script("sample.py", results, "--num_samples", "5", *options)
    images = [Image.open(output / f"{i:05d}.png") for i in range(5)]
    assert all(image.size == (16, 16) and image.mode == "RGB" for image in images)
    assert (output / "grid.png").is_file() and (output / "index.csv").is_file()
    assert len(list(output.iterdir())) == 7


def test_self_conditioning_is_compared_in_a_table(tmp_path):
    done = script(
        "benchmarks/compare_self_conditioning.py",
        "--steps=1",
        "--kinds",
        "nothing",
        "latents",
        f"--output={tmp_path / 'out'}",
    )
    assert [line.split()[1] for line in done.stdout.splitlines()[2:]] == ["nothing", "latents"]
    rows = json.loads((tmp_path / "out" / "losses.json").read_text())["rows"]
    assert [(row["fed back"], row["seed"]) for row in rows] == [("nothing", 0), ("latents", 0)]
    assert (
        script(
            "benchmarks/compare_self_conditioning.py", f"--output={tmp_path / 'out'}", check=False
        ).returncode
        == 2
    )


def test_a_users_network_is_named_by_its_import_path(tmp_path):
    (tmp_path / "mypackage.py").write_text(
        "from torch import nn\n"
        "from diffusion_framework.storage.config import RecordsArguments\n"
        "class MyNetwork(RecordsArguments, nn.Module):\n"
        "    def __init__(self, width: int = 4, channels: int = 1, image_size: int = 8):\n"
        "        super().__init__()\n"
        "        self.channels, self.image_size = channels, image_size\n"
        "        self.layers = nn.Sequential(nn.Conv2d(channels, width, 1), nn.Conv2d(width, "
        "channels, 1))\n"
        "    def forward(self, x, time):\n"
        "        return self.layers(x)\n"
    )
    own = ["--diffusion.model", "mypackage.MyNetwork", "--diffusion.model.width", "6"]
    short = [
        "--trainer.train_num_steps=1",
        "--trainer.logging.progress=false",
        "--trainer.previews.sampling_steps=1",
    ]
    script("train.py", *own, *short, "--trainer.results_folder=run", cwd=tmp_path)
    assert Checkpoint.find(tmp_path / "run").tensors("model")["model.layers.0.weight"].shape == (
        6,
        1,
        1,
        1,
    )
    words = ["run", "--steps=1", "--num_samples=1", "--output=out"]
    refused = script("sample.py", *words, cwd=tmp_path, check=False)
    assert refused.returncode == 2 and not (tmp_path / "out").exists()
    assert_one_line(
        refused.stderr,
        r"got mypackage\.MyNetwork, .*Fix: .*sample\.py run .*--trust mypackage$",
    )
    script("sample.py", *words, "--trust", "mypackage", cwd=tmp_path)
    assert (tmp_path / "out" / "00000.png").is_file()

    more = [
        "--resume",
        "--trainer.results_folder=run",
        "--trainer.train_num_steps=2",
        "--trainer.logging.progress=false",
    ]
    assert script("train.py", *more, cwd=tmp_path, check=False).returncode == 2, (
        "trust is not stored"
    )
    script("train.py", *more, "--trust=mypackage", cwd=tmp_path)
    script("train.py", *more[:2], "--trainer.train_num_steps=3", *more[3:], *own[:2], cwd=tmp_path)
    assert Checkpoint.find(tmp_path / "run").step == 3


def test_resume_is_a_plain_flag(tmp_path):
    results = tmp_path / "run"
    train(f"--trainer.results_folder={results}")
    train(f"--trainer.results_folder={results}", "--resume", "--trainer.train_num_steps=3")
    assert [path.name for path in list_checkpoints(results)] == [
        "step-00000001",
        "step-00000002",
        "step-00000003",
    ]


def test_a_run_resumes_from_a_step_or_starts_from_the_weights_of_another(digits_run, tmp_path):
    run = f"--trainer.results_folder={shutil.copytree(digits_run, tmp_path / 'run')}"
    with pytest.warns(UserWarning, match="after step 1 are now in"):
        train(run, "--resume_from=1")
    assert [path.name for path in list_checkpoints(tmp_path / "run")][-1] == "step-00000002"
    new = f"--trainer.results_folder={tmp_path / 'new'}"
    small = ["--trainer.train_num_steps=1", "--trainer.train_lr=1e-30"]
    train(new, "--init_from", digits_run, *small)
    first, second = (Checkpoint.find(p).tensors("ema") for p in (digits_run, tmp_path / "new"))
    for name, value in second.items():  # the step changes nothing but zeros
        torch.testing.assert_close(value, first[name], rtol=0, atol=1e-20)


def test_the_config_in_a_checkpoint_trains_the_same_model_again(digits_run, tmp_path):
    config = Checkpoint.find(digits_run).path / "config.yaml"
    commands.train(
        [f"--config={config}", f"--trainer.results_folder={tmp_path / 'again'}"],
    )
    first, again = (Checkpoint.find(run).tensors("ema") for run in (digits_run, tmp_path / "again"))
    for key, value in first.items():
        assert torch.equal(value, again[key])


def test_a_run_is_tuned_by_its_own_settings_and_another_loss(digits_run, tmp_path):
    words = [f"--config={digits_run}", f"--init_from={digits_run}", "--diffusion.loss=consistency"]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*initial weights")
        commands.train([*words, f"--trainer.results_folder={tmp_path / 'tuned'}"])
    first, tuned = (Checkpoint.find(p) for p in (digits_run, tmp_path / "tuned"))
    different = list(differences(first.config["diffusion"], tuned.config["diffusion"]))
    assert different == ["loss: simple before, consistency now"]
    sample(tmp_path / "tuned", "--num_samples=1", f"--output={tmp_path / 'a.png'}", "--calls=1")


def test_printed_config_is_complete_commented_and_reads_back(pictures, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        commands.train(
            ["--data.folder", str(pictures), "--trainer.train_lr=3e-4", "--print_config"],
        )
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert (
        "# Peak learning rate of Adam" in text and "# Number of channels at full resolution" in text
    )
    assert "torch.nn.Linear" not in text
    config = read_yaml(text, "printed")
    assert config["trainer"]["train_lr"] == 3e-4
    assert config["diffusion"]["init_args"]["model"]["init_args"]["dim_mults"] == [1, 2, 4]
    assert text.startswith("# auto "), "what was chosen is said"
    (tmp_path / "mine.yaml").write_text(text)
    commands.train(
        [
            f"--config={tmp_path / 'mine.yaml'}",
            *SMALL,
            "--diffusion.model.image_size=8",
            f"--trainer.results_folder={tmp_path / 'run'}",
        ],
    )
    assert Checkpoint.find(tmp_path / "run").config["trainer"]["train_lr"] == 3e-4


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_config_builds_its_model(path, capsys):
    words = [f"--config={path}"]
    if "ImageFolder" in path.read_text():
        words += ["--data.folder=/not/looked/at"]
    if "EpisodeWindows" in path.read_text():
        words += ["--data.folder=/not/looked/at", "--validation.folder=/not/looked/at"]
    with pytest.raises(SystemExit) as end:
        commands.train([*words, "--print_config"])
    assert end.value.code == 0
    config = read_yaml(capsys.readouterr().out, path.name)
    with torch.device("meta"):
        model = from_config(config["diffusion"], Trainable)
    assert isinstance(model, Policy) == path.name.startswith("policy")
    assert config["trainer"]["results_folder"] != "./results", "each config has its own folder"


def test_sampling_does_not_depend_on_the_batch_size(digits_run, tmp_path):
    for name, batch_size in (("a", 64), ("b", 2)):
        sample(
            digits_run,
            "--num_samples=5",
            f"--batch_size={batch_size}",
            "--steps=3",
            f"--output={tmp_path / name}",
        )
    for i in range(5):
        a, b = (
            np.asarray(Image.open(tmp_path / name / f"{i:05d}.png")).astype(int) for name in "ab"
        )
        assert abs(a - b).max() <= 1


def test_levels_and_calls_of_sampling_are_flags(digits_run, tmp_path, monkeypatch):
    seen = []

    def recorded(self, count, *, show_progress, **options):
        seen.append(self.walk(count, **options))
        return torch.zeros(count, 1, 8, 8)

    monkeypatch.setattr(GaussianDiffusion, "sample", recorded)
    flags = ["--num_samples=1", f"--output={tmp_path / 'out'}", "--overwrite"]
    first = ["--first", "80", "--last", "log_snr=2.5", "--spacing=log_snr"]
    sample(digits_run, *flags, *first, "--sampler=Heun", "--calls=7")
    sample(digits_run, *flags, "--sampler=LCM", "--steps=4")
    grid = seen[0].grid
    assert len(grid) == 4 and grid.start.sigma / grid.start.alpha == pytest.approx(80)
    assert grid[-1][0].log_snr == pytest.approx(2.5)
    times = [now.t for now, _ in seen[1].grid]
    assert times == pytest.approx([1.0, 0.76, 0.5, 0.26])


def test_sampling_uses_the_models_own_sampler_by_default(digits_run, tmp_path, monkeypatch):
    seen = []
    original = GaussianDiffusion.sample
    monkeypatch.setattr(
        GaussianDiffusion, "sample", lambda self, *a, **k: seen.append(k) or original(self, *a, **k)
    )
    sample(digits_run, "--num_samples=1", f"--output={tmp_path / 'a'}")
    words = ["--sampler=DDPM", "--sampler.variance=large", "--clip_denoised=dynamic"]
    sample(digits_run, "--num_samples=1", *words, f"--output={tmp_path / 'b'}")
    assert [repr(k["sampler"]) for k in seen] == ["None", "DDPM(variance='large')"]
    assert [k["clip_denoised"] for k in seen] == [True, "dynamic"]


def test_a_copied_checkpoint_does_no_harm(digits_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    newest = list_checkpoints(run)[-1]
    shutil.copytree(newest, newest.with_name(newest.name + "-good"))
    sample(run, "--num_samples=1", "--steps=1", f"--output={tmp_path / 'out'}")
    sample(
        newest.with_name(newest.name + "-good"),
        "--num_samples=1",
        "--steps=1",
        f"--output={tmp_path / 'out2'}",
    )
    assert Checkpoint.find(run).path == newest


def test_images_are_overwritten_only_on_request(digits_run, tmp_path):
    sample(digits_run, "--num_samples=2", "--steps=1", f"--output={tmp_path}")
    before = (tmp_path / "00000.png").stat().st_mtime_ns
    with pytest.raises(SystemExit):
        sample(digits_run, "--num_samples=2", "--steps=1", "--seed=5", f"--output={tmp_path}")
    assert (tmp_path / "00000.png").stat().st_mtime_ns == before
    sample(
        digits_run,
        "--num_samples=2",
        "--steps=1",
        "--seed=5",
        f"--output={tmp_path}",
        "--overwrite",
    )
    assert (tmp_path / "00000.png").stat().st_mtime_ns != before


BAD_TRAINING = [
    (["--data.folder=/no/such/folder"], "Expected an existing folder, got '/no/such/folder'"),
    (["--data.folder={empty}"], "got 0 images"),
    (
        ["--data.folder={one}"],
        "at least a batch of 4 samples, got 1 sample in .*one. Fix: add samples, or",
    ),
    (["--trainer.train_lr=abc"], "--trainer.train_lr: expected a number, got 'abc'"),
    (["--trainer.train_lr=.nan"], "train_lr.*got nan"),
    (["--trainer.train_lr=-1"], "train_lr.*got -1"),
    (["--trainer.train_num_steps=0"], "train_num_steps of at least 1, got 0"),
    (
        ["--trainer.train_num_steps=1.5"],
        "--trainer.train_num_steps: expected a whole number, got 1.5",
    ),
    (
        ["--trainer.train_num_steps=true"],
        "--trainer.train_num_steps: expected a whole number, got True",
    ),
    (["--seed=3"], "diffusion train, got '--seed'. Fix: write '--trainer.seed'"),
    (["--steps", "9"], "got '--steps'. Fix: write '--trainer.train_num_steps'"),
    (["--batch-size=9"], "got '--batch_size'. Fix: write '--trainer.train_batch_size'"),
    (["--lr=1"], "got '--lr'. Fix: write '--trainer.train_lr'"),
    (["--folder=x"], "got '--folder'. Fix: write '--data.folder'"),
    (["--image_size=9"], "got '--image_size'. Fix: write '--diffusion.model.image_size'"),
    (["--resum"], "got '--resum'. Fix: write '--resume'"),
    (
        ["{one}", "--validation={one}"],
        "the name of a folder. Fix: write --validation.folder /.*one",
    ),
    (["--data={one}"], "the name of a folder. Fix: write --data.folder /.*one"),
    (["{one}", "--validation.folder={empty}"], "got 0 images among 0 files "),
    (["--trainer.nonsense=3"], "--trainer.nonsense: expected an option of Trainer, got 'nonsense'"),
    (["--config=no/such.yaml"], "--config: expected an existing file, got no/such.yaml"),
    (["--resume"], "Expected a run to resume in .*, got no checkpoint. Fix: .*auto"),
    (
        ["--resume=true", "--data=Digits"],
        "Expected a run to resume in results/digits, got no checkpoint",
    ),
    (["--resume", "newest"], "Expected an existing folder, got '.*newest'"),
    (["--config={broken}"], "broken.yaml: expected plain YAML, got an error"),
    (["--config={unknown}"], "nonsense"),
    (["--trainer.loading.cache=no"], "cache: expected auto or memory or disk or off, got 'no'"),
    (
        ["--trainer.loading.cache=disk"],
        "loading.cache='disk', got .*Digits.* Fix: set loading.cache to auto or off",
    ),
    (["--diffusion.model.checkpointed_levels=[9]"], r"checkpointed_levels in .*, got \[9\]"),
    (["--diffusion.noise_schedule=foo"], "expected a noise schedule, got 'foo'.*Sigmoid"),
    (
        ["--diffusion.noise_schedule=Cosine", "--diffusion.noise_schedule.end=2"],
        "^error: Expected 0 <= start < end.*end=2",
    ),
    (["--diffusion.loss=hybrid", "--diffusion.times=steps"], "set its learned_variance to true"),
    (["--diffusion.loss=bound"], "set its learned_variance to true"),
    (
        ["--diffusion.noise_schedule=flow", "--diffusion.objective=eps"],
        "use the objective v, x0 or velocity",
    ),
    (
        ["--diffusion.condition_dropout=0.1"],
        "Expected a network with conditions for condition_dropout=0.1.*set its num_classes",
    ),
    (["--diffusion.objective=foo"], "expected an objective, got 'foo'.*Eps"),
    (["--diffusion.model=NoSuchNet"], "expected a network, got 'NoSuchNet'.*UNet"),
    (["--diffusion.model.image_size=9"], r"divisible by 2.*got \(9, 9\)"),
    (["--data.image_size=9"], "or change --diffusion.model.image_size"),
    (["--data.labels=true"], "Expected no conditions, got labels"),
    (["--diffusion.model.num_classes=10"], "Expected a value for labels, got none"),
    (["--trainer.results_folder={run}"], "already holds a run. Fix: resume it"),
    (
        ["--trainer.results_folder={run}", "--resume", "--diffusion.objective=eps"],
        "objective: v before, eps now",
    ),
]


@pytest.mark.parametrize(
    ("words", "message"), BAD_TRAINING, ids=[" ".join(words) for words, _ in BAD_TRAINING]
)
def test_bad_training_input_is_one_line_and_creates_nothing(
    words, message, digits_run, tmp_path, capsys, monkeypatch
):
    inputs = tmp_path / "inputs"
    (inputs / "empty").mkdir(parents=True)
    (inputs / "one").mkdir()
    Image.new("RGB", (9, 9)).save(inputs / "one" / "one.png")
    (inputs / "broken.yaml").write_text("trainer: [unclosed")
    (inputs / "unknown.yaml").write_text("data: {class_path: Digits}\ntrainer: {nonsense: 1}")
    places = {name: inputs / name for name in ("empty", "one")}
    places |= {
        "broken": inputs / "broken.yaml",
        "unknown": inputs / "unknown.yaml",
        "run": digits_run,
    }
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    before = sorted((path, path.stat().st_mtime_ns) for path in digits_run.rglob("*"))
    with pytest.raises(SystemExit) as end:
        train(*(word.format(**places) for word in words))
    assert_one_line(capsys.readouterr().err, message)
    assert end.value.code == 2
    assert not list(work.iterdir())
    assert before == sorted((path, path.stat().st_mtime_ns) for path in digits_run.rglob("*"))


BAD_SAMPLING = [
    (["/no/such/run"], "/no/such/run: .* got no checkpoint"),
    (["{run}", "--sampler=Foo"], "expected a sampler, got 'Foo'"),
    (["{run}", "--sampler=DDIM", "--sampler.eta=2"], r"^error: Expected eta in \[0, 1\].*got 2"),
    (["{run}", "--sampler.variance=large"], "variance"),
    (["{run}", "--steps=0"], "steps from 1 to 100000, got 0"),
    (["{run}", "--steps=many"], "'10,15,20' or 'ddim50', got 'many'"),
    (["{run}", "--spacing=even"], "spacing"),
    (["{run}", "--steps=5", "--calls=5"], "one of steps, calls and grid, got steps and calls"),
    (["{run}", "--first=loud"], "first as sigma / alpha, or as 'sigma=80', .*got 'loud'"),
    (["{run}", "--last=1e9"], "last with noise and on the schedule, .*got 1000000000"),
    (["{run}", "--last", "-9"], "last with noise"),
    (["{run}", "--num_samples=0"], "--num_samples: expected at least 1, got 0"),
    (["{run}", "--num_samples=many"], "num_samples.*many"),
    (["{run}", "--labels=3"], "trained without labels"),
    (["{run}", "--labels=three"], "--labels: expected .*trained without labels"),
    (["{run}", "--noise_device=tpu9"], "--noise_device: expected a usable device, got 'tpu9'"),
    (
        ["{run}", "--guidance=2"],
        "Expected conditions trained with dropout, got none.*condition_dropout",
    ),
    (["{run}", "--guidance=Intervall"], "--guidance: expected a kind of .*Fix: write 'Interval'"),
    (["{run}", "--guidance.scal=2"], "--guidance.scal: .* ClassifierFree.*Fix: write 'scale'"),
    (["{run}", "--guidance=Interval", "--guidance.low=3", "--guidance.high=1"], "low < high"),
    (["{run}", "--guidance=APG", "--guidance.inner=CFGZero", "--guidance.scale=2"], "got both"),
    (["{run}", "--guidance.negative.labels=2"], "conditions none, got 'labels'. Fix: leave it"),
    (["{run}", "--guidance=PerCondition"], "--guidance.scales: expected a value"),
    (["{run}", "--guidance=Autoguidance"], "--guidance.run: expected a value, got none"),
    (["{run}", "--guidance=Autoguidance", "--guidance.run=nowhere"], "nowhere: expected a results"),
    (["{run}", "--guidance=ClassifierGuidance"], "Expected a function .* Fix: in Python"),
    (["{run}", "--device=cuda:99"], "--device: expected a usable device, got 'cuda:99'"),
    (["{run}", "--nonsense=1"], "Expected an option of diffusion sample, got '--nonsense'"),
    (["{run}", "--order=1"], "got '--order'. Fix: write '--sampler.order'"),
    (["{run}", "--output={run}"], "--output: expected a folder of its own .*, got .*digits, where"),
    (
        ["{run}", "--output={run}/samples", "--overwrite"],
        "of its own .*, got .*samples, where a run",
    ),
    (["{run}", "--stepz=1"], "got '--stepz'. Fix: write '--steps'"),
    (
        ["{run}", "--sampler.ordr=1"],
        "--sampler.ordr: expected an option of UniPC, got 'ordr'. Fix: write 'order'",
    ),
]


@pytest.mark.parametrize(
    ("words", "message"), BAD_SAMPLING, ids=[" ".join(words) for words, _ in BAD_SAMPLING]
)
def test_bad_sampling_input_is_one_line_and_creates_nothing(
    words, message, digits_run, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        sample(*(word.format(run=digits_run) for word in words))
    assert end.value.code == 2
    assert_one_line(capsys.readouterr().err, message)
    assert not list(tmp_path.iterdir())


def assert_one_line(text, message):
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    assert len(lines[0]) < 400, text
    assert re.search(message, lines[0]), text


def test_a_warning_of_a_command_is_one_line_without_code():
    before = warnings.formatwarning
    with one_line_warnings():
        shown = warnings.formatwarning("two\nlines", UserWarning, "place.py", 3, "code()")
    assert shown == "warning: two lines\n" and warnings.formatwarning is before


def test_likelihood_writes_a_table_for_each_run_and_a_picture(digits_run, tmp_path, capsys):
    flags = [
        "--data=Digits",
        "--data.split=test",
        "--likelihood",
        "--num_images=5",
        "--tolerance=0.1",
    ]
    evaluate(digits_run, *flags, "--batch_size=2", "--output", tmp_path / "a")
    header, row, done = capsys.readouterr().out.splitlines()
    assert "flow" in header and row.startswith("digits ") and str(tmp_path / "a") in done
    evaluate(digits_run, *flags, "--output", tmp_path / "b")
    tables = [(tmp_path / name / "digits.csv").read_text().splitlines() for name in "ab"]
    assert [line.split(",")[0] for line in tables[0]] == [
        "term",
        "prior",
        *["kl"] * 3,
        "reconstruction",
        "total",
    ]
    totals = [float(table[-1].split(",")[3]) for table in tables]
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)  # independent of the batch size
    assert (tmp_path / "a" / "bounds.png").stat().st_size > 1000


def test_quality_compares_samplers_and_files_with_real_images(
    digits_run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = ["--data=Digits", "--data.split=test", "--data.labels=true"]
    training = ["--training_data=Digits", "--training_data.split=train"]
    flags = [*data, *training, "--features.steps=2", "--quality", "--num_samples=20"]
    samplers = ["--samplers=DDIM,UniPC", "--calls=2,3", "--keep_samples"]
    evaluate(digits_run, *flags, *samplers, "--output", tmp_path / "out")
    table = capsys.readouterr().out.splitlines()
    names = [f"digits {sampler} {calls}" for sampler in ("DDIM", "UniPC") for calls in (2, 3)]
    rows = json.loads((tmp_path / "out" / "quality.json").read_text())["results"]
    assert [row["name"] for row in rows] == [*names, "training images", "held-out images"]
    assert [line[: len(name)] for line, name in zip(table[1:], names, strict=False)] == names
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".png", ".npz"}
    # Without a word, each run is measured with the sampler that draws from it.
    evaluate(digits_run, *flags, "--output", tmp_path / "own")
    assert "\ndigits Auto 20 " in capsys.readouterr().out
    drawn = GaussianDiffusion.from_pretrained(digits_run).walk(1)
    assert type(drawn.sampler).__name__ == "Auto" and drawn.sampler.default_calls == 20
    # The written samples and statistics give the same distance again.
    samples = tmp_path / "out" / "digits-UniPC-3.npz"
    reference = ["--reference", tmp_path / "out" / "reference.npz"]
    again = ["--quality", *reference, *training, "--features.steps=2", "--num_samples=20"]
    evaluate(samples, *again, "--output", tmp_path / "again")
    (first, *_) = json.loads((tmp_path / "again" / "quality.json").read_text())["results"]
    assert first["frechet"]["value"] == pytest.approx(rows[3]["frechet"]["value"], rel=1e-6)
    assert first["kernel"] is None


@pytest.mark.parametrize("flag", ["--trainer.results_folder=", "--trainer.results_folder= "])
def test_an_empty_value_is_refused(flag, capsys):
    """Such as that of an unset variable; the folder would be the current one."""
    with pytest.raises(SystemExit) as ended:
        train(flag)
    assert ended.value.code == 2
    assert_one_line(capsys.readouterr().err, "--trainer.results_folder: expected a value, got an")


def test_quality_refuses_images_of_other_classes(pictures, tmp_path, capsys):
    for folder, names in (("train", "ab"), ("test", "bc")):
        for name in names:
            shutil.copytree(pictures, tmp_path / folder / name)
    labels = ["--data=ImageFolder", "--data.labels=true", "--diffusion.model.num_classes=2"]
    train(*labels, f"--data.folder={tmp_path / 'train'}", f"--trainer.results_folder={tmp_path}/r")
    capsys.readouterr()
    data = [f"--data.folder={tmp_path / 'test'}", "--data.labels=true"]
    with pytest.raises(SystemExit):
        evaluate(tmp_path / "r", "--quality", *data, "--output", tmp_path / "new")
    assert "--data: expected the classes of r, a, b, got b, c. Fix: " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "add --quality or --likelihood"),
        (["--quality", "--num_samples=5"], "--num_samples: expected at least 10, got 5"),
        (["--quality", "--features=owm"], "write .Own."),
        (["--quality", "--samplers=DDIM,DDDIM"], "write .DDIM."),
        (["--quality", "--features=onnx", "--features.path=no.onnx"], "existing file, got no.onnx"),
        (["--quality", "--reference=no.npz"], "no.npz"),
        (["--likelihood", "--num_images=0"], "--num_images: expected at least 1"),
        (["--likelihood", "--variance=learned_range"], "two outputs per channel"),
        (["--likelihood", "--variance=medium"], "medium"),
        (["--likelihood", "--steps=ddim3"], "whole stride through"),
        (["--likelihood", "--data.folder=nowhere"], "nowhere"),
    ],
)
def test_bad_evaluation_input_is_one_line_and_creates_nothing(
    words, message, digits_run, tmp_path, capsys
):
    data = [] if any("data.folder" in word for word in words) else ["--data=Digits"]
    with pytest.raises(SystemExit) as ended:
        evaluate(digits_run, *data, *words, "--output", tmp_path / "new")
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.startswith("error: ") and error.count("\n") == 1, (
        error
    )
    assert not (tmp_path / "new").exists()


def test_tables_are_overwritten_only_on_request(digits_run, tmp_path, capsys):
    (tmp_path / "digits.csv").write_text("mine")
    with pytest.raises(SystemExit):
        evaluate(digits_run, "--data=Digits", "--likelihood", "--output", tmp_path)
    assert "add --overwrite" in capsys.readouterr().err
    assert (tmp_path / "digits.csv").read_text() == "mine"


def test_a_broken_image_ends_training_with_one_line(pictures, tmp_path):
    (pictures / "7.jpg").write_bytes((pictures / "0.JPG").read_bytes()[:300])
    words = [
        *SMALL[:-2],
        "--trainer.loading.num_workers=1",
        "--trainer.logging.progress=false",
        "--diffusion.model.image_size=16",
    ]
    words += [
        "--trainer.train_num_steps=20",
        "--trainer.results_folder",
        tmp_path / "run",
        "--data.folder",
        pictures,
    ]
    done = script("train.py", *words, check=False)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "7.jpg" in line and "set --data.broken skip." in line
    done = script(
        "train.py", *words, "--data.broken=skip", "--trainer.results_folder", tmp_path / "skipping"
    )
    assert "7.jpg" in done.stderr, "a skipped image is named"


def test_a_pickle_in_place_of_weights_is_refused_unread(digits_run, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    (list_checkpoints(run)[-1] / "ema.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(SystemExit) as end:
        sample(run, f"--output={tmp_path / 'out'}")
    assert end.value.code == 2
    assert_one_line(capsys.readouterr().err, "damage: ")
    assert not (tmp_path / "executed").exists() and not (tmp_path / "out").exists()


def test_labels_are_taken_in_turn(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    classes = [
        "--data.labels=true",
        "--diffusion.model.num_classes=10",
        "--diffusion.condition_dropout=0.2",
    ]
    train(f"--trainer.results_folder={run}", *classes)
    seen = []
    original = GaussianDiffusion.sample
    monkeypatch.setattr(
        GaussianDiffusion, "sample", lambda self, *a, **k: seen.append(k) or original(self, *a, **k)
    )
    sample(
        run,
        "--num_samples=5",
        "--batch_size=2",
        "--labels=3,5",
        "--guidance=2",
        f"--output={tmp_path / 'a'}",
    )
    assert [k["labels"].tolist() for k in seen] == [[3, 5], [3, 5], [3]] and seen[0][
        "guidance"
    ] == 2
    sample(run, "--num_samples=12", f"--output={tmp_path / 'b'}")
    assert seen[-1]["labels"].tolist() == [*range(10), 0, 1], "balanced by default"
    for words, message in (
        (["--labels=3,10"], "--labels: expected classes from 0 to 9, got 10"),
        (["--labels=three"], "--labels: expected the name or number of a class, got 'three'"),
    ):
        capsys.readouterr()
        with pytest.raises(SystemExit):
            sample(run, *words, f"--output={tmp_path / 'c'}")
        assert_one_line(capsys.readouterr().err, message)
    assert not (tmp_path / "c").exists()
