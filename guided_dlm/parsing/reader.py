"""A small network that reads tags and constituents off canvases full of noise, to guide a model at every step."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, BertConfig, BertModel, PreTrainedModel

_NEVER = -1e9
_CERTAIN = -1e4  # the logit of what is ruled out, where the rest has 0


class SyntaxReaderConfig(BertConfig):  # type: ignore[no-untyped-call]
    """A BERT encoder's settings, the names of the tags by tag set, the constituents' labels, and `span_size`.

    Place i of the canvas is word i: the vocabulary's tokens have to be whole words.
    """

    model_type = "guided-dlm-syntax-reader"

    def __init__(
        self,
        tag_sets: dict[str, list[str]] | None = None,
        labels: list[str] | None = None,
        span_size: int = 16,
        **kwargs: Any,
    ) -> None:
        """Take what `BertConfig` takes beside the names."""
        super().__init__(**kwargs)
        self.tag_sets = {name: list(tags) for name, tags in (tag_sets or {}).items()}
        self.labels = list(labels or [])
        self.span_size = span_size


class Reading(NamedTuple):
    """Logits given the canvas with its noise.

    `tags` has `[B, L, T + 1]` for each tag set, the last class for what stands after the text. `first_BLKF` and
    `last_BLKF` are what each word is as an end of a constituent of each label; `spans_BLLK` and `spans` multiply them.
    """

    tags: dict[str, Tensor]
    first_BLKF: Tensor
    last_BLKF: Tensor
    prior_BK: Tensor

    @property
    def spans_BLLK(self) -> Tensor:
        """The logit that the words from the first place to the second, both included, are a constituent of a label."""
        product_BLLK: Tensor = torch.einsum("bikf,bjkf->bijk", self.first_BLKF, self.last_BLKF)
        return product_BLLK / self._scale + self.prior_BK[:, None, None]

    def spans(self, first_M: Tensor, last_M: Tensor, label_M: Tensor) -> Tensor:
        """Return these logits of M spans only, `[B, M]`."""
        product_BMF: Tensor = self.first_BLKF[:, first_M, label_M] * self.last_BLKF[:, last_M, label_M]
        return product_BMF.sum(-1) / self._scale + self.prior_BK[:, label_M]

    def in_float32(self) -> Reading:
        """Return the same in float32."""
        tags = {name: logits_BLT.float() for name, logits_BLT in self.tags.items()}
        return Reading(tags, self.first_BLKF.float(), self.last_BLKF.float(), self.prior_BK.float())

    @property
    def _scale(self) -> float:
        return math.sqrt(self.first_BLKF.shape[-1])


class SyntaxReader(PreTrainedModel):  # type: ignore[no-untyped-call]
    """p(tag of a word | canvas) and p(words are a constituent | canvas), each marginal on its own.

    Labels do not exclude one another, so that an S that is only a VP can be both. A span is scored by a bilinear form
    of the words at its ends (1611.01734, eq. 9, does so for dependencies).
    """

    config_class = SyntaxReaderConfig
    config: SyntaxReaderConfig

    def __init__(self, config: SyntaxReaderConfig) -> None:
        """Build it untrained."""
        super().__init__(config)
        width, spans = config.hidden_size, len(config.labels) * config.span_size
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.tags = nn.ModuleDict({name: nn.Linear(width, len(tags) + 1) for name, tags in config.tag_sets.items()})
        self.first, self.last = nn.Linear(width, spans), nn.Linear(width, spans)
        self.prior = nn.Parameter(torch.full((len(config.labels),), -4.0))  # most pairs of words are no constituent
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings."""
        return self.encoder.embeddings.word_embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Reading:
        """Read canvases `[B, L]`, or embeddings of relaxed ones `[B, L, D]`.

        Where the mask `[B, L]` is 0 nothing is read: what stands there is after the text, for certain.
        """
        hidden_BLD = self.encoder(
            input_ids=input_ids, inputs_embeds=inputs_embeds, attention_mask=attention_mask
        ).last_hidden_state
        first_BLKF, last_BLKF = (
            side(hidden_BLD).unflatten(-1, (len(self.config.labels), self.config.span_size))
            for side in (self.first, self.last)
        )
        tags = {name: head(hidden_BLD) for name, head in self.tags.items()}
        if attention_mask is not None:
            tags = {name: _ended(logits_BLT, attention_mask) for name, logits_BLT in tags.items()}
        return Reading(tags, first_BLKF, last_BLKF, self.prior.expand(len(hidden_BLD), -1))


