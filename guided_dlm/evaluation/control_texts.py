"""Where the texts of the control benchmark come from: a model of ours, or the files of another system.

A folder of texts has `TASK.txt` for each task, one text a line: all samples of the first target, then those of the
second, in the order of the targets. An empty line is an empty text. Where the system also wrote without a wish, as many
texts as samples of a target stand in `unguided.txt`.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guided_dlm.constraint import Constraint
from guided_dlm.errors import AutomatonTooLarge, Infeasible, InvalidRequest
from guided_dlm.evaluation.control_tasks import Target, Task
from guided_dlm.pipeline import GuidedPipeline

UNGUIDED = "unguided"


@dataclass(frozen=True, kw_only=True)
class Written:
    """The texts of one target and seed; what nobody measured is None.

    `agreed` is the share of texts that satisfy an aspect as its own constraint checks it. `refused` is why there is no
    text.
    """

    texts: list[str]
    seconds: float | None = None
    denoiser_calls: int | None = None
    classifier_calls: int | None = None
    agreed: Mapping[str, float | None] = field(default_factory=dict)
    refused: str | None = None


class Source(ABC):
    """Texts by task, target and seed; `samples` each."""

    seeds: Sequence[int]
    samples: int

    @abstractmethod
    def unguided(self, task: Task, seed: int) -> Written | None:
        """Return texts that nothing was asked of, or None where the source has none."""

    @abstractmethod
    def write(self, task: Task, index: int, target: Target, seed: int) -> Written:
        """Return the texts of one target, the `index`-th of its task."""


class PipelineTexts(Source):
    """Samples of a model under the constraint of each target; `options` go to the pipeline's call."""

    def __init__(self, pipeline: GuidedPipeline, samples: int, seeds: int, **options: Any) -> None:
        """Take the pipeline, and draw a few texts, so that no timing holds what only a first call does.

        What these are depends on weights and sampler alike: their digest is `sign`.

        Raises:
            InvalidRequest: there is no seed, or an option is out of range.
        """
        if seeds < 1:
            raise InvalidRequest(f"seeds={seeds}: give 1 or more.")
        self.samples, self.seeds = samples, range(seeds)
        self._pipeline, self._options = pipeline, options
        first = pipeline(num_samples=4, seed=0, **options)
        if first.stopped:
            raise KeyboardInterrupt
        self.sign = hashlib.sha256(json.dumps(first.texts).encode()).hexdigest()[:16]

    def unguided(self, task: Task, seed: int) -> Written:
        """Sample, once per task and seed, so that times are compared with a run beside them."""
        return self._run(None, seed, {})

    def write(self, task: Task, index: int, target: Target, seed: int) -> Written:
        """Sample, compilation of the constraint included in the time; what the model cannot write is refused."""
        parts = {
            aspect.name: Constraint.from_config(aspect.config(target.values[aspect.name])) for aspect in task.aspects
        }
        try:
            return self._run(task.constraint(target), seed, parts)
        except (Infeasible, AutomatonTooLarge) as error:
            return Written(texts=[], agreed=dict.fromkeys(parts, 0.0), refused=f"{type(error).__name__}: {error}")

    def _run(self, wish: Constraint | None, seed: int, parts: Mapping[str, Constraint]) -> Written:
        began = time.perf_counter()
        out = self._pipeline(constraint=wish, num_samples=self.samples, seed=seed, **self._options)
        seconds = time.perf_counter() - began
        if out.stopped:
            raise KeyboardInterrupt
        return Written(
            texts=out.texts,
            seconds=seconds,
            denoiser_calls=out.denoiser_calls,
            classifier_calls=out.denoiser_calls * _readers(wish),
            agreed={name: _agreed(part, out.report) for name, part in parts.items()},
        )


def _readers(wish: Constraint | None) -> int:
    """Return how many networks guide: each is asked once beside the denoiser. All else that tasks ask is automata."""
    return 0 if wish is None else sum(getattr(leaf, "name", "") == "syntax_guide" for leaf in wish.leaves())


def _agreed(part: Constraint, report: Sequence[Mapping[str, Mapping[str, Any]]]) -> float | None:
    """Return the share of rows in which every leaf of a constraint is satisfied; None for a soft one."""
    said = [[row[repr(leaf)]["satisfied"] for leaf in part.leaves()] for row in report]
    if any(one is None for row in said for one in row):
        return None
    return sum(map(all, said)) / len(said)


class FileTexts(Source):
    """Texts that another system wrote, in a folder as described above."""

    seeds = (0,)

    def __init__(self, folder: str | Path, samples: int, tasks: Mapping[str, int]) -> None:
        """Read the files of these tasks; each has so many targets.

        Raises:
            InvalidRequest: a file is missing, or has not as many lines as the targets ask for.
        """
        if samples < 1:
            raise InvalidRequest(f"samples={samples}: give 1 or more.")
        self.samples = samples
        self._texts = {name: _lines(Path(folder) / f"{name}.txt") for name in tasks}
        for name, targets in tasks.items():
            if len(self._texts[name]) != targets * samples:
                raise InvalidRequest(
                    f"{Path(folder) / name}.txt has {len(self._texts[name])} lines; {targets} targets with {samples} "
                    f"samples each are {targets * samples}. Give --samples and --targets as they were written."
                )
        free = Path(folder) / f"{UNGUIDED}.txt"
        self._free = _lines(free) if free.is_file() else None
        if self._free is not None and len(self._free) != samples:
            raise InvalidRequest(f"{free} has {len(self._free)} lines; give {samples}, as many as of each target.")

    def unguided(self, task: Task, seed: int) -> Written | None:
        """Return the lines of `unguided.txt`, if there is one."""
        return None if self._free is None else Written(texts=self._free)

    def write(self, task: Task, index: int, target: Target, seed: int) -> Written:
        """Return the lines of this target."""
        return Written(texts=self._texts[task.name][index * self.samples : (index + 1) * self.samples])


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InvalidRequest(f"There are no texts in {str(path)!r}; write one text a line, all targets in order.")
    lines = path.read_text(encoding="utf-8").split("\n")
    return lines if lines[-1] else lines[:-1]


def save_texts(folder: Path, name: str, texts: Sequence[str]) -> None:
    """Write one text a line, as `FileTexts` reads them; white space in a text becomes single spaces."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = (" ".join(text.split()) for text in texts)
    (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
