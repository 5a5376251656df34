"""How well texts do what targets ask, and at what cost: the tables of Diffusion-LM (2205.14217, Tables 2, 4 and 5)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from guided_dlm.errors import InvalidRequest
from guided_dlm.evaluation.control_kept import KeptTexts
from guided_dlm.evaluation.control_report import conditions, require_plots, save, shown
from guided_dlm.evaluation.control_results import Mean, Measured, Results, target_records, task_rows
from guided_dlm.evaluation.control_scores import Reading, read_text
from guided_dlm.evaluation.control_tasks import Target, Task, find_tasks
from guided_dlm.evaluation.control_texts import UNGUIDED, FileTexts, PipelineTexts, Source, Written, save_texts
from guided_dlm.evaluation.fluency import Judge, diversity
from guided_dlm.pipeline import GuidedPipeline


@dataclass(frozen=True, kw_only=True)
class ControlRun:
    """What to measure: `targets` per task (None: all), `samples` of each for each of the seeds 0, 1, ...

    With `texts` the texts are read from that folder instead of sampled (see `control_texts`); `judge` is the folder of
    an autoregressive model, and without one there is no fluency. `tolerance` is that of `PartOfSpeech` and
    `SyntaxTree`, by default the benchmark's own, and 0 for a model of word pieces. With `reader`, a model of
    `SyntaxGuide`, spans and trees are asked for softly as well, with `reader_strength`. `out` gets tables, JSON, a plot
    and the texts; those that a run before it wrote there with the same settings are not written again (`KeptTexts`).
    """

    data: str
    suite: str = "e2e"
    tasks: Sequence[str] = ()
    model: str = "restaurant-words"
    targets: int | None = None
    samples: int = 50
    steps: int = 32
    corrector: str | None = None
    temperature: float = 1.0
    tolerance: float | None = None
    reader: str | None = None
    reader_strength: float = 1.0
    seeds: int = 3
    judge: str | None = None
    texts: str | None = None
    out: str | None = None
    device: str = "cpu"
    dtype: str = "float32"


def evaluate_control(run: ControlRun, progress: bool = False) -> str:
    """Measure control, fluency, diversity and cost of every task, and return the tables as Markdown.

    Raises:
        InvalidRequest: targets, texts, judge or tagger are missing, a number is out of range, or `out` is no folder or
            has a damaged file of kept texts.
        UnknownName: there is no such suite, task, model or constraint.
    """
    if run.out is not None:
        require_plots()
    if run.reader is not None and run.texts is not None:
        raise InvalidRequest(f"reader={run.reader!r} guides a model, and texts={run.texts!r} are written already.")
    if run.reader is None and run.reader_strength != 1.0:
        raise InvalidRequest(f"reader_strength={run.reader_strength!r} is of a reader; give one, or leave it out.")
    tasks = find_tasks(run.suite, run.tasks, run.tolerance, run.reader, run.reader_strength)
    targets = {task.name: task.targets(run.data, run.targets) for task in tasks}
    for task in tasks:
        for aspect in task.aspects:
            aspect.prepare()
        if run.texts is None:
            task.constraint(targets[task.name][0])  # an unknown name is said before anything is sampled
    judge = None if run.judge is None else Judge(run.judge)
    source = _source(run, {name: len(found) for name, found in targets.items()})
    total = len(source.seeds) * sum(len(found) + 1 for found in targets.values())
    with tqdm(total=total, desc="control", unit="target", disable=not progress) as bar:
        results = [measure_task(task, targets[task.name], source, judge, bar) for task in tasks]
    rows = [row for one in results for row in task_rows(one)]
    records = [record for one in results for record in target_records(one)]
    settings = conditions(run, [task.name for task in tasks])
    if isinstance(source, KeptTexts):
        settings["read_from_kept"] = f"{source.read} of {total}"
    if run.out is not None:
        save(Path(run.out), rows, settings, records)
        if run.texts is None:
            _save_texts(Path(run.out) / "texts", results, run.samples)
    return shown(rows, settings, records)


def _source(run: ControlRun, targets: Mapping[str, int]) -> Source:
    if run.texts is not None:
        return FileTexts(run.texts, run.samples, targets)
    pipeline = GuidedPipeline.from_pretrained(run.model, device=run.device, dtype=run.dtype)
    options = {"steps": run.steps, "corrector": run.corrector or "none", "temperature": run.temperature}
    texts = PipelineTexts(pipeline, run.samples, run.seeds, **options)
    if run.out is None:
        return texts
    where = {"model": Path(run.model).name, "device": run.device, "dtype": run.dtype}
    return KeptTexts(texts, Path(run.out) / "kept", {**where, **options})


def measure_task(task: Task, targets: list[Target], source: Source, judge: Judge | None, bar: Any) -> Results:
    """Write and score the texts of every target, seed by seed, unguided ones first."""
    found = Results(task=task, targets=targets, guided=[[] for _ in targets])
    for target in targets:
        found.human.append(_measure(Written(texts=list(target.human)), judge, task, target) if target.human else None)
    for seed in source.seeds:
        free = source.unguided(task, seed)
        if free is not None:
            found.unguided.append(_measure(free, judge))
        bar.update()
        for index, target in enumerate(targets):
            found.guided[index].append(_measure(source.write(task, index, target, seed), judge, task, target))
            bar.update()
    return found


def _measure(written: Written, judge: Judge | None, task: Task | None = None, target: Target | None = None) -> Measured:
    """Score texts, by the aspects of their target if they have one."""
    readings = [read_text(text) for text in written.texts]
    plain = [" ".join(reading.runs) for reading in readings]
    full = [text for text in plain if text]
    return Measured(
        written=written,
        scores={} if task is None or target is None else _scores(readings, task, target),
        nll=judge.nll(full) if judge is not None and full else None,
        diversity=diversity(plain) if plain else None,
        empty=len(plain) - len(full),
    )


def _scores(readings: Sequence[Reading], task: Task, target: Target) -> dict[str, Mean]:
    """Return the mean score by each aspect; where nothing could be written, that of an empty text."""
    found = {}
    for aspect in task.aspects:
        scores = aspect.scores(readings or [read_text("")], target.values[aspect.name])
        second = None if scores.second is None else statistics.fmean(scores.second)
        found[aspect.name] = Mean(
            published=statistics.fmean(scores.published), strict=statistics.fmean(scores.strict), second=second
        )
    return found


def _save_texts(folder: Path, results: Sequence[Results], samples: int) -> None:
    """Write a folder for each seed that `FileTexts` reads; a refused target has empty lines."""
    for one in results:
        for seed, free in enumerate(one.unguided):
            place = folder / f"seed-{seed}"
            save_texts(place, UNGUIDED, free.written.texts)
            texts = [text for by_seed in one.guided for text in by_seed[seed].written.texts or [""] * samples]
            save_texts(place, one.task.name, texts)
