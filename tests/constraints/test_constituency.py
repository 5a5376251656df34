"""SyntaxSpan, SyntaxTree, Chunk and Dependency: what holds in every text, what is only likely, and refusals."""

import gzip
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from nltk.tree import Tree

from constraints import Chunk, Dependency, Length, SyntaxSpan, SyntaxTree, Words
from constraints.chunk import chunk_pattern
from constraints.span_lexicon import BEGIN, END, SpanLexicon, span_lexicon
from constraints.syntax import PartOfSpeech
from constraints.tag_lexicon import TagLexicon, lexicon
from constraints.tag_sets import PENN, UNIVERSAL, tag_set
from constraints.treebank_training import joined, second_tagger
from guided_dlm import CompileContext, Constraint, GuidedPipeline
from guided_dlm.errors import Infeasible, InvalidRequest
from guided_dlm.testing import byte_vocabulary, check_constraint

SENTENCES = [
    (["DT", "NN", "VBZ", "JJ", "."], {(0, 1, "NP"), (2, 3, "VP"), (0, 4, "S"), (3, 3, "ADJP")}),
    (["DT", "NN", "VBZ", "DT", "NN"], {(0, 1, "NP"), (2, 4, "VP"), (3, 4, "NP"), (0, 4, "S")}),
    (["DT", "NN", "VBZ", "DT", "NN", "NN"], {(0, 1, "NP"), (3, 5, "NP"), (2, 5, "VP"), (0, 5, "S")}),
]
WORDS = {
    "the": {"DT": 9}, "kid": {"NN": 6, "VB": 1}, "fast": {"JJ": 2, "RB": 2}, "runs": {"VBZ": 8, "NNS": 2},
    ".": {".": 5}, ",": {",": 5},
}  # fmt: skip


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("spans") / "spans.tsv.gz"
    SpanLexicon.count(SENTENCES, most=9).write(path)
    return str(path)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tags") / "penn.tsv"
    TagLexicon(WORDS).write(path)
    return str(path)


def test_windows_are_counted_with_their_neighbours_and_survive_the_file(counted: str) -> None:
    lexicon = span_lexicon(counted)
    assert lexicon.windows == SpanLexicon.count(SENTENCES, most=9).windows
    found = lexicon.windows["NP", 2]
    assert found[BEGIN, "DT", "NN", "VBZ"] == (3, 3)
    assert found["VBZ", "DT", "NN", END] == (1, 1)
    assert lexicon.widths("NP") == [2, 3] and lexicon.labels() == ["ADJP", "NP", "S", "VP"]
    assert ("VBZ", "DT", "NN", "NN") not in found
    both = SpanLexicon.count([*SENTENCES, (["DT", "NN", "VBZ"], set())], most=1)
    assert both.windows["NP", 2] == {(BEGIN, "DT", "NN", "VBZ"): (3, 4)}
    assert both.surest("NP", 2, 0.8) == [] and len(both.surest("NP", 2, 0.75)) == 1


def test_a_span_is_written_as_a_pattern_of_tags_at_its_place(counted: str, words: str) -> None:
    span = SyntaxSpan(3, 4, "NP", counted=counted, lexicon=words)
    assert span.pattern() == ". . (VBZ DT NN)"
    first = SyntaxSpan(0, 1, "NP", counted=counted, lexicon=words)
    assert first.pattern() == "(DT NN VBZ .*)"
    assert first.check("the kid runs fast") and not first.check("fast runs") and not first.check("the kid")
    assert SyntaxSpan(2, 3, "VP", counted=counted, lexicon=words).check("the kid runs fast.")


def test_a_label_is_the_whole_chain(tmp_path: Path, words: str) -> None:
    path = tmp_path / "s.tsv.gz"
    SpanLexicon.count([(["NN", "VBZ"], {(1, 1, "S::VP")}), (["DT", "VBZ"], {(1, 1, "VP")})], 9).write(path)
    assert SyntaxSpan(1, 1, "S::VP", counted=str(path), lexicon=words).pattern() == "(NN VBZ)"
    assert SyntaxSpan(1, 1, "VP", counted=str(path), lexicon=words).pattern() == "(DT VBZ)"
    with pytest.raises(InvalidRequest, match="No words were 'S' and nothing else; there is S::VP"):
        SyntaxSpan(1, 1, "S", counted=str(path), lexicon=words)
    with pytest.raises(InvalidRequest, match="No words were 'VP::S' and nothing else; there is S::VP, VP"):
        SyntaxSpan(1, 1, "VP::S", counted=str(path), lexicon=words)
    with pytest.raises(Infeasible, match="there it has seen such of this many words: 1"):
        SyntaxSpan(1, 2, "VP", counted=str(path), lexicon=words).pattern()
    with pytest.raises(Infeasible, match="it has seen none there"):
        SyntaxSpan(0, 0, "VP", counted=str(path), lexicon=words).pattern()


