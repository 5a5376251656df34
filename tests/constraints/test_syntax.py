"""PartOfSpeech: automaton, `check` and a search through all taggings agree; patterns, lexicons and refusals."""

import gzip
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_pipeline

from constraints import Length, PartOfSpeech, Words
from constraints.tag_lexicon import TagLexicon
from constraints.tag_pattern import letters, pattern_text, read_pattern
from constraints.tag_sets import PENN, UNIVERSAL
from constraints.tag_training import treebank
from guided_dlm import CompileContext, Constraint
from guided_dlm.errors import Infeasible, InvalidRequest
from guided_dlm.posterior import Posterior
from guided_dlm.testing import byte_vocabulary, check_constraint

WORDS = {
    "the": {"DET": 9},
    "kid": {"NOUN": 6, "ADJ": 3, "VERB": 1},
    "fast": {"ADJ": 2, "ADV": 2},
    "runs": {"VERB": 8, "NOUN": 2},
    "St.": {"PROPN": 1},
    "St": {"PROPN": 1, "NOUN": 1},
    ".": {"PUNCT": 5},
    ",": {"PUNCT": 5},
}
PATTERNS = ["DET ADJ* NOUN VERB .*", "(DET|ADJ) . PUNCT?", ".*", "NOUN{1,2} PUNCT", "PROPN+ PUNCT*", "", "(ADJ NOUN)+"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("lexicon") / "tags.tsv"
    TagLexicon(WORDS).write(file)
    return str(file)


def splits(text: str) -> Iterator[list[str]]:
    """All ways to cut a text into words of the lexicon, a space before each, or nothing before `.` and `,`."""
    if not text:
        yield []
    for word in WORDS:
        if text.startswith(word):
            rest = text[len(word) :]
            if not rest or rest[0] in ".,":
                yield from ([word, *more] for more in splits(rest) if not more or more[0][0] in ".,")
            elif rest[0] == " " and len(rest) > 1:
                yield from ([word, *more] for more in splits(rest[1:]))


def holds(text: str, pattern: str, certainty: float) -> bool:
    for words in splits(text):
        choices = [[t for t, n in WORDS[w].items() if n / sum(WORDS[w].values()) >= certainty] for w in words]
        for tags in itertools.product(*choices):
            if re.fullmatch(letters(read_pattern(pattern)), "".join(map(UNIVERSAL.letter, tags))):
                return True
    return False


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.sampled_from(PATTERNS), st.sampled_from([0.0, 0.25, 0.5]), st.data())
def test_automaton_check_and_search_agree(path: str, pattern: str, certainty: float, data: st.DataObject) -> None:
    wish = PartOfSpeech(pattern, lexicon=path, certainty=certainty)
    automaton = wish.to_automaton()
    pieces = st.lists(st.sampled_from([*WORDS, " ", " ", "x"]), max_size=9).map("".join)
    fair = st.lists(st.sampled_from(list(WORDS)), max_size=5).map(" ".join)
    for text in data.draw(st.lists(st.one_of(pieces, fair), min_size=10, max_size=30)):
        expected = holds(text, pattern, certainty)
        assert wish.check(text) is expected, text
        assert automaton.accepts(text.encode()) is expected, text


@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_keeps_the_contract(path: str, pattern: str) -> None:
    check_constraint(PartOfSpeech(pattern, lexicon=path), texts=("the kid runs", "the kid runs.", "St.", ""), samples=8)


