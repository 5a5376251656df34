"""Vocabularies of every kind of tokenizer: bytes, the leading-space rule, round trips, and samples that hold."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SENTENCES, TOKENIZERS
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from wishes import holds

from constraints import Blank, Choice, Length, Regex, Template, Words
from guided_dlm import CompileContext, Constraint, Vocabulary
from guided_dlm.automata import TokenAutomaton
from guided_dlm.errors import Infeasible, InvalidRequest
from guided_dlm.posterior import Posterior

KINDS = list(TOKENIZERS)
ALL_BYTES = ["byte-level BPE", "SentencePiece BPE", "SentencePiece unigram"]


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    return TOKENIZERS[kind]()


@cache
def vocabulary_of(kind: str) -> Vocabulary:
    return Vocabulary.from_tokenizer(tokenizer_of(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_specials_add_nothing_and_keep_their_roles(kind: str) -> None:
    tokenizer, vocabulary = tokenizer_of(kind), vocabulary_of(kind)
    assert len(vocabulary) == len(tokenizer)
    assert vocabulary.eos_id == (
        tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    )
    assert vocabulary.pad_id == tokenizer.pad_token_id
    assert vocabulary.mask_id == tokenizer.mask_token_id
    specials = set(tokenizer.all_special_ids)
    assert {i for i, token in enumerate(vocabulary.tokens) if not token} == specials
    assert set(vocabulary.writable.nonzero()[0].tolist()) == set(range(len(vocabulary))) - specials | {
        vocabulary.eos_id,
        vocabulary.pad_id,
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", SENTENCES)
def test_corpus_texts_round_trip_and_decode_as_the_tokenizer_does(kind: str, text: str) -> None:
    tokenizer, vocabulary = tokenizer_of(kind), vocabulary_of(kind)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert vocabulary.encode(text) == ids
    assert vocabulary.decode(ids) == text
    tail = [vocabulary.eos_id, *[vocabulary.pad_id] * 3]
    assert vocabulary.decode([*ids, *tail]) == text
    assert vocabulary.text_length([*ids, *tail]) == len(ids)
    if kind != "WordPiece":  # its own decoder glues no punctuation either, but is told to clean up
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False).removeprefix(" ") == text


@pytest.mark.parametrize("kind", ALL_BYTES)
@settings(max_examples=30)
@given(text=st.text(max_size=12))
def test_byte_vocabularies_write_every_text(kind: str, text: str) -> None:
    vocabulary = vocabulary_of(kind)
    written = vocabulary.decode(vocabulary.encode(text))
    assert written == text.removeprefix(" ") or written == text


@pytest.mark.parametrize("kind", KINDS)
def test_one_leading_space_is_dropped_and_no_more(kind: str) -> None:
    vocabulary = vocabulary_of(kind)
    starts = [i for i, token in enumerate(vocabulary.tokens) if token.startswith(b" ") and token.strip()]
    assert starts
    first = starts[0]
    word = vocabulary.tokens[first].decode().removeprefix(" ")
    assert vocabulary.decode([first]) == word
    assert vocabulary.decode([first, first]) == f"{word} {word}"
    spaces = [i for i, token in enumerate(vocabulary.tokens) if token == b" "]
    for space in spaces:
        assert vocabulary.decode([space]) == ""
        assert vocabulary.decode([space, first]) == f" {word}"


def test_a_split_character_is_joined_and_a_broken_one_replaced() -> None:
    vocabulary = vocabulary_of("byte-level BPE")
    by_bytes = {token: i for i, token in enumerate(vocabulary.tokens)}
    halves = [by_bytes[bytes([b])] for b in "\N{GRINNING FACE}".encode()]
    assert vocabulary.decode(halves) == "\N{GRINNING FACE}"
    assert "\N{REPLACEMENT CHARACTER}" in vocabulary.decode(halves[:-1])


@pytest.mark.parametrize("text", ["The\nMill", "The  Mill", "The Mill ", "  The Mill", "The\N{NO-BREAK SPACE}Mill\n"])
@pytest.mark.parametrize("kind", ["word level", "ours"])
def test_white_space_that_a_word_vocabulary_cannot_write_is_normalised(kind: str, text: str) -> None:
    vocabulary = vocabulary_of(kind)
    assert vocabulary.encode(text) == vocabulary.encode("The Mill")


@pytest.mark.parametrize("kind", ALL_BYTES)
@pytest.mark.parametrize("text", ["The\nMill", "The  Mill", "The Mill ", "\tThe"])
def test_white_space_that_can_be_written_is_kept(kind: str, text: str) -> None:
    vocabulary = vocabulary_of(kind)
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_a_prompt_of_white_space_alone_is_empty_where_it_cannot_be_written() -> None:
    assert vocabulary_of("word level").encode(" \n ") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_lone_surrogate_is_refused_in_a_sentence(kind: str) -> None:
    with pytest.raises(InvalidRequest, match=r"'The \\ud800' holds a lone surrogate at position 4"):
        vocabulary_of(kind).encode("The \ud800")


def test_a_long_text_is_shortened_in_the_message() -> None:
    with pytest.raises(InvalidRequest, match=r"\.\.\.': it stops at ' \u03a9'\. Reword") as caught:
        vocabulary_of("ours").encode("The Mill " * 100 + "\u03a9")
    assert len(str(caught.value)) < 200


def test_an_unknown_word_is_refused_not_replaced() -> None:
    with pytest.raises(InvalidRequest, match="cannot write 'The zebra'"):
        vocabulary_of("word level").encode("The zebra")


def test_specials_spelled_in_a_prompt_are_text() -> None:
    vocabulary = vocabulary_of("ours")
    ids = vocabulary.encode("The <mask> pub <eos>")
    assert vocabulary.decode(ids) == "The <mask> pub <eos>"
    assert vocabulary.mask_id not in ids
    assert vocabulary.eos_id not in ids


WISHES = [
    Length(words=(2, 4)),
    Length(characters=7),
    Length(tokens=5, sentences=1),
    Words(include=["pub"], exclude=["The"]),
    Words(include=["pub", "."], in_order=True),
    Regex(r"[A-Z][a-z]*( [a-z]+)*( [.!?])?"),
    Template(["The ", Blank(words=(1, 2)), " pub", Blank(words=0)]),
    Choice(["The pub .", "The lower"]) | Words(include=["pub pub"]),
    ~Regex(r".*[a-m].*", flags="s") & Length(words=(1, None)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wish", WISHES, ids=repr)
def test_samples_from_random_logits_hold(kind: str, wish: Constraint) -> None:
    vocabulary, length = vocabulary_of(kind), 14
    automaton = wish.compile(CompileContext(vocabulary=vocabulary, length=length)).automaton
    assert automaton is not None
    generator = torch.Generator().manual_seed(1)
    logits_BLV = 2.0 * torch.randn(12, length, len(vocabulary), generator=generator)
    posterior = Posterior(logits_BLV, automaton)
    texts = set()
    for row in [*posterior.sample(generator).tolist(), *posterior.mode().tolist()]:
        text = vocabulary.decode(row)
        assert "\N{REPLACEMENT CHARACTER}" not in text
        assert holds(wish, text, row[: vocabulary.text_length(row)]), text
        texts.add(text)
    assert len(texts) > 1


@pytest.mark.parametrize("kind", ["WordPiece", "word level", "ours"])
def test_a_character_outside_the_vocabulary_is_infeasible(kind: str) -> None:
    context = CompileContext(vocabulary=vocabulary_of(kind), length=8)
    with pytest.raises(Infeasible, match=r"Words\(include=\['\u03a9'\]\).*vocabulary's tokens cannot write"):
        Words(include=["\u03a9"]).compile(context)


@pytest.mark.parametrize("kind", KINDS)
def test_every_spelling_of_a_text_counts(kind: str) -> None:
    vocabulary = vocabulary_of(kind)
    automaton = Choice(["The pub"]).compile(CompileContext(vocabulary=vocabulary, length=9)).automaton
    assert automaton is not None
    spellings = [vocabulary.encode("The pub"), vocabulary._greedy("The pub")]
    by_bytes = {token: i for i, token in enumerate(vocabulary.tokens)}
    if kind in ("byte-level BPE", "SentencePiece unigram"):
        spellings.append([by_bytes[bytes([b])] for b in b"The pub"])
        spellings.append([by_bytes[bytes([b])] for b in b" The pub"])
    for ids in spellings:
        canvas = [*ids, vocabulary.eos_id, *[vocabulary.pad_id] * (8 - len(ids))]
        assert automaton.accepts(canvas), ids
        assert not automaton.accepts([*ids, *ids])


def test_a_tokenizer_without_backend_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"object has no fast backend.*from_tokens"):
        Vocabulary.from_tokenizer(object())


def test_a_vocabulary_with_unused_ids_is_read() -> None:
    """Ids may have holes: then there are fewer tokens than the largest id says."""
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 5, "<unk>": 2}, unk_token="<unk>"))
    vocabulary = Vocabulary.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))
    assert vocabulary.decode([0, 5]) == "a b"
    assert not vocabulary.writable[[1, 2, 3, 4]].any()


def test_word_marks_that_are_not_understood_are_refused() -> None:
    backend = Tokenizer(models.BPE({"a</w>": 0, "b": 1}, [], end_of_word_suffix="</w>"))
    with pytest.raises(InvalidRequest, match=r"end_of_word_suffix='</w>' is not supported"):
        Vocabulary.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))


def test_an_added_word_is_spelled_as_it_is() -> None:
    tokenizer = TOKENIZERS["byte-level BPE"]()
    tokenizer.add_tokens(["caf\u00e9s"])
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    assert vocabulary.tokens[tokenizer.convert_tokens_to_ids("caf\u00e9s")] == "caf\u00e9s".encode()
    assert vocabulary.decode(tokenizer.encode("The caf\u00e9s")) == "The caf\u00e9s"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tokens": ()}, "at least one token"),
        ({"tokens": (b"a",), "eos_id": 1}, "eos_id=1 is outside"),
        ({"tokens": (b"a",), "pad_id": -1}, "pad_id=-1 is outside"),
        ({"tokens": (b"a", b""), "eos_id": 1, "mask_id": 1}, "mask_id=1 is also"),
    ],
)
def test_impossible_special_ids_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        Vocabulary(**fields)  # type: ignore[arg-type]


def test_padding_defaults_to_the_end_of_text() -> None:
    vocabulary = Vocabulary.from_tokens([b"a", b"<eos>"], eos_id=1)
    assert vocabulary.pad_id == 1
    assert vocabulary.tokens[1] == b""
    assert vocabulary.decode([0, 1, 1]) == "a"


def test_the_fingerprint_tells_vocabularies_apart() -> None:
    prints = {vocabulary_of(kind).fingerprint for kind in KINDS}
    assert len(prints) == len(KINDS)
    again = Vocabulary.from_tokenizer(TOKENIZERS["word level"]())
    assert again.fingerprint == vocabulary_of("word level").fingerprint
    assert (
        Vocabulary.from_tokens([b"a", b"b"], eos_id=1).fingerprint
        != Vocabulary.from_tokens([b"ab", b"b"], eos_id=1).fingerprint
    )


def test_what_is_never_written_may_be_read() -> None:
    vocabulary = Vocabulary(("é".encode()[:1], "é".encode()[1:], b"a", b""), eos_id=3, never_written=frozenset({0}))
    assert vocabulary.writable.tolist() == [False, True, True, True]
    assert vocabulary.encode("aé") == [2, 0, 1]
    assert vocabulary.decode([2, 0, 1, 3]) == "aé"
    everything = TokenAutomaton.well_formed(vocabulary)
    assert everything.accepts([2, 2, 3])
    assert not everything.accepts([0, 1, 3])
    assert vocabulary.fingerprint != Vocabulary(vocabulary.tokens, eos_id=3).fingerprint
    with pytest.raises(InvalidRequest, match=r"never_written=\[4\] is outside the vocabulary of 4 tokens"):
        Vocabulary(vocabulary.tokens, eos_id=3, never_written=frozenset({4}))
