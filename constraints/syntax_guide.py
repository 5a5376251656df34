"""`SyntaxGuide`: parts of speech and constituents as a soft wish, by a network that reads canvases full of noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from constraints.chunk import Chunk
from constraints.classifier import check_strength, token_guide
from constraints.constituency import SyntaxSpan, SyntaxTree
from constraints.syntax import PartOfSpeech, tag_automaton
from constraints.syntax_readers import find_reader, load_reader
from constraints.tag_sets import PENN
from guided_dlm.automata.dfa import Final, Table
from guided_dlm.classifiers import POINTS, EmbedScore, TokenScore, finished, first_order_bias, require_shared
from guided_dlm.constraint import CompileContext, Constraint, Guide, Step
from guided_dlm.errors import AutomatonTooLarge, Infeasible, InvalidRequest, within
from guided_dlm.parsing import Span, read_tree, spans_of
from guided_dlm.parsing.reader import Reading, SyntaxReader, log_accepted, log_straight, straight
from guided_dlm.parsing.spans import JOIN, is_preterminal
from guided_dlm.registry import register
from guided_dlm.vocabulary import Vocabulary

_LEAST = 1e-3  # share of every tag's probability that is spread over all: no reading is impossible
_CURE = "train a reader of this model's tokens (guided-dlm train-syntax-reader)"
_MOST_STATES = 256  # a product of dense matrices of so many states is what a step can bear
_OfEmbeds = Callable[..., Tensor]
Wish = PartOfSpeech | SyntaxSpan | SyntaxTree | Chunk


@register("syntax_guide")
@dataclass(frozen=True, kw_only=True, repr=False)
class SyntaxGuide(Constraint):
    """Pull texts towards what a `PartOfSpeech`, `Chunk`, `SyntaxSpan` or `SyntaxTree` asks for: `strength` * log p.

    A `SyntaxReader` says how likely each tag of each word and each constituent is, given the canvas with its noise. A
    pattern of tags has the probability that tags drawn one by one from these match it, all taggings summed exactly; a
    span that of its labels, each for itself (a "VP" may also be an "S::VP"), and of the text to reach so far; a tree
    those of its constituents and its tags, multiplied. Labels that the reader does not know are left out (`notes` name
    them). So it is a best effort twice over: the reader's marginals are not the joint law, and the pull is one gradient
    a step, as `Classifier` takes it, at the point that `method` says ("reward" judges finished texts only, for
    `particles=`). It reads the context, as the lexicons of the hard forms do not: compose both with `&`. Of the wish
    only the pattern, span or tree counts, not its lexicon, strength or tolerance.

    `model` is "restaurant-syntax", which comes along, or a folder that `guided-dlm train-syntax-reader` wrote, for the
    diffusion model's own tokens. It reads the completion without the prompt, and place i is taken for word i: a word of
    several tokens shifts what follows. On masked models, while a text is written, the padding behind it is left unread
    but for one token, for speed; that changes the pull somewhat. The reward, and `check`, are of whole canvases.
    """

    wish: Wish = field(kw_only=False)
    model: str = "restaurant-syntax"
    strength: float = 1.0
    method: str = "first_order"

    def __post_init__(self) -> None:
        """Refuse other wishes, readers that there are not, unknown methods and what is no number."""
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
            find_reader(self.model)
        check_strength(self.strength, "SyntaxGuide")
        if self.method not in (*POINTS, "reward"):
            raise InvalidRequest(f"SyntaxGuide: method={self.method!r}; choose one of {', '.join(POINTS)}, reward.")

    def compile(self, context: CompileContext) -> Guide:
        """Return a bias, an energy or a reward.

        Raises:
            AutomatonTooLarge: the pattern's automaton has too many states.
            Infeasible: the wish speaks of more words than the canvas has tokens.
            InvalidRequest: the reader lacks the wish's tags, or all of its labels, or has a shorter canvas.
            VocabularyMismatch: it reads other tokens.
        """
        reader, tokenizer = load_reader(self.model, str(context.device))
        require_shared(context.vocabulary, tokenizer, reader, "syntax reader", _CURE)
        if context.length > reader.config.max_position_embeddings:
            raise InvalidRequest(
                f"{self!r}: the reader sees {reader.config.max_position_embeddings} tokens, and the canvas has "
                f"{context.length}; give a shorter max_new_tokens, or train a reader on a longer canvas."
            )
        if (fewest := _fewest(self.wish, reader)) > context.length:
            raise Infeasible(f"{self!r} speaks of {fewest} words, and the canvas has {context.length} tokens.")
        size, weight_VD, bias = len(context.vocabulary), reader.get_input_embeddings().weight, None
        of_embeds = self._of_embeds(reader, context.embedding_VD)

        def at(step: Step) -> EmbedScore:
            return _inside(of_embeds, weight_VD, step, context, fewest)

        if self.method == "first_order":
            bias = partial(first_order_bias, at, weight_VD[:size], shown=repr(self))
        guide = token_guide(
            _of_tokens(self._of_embeds(reader), weight_VD), size, self.method, self.strength, repr(self), bias,
            lambda step: _of_tokens(at(step), weight_VD),
        )  # fmt: skip
        return Guide(reward=guide.reward) if self.method == "reward" else guide

    def _of_embeds(self, reader: SyntaxReader, model_VD: Tensor | None = None) -> _OfEmbeds:
        """Return log p(wish) of embeddings; the reader multiplies bfloat16 beside a model that does, itself float32."""
        log_p = _log_p(self.wish, reader)
        fast = model_VD is not None and model_VD.dtype == torch.bfloat16

        def of_embeds(place_NLD: Tensor, read_NL: Tensor | None = None) -> Tensor:
            here_NL = None if read_NL is None else read_NL.to(place_NLD.device)
            with torch.autocast(place_NLD.device.type, torch.bfloat16, enabled=fast):
                reading = reader(inputs_embeds=place_NLD, attention_mask=here_NL)
            return log_p(reading.in_float32())

        return of_embeds

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Return log p(wish | text), not multiplied by the strength, of the text on the reader's whole canvas.

        Raises:
            InvalidRequest: the text is longer than that.
        """
        reader, tokenizer = load_reader(self.model, "cpu")
        vocabulary, most = Vocabulary.from_tokenizer(tokenizer), reader.config.max_position_embeddings
        ids = list(tokens) if tokens is not None else vocabulary.encode(text)
        if len(ids) > most:
            raise InvalidRequest(f"{self!r}: the reader sees {most} tokens, and the text has {len(ids)}.")
        canvas = [*ids, vocabulary.eos_id, *[vocabulary.pad_id] * most][:most]
        score = _of_tokens(self._of_embeds(reader), reader.get_input_embeddings().weight)
        return float(finished(score, len(vocabulary))([text], torch.tensor([canvas]))[0])

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Name the reader, and constituents that it does not know."""
        known = load_reader(self.model, str(context.device))[0].config.labels
        left_out = sorted({label for *_, label in _spans(self.wish) if label not in known})
        return {"reader": self.model} | ({"labels_left_out": left_out} if left_out else {})


def _inside(of_embeds: _OfEmbeds, weight_VD: Tensor, step: Step, context: CompileContext, fewest: int) -> EmbedScore:
    """Return the score of a step's embeddings, without the padding that need not be read.

    A block's stand between what was written before it and masks for the rest.
    """
    before_BK = step.tokens_BL[:, :0] if step.before_BK is None else step.before_BK
    rest, mask_id = context.length - before_BK.shape[1] - step.tokens_BL.shape[1], context.vocabulary.mask_id
    if rest and mask_id is None:
        raise InvalidRequest(
            "A syntax reader reads masks for blocks that are not written yet, and this vocabulary has none; leave out "
            "block_length."
        )
    if not rest and not before_BK.shape[1]:
        read_BL = _worth_reading(step, context, fewest)
        return lambda place_BLD: of_embeds(place_BLD[:, : read_BL.shape[1]], None if read_BL.all() else read_BL)
    masks_BR = step.tokens_BL.new_full((len(before_BK), rest), -1 if mask_id is None else mask_id)
    before_BKD, rest_BRD = (weight_VD[tokens.to(weight_VD.device)] for tokens in (before_BK, masks_BR))
    return lambda place_BLD: of_embeds(torch.cat([before_BKD, place_BLD, rest_BRD], dim=1))


def _worth_reading(step: Step, context: CompileContext, fewest: int) -> Tensor:
    """Return the places up to one token of each row's padding, bool `[B, L']`, L' what the longest row needs."""
    known_BL, pad_id = step.known_BL, context.vocabulary.pad_id
    place_L = torch.arange(context.length, device=step.tokens_BL.device)
    if known_BL is None or pad_id is None:
        return torch.ones_like(step.tokens_BL, dtype=torch.bool)
    last_B1 = torch.where(known_BL == pad_id, -1, place_L).amax(-1, keepdim=True)
    read_BL = place_L <= (last_B1 + 1).clamp_min(fewest - 1)
    return read_BL[:, read_BL.any(0)]


def _of_tokens(of_embeds: EmbedScore, weight_VD: Tensor) -> TokenScore:
    """Return a score of embeddings as one of relaxed tokens `[N, L, V]`, in which it is differentiable."""
    return lambda tokens_NLV: of_embeds(tokens_NLV.to(weight_VD) @ weight_VD[: tokens_NLV.shape[-1]]).to(tokens_NLV)


def _log_p(wish: Wish, reader: SyntaxReader) -> Callable[[Reading], Tensor]:
    """Return the function that says log p(wish) `[N]` of what a reader found.

    Raises:
        InvalidRequest: it was trained without the tag set, or without any of the labels, that the wish names.
    """
    parts = []
    if not isinstance(wish, SyntaxSpan):
        parts.append(_of_tags(wish if isinstance(wish, PartOfSpeech) else wish.tags, reader))
    if spans := [span for span in _spans(wish) if span[2] in reader.config.labels]:
        parts.append(_of_spans(spans, reader))
        if isinstance(wish, SyntaxSpan) and reader.config.tag_sets:
            parts.append(partial(_of_reach, wish.end, next(iter(reader.config.tag_sets))))
    if not parts:
        raise InvalidRequest(
            f"The syntax reader knows the labels {', '.join(reader.config.labels)}, and {wish!r} has none of them."
        )
    return lambda reading: reduce(add, (part(reading) for part in parts))


def _spans(wish: Wish) -> list[Span]:
    """Return the constituents that a wish names, each label of a chain alone."""
    if isinstance(wish, SyntaxTree):
        named = spans_of(read_tree(wish.tree))
    else:
        named = [(wish.start, wish.end, wish.label)] if isinstance(wish, SyntaxSpan) else []
    return [(first, last, label) for first, last, chain in named for label in chain.split(JOIN)]


def _fewest(wish: Wish, reader: SyntaxReader) -> int:
    """Return how many words a text has at least, of the tags that the reader knows."""
    if isinstance(wish, SyntaxSpan | SyntaxTree):
        return wish.fewest
    return _shortest(*_known_tags(wish if isinstance(wish, PartOfSpeech) else wish.tags, reader)) or 0


def _shortest(table: Table, accepting: Final) -> int | None:
    """Return the length of the shortest path from the start to the end, or None."""
    states, seen, words = np.array([0]), np.zeros(len(table), dtype=bool), 0
    while states.size:
        if accepting[states].any():
            return words
        seen[states] = True
        after = np.unique(table[states])
        states, words = after[(after >= 0) & ~seen[after]], words + 1
    return None


def _known_tags(wish: PartOfSpeech, reader: SyntaxReader) -> tuple[Table, Final]:
    """Return the pattern's automaton over the reader's tags, and where it may end."""
    name, known = wish.tagset, reader.config.tag_sets
    if name not in known:
        raise InvalidRequest(f"The syntax reader knows the tag sets {', '.join(known)} and not {name!r}.")
    automaton, number = tag_automaton(wish.pattern, wish.tag_names), wish.tag_names.number
    if strange := [tag for tag in known[name] if tag not in number]:
        raise InvalidRequest(f"The syntax reader's tag set {name!r} has {strange[0]!r}, which is no tag of it.")
    table = automaton.table[:, automaton.column_of[[number[tag] for tag in known[name]]]]
    if len(table) > _MOST_STATES:
        raise AutomatonTooLarge(f"{wish!r} has {len(table)} states; a syntax reader follows up to {_MOST_STATES}.")
    if _shortest(table, automaton.accepting) is None:
        raise InvalidRequest(f"{wish!r} needs a tag that the syntax reader has not seen; it knows {known[name]}.")
    return table, automaton.accepting


def _of_tags(wish: PartOfSpeech, reader: SyntaxReader) -> Callable[[Reading], Tensor]:
    table, accepting = _known_tags(wish, reader)
    table_ST = torch.tensor(table, dtype=torch.int64).to(reader.device)
    accepting_S = torch.tensor(accepting).to(reader.device)
    places_NT = straight(table_ST, accepting_S)

    def log_p(reading: Reading) -> Tensor:
        p_NLT = reading.tags[wish.tagset].softmax(-1)
        log_p_NLT = ((1 - _LEAST) * p_NLT + _LEAST / p_NLT.shape[-1]).log()
        if places_NT is not None:
            return log_straight(log_p_NLT, places_NT)
        return log_accepted(log_p_NLT, table_ST, accepting_S)

    return log_p


def _of_reach(last: int, tagset: str, reading: Reading) -> Tensor:
    """Return log p(the text has a word at this place)."""
    return torch.log1p(-(1 - _LEAST) * reading.tags[tagset][:, last].softmax(-1)[:, -1])


def _of_spans(spans: Sequence[Span], reader: SyntaxReader) -> Callable[[Reading], Tensor]:
    number = reader.config.labels.index
    at_3M = torch.tensor([(first, last, number(label)) for first, last, label in spans]).T.to(reader.device)

    def log_p(reading: Reading) -> Tensor:
        return F.logsigmoid(reading.spans(*at_3M)).sum(-1)

    return log_p


def _open_phrases(tree: str) -> list[str]:
    labels = (node.label() for node in read_tree(tree).subtrees(is_preterminal))
    return [label for label in labels if label not in PENN.number]