def test_what_is_too_seldom_is_said_with_how_often_it_is(tmp_path: Path, words: str) -> None:
    path = tmp_path / "s.tsv.gz"
    SpanLexicon.count([(["DT", "NN"], {(1, 1, "NP")}), (["DT", "NN"], {}), (["DT", "NN"], {})], 9).write(path)
    with pytest.raises(Infeasible, match=r"the surest was in 33.3%: sureness=0.333 allows it"):
        SyntaxSpan(1, 1, "NP", counted=str(path), lexicon=words).pattern()
    assert SyntaxSpan(1, 1, "NP", counted=str(path), lexicon=words, sureness=0.333).pattern() == "(DT NN)"
    seven = SpanLexicon({("NP", 1): {("DT", "NN", "$$"): (7, 25)}})  # 0.28 * 25 > 7 in floating point
    assert seven.surest("NP", 1, 0.28) == [("DT", "NN", "$$")] and not seven.surest("NP", 1, 0.281)


def test_a_label_is_the_whole_chain_in_order(tmp_path: Path, words: str) -> None:
    path = tmp_path / "s.tsv.gz"
    SpanLexicon.count([(["NN", "VBZ"], {(1, 1, "S::VP")}), (["DT", "VBZ"], {(1, 1, "VP")})], 9).write(path)
    ordered = SyntaxSpan(1, 1, "S::VP", counted=str(path), lexicon=words)
    assert ordered.score([(1, 1, "VP"), (1, 1, "S"), (0, 1, "S")]) == 1.0 and ordered.score([(1, 1, "VP")]) == 0.0
    assert replace(ordered, label="VP").score([(1, 1, "VP"), (1, 1, "S")]) == 0.0


def test_a_tree_holds_its_tags_and_phrases_left_open_any_of_theirs(counted: str, words: str) -> None:
    tree = SyntaxTree("(S (NP (DT a) (NN b)) (VP (VBZ c) (ADJP (JJ d))) (. .))", lexicon=words)
    assert tree.pattern() == 'DT NN VBZ JJ "."'
    assert tree.check("the kid runs fast.") and not tree.check("the kid runs.")
    opened = SyntaxTree("(S (NP *) (VP (VBZ *)))", lexicon=words, counted=counted)
    assert opened.pattern() == "(DT NN | DT NN NN) VBZ"
    assert opened.check("the kid runs") and opened.check("the kid kid runs") and not opened.check("kid runs")


@pytest.mark.parametrize(
    "wish",
    [
        SyntaxSpan(0, 1, "NP"),
        SyntaxTree("(S (NP (DT *) (NN *)) (VP (VBZ *)))", certainty=0.1),
        Chunk("NP: {<DT>?<JJ.*>*<NN.*>+}"),
        SyntaxSpan(1, 2, "PP", tolerance=0.01),
    ],
    ids=repr,
)
def test_configs_come_back(wish: Constraint) -> None:
    assert Constraint.from_config(wish.to_config()) == wish


@pytest.mark.parametrize("kind", ["span", "tree", "chunk"])
def test_they_conform(kind: str, counted: str, words: str) -> None:
    wish = {
        "span": SyntaxSpan(0, 1, "NP", counted=counted, lexicon=words, certainty=0.1),
        "tree": SyntaxTree("(NP (DT *) (NN *))", lexicon=words, certainty=0.1),
        "chunk": Chunk("NP: {<DT>?<NN>}", lexicon=words),
    }[kind]
    check_constraint(wish, samples=6)


