"""`WordClassifier`: a bag-of-words model as a guide, exact in the relaxed tokens and true to the finished text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from constraints.lexicon import token_weights
from constraints.word_model import WordModel
from guided_dlm.constraint import CompileContext, Constraint, Guide, Step
from guided_dlm.vocabulary import Vocabulary


def reached_words(weight_V: np.ndarray, vocabulary: Vocabulary) -> int:
    """Return how many words are single tokens."""
    return len({vocabulary.tokens[i].decode().strip().lower() for i in np.flatnonzero(weight_V).tolist()})


class WordClassifier(Constraint):
    """A soft wish for log p(target | text) under a model of the text's words, times `strength`.

    The energy reads the expected words of the canvas, those that are single tokens (FORMULAS C, relaxed classifier).
    Its pull is the words' weights times 1 - p(target), so it fades as the text becomes what is wished. The reward reads
    every word of the finished text.
    """

    strength: float

    def word_model(self) -> WordModel:
        """Return the model of p(target | text)."""
        raise TypeError(f"{type(self).__name__} must define word_model().")

    def compile(self, context: CompileContext) -> Guide:
        """Return the energy, and the reward that it proposes for.

        Where no word is a single token there is nothing to propose with, and particles have to follow the reward.
        """
        model = self.word_model()
        found = token_weights(model.weights, context.vocabulary)
        token_K = torch.from_numpy(np.flatnonzero(found)).to(context.device)
        weight_K = torch.from_numpy(found[found != 0])

        def reward(texts: list[str], tokens: Tensor) -> Tensor:
            return self.strength * torch.tensor([model.log_p(text) for text in texts], dtype=torch.float64)

        def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
            pull_BLK = relaxed_BLV.index_select(-1, token_K) * weight_K.to(relaxed_BLV)
            log_p_B = F.logsigmoid(model.intercept + pull_BLK.sum(-1).sum(-1))  # row by row: bits do not mix
            if step.diagnostics is not None:
                step.diagnostics.scores[repr(self)] = log_p_B.detach().exp()
            return -self.strength * log_p_B

        return Guide(energy=energy, reward=reward, target=Guide()) if found.any() else Guide(reward=reward)

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Say how many words the model weighs, and how many of them the energy reaches."""
        weights = self.word_model().weights
        return {
            "words": len(weights),
            "single_tokens": reached_words(token_weights(weights, context.vocabulary), context.vocabulary),
        }

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Return log p(target | text), not multiplied by the strength."""
        return self.word_model().log_p(text)
