"""The recipes that come with the package, one file a model: `guided-dlm train --recipe NAME DATA OUT`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from transformers.trainer_utils import get_last_checkpoint

from guided_dlm.errors import InvalidRequest, UnknownName
from guided_dlm.models import locate, shipped
from guided_dlm.training.recipe import TrainingRecipe, train

RECIPES = Path(__file__).parent / "recipes"


def names() -> list[str]:
    """Return the names of the recipes."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read(name: str, data: str | Path, out: str | Path) -> TrainingRecipe:
    """Return a recipe for data files in the folder `data`, writing to `out`/`name`; its start is still a name.

    Raises:
        UnknownName: there is no such recipe; the message lists those there are.
    """
    if name not in names():
        raise UnknownName(f"There is no recipe {name!r}; choose one of {', '.join(names())}.")
    fields: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    files = {key: str(Path(data) / fields[key]) for key in ("data", "validation")}
    return TrainingRecipe(**fields | files | {"out": str(Path(out) / name)})


def train_recipe(
    name: str,
    data: str | Path,
    out: str | Path,
    changes: dict[str, Any] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a model by its recipe in `out`/`name`, and before it what it begins from; return its figures.

    A start is taken from `out` where it is there, else from the shipped models, else it is trained by its own recipe.
    `changes` are fields of this one recipe that are to be different; `resume` goes on with whatever was interrupted.

    Raises:
        InvalidRequest: as `train`; an interrupted run's checkpoints are there and `resume` is not set.
    """
    changes = changes or {}
    recipe = replace(read(name, data, out), **changes)
    if recipe.start is not None and "start" not in changes:
        recipe = replace(recipe, start=_start(recipe.start, data, out, resume, progress))
    checkpoints = Path(recipe.out) / "checkpoints"
    begun = checkpoints.is_dir() and get_last_checkpoint(str(checkpoints)) is not None
    if begun and not resume:
        raise InvalidRequest(f"{recipe.out!r} holds checkpoints of an earlier run; say --resume, or name another OUT.")
    return train(recipe, resume=begun, progress=progress)


def _start(name: str, data: str | Path, out: str | Path, resume: bool, progress: bool) -> str:
    """Return the folder of a start, trained first where it is nowhere."""
    folder = Path(out) / name
    if (folder / "training.json").is_file():  # written last
        return str(folder)
    if name in shipped():
        return locate(name)
    train_recipe(name, data, out, resume=resume, progress=progress)
    return str(folder)
