"""Infilling against hand-made gaps: what is read, what is kept, and scores that are known."""

import gzip
import itertools
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SENTENCES, save_tiny_model

from constraints import Blank, Template
from guided_dlm.cli import main
from guided_dlm.errors import InvalidRequest, UnknownName
from guided_dlm.evaluation.infilling import (
    NO_STORIES,
    Gap,
    InfillingRequest,
    bleu,
    evaluate_infilling,
    read_anlg,
    read_blanked,
    rouge_l,
    words_of,
)
from guided_dlm.evaluation.model import HELD_OUT, SAMPLES

STORIES = {
    "one": {"obs1": "The Mill is a pub", "obs2": "It serves food", "gold_labels": ["It is cheap", "No food is cheap"]},
    "two": {"obs1": "Is the food cheap", "obs2": "The Vaults is a pub", "gold_labels": ["No"]},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("models") / "tiny", canvas=24))


@pytest.fixture
def texts(tmp_path: Path) -> str:
    file = tmp_path / "held.txt"
    file.write_text("\n".join([*SENTENCES, "Too short ."]))
    return str(file)


@pytest.fixture
def stories(tmp_path: Path) -> str:
    file = tmp_path / "stories.json.gz"
    file.write_bytes(gzip.compress(json.dumps(STORIES).encode()))
    return str(file)


@pytest.mark.parametrize("blank", [1, 3])
def test_blanks_are_runs_of_words_in_the_middle_and_follow_the_seed(texts: str, blank: int) -> None:
    request = InfillingRequest(data=texts, blank=blank)
    gaps, _ = read_blanked(request)
    whole = [*SENTENCES, "Too short ."]
    for gap in gaps:
        (words,) = gap.fills
        assert len(words.split()) == blank and gap.before.strip() and gap.after.strip()
        assert f"{gap.before}{words}{gap.after}" in whole
        assert gap.constraint().check(f"{gap.before}{words}{gap.after}")
    assert gaps == read_blanked(request)[0]
    others = [read_blanked(InfillingRequest(data=texts, blank=blank, seed=seed))[0] for seed in range(1, 9)]
    assert any(gaps != other for other in others)


def test_texts_that_are_too_short_are_counted(texts: str) -> None:
    gaps, left_out = read_blanked(InfillingRequest(data=texts, blank=4))
    assert len(gaps) == len(SENTENCES)
    assert left_out == ["1 of 6 texts: under 6 words, or a blank without a word"]
    with pytest.raises(InvalidRequest, match="no text of 42 words or more; lower blank"):
        read_blanked(InfillingRequest(data=texts, blank=40))


def test_stories_are_read_with_all_their_middles(stories: str) -> None:
    gaps, left_out = read_anlg(InfillingRequest(data=stories, task="anlg"))
    assert gaps[0] == Gap("The Mill is a pub ", " It serves food", ("It is cheap", "No food is cheap"))
    assert (len(gaps), left_out) == (2, [NO_STORIES])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "expected an object"),
        ("{}", "expected an object"),
        ('{"x": {"obs1": "a", "obs2": "b"}}', "'x': expected \"obs1\""),
        ('{"x": {"obs1": "a", "obs2": " ", "gold_labels": ["c"]}}', "'x': expected \"obs1\""),
        ('{"x": 3}', "'x': expected \"obs1\""),
    ],
)
def test_stories_that_are_written_otherwise_are_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "stories.json"
    file.write_text(content)
    with pytest.raises(InvalidRequest, match=message):
        read_anlg(InfillingRequest(data=str(file)))


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="There is no file"):
        read_anlg(InfillingRequest(data=str(tmp_path / "gone.json")))


def test_a_gap_is_a_template_and_knows_its_fill() -> None:
    gap = Gap("The Mill is ", " near it .", ("a pub",))
    assert gap.constraint() == Template(["The Mill is ", Blank(words=(1, None), regex=r"\S(?:.*\S)?"), " near it ."])
    assert gap.fill_of("The Mill is very cheap near it .") == "very cheap"
    assert gap.fill_of("The Mill is near it .") is None  # the two given texts may not overlap
    assert gap.fill_of("The Mill was cheap near it .") is None