def test_a_vocabulary_of_bytes_is_held_to_the_texts_themselves(counted: str, words: str) -> None:
    span = SyntaxSpan(0, 1, "NP", counted=counted, lexicon=words)
    vocabulary = byte_vocabulary()
    guide = span.compile(CompileContext(vocabulary=vocabulary, length=20))
    assert guide.automaton is not None and guide.automaton.symbols is None
    for text in ("the kid runs fast", "fast runs the kid", "the kid", "the kid runs"):
        assert span.to_automaton().accepts(text.encode()) == span.check(text), text


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: SyntaxSpan(3, 2, "NP"), "ends at word 2, before its start"),
        (lambda: SyntaxSpan(-1, 2, "NP"), "counted from 0"),
        (lambda: SyntaxSpan(0, 2, "NPP"), "no label 'NPP'"),
        (lambda: SyntaxSpan(0, 2, "NP", sureness=2), "is a share"),
        (lambda: SyntaxSpan(0, 1, "NP", counted="nowhere.gz"), "no span lexicon 'nowhere.gz'"),
        (lambda: SyntaxSpan(0, 1, "NP", weight=0.0), "positive number of nats"),
        (lambda: SyntaxSpan(0, 1, "NP", parser="no_such_pipeline"), "spacy download no_such_pipeline"),
        (lambda: SyntaxTree("(S (NP *)"), "never closed"),
        (lambda: SyntaxTree("(S (NQ *))"), "no tag or phrase 'NQ'"),
        (lambda: SyntaxTree("(S (NQ pub))"), "no tag 'NQ'"),
        (lambda: SyntaxTree(3), "is no text"),  # type: ignore[arg-type]
        (lambda: Chunk("NP <DT>"), "begins with a label"),
        (lambda: Chunk("NP: {<DT>}\nVP: {<VBZ>}"), "is no rule that chunks"),
        (lambda: Chunk("NP: }<DT>{"), "is no rule that chunks"),
        (lambda: Chunk("NP: {<QQ>}"), "matches no tag"),
        (lambda: Chunk("NP: {<DT}"), "has no meaning at position 0"),
        (lambda: Chunk("NP: {<(>}"), "no regular expression"),
        (lambda: Chunk("NP: {<PRP$>}"), "write <PRP.>"),
        (lambda: Chunk("NP: {<UH>?}"), "matches no words at all"),
        (lambda: Chunk("NP: {<UH>+?}"), "has no meaning at position 5"),
        (lambda: Chunk("NP: {<DT>}", certainty=3), "Chunk: PartOfSpeech: certainty=3"),
        (lambda: SyntaxTree("(S word (NN *))"), "words beside other children"),
        (lambda: SyntaxTree("(S (NP foo))"), "write '(NP *)'"),
        (lambda: SyntaxSpan(0, 1, "NP", counted="pyproject.toml"), "is no gzipped span lexicon"),
        (lambda: SyntaxSpan(True, 1, "NP"), "start=True"),
        (lambda: PENN.known("HYPH"), "it is called ':'"),
        (lambda: Dependency([{"RIGHT_ID": "v", "RIGHT_ATTRS": "x"}]), "no dict of a word's attributes"),  # type: ignore[arg-type]
        (lambda: Chunk(7), "is no grammar"),  # type: ignore[arg-type]
        (lambda: Dependency("[]"), "is no pattern"),
        (lambda: Dependency("{"), "is no JSON"),
        (lambda: Dependency([{"RIGHT_ID": "v", "RIGHT_ATTRS": {"POS": "VERBB"}}]), "no tag 'VERBB'"),  # type: ignore[arg-type]
        (lambda: tag_set("brown"), "no tag set 'brown'"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, what: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make()
    assert what in str(caught.value)


def test_no_room_and_no_such_width_are_infeasible(counted: str, words: str) -> None:
    context = CompileContext(vocabulary=byte_vocabulary(), length=3)
    with pytest.raises(Infeasible, match="speaks of 4 words, and the canvas has 3 tokens"):
        SyntaxSpan(2, 3, "VP", counted=counted, lexicon=words).compile(context)
    with pytest.raises(Infeasible, match="No sequence of 4 tags was NP"):
        SyntaxSpan(1, 4, "NP", counted=counted, lexicon=words).compile(replace(context, length=9))
    with pytest.raises(Infeasible, match="no words of this vocabulary"):
        SyntaxTree("(UH wow)", lexicon=words).compile(context)


def test_two_readers_weigh_alike_and_every_to_is_as_in_the_treebank() -> None:
    first = TagLexicon({"fast": {"JJ": 30, "RB": 10}, "to": {"IN": 3, "TO": 1}, "pub": {"NN": 4}})
    second = TagLexicon({"fast": {"RB": 2}, "to": {"IN": 9}, "inn": {"NN": 5}})
    assert joined(first, second).counts == {"fast": {"JJ": 30, "RB": 50}, "to": {"TO": 8}, "pub": {"NN": 4}}


def test_the_second_reader_is_the_same_again_and_leaves_chance_alone() -> None:
    sentences = [[("the", "DT"), ("pub", "NN")], [("a", "DT"), ("fast", "JJ"), ("inn", "NN")], []] * 4
    random.seed(7)
    state = random.getstate()
    weights = [second_tagger(sentences).model.weights for _ in range(2)]
    assert weights[0] == weights[1] and random.getstate() == state
    assert second_tagger(sentences).tag(["the", "pub"]) == [("the", "DT"), ("pub", "NN")]


def test_trees_read_the_lexicon_of_the_treebank() -> None:
    shipped = lexicon("treebank", PENN)
    assert set(shipped.counts) == set(lexicon("english", PENN).counts)
    assert shipped.probabilities("to") == {"TO": 1.0} and shipped.probabilities("pub")["NN"] > 0.9
    tree = SyntaxTree("(S (NP (DT *) (NN *)) (VP (VBZ *) (ADVP (RB *) (PP (TO *) (NP (NNP *))))) (. *))")
    assert tree.tags.words is shipped
    assert tree.check("The pub is next to Aromi .") and not tree.check("The pub is next of Aromi .")
    with pytest.raises(InvalidRequest, match="no tag lexicon 'treebank'"):
        PartOfSpeech("NOUN", lexicon="treebank")


@pytest.mark.parametrize("line", ["NP 3", "NP\t0 of 0\t^ DT NN", "NP\t3 of 2\t^ DT NN", "NP\t1 of 2\t^ DT"])
def test_bad_files_are_refused_with_the_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.tsv.gz"
    path.write_bytes(gzip.compress(f"NP\t1 of 2\t^ DT NN\n{line}\n".encode()))
    with pytest.raises(InvalidRequest, match=r"line 2: expected a label"):
        SpanLexicon.read(path)


def test_chunk_rules_are_alternatives_over_the_tags_that_they_match() -> None:
    assert chunk_pattern("NP: {<PRP.|DT>?<NN.?>}") == "((DT | PRP$) ? (NN | NNS | NNP))"
    two = chunk_pattern("NP:\n  {<DT><NN>}  # a comment\n  {<NNS>{2,3}}")
    assert two == "((DT) (NN)) | ((NNS) {2,3})"


GRAMMARS = [
    "NP: {<DT>?<JJ.*>*<NN>}", "NP: {<NN.*>{2,3}}", "NP: {<DT><NN>}\n {<VBZ>}", "X: {<RB|JJ><.>}", "X: {(<DT>|<,>)<NN>}",
]  # fmt: skip


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_the_automaton_holds_the_texts_in_which_nltk_finds_a_chunk(grammar: str, words: str) -> None:
    chunk = Chunk(grammar, lexicon=words)
    automaton, draw, found = chunk.to_automaton(), random.Random(0), []
    for _ in range(150):
        text = " ".join(draw.choice(list(WORDS)) for _ in range(draw.randint(0, 5)))
        found.append(chunk.check(text))
        assert automaton.accepts(text.encode()) == found[-1], text
    assert any(found) and not all(found)


def test_a_span_that_was_never_counted_is_in_no_text(counted: str, words: str) -> None:
    never = SyntaxSpan(1, 4, "NP", counted=counted, lexicon=words)
    sometimes = SyntaxSpan(0, 1, "NP", counted=counted, lexicon=words)
    assert never.check("the kid runs") is False and (~never).check("the kid runs") is True
    assert (never | sometimes).check("the kid runs")
    assert not never.to_automaton().accepts(b"the kid runs")
    far = SyntaxSpan(80, 81, "NP", lexicon=words, counted=counted)
    assert far.check(" ".join(["kid"] * 79 + ["runs the kid"])) and not far.check("the kid")


def test_an_open_phrase_has_no_place_for_a_parser_to_compare(parser: None, words: str, counted: str) -> None:
    with pytest.raises(InvalidRequest, match="compares whole trees"):
        SyntaxTree("(S (NP *) (VP (VBZ *)))", parser="trees-test", lexicon=words, counted=counted)


def test_chunks_are_those_that_nltk_finds(words: str) -> None:
    chunk = Chunk("NP: {<DT>?<NN>}", lexicon=words)
    assert chunk.check("fast the kid runs") and not chunk.check("fast runs")
    tree = chunk.chunks("fast the kid runs")
    assert tree is not None and [child.leaves() for child in tree if isinstance(child, Tree)] == [
        [("the", "DT"), ("kid", "NN")]
    ]
    assert isinstance(Chunk("NP: {<NN>}", lexicon=words, tolerance=0.1).check("the kid"), float)


def test_tag_sets_have_a_letter_for_each_tag_and_the_lexicons_know_no_other() -> None:
    for tags in (UNIVERSAL, PENN):
        assert len({tags.letter(tag) for tag in tags.tags}) == len(tags.tags)
        assert {tag for found in lexicon("english", tags).counts.values() for tag in found} <= set(tags.tags)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wish",
    [
        SyntaxSpan(3, 5, "NP"),
        SyntaxSpan(0, 2, "NP") & Words(include=["Italian"]) & Length(sentences=1),
        SyntaxTree("(S (NP (NNP *) (NNP *)) (VP (VBZ *) (NP *) (PP *)) (. *))"),
        Chunk("NP: {<DT><JJ><NN><NN>}") & ~Words(include=["coffee"]),
    ],
    ids=repr,
)
def test_the_tags_hold_in_every_text_of_the_shipped_model(wish: Constraint) -> None:
    out = GuidedPipeline.from_pretrained("restaurant-words")(constraint=wish, num_samples=6, steps=8)
    assert out.satisfied.all() and all(wish.check(text) for text in out.texts)


