"""Recipes by name: each is valid, a start is found or trained first, and an interrupted run is not begun anew."""

import json
from pathlib import Path

import pytest
import yaml
from tiny import SENTENCES
from typer.testing import CliRunner

from guided_dlm.cli import app
from guided_dlm.errors import InvalidRequest, UnknownName
from guided_dlm.models import shipped
from guided_dlm.training import catalogue
from guided_dlm.training.catalogue import names, read, train_recipe

SMALL = {
    "data": "train.txt", "validation": "train.txt", "canvas": 16, "hidden_size": 32, "layers": 1, "heads": 2,
    "min_count": 1, "batch_size": 8, "epochs": 1, "save_every": 3, "bf16": False,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data, and two small recipes in place of those that come along."""
    monkeypatch.setattr(catalogue, "RECIPES", tmp_path / "recipes")
    (tmp_path / "recipes").mkdir()
    for name, more in (("first", {"objective": "autoregressive"}), ("second", {"start": "first"})):
        (tmp_path / "recipes" / f"{name}.yaml").write_text(yaml.safe_dump(SMALL | more))
    (tmp_path / "train.txt").write_text("\n".join(SENTENCES * 8))
    return tmp_path


@pytest.mark.parametrize("name", names())
def test_every_recipe_is_valid_and_its_start_is_known(name: str, tmp_path: Path) -> None:
    recipe = read(name, tmp_path, tmp_path)
    assert recipe.start is None or recipe.start in {*names(), *shipped()}
    assert recipe.out == str(tmp_path / name)


def test_every_shipped_model_has_a_recipe() -> None:
    assert set(shipped()) <= set(names())


def test_what_a_model_begins_from_is_trained_before_it_once(folder: Path) -> None:
    train_recipe("second", folder, folder / "out", progress=False)
    first, second = (json.loads((folder / "out" / n / "recipe.json").read_text()) for n in ("first", "second"))
    assert (first["start"], second["start"]) == (None, str(folder / "out" / "first"))
    written = (folder / "out" / "first" / "model.safetensors").stat().st_mtime_ns
    train_recipe("second", folder, folder / "out", {"out": str(folder / "again")}, progress=False)
    assert (folder / "out" / "first" / "model.safetensors").stat().st_mtime_ns == written


def test_checkpoints_are_gone_on_with_or_refused(folder: Path) -> None:
    train_recipe("first", folder, folder / "out", progress=False)
    with pytest.raises(InvalidRequest, match="--resume"):
        train_recipe("first", folder, folder / "out", progress=False)
    (folder / "out" / "first" / "training.json").unlink()  # as if it had been stopped
    train_recipe("second", folder, folder / "out", resume=True, progress=False)
    log = json.loads((folder / "out" / "first" / "training.json").read_text())["log"]
    assert log[-1]["epoch"] == 1


def test_an_option_on_the_command_line_changes_the_recipe(folder: Path) -> None:
    command = ["train", str(folder), str(folder / "out"), "--recipe", "first", "--layers", "2", "--seed", "0"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    recipe = json.loads((folder / "out" / "first" / "recipe.json").read_text())
    assert (recipe["layers"], recipe["hidden_size"], recipe["objective"]) == (2, 32, "autoregressive")


def test_an_unknown_recipe_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="restaurant-words"):
        train_recipe("restaurants", tmp_path, tmp_path)