def _ended(logits_BLT: Tensor, read_BL: Tensor) -> Tensor:
    """Return logits that say the last class wherever nothing is read."""
    end_T = torch.full_like(logits_BLT[0, 0], _CERTAIN)
    end_T[-1] = 0.0
    return torch.where(read_BL.bool()[..., None], logits_BLT, end_T)


def log_accepted(log_p_BLT: Tensor, table_ST: Tensor, accepting_S: Tensor) -> Tensor:
    """Return the log-probability `[B]` that tags, independent of one another, make up what an automaton accepts.

    `log_p_BLT` has one class more than the automaton's table has columns: the end, after which only ends follow; a text
    may fill its canvas. `table_ST` holds the next state, -1 for none; `accepting_S` is bool. One product of transition
    matrices `[S + 1, S + 1]` over the places, in pairs: a logarithm of L steps. In float64; where nothing is accepted
    it says -1e9.
    """
    states, tags = table_ST.shape
    moves_TSS = log_p_BLT.new_zeros(tags + 1, states + 1, states + 1, dtype=torch.float64)
    state_N, tag_N = (table_ST >= 0).nonzero(as_tuple=True)
    moves_TSS[tag_N, state_N, table_ST[state_N, tag_N]] = 1.0
    moves_TSS[tags, :states, states] = accepting_S.double()
    moves_TSS[tags, states, states] = 1.0
    log_BLSS = _log(torch.einsum("blt,tsu->blsu", log_p_BLT.double().exp(), moves_TSS))
    stay_1SS = _log(torch.eye(states + 1, dtype=torch.float64, device=log_p_BLT.device))[None]
    while log_BLSS.shape[1] > 1:
        if log_BLSS.shape[1] % 2:
            log_BLSS = torch.cat([log_BLSS, stay_1SS.expand(len(log_BLSS), 1, -1, -1)], dim=1)
        log_BLSS = _log_product(log_BLSS[:, 0::2], log_BLSS[:, 1::2])
    ends_S = torch.cat([accepting_S, accepting_S.new_ones(1)])
    return log_BLSS[:, 0, 0].masked_fill(~ends_S, _NEVER).logsumexp(-1).clamp_min(_NEVER).to(log_p_BLT.dtype)


def straight(table_ST: Tensor, accepting_S: Tensor) -> Tensor | None:
    """Return the tags of each place, bool `[N, T]`, of an automaton whose only path has N places; None of others."""
    places: list[Tensor] = []
    state = 0
    while len(places) < len(table_ST):
        after_T = table_ST[state]
        following = sorted(set(after_T[after_T >= 0].tolist()))
        if bool(accepting_S[state]) and not following:
            return torch.stack(places) if places else None
        if bool(accepting_S[state]) or len(following) != 1:
            return None
        places.append(after_T >= 0)
        (state,) = following
    return None


def log_straight(log_p_BLT: Tensor, places_NT: Tensor) -> Tensor:
    """Return what `log_accepted` does, for the tags of N places and the end after them; no product is needed."""
    (places, tags), length = places_NT.shape, log_p_BLT.shape[1]
    if places > length:
        return log_p_BLT.new_full(log_p_BLT.shape[:1], _NEVER)
    inside_BN = log_p_BLT[:, :places, :tags].masked_fill(~places_NT, -torch.inf).logsumexp(-1)
    return inside_BN.sum(-1) + log_p_BLT[:, places:, tags].sum(-1)


def _log(matrix: Tensor) -> Tensor:
    """Return the logarithm, of 0 a number so low that it counts as 0 and has no gradient."""
    some = matrix > 0
    return torch.where(some, torch.where(some, matrix, 1.0).log(), _NEVER)


def _log_product(left_NSS: Tensor, right_NSS: Tensor) -> Tensor:
    """Return the product of matrices given and returned as logarithms.

    Each row has a scale of its own, so that what underflows is what the row's best outweighs by exp(700).
    """
    scale_N1S = right_NSS.detach().amax(-1)[..., None, :]
    left_NSS = left_NSS + scale_N1S
    best_NS1 = left_NSS.detach().amax(-1, keepdim=True)
    product_NSS = (left_NSS - best_NS1).exp() @ (right_NSS - scale_N1S.transpose(-1, -2)).exp()
    return (_log(product_NSS) + best_NS1).clamp_min(_NEVER)


AutoConfig.register(SyntaxReaderConfig.model_type, SyntaxReaderConfig, exist_ok=True)
