"""The control benchmark on paper: Markdown tables, a JSON file and a picture."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from guided_dlm.errors import GuidedError
from guided_dlm.evaluation.control_aspects import TOLERANCE
from guided_dlm.evaluation.control_results import DISTINCT_SHARE, NLL_MARGIN, Estimate, Row
from guided_dlm.evaluation.control_tasks import find_tasks
from guided_dlm.evaluation.tagging import NLTK_NAME, nltk_tagger, spacy_tagger

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from guided_dlm.evaluation.control import ControlRun

UNKNOWN = "n/a"
CONTROL = (
    "task", "aspect", "targets", "control %", "by seed", "strict %", "second judge %", "constraint's own %",
    "own - strict", "people: control / strict / second %", "Diffusion-LM %", "refused",
)  # fmt: skip
QUALITY = (
    "task", "NLL", "unguided", "people", "NLL within 0.5", "distinct %", "unguided %", "at least 90 % of it",
    "distinct-1/2/3", "self-BLEU (unguided)", "empty texts", "s per 50", "time / unguided", "denoiser calls",
    "classifier calls",
)  # fmt: skip
LEGEND = f"""
Means over targets, with 95 % bootstrap intervals over targets. control: the published rule. strict: whole words
(semantic), the whole tag sequence (pos), white-space runs as well as tokens (length). second judge: the published rule
by another tagger. constraint's own: texts that satisfy the constraint as it checks itself. refused: targets that the
model cannot write, which count as missed. spans: the judge's tree has the span. tree: bracketing F1, strict: the very
tree. NLL: nats per token under the judge, empty texts left out; within
{NLL_MARGIN} of the larger of unguided and people, or of the one that is known. distinct: texts of one target and seed
that differ; at least {100 * DISTINCT_SHARE:.0f} % of unguided.
"""


def require_plots() -> None:
    """Raise `GuidedError` where matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise GuidedError("Plots need matplotlib: pip install 'guided-dlm[notebooks]'.") from error


def conditions(run: ControlRun, tasks: Sequence[str]) -> dict[str, Any]:
    """Return machine, versions and settings; who tagged is said where a task has tags."""
    said = ("model", "steps", "corrector", "reader", "reader_strength", "temperature", "device", "dtype")
    sampled = {name: getattr(run, name) for name in said}
    sampled["tolerance"] = TOLERANCE if run.tolerance is None else run.tolerance
    found = {
        "suite": run.suite,
        "tasks": " ".join(tasks),
        **({"texts": Path(run.texts).name} if run.texts is not None else sampled),
        "samples": run.samples,
        "seeds": 1 if run.texts is not None else run.seeds,
        "judge": Path(run.judge).name if run.judge is not None else f"{UNKNOWN} (no --judge)",
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "spacy": version("spacy"),
    }
    judges = {aspect.judges for task in find_tasks(run.suite, tasks) for aspect in task.aspects}
    if "trees" in judges:
        found["parser"] = "grammar of NLTK's treebank sample over NLTK's tags"
    if "tags" in judges:
        meta = spacy_tagger().meta
        found["tagger"] = f"{meta['lang']}_{meta['name']} {meta['version']}"
        missing = f"{UNKNOWN} (no NLTK data {NLTK_NAME})"
        found["second_tagger"] = NLTK_NAME if nltk_tagger() is not None else missing
    return found


