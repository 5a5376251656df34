"""The control benchmark against hand-made texts and targets whose scores are known."""

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spacy
from tiny import save_tiny_model, tiny_model, word_tokenizer

from constraints import Length, Words
from guided_dlm.algebra import All
from guided_dlm.cli import main
from guided_dlm.errors import GuidedError, InvalidRequest, UnknownConstraint, UnknownName
from guided_dlm.evaluation import control_aspects, control_scores, tagging
from guided_dlm.evaluation.control import ControlRun, evaluate_control
from guided_dlm.evaluation.control_aspects import TOKEN, PartsOfSpeech, Semantic, TokenCount
from guided_dlm.evaluation.control_results import Mean, Measured, Results, Row, task_rows
from guided_dlm.evaluation.control_scores import bootstrap, length_scores, pos_scores, read_text, semantic_scores
from guided_dlm.evaluation.control_tasks import E2E, Target, Task, find_tasks
from guided_dlm.evaluation.control_texts import PipelineTexts, Written
from guided_dlm.evaluation.fluency import diversity
from guided_dlm.pipeline import GuidedPipeline

POS = [
    {
        "pos": ["START", "DET", "PROPN", "AUX", "DET", "NOUN", "PUNCT", "INTJ", "END"],
        "words_": ["START", "The", "Mill", "is", "a", "pub", ".", "\n", "END"],
    },
    {
        "pos": ["START", "AUX", "DET", "NOUN", "ADJ", "PUNCT", "PROPN", "END"],
        "words_": ["START", "Is", "the", "food", "cheap", "?", "\n", "END"],
    },
    {
        "pos": ["START", "DET", "PROPN", "AUX", "DET", "NOUN", "SPACE", "END"],
        "words_": ["START", "The", "Vaults", "is", "a", "pub", "\n", "END"],
    },
]
ATTRIBUTES = [["name", ":", "The", "Mill"], ["Type", ":", "pub"], ["price", ":", "£", "20", "-", "25"]]
TAGS = {"The": "DET", "a": "DET", "the": "DET", "Mill": "PROPN", "is": "AUX", "pub": "NOUN", ".": "PUNCT"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_lines(tmp_path / "data" / "target_pos.jsonl", map(json.dumps, POS))
    write_lines(tmp_path / "data" / "target_attribute.jsonl", map(json.dumps, ATTRIBUTES))
    return tmp_path / "data"


@pytest.fixture
def tagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lexicon instead of spaCy, and no NLTK data."""

    def tags(texts: Sequence[Sequence[str]]) -> list[list[str]]:
        return [[TAGS.get(word, "X") for word in text] for text in texts]

    monkeypatch.setattr(control_scores, "spacy_tags", tags)
    monkeypatch.setattr(control_scores, "nltk_tags", lambda texts: None)


def write_lines(path: Path, lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def judge(folder: Path) -> str:
    tiny_model(canvas=16, causal=True).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def rows_of(out: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads((out / "control.json").read_text(encoding="utf-8"))["rows"]
    return {row["aspect"]: row for row in rows}


def test_marks_and_white_space_are_dropped_and_the_rest_is_tokenised_again() -> None:
    text = read_text("START The Mill isn't £20 . \n END PAD PAD")
    assert text.runs == ("The", "Mill", "isn't", "£20", ".")
    assert text.tokens == ("The", "Mill", "is", "n't", "£", "20", ".")
    assert read_text("STARTER at the END").runs == ("STARTER", "at", "the")


def test_a_value_is_a_substring_by_the_published_rule_and_whole_words_by_the_stricter_one() -> None:
    texts = [read_text(text) for text in ("A cheap pub .", "The cheapest pub .", "cheap", "A pub .")]
    scores = semantic_scores(texts, "cheap")
    assert scores.published == [1, 1, 1, 0]
    assert scores.strict == [1, 0, 1, 0]
    assert semantic_scores([read_text("It is £20-25 .")], "£ 20 - 25").strict == [1]  # joined after tokenising again
    assert semantic_scores([read_text("A pub . ")], "...").published == [0]  # no pattern


def test_a_length_counts_tokens_and_the_stricter_rule_runs_as_well() -> None:
    texts = [read_text(text) for text in ("It is n't cheap .", "It isn't cheap .", "It is cheap .")]
    scores = length_scores(texts, 5)
    assert scores.published == [1, 1, 0]
    assert scores.strict == [1, 0, 0]


@pytest.mark.usefixtures("tagged")
def test_tags_are_compared_by_position_and_texts_cut_or_padded_to_the_target() -> None:
    target = ("DET", "PROPN", "AUX", "DET", "NOUN")
    texts = ["The Mill is a pub", "The Mill is a pub .", "The Mill", "a The Mill is a", ""]
    scores = pos_scores([read_text(text) for text in texts], target)
    assert scores.published == [1, 1, 0.4, 1 / 5, 0]
    assert scores.strict == [1, 0, 0, 0, 0]
    assert scores.second is None


def test_the_tag_of_the_newline_is_no_part_of_a_target() -> None:
    aspect = PartsOfSpeech()
    assert aspect.read(POS[0]) == ("DET", "PROPN", "AUX", "DET", "NOUN", "PUNCT")
    assert TokenCount().read(POS[0]) == 6
    whole = {"pos": ["START", "DET", "NOUN", "END"], "words_": ["START", "A", "pub", "END"]}
    assert aspect.read(whole) == ("DET", "NOUN")


def test_penn_tags_become_universal_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub:
        def tag(self, words: list[str]) -> list[tuple[str, str]]:
            penn = ["NNP", "VBZ", "RB", "DT", "JJ", "NN", "IN", "VBZ", "CD", ":", "MD", "VB", "."]
            return list(zip(words, penn, strict=True))

    monkeypatch.setattr(tagging, "nltk_tagger", Stub)
    text = "Cocum is n't a cheap pub near £ 20 - may serve ."
    found = tagging.nltk_tags([text.split()])
    expected = "PROPN AUX PART DET ADJ NOUN ADP SYM NUM PUNCT AUX VERB PUNCT"
    assert found == [expected.split()]
    monkeypatch.setattr(tagging, "nltk_tagger", lambda: None)
    assert tagging.nltk_tags([["a"]]) is None


@pytest.mark.skipif(not any(map(spacy.util.is_package, tagging.SPACY_NAMES)), reason="no spaCy pipeline is installed")
def test_spacy_tags_each_token_that_it_is_given() -> None:
    found = tagging.spacy_tags([["The", "Mill", "is", "a", "pub", "."], [], ["pub"]])
    assert found == [["DET", "PROPN", "AUX", "DET", "NOUN", "PUNCT"], [], found[2]]
    assert len(found[2]) == 1


def test_without_a_tagger_nothing_is_sampled(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tagging.spacy_tagger.cache_clear()
    monkeypatch.setattr(spacy.util, "is_package", lambda name: False)
    with pytest.raises(InvalidRequest, match="python -m spacy download en_core_web_sm"):
        evaluate_control(ControlRun(data=str(data), tasks=["pos"], model="no such model"))


def test_the_interval_of_constants_is_the_constant_and_that_of_a_coin_is_its_own() -> None:
    assert bootstrap([0.25] * 7) == (0.25, 0.25)
    low, high = bootstrap([0.0, 1.0] * 50)
    assert low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.01)  # the normal interval: 0.5 / sqrt(100) each way
    assert high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.01)
    assert bootstrap([0.0, 1.0]) == bootstrap([0.0, 1.0])
    with pytest.raises(InvalidRequest, match="no value"):
        bootstrap([])


def test_targets_are_read_merged_and_spread_evenly(data: Path, tmp_path: Path) -> None:
    length, semantic, pos = E2E[:3]
    assert [target.values for target in length.targets(data)] == [{"length": 5}, {"length": 6}]
    assert length.targets(data)[0].human == ("Is the food cheap ?", "The Vaults is a pub")
    assert [target.values["semantic"] for target in semantic.targets(data)] == ["The Mill", "pub", "£ 20 - 25"]
    assert semantic.targets(data)[0].human == ()
    assert pos.targets(data)[0].human == ("The Mill is a pub .",)
    write_lines(tmp_path / "target_attribute.jsonl", (json.dumps(["a", ":", str(n)]) for n in range(11)))
    found = semantic.targets(tmp_path, 3)
    assert [target.label for target in found] == ["0", "5", "10"]
    assert len(semantic.targets(tmp_path, 99)) == 11
    assert [target.label for target in semantic.targets(tmp_path, 1)] == ["0"]


def test_what_is_no_target_is_refused(data: Path, tmp_path: Path) -> None:
    semantic = E2E[1]
    with pytest.raises(InvalidRequest, match="--data"):
        semantic.targets(tmp_path)
    with pytest.raises(InvalidRequest, match="targets=0"):
        semantic.targets(data, 0)
    for line, message in (
        ('["name", "x"]', "line 2 is no target"),
        ("{", "line 2 is no JSON"),
        ('["a", ":"]', "nothing"),
    ):
        write_lines(tmp_path / "target_attribute.jsonl", ['["name", ":", "x"]', line])
        with pytest.raises(InvalidRequest, match=message):
            semantic.targets(tmp_path)
    write_lines(tmp_path / "target_attribute.jsonl", [])
    with pytest.raises(InvalidRequest, match="empty"):
        semantic.targets(tmp_path)


def test_tasks_are_found_by_name() -> None:
    assert [task.name for task in find_tasks("e2e", ["semantic", "length", "semantic"])] == ["semantic", "length"]
    assert len(find_tasks("e2e")) == len(E2E)
    with pytest.raises(UnknownName, match=r"no task 'tone'.*length, semantic"):
        find_tasks("e2e", ["tone"])
    with pytest.raises(UnknownName, match="no suite 'web'"):
        find_tasks("web")


def test_aspects_of_one_task_are_asked_for_at_once() -> None:
    class Count(TokenCount):
        def config(self, value: int) -> dict[str, Any]:
            return {"constraint": "length", "words": value}

    task = Task(name="both", file="-", aspects=(Semantic(), Count()))
    wish = task.constraint(Target(values={"semantic": "The Mill", "length": 4}, label=""))
    assert wish == All(Words(include=["The Mill"]), Length(words=4))


@pytest.mark.parametrize("text", ["The Mill 's pub is n't cheap", "Café Rouge : £ 20 - 25 ."])
def test_what_a_length_asks_for_is_not_split_again(text: str) -> None:
    whole, split = TokenCount().config(len(text.split()))["all"]
    assert re.fullmatch(whole["pattern"], text)
    assert len(read_text(text).tokens) == len(text.split())
    assert not set(text.split()) & set(split["exclude"])
    assert {"cant", "wont"} <= set(split["exclude"])
    assert all(len(tagging.tokenize(word)) > 1 for word in split["exclude"])
    assert not re.fullmatch(TOKEN, "1T") and not re.fullmatch(TOKEN, "30lb")
    assert not re.fullmatch(TOKEN, "5.") and not re.fullmatch(TOKEN, "isn't") and not re.fullmatch(TOKEN, ",p")


def measured(share: float, seconds: float | None = None, nll: float | None = None, texts: str = "a b") -> Measured:
    written = Written(texts=texts.split(), seconds=seconds, agreed={"semantic": 1.0})
    scores = {"semantic": Mean(published=share, strict=share / 2, second=None)}
    return Measured(written=written, scores=scores, nll=nll, diversity=diversity(texts.split()), empty=0)


def row(nll: float | None = 2.5, free: float | None = 2.0, human: float | None = None, texts: str = "a b c d") -> Row:
    found = Results(task=E2E[1], targets=[Target(values={}, label=str(n)) for n in range(2)])
    found.guided = [
        [measured(1.0, 6.0, nll, texts), measured(0.5, 2.0, nll, texts)],
        [measured(0.0, 6.0, nll, texts)] * 2,
    ]
    found.unguided = [measured(0.0, 3.0, free, "a b c d"), measured(0.0, 2.0, free, "a b c d")]
    found.human = [None if human is None else measured(0.8, nll=human)] * 2
    return task_rows(found)[0]


def test_a_row_is_the_mean_over_targets_of_means_over_seeds() -> None:
    found = row(human=1.0)
    assert found.control.mean == pytest.approx((0.75 + 0.0) / 2)
    assert (found.control.low, found.control.high) == (0.0, 0.75)
    assert found.by_seed == [0.5, 0.25]
    assert found.strict.mean == pytest.approx(0.1875)
    assert found.gap == pytest.approx(1 - 0.1875)
    assert found.human_control == pytest.approx(0.8)
    assert found.seconds == pytest.approx(((6 + 2) / 2 + 6) / 2 * 50 / 4)
    assert found.seconds_ratio == pytest.approx((6 / 3 + (2 + 6) / 2 / 2) / 2)
    assert found.denoiser_calls is None and found.second is None


def test_nll_passes_within_half_a_nat_of_the_larger_one() -> None:
    assert row(nll=2.5, free=2.0).nll_passes is True
    assert row(nll=2.6, free=2.0).nll_passes is False
    assert row(nll=2.6, free=2.0, human=2.2).nll_passes is True
    assert row(nll=None).nll_passes is None
    assert row(free=None).nll_passes is None


def test_distinct_outputs_pass_at_nine_tenths_of_unguided() -> None:
    assert row(texts="a b c d e f g h i i").distinct_passes is True
    assert row(texts="a b c d e f g h h h").distinct_passes is False


@pytest.mark.usefixtures("tagged")
def test_texts_of_another_system_are_scored_from_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_aspects, "spacy_tagger", lambda: None)
    texts, out = tmp_path / "texts", tmp_path / "out"
    write_lines(texts / "length.txt", ["The Mill is a pub", "The Mill is", "START The Mill is a pub . END PAD", ""])
    write_lines(texts / "semantic.txt", ["The Mill is a pub", "The Mills", "a pub", "a", "It is £20-25", "£ 20"])
    write_lines(texts / "unguided.txt", ["The Mill .", "The pub ."])
    run = ControlRun(
        data=str(data), tasks=["length", "semantic"], samples=2, texts=str(texts), judge=judge(tmp_path / "judge"),
        out=str(out),
    )  # fmt: skip
    shown = evaluate_control(run)
    assert "50.0 (50.0 to 50.0)" in shown and str(tmp_path) not in shown
    rows = rows_of(out)
    assert rows["length"]["control"]["mean"] == 0.5 and rows["length"]["empty"] == 1
    assert rows["length"]["human_control"] == 1.0 and rows["length"]["nll_human"] > 0
    assert rows["semantic"]["control"]["mean"] == pytest.approx(2 / 3)
    assert rows["semantic"]["strict"]["mean"] == pytest.approx(1 / 2)
    assert rows["semantic"]["distinct_passes"] is True and rows["semantic"]["nll_passes"] is not None
    assert rows["semantic"]["seconds"] is None and rows["semantic"]["agreed"] is None
    assert (out / "control.md").read_text(encoding="utf-8") == shown
    assert (out / "control.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("tagged")
def test_tags_of_texts_from_files(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guided_dlm.evaluation.control.conditions", lambda run, tasks: {})
    monkeypatch.setattr(control_aspects, "spacy_tagger", lambda: None)
    lines = ["The Mill is a pub .", "x", "The Mill is a pub"]
    write_lines(tmp_path / "pos.txt", lines)
    out = tmp_path / "out"
    evaluate_control(ControlRun(data=str(data), tasks=["pos"], samples=1, texts=str(tmp_path), out=str(out)))
    assert rows_of(out)["pos"]["control"]["mean"] == pytest.approx((1 + 0 + 1) / 3)
    assert rows_of(out)["pos"]["nll"] is None and rows_of(out)["pos"]["second"] is None


def test_files_with_another_number_of_lines_are_refused(data: Path, tmp_path: Path) -> None:
    run = ControlRun(data=str(data), tasks=["semantic"], samples=2, texts=str(tmp_path))
    with pytest.raises(InvalidRequest, match=r"semantic\.txt"):
        evaluate_control(run)
    write_lines(tmp_path / "semantic.txt", ["a"] * 5)
    with pytest.raises(InvalidRequest, match=r"has 5 lines; 3 targets with 2 samples each are 6"):
        evaluate_control(run)
    write_lines(tmp_path / "semantic.txt", ["a"] * 6)
    write_lines(tmp_path / "unguided.txt", ["a"] * 3)
    with pytest.raises(InvalidRequest, match=r"unguided.txt has 3 lines; give 2"):
        evaluate_control(run)


def test_a_model_is_measured_and_what_it_cannot_write_is_missed(data: Path, tmp_path: Path) -> None:
    """The third value has a word that the model lacks; the saved texts score the same again."""
    write_lines(data / "target_attribute.jsonl", map(json.dumps, [*ATTRIBUTES[:2], ["near", ":", "Ж"]]))
    model, out = save_tiny_model(tmp_path / "model"), tmp_path / "out"
    run = ControlRun(
        data=str(data), tasks=["semantic", "length"], model=str(model), samples=3, seeds=2, steps=3, out=str(out)
    )
    shown = evaluate_control(run)
    assert "- refused, semantic, Ж: Infeasible" in shown
    rows = rows_of(out)
    assert rows["length"]["control"]["mean"] == rows["length"]["agreed"] == 1.0
    assert rows["semantic"]["control"]["mean"] == rows["semantic"]["agreed"] == pytest.approx(2 / 3)
    assert rows["semantic"]["refused"] == 1 and rows["semantic"]["gap"] == pytest.approx(0.0)
    assert rows["semantic"]["seconds_ratio"] > 0 and rows["semantic"]["denoiser_calls"] > 0
    assert rows["semantic"]["classifier_calls"] == 0
    refused = json.loads((out / "control.json").read_text(encoding="utf-8"))["targets"][2]
    assert refused["target"] == "Ж" and refused["refused"].startswith("Infeasible")
    saved, again = str(out / "texts" / "seed-1"), str(tmp_path / "again")
    evaluate_control(ControlRun(data=str(data), tasks=run.tasks, samples=3, texts=saved, out=again))
    for name, found in rows_of(tmp_path / "again").items():
        assert found["control"]["mean"] == rows[name]["by_seed"][1]


def test_a_reader_asks_softly_for_what_trees_judge_and_its_calls_are_counted() -> None:
    spans, tags = find_tasks("e2e", ["spans", "pos"], reader="restaurant-syntax")
    span = Target(values={"spans": (0, 1, "NP")}, label="", human=())
    hard, soft = spans.constraint(span).leaves()
    (softer,) = find_tasks("e2e", ["spans"], reader="restaurant-syntax", reader_strength=0.5)
    assert [leaf.to_config() for leaf in softer.constraint(span).leaves()][1] == soft.to_config() | {"strength": 0.5}
    assert hard.hard and soft.to_config() == {"constraint": "syntax_guide", "wish": hard.to_config()}
    assert len(list(tags.constraint(Target(values={"pos": ("DET", "NOUN")}, label="", human=())).leaves())) == 1
    source = PipelineTexts(GuidedPipeline.from_pretrained("restaurant-words"), samples=2, seeds=1, steps=3)
    written = source.write(spans, 0, span, 0)
    assert written.classifier_calls == written.denoiser_calls == 3
    assert source.write(find_tasks("e2e", ["spans"])[0], 0, span, 0).classifier_calls == 0


def test_a_reader_that_there_is_not_is_said_before_anything_is_sampled(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_aspects, "judge_grammar", lambda: None)  # its data may not be installed
    write_lines(data / "target_spans.jsonl", [json.dumps({"words_": ["a", "pub"], "spans": [[0, 1, "NP"]]})])
    run = ControlRun(data=str(data), tasks=["spans"], reader="no such reader", model="no such model")
    with pytest.raises(InvalidRequest, match="'no such reader' is no syntax reader"):
        evaluate_control(run)
    with pytest.raises(InvalidRequest, match=r"reader_strength=0\.5 is of a reader"):
        evaluate_control(replace(run, reader=None, reader_strength=0.5))
    with pytest.raises(InvalidRequest, match="are written already"):
        evaluate_control(replace(run, texts=str(tmp_path)))


def test_an_unknown_constraint_is_said_before_anything_is_sampled(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Semantic, "config", lambda self, value: {"constraint": "semantics"})
    with pytest.raises(UnknownConstraint, match="semantics"):
        evaluate_control(ControlRun(data=str(data), tasks=["semantic"], model="no such model"))


def test_a_plot_needs_matplotlib(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(GuidedError, match="matplotlib"):
        evaluate_control(ControlRun(data=str(data), tasks=["semantic"], out=str(tmp_path), model="no such model"))


@pytest.mark.parametrize("names", [["--tasks", "length", "semantic"], ["--tasks", "length", "--tasks", "semantic"]])
def test_the_command_line(
    names: list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path / "length.txt", ["The Mill is a pub"])
    write_lines(tmp_path / "semantic.txt", ["The Mill"])
    options = ["--data", str(data), "--texts", str(tmp_path), "--samples", "1", "--targets", "1"]
    monkeypatch.setattr(sys, "argv", ["guided-dlm", "evaluate", "control", *names, *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    said = capsys.readouterr().out
    assert re.search(r"\| length \| length \| 1 \| 100\.0", said) and re.search(
        r"\| semantic \| semantic \| 1 \| 100\.0", said
    )
    assert "judge n/a (no --judge)" in said
