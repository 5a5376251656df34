"""`WordClassifier`: a bag-of-words model as a guide: exact over whole texts, or one gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from constraints.lexicon import token_weights
from constraints.word_model import WordModel
from guided_dlm.automata import TokenAutomaton
from guided_dlm.constraint import CompileContext, Constraint, Guide, RewardFn, Step
from guided_dlm.errors import InvalidRequest
from guided_dlm.vocabulary import Vocabulary

METHODS = ("exact", "relaxed")
_COARSEST, _STEPS = 0.25, 8  # weights are rounded to a quarter of a nat, or to an eighth of the largest if that is less
_DOWN, _UP = 24, 32  # quanta from the intercept: beyond them nothing is told apart


def reached_words(weight_V: np.ndarray, vocabulary: Vocabulary) -> int:
    """Return how many words are single tokens."""
    return len({vocabulary.tokens[i].decode().strip().lower() for i in np.flatnonzero(weight_V).tolist()})


class WordClassifier(Constraint):
    """A soft wish for log p(target | text) under a model of the text's words, times `strength`.

    `method` "exact" is a weighted automaton over the running sum of the words' weights: each step's posterior is
    proportional to the model's factors times p(target | text)^strength, over whole texts. Weights are rounded (to a
    quarter of a nat, or an eighth of the largest if that is less), and the sum stays within 24 such steps below the
    intercept and 32 above. "relaxed" is one gradient at the expected words (FORMULAS C), which can be scheduled, and
    joined with `|`. Both reach the words that are single tokens; in a vocabulary of parts of words such a token counts
    where the next one continues it too, and a word at the start of a text may not count. `check` reads whole words.
    """

    strength: float
    method: str

    def word_model(self) -> WordModel:
        """Return the model of p(target | text)."""
        raise TypeError(f"{type(self).__name__} must define word_model().")

    def check_method(self) -> None:
        """Refuse unknown methods."""
        if self.method not in METHODS:
            raise InvalidRequest(f"{type(self).__name__}: method={self.method!r}; choose 'exact' or 'relaxed'.")

    def compile(self, context: CompileContext) -> Guide:
        """Return the weighted automaton, or the energy with the reward that it proposes for.

        Where no word is a single token there is nothing to propose with, and particles have to follow the reward.
        """
        if self.strength == 0:
            return Guide()
        model = self.word_model()
        weight_V = token_weights(model.weights, context.vocabulary)

        def reward(texts: list[str], tokens: Tensor) -> Tensor:
            return self.strength * torch.tensor([model.log_p(text) for text in texts], dtype=torch.float64)

        if not weight_V.any():
            return Guide(reward=reward)
        if self.method == "exact":
            return Guide(automaton=self._automaton(model, weight_V, context.vocabulary))
        return self._relaxed(model, weight_V, context.device, reward)

    def _automaton(self, model: WordModel, weight_V: NDArray[np.float64], vocabulary: Vocabulary) -> TokenAutomaton:
        quantum = min(_COARSEST, float(np.abs(weight_V).max()) / _STEPS)
        log_p = -np.logaddexp(0.0, -(model.intercept + quantum * np.arange(-_DOWN, _UP + 1)))
        steps_V, begin = np.rint(weight_V / quantum).astype(np.int64), _DOWN
        return TokenAutomaton.well_formed(vocabulary) & TokenAutomaton.score(
            vocabulary, steps_V, begin, self.strength * log_p
        )

    def _relaxed(
        self, model: WordModel, weight_V: NDArray[np.float64], device: torch.device, reward: RewardFn
    ) -> Guide:
        token_K = torch.from_numpy(np.flatnonzero(weight_V)).to(device)
        weight_K = torch.from_numpy(weight_V[weight_V != 0])

        def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
            pull_BLK = relaxed_BLV.index_select(-1, token_K) * weight_K.to(relaxed_BLV)
            log_p_B = F.logsigmoid(model.intercept + pull_BLK.sum(-1).sum(-1))  # row by row: bits do not mix
            if step.diagnostics is not None:
                step.diagnostics.scores[repr(self)] = log_p_B.detach().exp()
            return -self.strength * log_p_B

        return Guide(energy=energy, reward=reward, target=Guide())

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
