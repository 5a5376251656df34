"""A stopped run of the control benchmark goes on where it was, and reads no text that other settings wrote."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny_model, tiny_model

from guided_dlm.errors import InvalidRequest
from guided_dlm.evaluation.control import ControlRun, evaluate_control
from guided_dlm.evaluation.control_texts import PipelineTexts, Written

VALUES = [["name", ":", "a"], ["name", ":", "b"], ["name", ":", "c"]]


class Stop(Exception):
    """Stands for a machine that goes away."""


@pytest.fixture
def run(tmp_path: Path) -> ControlRun:
    """One task of three targets and one seed: four turns, since unguided texts are written as well."""
    data = tmp_path / "data"
    data.mkdir()
    lines = "".join(f"{json.dumps(value)}\n" for value in VALUES)
    (data / "target_attribute.jsonl").write_text(lines, encoding="utf-8")
    model, out = save_tiny_model(tmp_path / "model"), tmp_path / "out"
    return ControlRun(data=str(data), tasks=["semantic"], model=str(model), samples=3, seeds=1, steps=3, out=str(out))


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Turns of `PipelineTexts` so far and how many may still be; one too many raises `Stop`."""
    state, turn = [0, 100], PipelineTexts._run

    def counted(self: PipelineTexts, *arguments: Any) -> Written:
        if state[1] == 0:
            raise Stop
        state[0], state[1] = state[0] + 1, state[1] - 1
        return turn(self, *arguments)

    monkeypatch.setattr(PipelineTexts, "_run", counted)
    return state


def found(run: ControlRun) -> list[dict[str, Any]]:
    return json.loads((Path(str(run.out)) / "control.json").read_text(encoding="utf-8"))["targets"]


def test_a_stopped_run_goes_on_where_it_was(run: ControlRun, count: list[int], tmp_path: Path) -> None:
    count[1] = 2
    with pytest.raises(Stop):
        evaluate_control(run)
    assert not (tmp_path / "out" / "control.json").exists()
    count[1] = 100
    evaluate_control(run)
    assert count[0] == 4
    evaluate_control(run)
    assert count[0] == 4
    other = replace(run, out=str(tmp_path / "other"))
    evaluate_control(other)
    assert count[0] == 8
    assert [one["example"] for one in found(run)] == [one["example"] for one in found(other)]


def test_what_other_settings_wrote_is_not_read(run: ControlRun, count: list[int], tmp_path: Path) -> None:
    evaluate_control(run)
    evaluate_control(replace(run, targets=2))
    assert count[0] == 4
    evaluate_control(replace(run, seeds=2))
    assert count[0] == 8
    evaluate_control(replace(run, steps=2))
    assert count[0] == 12
    evaluate_control(replace(run, samples=2))
    assert count[0] == 16
    tiny_model(12, seed=5).half().save_pretrained(tmp_path / "model")
    evaluate_control(run)
    assert count[0] == 20


def test_a_damaged_file_is_named(run: ControlRun, tmp_path: Path) -> None:
    evaluate_control(run)
    path = sorted((tmp_path / "out" / "kept").iterdir())[0]
    path.write_text(path.read_text(encoding="utf-8")[:40], encoding="utf-8")
    with pytest.raises(InvalidRequest, match=f"{path.name} is damaged .*delete it"):
        evaluate_control(run)