def longest_common(one: list[str], other: list[str]) -> int:
    """By trying all subsequences, the longest first."""
    for size in range(len(one), 0, -1):
        for chosen in itertools.combinations(one, size):
            rest = iter(other)
            if all(word in rest for word in chosen):
                return size
    return 0


@settings(max_examples=60)
@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_rouge_is_the_longest_common_subsequence(one: list[str], other: list[str]) -> None:
    both = len(one) + len(other)
    expected = 2 * longest_common(one, other) / both if both else 0.0
    assert rouge_l(" ".join(one), " ".join(other)) == pytest.approx(expected)
    assert rouge_l(" ".join(other), " ".join(one)) == pytest.approx(expected)


def test_scores_read_words_and_marks_without_case() -> None:
    assert words_of("It's caf\u00e9-fresh.") == ["it", "'", "s", "caf\u00e9", "-", "fresh", "."]
    same = "She went to the grocery store ."
    assert rouge_l(same.upper(), same) == 1.0
    assert bleu([same.upper()], [["nothing like it", same]]) == pytest.approx(1.0)
    assert bleu(["quite different words here"], [[same]]) < 0.1
    assert bleu([""], [[same]]) == 0.0


def test_every_text_keeps_what_was_given(model: str, texts: str, tmp_path: Path) -> None:
    request = InfillingRequest(data=texts, model=model, blank=2, samples=2, steps=4, targets=4)
    card = evaluate_infilling(request, out=tmp_path / "card")
    figures = card.figures
    assert figures["texts that keep what was given, share"][SAMPLES] == 1.0
    assert figures["texts"] == {SAMPLES: 8, HELD_OUT: 8}
    assert figures["gaps"][SAMPLES] == 4 and figures["refused gaps"][SAMPLES] == 0
    assert figures["words of the fill, mean"][HELD_OUT] == 2
    assert 0 <= figures["ROUGE-L of the fill"][SAMPLES] <= 1
    written = json.loads((tmp_path / "card" / "tiny.json").read_text())
    assert written["conditions"]["data"] == "held.txt" and str(tmp_path) not in json.dumps(written)
    assert (tmp_path / "card" / "tiny.md").read_text() == card.markdown()


def test_what_does_not_fit_the_canvas_is_counted_as_refused(tmp_path: Path, stories: str) -> None:
    small = str(save_tiny_model(tmp_path / "small", canvas=9))
    file = tmp_path / "more.json"
    long = {"obs1": "It serves Japanese food " * 4, "obs2": "No", "gold_labels": ["Is the food cheap ?"]}
    file.write_text(json.dumps(STORIES | {"long": long}))
    card = evaluate_infilling(InfillingRequest(data=str(file), task="anlg", model=small, steps=3))
    assert card.figures["gaps"][SAMPLES] == 3
    refused = card.figures["refused gaps"][SAMPLES]
    assert refused >= 1 and card.figures["texts"][SAMPLES] == 3 - refused
    assert any(line.startswith(f"{refused} of 3 gaps, refused: Infeasible, ") for line in card.left_out)


def test_where_all_is_refused_no_figure_is_made_up(tmp_path: Path, stories: str) -> None:
    card = evaluate_infilling(
        InfillingRequest(data=stories, task="anlg", model=str(save_tiny_model(tmp_path / "small", canvas=3)))
    )
    assert card.figures == {"gaps": {SAMPLES: 2}, "refused gaps": {SAMPLES: 2}}


def test_requests_that_cannot_be_meant_are_refused(texts: str) -> None:
    with pytest.raises(UnknownName, match="no infilling task 'story'; choose 'e2e' or 'anlg'"):
        evaluate_infilling(InfillingRequest(data=texts, task="story"))
    for name in ("samples", "blank", "targets"):
        with pytest.raises(InvalidRequest, match=f"{name}=0"):
            evaluate_infilling(InfillingRequest(data=texts, **{name: 0}))


def test_the_command_prints_the_card(
    model: str, stories: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--task", "anlg", "--model", model, "--steps", "3", "--out", str(tmp_path / "card")]
    monkeypatch.setattr(sys, "argv", ["guided-dlm", "evaluate", "infilling", stories, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "| texts that keep what was given, share | 1.000 " in shown
    assert shown == (tmp_path / "card" / "tiny.md").read_text()