@pytest.fixture
def parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that takes the second word for the head of the first, in place of spaCy's."""
    import spacy
    from spacy.tokens import Doc

    nlp = spacy.blank("en")

    class Parser:
        vocab = nlp.vocab

        def __call__(self, text: str) -> Any:
            names = text.split() or ["x"]
            heads = [min(1, len(names) - 1)] * len(names)
            dependencies = ["dep"] * len(names)
            dependencies[heads[0]] = "ROOT"
            if len(names) > 1:
                dependencies[0] = "nsubj"
            tags = ["NN"] + ["VBZ"] * (len(names) - 1)
            pos = ["NOUN"] + ["VERB"] * (len(names) - 1)
            return Doc(nlp.vocab, words=names, heads=heads, deps=dependencies, tags=tags, pos=pos)

    for module in ("constituency", "dependency"):
        monkeypatch.setattr(f"constraints.{module}.spacy_parser", lambda name: Parser())


PATTERN = [
    {"RIGHT_ID": "verb", "RIGHT_ATTRS": {"POS": "VERB"}},
    {"LEFT_ID": "verb", "REL_OP": ">", "RIGHT_ID": "subject", "RIGHT_ATTRS": {"DEP": "nsubj", "ORTH": "Aromi"}},
]


@pytest.mark.usefixtures("parser")
def test_a_dependency_pattern_rewards_what_the_parser_finds_and_holds_its_words() -> None:
    wish = Dependency(PATTERN, parser="depends-test", weight=4.0)  # type: ignore[arg-type]
    assert wish.check("Aromi serves") == 1.0 and wish.check("serves Aromi") == 0.0
    assert not wish.hard and Constraint.from_config(wish.to_config()) == wish
    pipeline = GuidedPipeline.from_pretrained("restaurant-words")
    guide = wish.compile(pipeline.context(16))
    assert guide.automaton is not None and guide.reward is not None
    assert guide.reward(["Aromi serves", "x"], torch.zeros(2, 1)).tolist() == [4.0, 0.0]
    out = pipeline(constraint=wish & Length(words=(2, 4)), num_samples=3, steps=6, particles=4, max_new_tokens=16)
    assert all(re.search(r"\bAromi\b", text) for text in out.texts)
    with pytest.raises(InvalidRequest, match="Dependency"):
        Dependency([{"RIGHT_ID": "a"}], parser="depends-test")  # type: ignore[arg-type]


@pytest.mark.usefixtures("parser")
def test_a_parser_scores_spans_and_trees(counted: str, words: str) -> None:
    span = SyntaxSpan(0, 0, "NP", parser="spans-test", weight=2.0, sureness=0.0)
    assert not span.hard and span.check("kid runs") == 1.0
    tree = SyntaxTree("(S (NP (NN kid)) (VP (VBZ runs)))", lexicon=words, parser="spans-test")
    assert tree.check("kid runs") == 1.0 and tree.check("runs") == 0.5
