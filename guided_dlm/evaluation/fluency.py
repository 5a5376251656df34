"""How natural texts are to an autoregressive model of the same domain, and how alike they are to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.errors import InvalidRequest, shorten
from guided_dlm.training.data import encode_texts
from guided_dlm.training.trainer import evaluate_autoregressive


class Judge:
    """An autoregressive model that scores texts.

    One that `guided-dlm train --objective autoregressive` wrote scores each text and its end. Any other causal language
    model of transformers scores the text alone, given its own start of text: models differ in what ends one.
    """

    def __init__(self, folder: str | Path) -> None:
        """Load the model.

        Raises:
            InvalidRequest: the folder holds no autoregressive model.
        """
        if not (Path(folder) / "config.json").is_file():
            raise InvalidRequest(f"There is no judge in {str(folder)!r}; train one with --objective autoregressive.")
        config = AutoConfig.from_pretrained(folder)
        self._own = isinstance(config, DiffusionTransformerConfig)
        if self._own and not config.causal:
            raise InvalidRequest(f"The model in {str(folder)!r} is not autoregressive, so it cannot judge.")
        kind: Any = DiffusionTransformer if self._own else AutoModelForCausalLM
        try:
            self._model = kind.from_pretrained(folder, dtype=torch.float32).eval()
        except (OSError, ValueError) as error:
            raise InvalidRequest(
                f"{str(folder)!r} holds no causal language model that could judge: {shorten(str(error))}"
            ) from error
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        if self._tokenizer.bos_token_id is None and self._tokenizer.eos_token_id is None:
            raise InvalidRequest(
                f"The tokenizer in {str(folder)!r} has neither a start nor an end of text to begin at."
            )

    def nll(self, texts: Sequence[str]) -> float:
        """Return the mean -log p per token (of text and end), in nats, over all tokens of all texts; lower is better.

        The end counts for a judge of our own only.

        Raises:
            InvalidRequest: a text is empty or does not fit the judge's canvas.
        """
        if not all(text.strip() for text in texts):
            raise InvalidRequest(
                f"{sum(not t.strip() for t in texts)} of {len(texts)} texts are empty; leave them out."
            )
        # Rotary positions reach a little further than the training canvas, which a text that never ended may fill.
        room = self._model.config.max_position_embeddings * (2 if self._own else 1)
        examples = encode_texts(list(texts), self._tokenizer, canvas=room)
        if len(examples) < len(texts):
            raise InvalidRequest(f"{len(texts) - len(examples)} of {len(texts)} texts are too long for this judge.")
        if self._own:
            return evaluate_autoregressive(self._model, examples, self._tokenizer.pad_token_id)
        ids = [example["input_ids"][:-1] for example in examples]
        return -sum(self._sums(ids)) / sum(map(len, ids))

    def log_p(self, texts: Sequence[str]) -> list[float]:
        """Return log p of each text in nats, with its end for a judge of our own; an empty text is its end, or log 1.

        It is a reward as it is. `pipe(constraint=Reward(judge.log_p), particles=K, resampling="search")` draws a whole
        text from each of K rows at every step, and goes on from one of them, drawn with probability proportional to
        p(text). Energy reranking (EDLM, 2410.21357) weighs by p(text) / p_denoiser(text | canvas); without the division
        the choice leans to texts that both models like.

        Raises:
            InvalidRequest: a text does not fit the judge's canvas.
        """
        end = [self._tokenizer.eos_token_id] if self._own else []
        ids = [[*self._tokenizer(text, add_special_tokens=False)["input_ids"], *end] for text in texts]
        room = self._model.config.max_position_embeddings * (2 if self._own else 1)
        long = sum(len(row) + (not self._own) > room for row in ids)  # others read a start of text as well
        if long:
            raise InvalidRequest(f"{long} of {len(texts)} texts are too long for this judge.")
        return self._sums(ids)

    @torch.inference_mode()
    def _sums(self, ids: list[list[int]], batch_size: int = 32) -> list[float]:
        """Return log p of each text, after the start of text, which our own models have without a token."""
        start = self._tokenizer.bos_token_id
        start = self._tokenizer.eos_token_id if start is None else start
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # texts of one length together
        sums = torch.zeros(len(ids), dtype=torch.float64)
        for begin in range(0, len(ids), batch_size):
            here = order[begin : begin + batch_size]
            rows = [torch.tensor(ids[i] if self._own else [start, *ids[i]], dtype=torch.int64) for i in here]
            tokens_BL = pad_sequence(rows, batch_first=True, padding_value=-1)
            if tokens_BL.shape[1] == 0:
                continue
            seen = {} if self._own else {"attention_mask": (tokens_BL >= 0).long()}
            logits_BLV = self._model(input_ids=tokens_BL.clamp_min(0), **seen).logits
            if not self._own:
                logits_BLV, tokens_BL = logits_BLV[:, :-1], tokens_BL[:, 1:]
            log_p_BL = logits_BLV.log_softmax(-1).gather(-1, tokens_BL.clamp_min(0)[..., None])[..., 0]
            sums[here] = log_p_BL.double().masked_fill(tokens_BL < 0, 0.0).sum(-1)
        result: list[float] = sums.tolist()
        return result


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """Share of distinct texts, and of distinct n-grams among all n-grams (n = 1, 2, 3); and how alike the texts are.

    `self_bleu` is the mean BLEU-4 of each text against all others (1802.01886, section 3.2), smoothed by adding one to
    each count from bigrams on; 1 for one text repeated. It is of the first hundred texts, and 0 of a single one.
    """

    texts: float
    unigrams: float
    bigrams: float
    trigrams: float
    self_bleu: float


def diversity(texts: Sequence[str]) -> Diversity:
    """Count distinct texts and n-grams of white-space words."""
    if not texts:
        raise InvalidRequest("There is no text to measure.")
    split = [text.split() for text in texts]

    def distinct(n: int) -> float:
        grams = [tuple(words[i : i + n]) for words in split for i in range(len(words) - n + 1)]
        return len(set(grams)) / max(1, len(grams))

    return Diversity(
        texts=len(set(texts)) / len(texts),
        unigrams=distinct(1),
        bigrams=distinct(2),
        trigrams=distinct(3),
        self_bleu=_self_bleu(split[:100]),
    )


def _self_bleu(texts: list[list[str]]) -> float:
    if len(texts) < 2:
        return 0.0
    smooth = SmoothingFunction().method2
    scores = [
        sentence_bleu(texts[:i] + texts[i + 1 :], text, smoothing_function=smooth) for i, text in enumerate(texts)
    ]
    return float(sum(scores) / len(scores))
