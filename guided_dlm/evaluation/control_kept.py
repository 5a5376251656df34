"""Texts of the control benchmark that are kept as they are written, so that a long run goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from guided_dlm.errors import InvalidRequest
from guided_dlm.evaluation.control_tasks import Target, Task
from guided_dlm.evaluation.control_texts import PipelineTexts, Source, Written


class KeptTexts(Source):
    """Texts of a pipeline, each target's in a file of `folder` once they are written, and read from there again.

    A file is read again only for the same task, target, seed, `settings` and version of the library, and only where the
    pipeline still writes the same texts with nothing asked of it (`PipelineTexts.sign`): other weights or another
    sampler start anew. A change to the code of a constraint does not show there: delete the folder after one. `read`
    counts the files that were read. Seconds are known where a text and the unguided ones beside it are of one run.
    """

    def __init__(self, source: PipelineTexts, folder: Path, settings: Mapping[str, Any]) -> None:
        """Take the source, and make the folder.

        Raises:
            InvalidRequest: there can be no such folder.
        """
        self.seeds, self.samples, self.read = source.seeds, source.samples, 0
        self._source, self._folder = source, folder
        self._run = uuid.uuid4().hex
        self._beside: dict[tuple[str, int], str] = {}  # the run that wrote the unguided texts of a task and seed
        same = {"samples": source.samples, "sign": source.sign, "guided_dlm": version("guided-dlm")}
        self._settings = {**settings, **same}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequest(f"{str(folder)!r} is no folder to write to: {error.strerror}.") from error

    def unguided(self, task: Task, seed: int) -> Written:
        """Return kept texts of this task and seed, or write them.

        Raises:
            InvalidRequest: their file is damaged.
        """
        written, self._beside[task.name, seed] = self._kept(task, None, seed, lambda: self._source.unguided(task, seed))
        return written

    def write(self, task: Task, index: int, target: Target, seed: int) -> Written:
        """Return kept texts of this target and seed, or write them.

        Raises:
            InvalidRequest: their file is damaged.
        """
        written, run = self._kept(task, target, seed, lambda: self._source.write(task, index, target, seed))
        return written if run == self._beside.get((task.name, seed)) else replace(written, seconds=None)

    def _kept(self, task: Task, target: Target | None, seed: int, write: Callable[[], Written]) -> tuple[Written, str]:
        """Return texts, and which run wrote them."""
        asked = {
            **self._settings,
            "task": task.name,
            "constraint": None if target is None else task.constraint(target).to_config(),
            "seed": seed,
        }
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
        path = self._folder / f"{task.name}-{seed}-{key}.json"
        if path.is_file():
            self.read += 1
            return _read(path, self.samples)
        written = write()
        with tempfile.NamedTemporaryFile("w", dir=self._folder, delete=False, encoding="utf-8") as file:
            json.dump({"asked": asked, "run": self._run, "written": asdict(written)}, file, indent=1)
        Path(file.name).replace(path)
        return written, self._run


def _read(path: Path, samples: int) -> tuple[Written, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        written, run = Written(**found["written"]), str(found["run"])
        if len(written.texts) != (0 if written.refused else samples):
            raise ValueError(f"{len(written.texts)} texts of {samples}")
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"{path} is damaged ({error}); delete it, and its texts are written again.") from None
    return written, run
