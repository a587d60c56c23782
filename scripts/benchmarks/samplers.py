"""Compares the default sampler with the schedulers of diffusers, by number of network calls.

    python scripts/benchmarks/samplers.py samplers.json --runs results/digits results/photos

The error is the RMS distance to the exact end of the probability flow ODE, from the same noise. The
denoisers are of three kinds: Gaussian mixtures, where it is exact; the same with a smooth error as
a network may have; and trained runs, whose reference takes 1,000 network calls.

Ours is `Auto`, whose choice was fixed on other seeds. Of diffusers, all schedulers with all their
spacings are run, and the best setting is chosen afterwards, for each row and number of calls; next
to it stands the best of the usual defaults. The comparison treats diffusers fairly: schedules that
it does not have become 1,000 trained betas at the same levels, the denoiser is called at the exact
level, and a scheduler that ends above sigma = 0 goes there with its last noise, at no call.

`pip install -e '.[benchmark]'` installs diffusers. Mixtures take 20 minutes on one core, and a run
of 28 x 28 pixels another 20. The file gets a row for each schedule or run when it is finished; a
restart goes on after the last. A picture is written beside it. k-diffusion is not measured, because
it needs a NumPy older than that of this project.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from environments import Results
from solver_peers import DEFAULTS, peers
from solver_problems import (
    SCHEDULES,
    WITH_ERRORS,
    MixtureProblem,
    Problem,
    RunProblem,
    mixtures,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CALLS = (5, 8, 10, 15, 20, 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="JSON file of the results")
    parser.add_argument("--runs", nargs="*", default=[], help="results folders of trained runs")
    parser.add_argument("--seed", type=int, default=1, help="0 is that of the choice")
    parser.add_argument("--samples", type=int, default=64, help="samples of each problem")
    parser.add_argument("--reference", type=int, default=1000, help="calls of a run's reference")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(args.file)
    for name, problems in _groups(args):
        if name not in results.rows:
            results.add(name, measure(list(problems)))
            print(line(name, results.rows[name]), flush=True)
    print("\n" + "\n".join(summary(results.rows)))
    draw(results.rows, args.file.with_suffix(".png"))


def _groups(args: argparse.Namespace) -> Iterator[tuple[str, Iterator[Problem]]]:
    """Yields the name of each row with its problems, which are made when needed."""
    for folder in args.runs:
        made = (RunProblem(folder, args.seed, args.samples, args.reference) for _ in range(1))
        yield f"trained networks: {Path(folder).resolve().name}", made
    for error in (0.0, 0.01, 0.05):
        kind = "mixtures, exact" if error == 0 else f"mixtures, error {error:.0%}"
        for schedule in SCHEDULES if error == 0 else WITH_ERRORS:
            yield (
                f"{kind}: {schedule}",
                (
                    MixtureProblem(mixture, schedule, error, args.seed, args.samples)
                    for mixture in mixtures(args.seed)
                ),
            )


def measure(problems: Sequence[Problem]) -> dict[str, Any]:
    """Returns geometric means over the problems: of ours, of the best peer, of the best default."""
    row: dict[str, Any] = {}
    for calls in CALLS:
        errors = {peer.name: _error(problems, peer.run, calls) for peer in peers()}
        best = min(errors, key=errors.__getitem__)
        usual = min(DEFAULTS, key=errors.__getitem__)
        row[str(calls)] = {
            "auto": _error(problems, lambda problem, calls: problem.auto(calls), calls),
            "best": {"name": best, "error": errors[best]},
            "default": {"name": usual, "error": errors[usual]},
        }
    return row


def _error(problems: Sequence[Problem], run: Any, calls: int) -> float:
    logs = []
    for problem in problems:
        error = (run(problem, calls) - problem.end).square().mean().sqrt().item()
        logs.append(math.log(error) if 0 < error < 1e9 else math.log(1e9))
    return math.exp(statistics.fmean(logs))


def line(name: str, row: dict[str, Any]) -> str:
    """Returns one line of a table: the ratio of our error to that of the best peer, by calls."""
    ratios = (
        f"{calls}: {cell['auto'] / cell['best']['error']:.2f} of {cell['best']['name']}"
        for calls, cell in row.items()
    )
    return f"{name:42} {'; '.join(ratios)}"


def summary(rows: dict[str, Any]) -> Iterator[str]:
    """Yields the mean and the worst ratio of each kind, by calls."""
    for kind in dict.fromkeys(name.split(":")[0] for name in rows):
        yield f"{kind:22}{'to the best setting':>22}{'worst row':>12}{'to the best default':>22}"
        for calls in map(str, CALLS):
            cells = {n: row[calls] for n, row in rows.items() if n.startswith(f"{kind}:")}
            best = {n: cell["auto"] / cell["best"]["error"] for n, cell in cells.items()}
            usual = [cell["auto"] / cell["default"]["error"] for cell in cells.values()]
            worst = max(best, key=best.__getitem__)
            yield (
                f"{calls:>16} calls{statistics.geometric_mean(best.values()):22.2f}"
                f"{best[worst]:12.2f}{statistics.geometric_mean(usual):22.2f}"
                f"   worst: {worst.split(': ')[1]}"
            )


def draw(rows: dict[str, Any], path: Path) -> None:
    """Writes a picture of the errors by number of calls, one panel for each kind."""
    kinds = list(dict.fromkeys(name.split(":")[0] for name in rows))
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.2 * len(kinds), 3.8), squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        chosen = [row for name, row in rows.items() if name.startswith(f"{kind}:")]
        curves = {
            "best default of diffusers": lambda cell: cell["default"]["error"],
            "best setting of diffusers": lambda cell: cell["best"]["error"],
            "ours, auto": lambda cell: cell["auto"],
        }
        for (label, read), colour in zip(
            curves.items(), ("tab:gray", "tab:red", "tab:blue"), strict=True
        ):
            errors = [statistics.geometric_mean(read(row[str(c)]) for row in chosen) for c in CALLS]
            axis.plot(CALLS, errors, "o-", color=colour, label=label)
        axis.set(xscale="log", yscale="log", title=kind, xlabel="network calls")
        axis.set_xticks(CALLS, [str(calls) for calls in CALLS])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("RMS distance to the exact end")
    axes[0, 0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