def shown(rows: Sequence[Row], settings: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> str:
    """Return the tables as Markdown, with their conditions, and why targets were refused."""
    said = ", ".join(f"{name} {value}" for name, value in settings.items())
    by_task = list({row.task: row for row in rows}.values())
    tables = (_table(CONTROL, map(_control_cells, rows)), _table(QUALITY, map(_quality_cells, by_task)))
    refused = [f"- refused, {one['task']}, {one['target']}: {one['refused']}" for one in targets if one["refused"]]
    return "\n\n".join(("# Control", said, *tables, LEGEND.strip(), *filter(None, ["\n".join(refused)]))) + "\n"


def save(folder: Path, rows: Sequence[Row], settings: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> None:
    """Write control.md, control.json and control.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "control.md").write_text(shown(rows, settings, targets), encoding="utf-8")
    verdicts = ("gap", "nll_passes", "distinct_passes")
    records = [asdict(row) | {name: getattr(row, name) for name in verdicts} for row in rows]
    whole = {"conditions": dict(settings), "rows": records, "targets": list(targets)}
    (folder / "control.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(folder / "control.png", rows)


def _table(header: Sequence[str], rows: Any) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def _number(value: float | None, form: str = ".2f", factor: float = 1.0) -> str:
    return UNKNOWN if value is None else f"{value * factor:{form}}"


def _percent(value: float | None, form: str = ".1f") -> str:
    return _number(value, form, 100.0)


def _interval(value: Estimate | None, form: str = ".2f", factor: float = 1.0) -> str:
    if value is None:
        return UNKNOWN
    mean, low, high = (_number(one, form, factor) for one in (value.mean, value.low, value.high))
    return f"{mean} ({low} to {high})"


def _verdict(value: bool | None) -> str:
    return UNKNOWN if value is None else "pass" if value else "FAIL"


def _control_cells(row: Row) -> list[Any]:
    people = (row.human_control, row.human_strict, row.human_second)
    return [
        row.task, row.aspect, row.targets, _interval(row.control, ".1f", 100), " ".join(map(_percent, row.by_seed)),
        _interval(row.strict, ".1f", 100), _percent(row.second), _percent(row.agreed), _percent(row.gap, "+.1f"),
        " / ".join(map(_percent, people)), _percent(row.diffusion_lm), row.refused,
    ]  # fmt: skip


def _quality_cells(row: Row) -> list[Any]:
    grams = (row.unigrams, row.bigrams, row.trigrams)
    return [
        row.task, _interval(row.nll), _number(row.nll_unguided), _number(row.nll_human), _verdict(row.nll_passes),
        _percent(row.distinct), _percent(row.distinct_unguided), _verdict(row.distinct_passes),
        "/".join(map(_number, grams)), f"{_number(row.self_bleu)} ({_number(row.self_bleu_unguided)})", row.empty,
        _number(row.seconds, ".1f"), _number(row.seconds_ratio), _number(row.denoiser_calls, ".0f"),
        _number(row.classifier_calls, ".0f"),
    ]  # fmt: skip


def draw(path: Path, rows: Sequence[Row]) -> None:
    """Save control beside people and Diffusion-LM, and NLL beside unguided texts and people."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 2.0 + 0.62 * max(2, len(rows))), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_control(left, rows)
    _draw_fluency(right, rows)
    marks: dict[str, Any] = {}
    for axes in (left, right):
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            marks.setdefault(label, handle)  # people are marked in both
    figure.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=120)


def _draw_control(axes: Axes, rows: Sequence[Row]) -> None:
    places = range(len(rows))
    for shift, name, colour, label in (
        (-0.17, "control", "tab:blue", "published rule"), (0.17, "strict", "tab:cyan", "stricter rule"),
    ):  # fmt: skip
        values = [getattr(row, name) for row in rows]
        errors = [[100 * (one.mean - one.low) for one in values], [100 * (one.high - one.mean) for one in values]]
        axes.barh(
            [at + shift for at in places],
            [100 * one.mean for one in values],
            0.32, xerr=errors, color=colour, alpha=0.75, label=label,
        )  # fmt: skip
    _scatter(axes, rows, "human_control", "D", "black", "people", shift=-0.17, factor=100)
    _scatter(axes, rows, "human_strict", "D", "black", "_", shift=0.17, factor=100)
    _scatter(axes, rows, "diffusion_lm", "*", "tab:red", "Diffusion-LM, as published", shift=-0.17, factor=100)
    names = [row.task if row.task == row.aspect else f"{row.task}:\n{row.aspect}" for row in rows]
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()
    axes.set(xlim=(0, 104), xlabel="% of what was asked for", title="Control, 95 % over targets")


def _draw_fluency(axes: Axes, rows: Sequence[Row]) -> None:
    axes.set(xlabel="nats per token under the judge", title="NLL: green is within reach of unguided and people")
    known = [(at, row, row.nll) for at, row in enumerate(rows) if row.nll is not None]
    for at, row, nll in known:
        beside = [one for one in (row.nll_unguided, row.nll_human) if one is not None]
        if beside:
            axes.barh(at, max(beside) + NLL_MARGIN, 0.7, color="tab:green", alpha=0.15)
        label = "guided" if at == known[0][0] else "_"
        axes.errorbar(
            nll.mean, at, xerr=[[nll.mean - nll.low], [nll.high - nll.mean]], fmt="o", color="C0", label=label
        )
    _scatter(axes, rows, "nll_unguided", "|", "tab:orange", "unguided")
    _scatter(axes, rows, "nll_human", "D", "black", "people")
    axes.set_xlim(left=0)
    if not known:
        axes.text(0.5, 0.5, "no judge", ha="center", va="center", transform=axes.transAxes)


def _scatter(
    axes: Axes,
    rows: Sequence[Row],
    name: str,
    marker: str,
    colour: str,
    label: str,
    shift: float = 0,
    factor: float = 1,
) -> None:
    """Mark a figure of each row where it is known; a label "_" stays out of the legend."""
    points = [(factor * value, at + shift) for at, row in enumerate(rows) if (value := getattr(row, name)) is not None]
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=60, marker=marker, color=colour, label=label, zorder=3)