@pytest.mark.parametrize(
    ("pattern", "same"),
    [
        (["DET", "NOUN"], "DET NOUN"),
        (
            [{"POS": "DET"}, {"POS": "ADJ", "OP": "*"}, {"POS": {"IN": ["NOUN", "PROPN"]}}],
            ".* DET ADJ* (NOUN|PROPN) .*",
        ),
        ([{"OP": "+"}, {"POS": "PUNCT", "OP": "{2,3}"}], ".* .+ PUNCT{2,3} .*"),
    ],
)
def test_lists_and_matcher_patterns_are_patterns_too(pattern: object, same: str) -> None:
    assert pattern_text(pattern) == same
    assert PartOfSpeech(pattern) == PartOfSpeech(same)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("DET NUON", r"no tag 'NUON'. Did you mean 'NOUN'\?"),
        ("DET (NOUN", "a bracket is never closed, at position 3"),
        ("DET) NOUN", "a bracket closes that was never opened"),
        ("* NOUN", "there is nothing to repeat"),
        ("NOUN{3,2}", "a count goes from low to high"),
        ("NOUN{1,999}", "to 64 at most"),
        ("NOUN & VERB", "'&' has no meaning here"),
        ([], "is no pattern"),
        ([{"LEMMA": "be"}], "asks for more than tags"),
        ([{"POS": "NOUN|VERB"}], "no tag 'NOUN|VERB'"),
        ([{"POS": {"IN": []}}], "asks for more than tags"),
        ([{"POS": {"IN": "NOUN"}}], "asks for more than tags"),
        (3, "is no pattern"),
    ],
)
def test_patterns_that_cannot_be_are_refused(pattern: object, message: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message) if "|" in message else message):
        PartOfSpeech(pattern)


def test_other_arguments_are_checked(path: str) -> None:
    with pytest.raises(InvalidRequest, match=r"no tag lexicon 'nowhere\.tsv'"):
        PartOfSpeech("DET", lexicon="nowhere.tsv")
    with pytest.raises(InvalidRequest, match="certainty=2"):
        PartOfSpeech("DET", certainty=2)
    with pytest.raises(InvalidRequest, match="strength=-1"):
        PartOfSpeech("DET", strength=-1)
    broken = Path(path).with_name("broken.tsv")
    for line in ("kid NOUN", "kid\tNOUN:0", "kid\tNOON:1"):
        broken.with_suffix(f".{hash(line)}").write_text(f"the\tDET:9\n{line}\n")
        with pytest.raises(InvalidRequest, match=r"line 2: expected a word"):
            PartOfSpeech("DET", lexicon=str(broken.with_suffix(f".{hash(line)}")))


def test_what_the_vocabulary_cannot_write_is_infeasible(path: str) -> None:
    with pytest.raises(Infeasible, match="none of its words is INTJ"):
        tiny_pipeline()(constraint=PartOfSpeech("DET INTJ*  INTJ", lexicon=path))


WISHES: list[Constraint] = [
    PartOfSpeech("DET ADJ* NOUN .*"),
    PartOfSpeech("(DET|PROPN) . AUX? .*") & Length(words=(3, 6)),
    PartOfSpeech(". . .*") & Words(include=["pub"]) & ~Words(include=["The"]),
    ~PartOfSpeech("DET .*"),
    PartOfSpeech("DET NOUN") | PartOfSpeech("DET NOUN AUX .*"),
]


@pytest.mark.parametrize("wish", WISHES, ids=repr)
@pytest.mark.parametrize("more", [{}, {"block_length": 4}, {"corrector": "p2"}, {"particles": 3}], ids=str)
def test_every_output_satisfies_it(wish: Constraint, more: dict) -> None:
    out = tiny_pipeline()(constraint=wish, num_samples=4, steps=6, **more)
    assert out.satisfied.all(), out.texts


def test_weights_follow_p_of_the_tag_given_the_word() -> None:
    # Both words may be nouns; uniform factors leave the choice to the lexicon.
    vocabulary = tiny_pipeline().denoiser.vocabulary
    wish = PartOfSpeech("NOUN", certainty=0.0)
    automaton = wish.compile(CompileContext(vocabulary=vocabulary, length=2)).automaton
    assert automaton is not None
    q_V = Posterior(torch.zeros(1, 2, len(vocabulary)), automaton).marginals()[0, 0]
    words = {i: vocabulary.tokens[i].decode().strip() for i in (q_V > 0).nonzero()[:, 0].tolist()}
    expected = {i: wish.words.probabilities(word)["NOUN"] for i, word in words.items()}
    assert len(expected) > 1
    for i, p in expected.items():
        assert float(q_V[i]) == pytest.approx(p / sum(expected.values()), rel=1e-5)


def test_the_tagging_is_the_likeliest_that_the_pattern_admits(path: str) -> None:
    assert PartOfSpeech(".*", lexicon=path).tagging("the kid runs.") == [
        ("the", "DET"), ("kid", "NOUN"), ("runs", "VERB"), (".", "PUNCT"),
    ]  # fmt: skip
    assert PartOfSpeech("DET ADJ NOUN", lexicon=path).tagging("the kid runs") == [
        ("the", "DET"), ("kid", "ADJ"), ("runs", "NOUN"),
    ]  # fmt: skip
    assert PartOfSpeech("DET DET", lexicon=path).tagging("the kid") is None


