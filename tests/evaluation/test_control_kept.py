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
from guided_dlm.pipeline import GuidedPipeline

VALUES = [["name", ":", "a"], ["name", ":", "b"], ["name", ":", "c"]]


class Stop(Exception):
    """Stands for a run that is killed."""


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


def result(run: ControlRun) -> dict[str, Any]:
    return json.loads((Path(str(run.out)) / "control.json").read_text(encoding="utf-8"))


def examples(run: ControlRun) -> list[str]:
    return [one["example"] for one in result(run)["targets"]]


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
    assert examples(run) == examples(other)
    assert result(run)["conditions"]["read_from_kept"] == "4 of 4"
    assert result(other)["conditions"]["read_from_kept"] == "0 of 4"


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


def test_seconds_are_known_beside_unguided_texts_of_the_same_run(run: ControlRun, count: list[int]) -> None:
    count[1] = 2
    with pytest.raises(Stop):
        evaluate_control(run)
    count[1] = 100
    evaluate_control(run)
    seconds = [one["seconds_per_50"][0] for one in result(run)["targets"]]
    assert seconds[0] > 0 and seconds[1:] == [None, None]


@pytest.mark.parametrize("harm", ["cut", "one text less", "no texts"])
def test_a_damaged_file_is_named(run: ControlRun, tmp_path: Path, harm: str) -> None:
    evaluate_control(run)
    path = sorted((tmp_path / "out" / "kept").iterdir())[0]
    text = path.read_text(encoding="utf-8")
    kept = json.loads(text)
    kept["written"]["texts"] = kept["written"]["texts"][1:] if harm == "one text less" else None
    path.write_text(text[:40] if harm == "cut" else json.dumps(kept), encoding="utf-8")
    with pytest.raises(InvalidRequest, match=f"{path.name} is damaged .*delete it"):
        evaluate_control(run)


def test_a_stop_before_the_first_text_is_no_run(run: ControlRun, monkeypatch: pytest.MonkeyPatch) -> None:
    call = GuidedPipeline.__call__

    def stopped(self: GuidedPipeline, *arguments: Any, **options: Any) -> Any:
        return call(self, *arguments, **options | {"callback": lambda snapshot: "stop"})

    monkeypatch.setattr(GuidedPipeline, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate_control(run)


def test_a_file_is_no_folder_to_keep_texts_in(run: ControlRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="is no folder to write to"):
        evaluate_control(replace(run, out=str(tmp_path / "file")))
