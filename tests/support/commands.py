"""The commands of the program `diffusion`, called within a test."""

from functools import partial

from diffusion_framework.cli.program import run_command

train = partial(run_command, "train")
sample = partial(run_command, "sample")
evaluate = partial(run_command, "evaluate")
rollout = partial(run_command, "rollout")
export = partial(run_command, "export")
info = partial(run_command, "info")
runs = partial(run_command, "runs")
