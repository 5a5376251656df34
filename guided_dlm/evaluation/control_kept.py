"""Texts of the control benchmark that are kept as they are written, so that a long run goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from guided_dlm.errors import InvalidRequest
from guided_dlm.evaluation.control_tasks import Target, Task
from guided_dlm.evaluation.control_texts import PipelineTexts, Source, Written


class KeptTexts(Source):
    """Texts of a pipeline, each target's in a file of `folder` once they are written, and read from there again.

    A file is read again only for the same task, target, seed and `settings`, and only where the pipeline still writes
    the same texts with nothing asked of it (`PipelineTexts.sign`): other weights or another sampler start anew. Seconds
    are those of the run that wrote.
    """

    def __init__(self, source: PipelineTexts, folder: Path, settings: Mapping[str, Any]) -> None:
        """Take the source, and make the folder."""
        self.seeds, self.samples = source.seeds, source.samples
        self._source, self._folder = source, folder
        self._settings = {**settings, "samples": source.samples, "sign": source.sign}
        folder.mkdir(parents=True, exist_ok=True)

    def unguided(self, task: Task, seed: int) -> Written:
        """Return kept texts of this task and seed, or write them."""
        return self._kept(task, None, seed, lambda: self._source.unguided(task, seed))

    def write(self, task: Task, index: int, target: Target, seed: int) -> Written:
        """Return kept texts of this target and seed, or write them."""
        return self._kept(task, target, seed, lambda: self._source.write(task, index, target, seed))

    def _kept(self, task: Task, target: Target | None, seed: int, write: Callable[[], Written]) -> Written:
        asked = {
            **self._settings,
            "task": task.name,
            "constraint": None if target is None else task.constraint(target).to_config(),
            "seed": seed,
        }
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        path = self._folder / f"{task.name}-{seed}-{key}.json"
        if path.is_file():
            return _read(path)
        written = write()
        part = path.with_suffix(".part")
        part.write_text(json.dumps({"asked": asked, "written": asdict(written)}, indent=1), encoding="utf-8")
        part.replace(path)
        return written


def _read(path: Path) -> Written:
    try:
        return Written(**json.loads(path.read_text(encoding="utf-8"))["written"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"{path} is damaged ({error}); delete it, and its texts are written again.") from None
