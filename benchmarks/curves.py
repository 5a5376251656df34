"""Training curves of finished runs, a run a panel: its loss, and its validation figures in nats per token.

    python benchmarks/curves.py RUN [RUN ...] [--name curves]

Each RUN is a folder that `guided-dlm train` wrote; beside the picture stands a table of its last figures. The loss is
nats per token of a noisy batch, prompts and padding as the objective has them, so it may lie below or above the bound.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from _report import RESULTS, publish


def series(log: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Epochs and values of one figure."""
    found = [(entry["epoch"], float(entry[name])) for entry in log if name in entry and "epoch" in entry]
    return [epoch for epoch, _ in found], [value for _, value in found]


def draw_run(axes: Any, run: Path) -> None:
    """One run: everything that was logged of it."""
    kept = json.loads((run / "training.json").read_text())
    log = kept["log"]
    axes.plot(*series(log, "loss"), color="lightgrey", lw=1, label="loss")
    figures = sorted({name for entry in log for name in entry if name.startswith("eval_")} & kept["figures"].keys())
    for name in figures:
        axes.plot(*series(log, name), marker=".", label=name.removeprefix("eval_").replace("_", " "))
    axes.set(title=f"{run.name}, {kept['figures']['seconds'] / 60:.0f} min", xlabel="epochs", ylabel="nats per token")
    lows = [value for name in figures for value in series(log, name)[1]] + series(log, "loss")[1]
    highest = sorted(lows)[int(0.97 * (len(lows) - 1))]
    axes.set_ylim(0.95 * min(lows), 1.05 * highest)
    axes.legend(fontsize=7)


def last(run: Path) -> dict[str, Any]:
    """Epochs, minutes and the last validation figures of one run."""
    kept, recipe = (json.loads((run / name).read_text()) for name in ("training.json", "recipe.json"))
    figures = {name: f"{value:.3f}" for name, value in kept["figures"].items() if name.startswith("eval_")}
    return {"run": run.name, "epochs": recipe["epochs"], "minutes": round(kept["figures"]["seconds"] / 60), **figures}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--name", default="curves")
    arguments = parser.parse_args()
    from matplotlib.figure import Figure

    columns = min(3, len(arguments.runs))
    rows = math.ceil(len(arguments.runs) / columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, run in zip(panels, arguments.runs, strict=False):
        draw_run(axes, run)
    for axes in panels[len(arguments.runs) :]:
        axes.set_visible(False)
    figure.savefig(RESULTS / f"{arguments.name}.png", dpi=120)
    found = [last(run) for run in arguments.runs]
    header = list(dict.fromkeys(name for row in found for name in row))
    publish(arguments.name, "Training runs", header, [[row.get(name, "") for name in header] for row in found], {})


if __name__ == "__main__":
    main()
