"""`SyntaxGuide`: parts of speech and constituents as a soft wish, by a network that reads canvases full of noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer

from constraints.chunk import Chunk
from constraints.classifier import check_strength, token_guide
from constraints.constituency import SyntaxSpan, SyntaxTree
from constraints.syntax import PartOfSpeech, tag_automaton
from constraints.tag_sets import PENN
from guided_dlm.classifiers import POINTS, EmbedScore, TokenScore, finished, first_order_bias, require_shared
from guided_dlm.constraint import CompileContext, Constraint, Guide
from guided_dlm.errors import Infeasible, InvalidRequest, shorten, within
from guided_dlm.parsing import Span, read_tree, spans_of
from guided_dlm.parsing.reader import Reading, SyntaxReader, log_accepted
from guided_dlm.parsing.spans import JOIN, is_preterminal
from guided_dlm.registry import register
from guided_dlm.vocabulary import Vocabulary

SHIPPED = Path(__file__).parent / "data"
_LEAST = 1e-3  # share of every tag's probability that is spread over all: no reading is impossible
Wish = PartOfSpeech | SyntaxSpan | SyntaxTree | Chunk


@register("syntax_guide")
@dataclass(frozen=True, kw_only=True, repr=False)
class SyntaxGuide(Constraint):
    """Pull texts towards what a `PartOfSpeech`, `Chunk`, `SyntaxSpan` or `SyntaxTree` asks for: `strength` * log p.

    A `SyntaxReader` says how likely each tag of each word and each constituent is, given the canvas with its noise. A
    pattern of tags has the probability that tags drawn one by one from these match it, all taggings summed exactly; a
    span that of its labels; a tree those of its constituents and its tags, multiplied. So it is a best effort twice
    over: the reader's marginals are not the joint law, and the pull is one gradient a step, as `Classifier` takes it,
    at the point that `method` says ("reward" judges finished texts only, for `particles=`). It reads the context, as
    the lexicons of the hard forms do not: compose both with `&`.

    `model` is "restaurant-syntax", which comes along, or a folder that `guided-dlm train-syntax-reader` wrote, for the
    diffusion model's own tokens. Place i of the canvas is taken for word i.
    """

    wish: Wish = field(kw_only=False)
    model: str = "restaurant-syntax"
    strength: float = 1.0
    method: str = "first_order"

    def __post_init__(self) -> None:
        """Refuse other wishes, unknown methods and what is no number."""
        with within("SyntaxGuide"):
            if isinstance(self.wish, Mapping):
                object.__setattr__(self, "wish", Constraint.from_config(self.wish))
            if not isinstance(self.wish, Wish):
                raise InvalidRequest(
                    f"{self.wish!r} has no soft form; give a PartOfSpeech, Chunk, SyntaxSpan or SyntaxTree."
                )
            if isinstance(self.wish, SyntaxTree) and _open_phrases(self.wish.tree):
                raise InvalidRequest(
                    f"'({_open_phrases(self.wish.tree)[0]} *)' is open, so that no word has a place; write its tags."
                )
        check_strength(self.strength, "SyntaxGuide")
        if self.method not in (*POINTS, "reward"):
            raise InvalidRequest(f"SyntaxGuide: method={self.method!r}; choose one of {', '.join(POINTS)}, reward.")

    def compile(self, context: CompileContext) -> Guide:
        """Return an energy, or a reward.

        Raises:
            Infeasible: the wish speaks of more words than the canvas has tokens.
            InvalidRequest: there is no such reader, or it knows none of these tags or labels, or a shorter canvas.
            VocabularyMismatch: it reads other tokens.
        """
        reader, tokenizer = load_reader(self.model)
        require_shared(context.vocabulary, tokenizer, reader)
        if context.length > reader.config.max_position_embeddings:
            raise InvalidRequest(
                f"{self!r}: the reader sees {reader.config.max_position_embeddings} tokens, and the canvas has "
                f"{context.length}; give a shorter max_new_tokens, or train a reader on a longer canvas."
            )
        if (fewest := _fewest(self.wish)) > context.length:
            raise Infeasible(f"{self!r} speaks of {fewest} words, and the canvas has {context.length} tokens.")
        reader.to(context.device)  # type: ignore[arg-type]
        size, weight_VD, bias = len(context.vocabulary), reader.get_input_embeddings().weight, None
        of_embeds = self._of_embeds(reader)
        if self.method == "first_order":
            bias = partial(first_order_bias, of_embeds, weight_VD[:size], shown=repr(self))
        guide = token_guide(_of_tokens(of_embeds, weight_VD), size, self.method, self.strength, repr(self), bias)
        return Guide(reward=guide.reward) if self.method == "reward" else guide

    def _of_embeds(self, reader: SyntaxReader) -> EmbedScore:
        log_p = _log_p(self.wish, reader)
        return lambda place_NLD: log_p(reader(inputs_embeds=place_NLD))

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Return log p(wish | text), not multiplied by the strength.

        Raises:
            InvalidRequest: the text is longer than the reader's canvas.
        """
        reader, tokenizer = load_reader(self.model)
        vocabulary, most = Vocabulary.from_tokenizer(tokenizer), reader.config.max_position_embeddings
        ids = list(tokens) if tokens is not None else vocabulary.encode(text)
        if len(ids) > most:
            raise InvalidRequest(f"{self!r}: the reader sees {most} tokens, and the text has {len(ids)}.")
        canvas = [*ids, vocabulary.eos_id, *[vocabulary.pad_id] * most][:most]
        score = _of_tokens(self._of_embeds(reader), reader.get_input_embeddings().weight)
        tokens_1L = torch.tensor([canvas], device=reader.device)
        return float(finished(score, len(vocabulary))([text], tokens_1L)[0])

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Say that nothing is guaranteed."""
        return {"guaranteed_against": "nothing", "reader": self.model}


def load_reader(name: str) -> tuple[SyntaxReader, Any]:
    """Return a reader and its tokenizer, by the name of one that comes along, or from a folder.

    Raises:
        InvalidRequest: there is none.
    """
    shipped = SHIPPED / name
    folder = shipped if shipped.is_dir() else Path(name)
    file = folder / "model.safetensors"
    return _load(str(folder), file.stat().st_mtime_ns if file.is_file() else 0)


@lru_cache(maxsize=4)
def _load(folder: str, written: int) -> tuple[SyntaxReader, Any]:
    """Load a folder once for each time that its weights are written."""
    try:
        reader = SyntaxReader.from_pretrained(folder, dtype=torch.float32).requires_grad_(False)
        reader.eval()  # type: ignore[no-untyped-call]
        return reader, AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InvalidRequest(
            f"The syntax reader {folder!r} could not be loaded: {shorten(str(error), 200)}. 'restaurant-syntax' comes "
            "along; guided-dlm train-syntax-reader writes others."
        ) from error


def _of_tokens(of_embeds: EmbedScore, weight_VD: Tensor) -> TokenScore:
    """Return a score of embeddings as one of relaxed tokens `[N, L, V]`, in which it is differentiable."""
    return lambda tokens_NLV: of_embeds(tokens_NLV.to(weight_VD) @ weight_VD[: tokens_NLV.shape[-1]]).to(tokens_NLV)


def _log_p(wish: Wish, reader: SyntaxReader) -> Callable[[Reading], Tensor]:
    """Return the function that says log p(wish) `[N]` of what a reader found.

    Raises:
        InvalidRequest: it was trained without a tag set or a label that the wish names.
    """
    parts = []
    if not isinstance(wish, SyntaxSpan):
        parts.append(_of_tags(wish if isinstance(wish, PartOfSpeech) else wish.tags, reader))
    if isinstance(wish, SyntaxSpan):
        parts.append(_of_spans([(wish.start, wish.end, wish.label)], reader))
    elif isinstance(wish, SyntaxTree):
        parts.append(_of_spans(spans_of(read_tree(wish.tree)), reader))
    return lambda reading: reduce(add, (part(reading) for part in parts))


def _fewest(wish: Wish) -> int:
    """Return how many words a text has at least."""
    if isinstance(wish, SyntaxSpan | SyntaxTree):
        return wish.fewest
    tags = wish if isinstance(wish, PartOfSpeech) else wish.tags
    automaton, states, words = tag_automaton(tags.pattern, tags.tag_names), [0], 0
    while not automaton.accepting[states].any():
        states, words = [state for state in np.unique(automaton.table[states]) if state >= 0], words + 1
    return words


def _of_tags(wish: PartOfSpeech, reader: SyntaxReader) -> Callable[[Reading], Tensor]:
    name, known = wish.tagset, reader.config.tag_sets
    if name not in known:
        raise InvalidRequest(f"The syntax reader knows the tag sets {', '.join(known)} and not {name!r}.")
    automaton, number = tag_automaton(wish.pattern, wish.tag_names), wish.tag_names.number
    column_T = automaton.column_of[[number[tag] for tag in known[name]]]
    table_ST = torch.tensor(automaton.table[:, column_T], dtype=torch.int64).to(reader.device)
    accepting_S = torch.tensor(automaton.accepting).to(reader.device)

    def log_p(reading: Reading) -> Tensor:
        p_NLT = reading.tags[name].softmax(-1)
        return log_accepted(((1 - _LEAST) * p_NLT + _LEAST / p_NLT.shape[-1]).log(), table_ST, accepting_S)

    return log_p


def _of_spans(spans: Sequence[Span], reader: SyntaxReader) -> Callable[[Reading], Tensor]:
    known = reader.config.labels
    single = [(first, last, label) for first, last, chain in spans for label in chain.split(JOIN)]
    for *_, label in single:
        if label not in known:
            raise InvalidRequest(f"The syntax reader knows the labels {', '.join(known)} and not {label!r}.")
    at_3M = torch.tensor([(first, last, known.index(label)) for first, last, label in single]).T.to(reader.device)

    def log_p(reading: Reading) -> Tensor:
        first_M, last_M, label_M = at_3M
        return F.logsigmoid(reading.spans_BLLK[:, first_M, last_M, label_M]).sum(-1)

    return log_p


def _open_phrases(tree: str) -> list[str]:
    labels = (node.label() for node in read_tree(tree).subtrees(is_preterminal))
    return [label for label in labels if label not in PENN.number]