def test_tolerance_gives_up_single_tags_and_forbids_nothing() -> None:
    pipeline = tiny_pipeline()
    clash = Words(include=["The"]) & Length(words=2)
    with pytest.raises(Infeasible):
        pipeline(constraint=PartOfSpeech("NOUN NOUN") & clash)
    soft = PartOfSpeech("NOUN NOUN", tolerance=1e-4)
    out = pipeline(constraint=soft & clash, num_samples=16, steps=4)
    assert not soft.hard and out.satisfied.all()
    others = [word for text in out.texts for word in text.split() if word != "The"]
    nouns = [word for word in others if "NOUN" in soft.tags(word)]
    assert len(nouns) >= 0.9 * len(others) > 0
    with pytest.raises(InvalidRequest, match="this vocabulary has parts of words"):
        soft.compile(CompileContext(vocabulary=byte_vocabulary(), length=4))


def test_soft_wishes_that_no_canvas_meets_are_infeasible_by_name() -> None:
    for soft in (PartOfSpeech("NOUN{20}", tolerance=1e-3), PartOfSpeech("NOUN{20}", tagger="any")):
        with pytest.raises(Infeasible, match=r"NOUN\{20\}"):
            tiny_pipeline()(constraint=soft)


def test_the_highest_strength_rules_nothing_out() -> None:
    out = tiny_pipeline()(constraint=PartOfSpeech("(ADV|NOUN) .*", strength=1e4), num_samples=2, steps=3)
    assert out.satisfied.all()


def test_a_tagger_that_is_not_installed_names_the_command() -> None:
    wish = PartOfSpeech("DET NOUN", tagger="en_none_sm")
    assert not wish.hard
    with pytest.raises(InvalidRequest, match="python -m spacy download en_none_sm"):
        wish.check("the kid")


def test_a_tagger_can_be_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("constraints.syntax.spacy_tags", lambda name, text, tags: ["DET", "NOUN"])
    assert PartOfSpeech("DET NOUN", tagger="any").check("the kid") == 1.0
    assert PartOfSpeech("DET VERB", tagger="any").check("the kid") == 0.0
    out = tiny_pipeline()(constraint=PartOfSpeech("DET NOUN", tagger="any"), num_samples=2, steps=4)
    assert not next(iter(out.report[0].values()))["guaranteed"]


def test_the_shipped_lexicon_knows_its_tags() -> None:
    words = PartOfSpeech(".*").words
    assert len(words.counts) > 2000
    assert max(words.probabilities("the"), key=words.probabilities("the").__getitem__) == "DET"
    assert {tag for tags in words.counts.values() for tag in tags} <= set(UNIVERSAL.tags)


def test_a_treebank_is_read_without_its_ranges(tmp_path: Path) -> None:
    rows = ["# text = don't", "1-2\tdon't\t_\t_\t_", "1\tdo\tdo\tAUX\tVBP", "2\tn't\tnot\tPART\tRB", ""]
    rows += ["1\tGo\tgo\tVERB\tVB", "2\t-\t-\tPUNCT\tHYPH", "3\t:(\t:(\t_\tNOPE", ""]
    with gzip.open(tmp_path / "a.conllu.gz", "wt") as file:
        file.write("\n".join(rows))
    found = [sentence for sentence in treebank(str(tmp_path / "a.conllu.gz"), UNIVERSAL) if sentence]
    assert found == [[("do", "AUX"), ("n't", "PART")], [("Go", "VERB"), ("-", "PUNCT")]]
    penn = [sentence for sentence in treebank(str(tmp_path / "a.conllu.gz"), PENN) if sentence]
    assert penn == [[("do", "VBP"), ("n't", "RB")], [("Go", "VB"), ("-", ":")]]


def test_a_model_of_word_pieces_is_held_to_the_texts_themselves(path: str) -> None:
    guide = PartOfSpeech("DET NOUN", lexicon=path).compile(CompileContext(vocabulary=byte_vocabulary(), length=12))
    assert guide.automaton is not None and guide.automaton.symbols is None
