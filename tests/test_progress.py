"""Progress of long work, in terminals and in log files."""

import io
import itertools
import sys

import pytest

from diffusion_framework import progress as module
from diffusion_framework.progress import ProgressBar, progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def lines_of(clock, monkeypatch, steps, seconds, shown=True):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for _ in progress(range(steps), steps, "sampling", shown=shown):
        clock[0] += seconds
    return sys.stderr.getvalue()


def test_a_log_file_gets_lines_at_growing_intervals(clock, monkeypatch):
    text = lines_of(clock, monkeypatch, 1000, 1.0)
    lines = text.splitlines()
    assert "\r" not in text and lines[0] == "sampling: step 2 of 1000, 0:16:38 left"
    steps = [int(line.split()[2]) for line in lines]
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    assert gaps == sorted(gaps) and len(lines) < 20


def test_short_work_and_hidden_work_print_nothing(clock, monkeypatch):
    assert not lines_of(clock, monkeypatch, 10, 0.1)
    assert not lines_of(clock, monkeypatch, 1000, 1.0, shown=False)


def test_a_bar_counts_the_steps_of_several_functions(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    bar = ProgressBar(100, "flow", True)
    for share in (0.1, 0.5, 0.5, 1.0):
        clock[0] += 10
        bar.update_to(share)
    steps = [int(line.split()[2]) for line in sys.stderr.getvalue().splitlines()]
    assert steps[0] == 1 and steps == sorted(set(steps)) and steps[-1] <= 100
