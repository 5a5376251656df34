"""`Classifier`, `Energy`, `Reward`: a user's own model or function as a soft guide."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from guided_dlm.classifiers import (
    POINTS,
    TokenScore,
    as_vocabulary,
    embed_score,
    exact_bias,
    finished,
    kept_bias,
    load_classifier,
    point_of,
    require_shared,
    text_score,
    token_score,
)
from guided_dlm.constraint import Bias, CompileContext, Constraint, EnergyFn, Guide, Step
from guided_dlm.errors import InvalidRequest
from guided_dlm.registry import register

_NOISY_LAYERS = (torch.nn.Dropout, torch.nn.modules.batchnorm._BatchNorm)
METHODS = ("auto", "exact", *POINTS, "reward")


def check_strength(strength: object, name: str) -> None:
    """Refuse what is no finite number."""
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not math.isfinite(strength):
        raise InvalidRequest(f"{name}: strength={strength!r} must be a finite number.")


def token_guide(
    score: TokenScore,
    size: int,
    method: str,
    strength: float,
    shown: str,
    bias: Bias | None = None,
    at: Callable[[Step], TokenScore] | None = None,
) -> Guide:
    """Return `strength` times a log-probability of `size` tokens as a guide: one gradient a step, at `method`'s point.

    With `bias` that pulls instead. Finished texts are judged by the score itself, so particles correct either; `at`
    gives the score of a step's tokens where that differs. The report shows the probabilities as those of `shown`.
    """
    of_canvas = finished(score, size)

    def reward(texts: list[str], tokens_NL: Tensor) -> Tensor:
        return strength * of_canvas(texts, tokens_NL)

    if bias is not None:
        return Guide(bias=lambda step: strength * bias(step), reward=reward, target=Guide())

    def energy(relaxed_BLV: Tensor, step: Step) -> Tensor:
        log_p_B = (score if at is None else at(step))(point_of(method, relaxed_BLV, step))
        if step.diagnostics is not None:
            step.diagnostics.scores[shown] = log_p_B.detach().exp()
        return -strength * log_p_B

    return Guide(energy=energy, reward=reward, target=Guide())


@register("classifier")
@dataclass(frozen=True, kw_only=True, repr=False)
class Classifier(Constraint):
    """Pull texts towards a class: the wish is log p(target | text), times `strength`.

    `method` says how a module that reads the model's own tokens guides each step: "exact" tries the `top_k` likeliest
    tokens of every position; the others take one gradient, at the expected tokens ("relaxed", the default), at the
    canvas as it stands ("first_order", for classifiers trained on noise), at the best tokens ("straight_through"), or
    between ("entropy_weighted"). All are a best effort per step. "reward" judges texts, and works with any model
    (transformers with a tokenizer of its own, scikit-learn, spaCy, a function of a list of texts); the pipeline follows
    it with particles.

    `model` may be the name of a folder that `guided-dlm train-classifier` wrote, its tokenizer with it: the only kind
    that a plain JSON config can name.

    `support` takes the gradient in that many of the likeliest tokens of each position only, which saves the memory of a
    large vocabulary (transformers models; the rest of the tokens move by the average).

    A module needs its `tokenizer`: a tokenizer or a `Vocabulary`. A gradient is taken only where it has the tokens that
    the diffusion model writes.
    """

    model: Any = field(kw_only=False)
    target: int | str | None = field(kw_only=False, default=None)
    strength: float = 1.0
    method: str = "auto"
    tokenizer: Any = None
    top_k: int | None = 16
    support: int | None = None

    def __post_init__(self) -> None:
        """Refuse unknown methods and what is no number."""
        check_strength(self.strength, "Classifier")
        if self.method not in METHODS:
            raise InvalidRequest(f"Classifier: method={self.method!r}; choose one of {', '.join(METHODS)}.")
        for name in ("top_k", "support"):
            count = getattr(self, name)
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
                raise InvalidRequest(f"Classifier: {name}={count!r} is a number of tokens, 1 or more, or None for all.")
        if self.support is not None and self.method in ("exact", "reward"):
            raise InvalidRequest(f"Classifier: support= is for a gradient, and method={self.method!r} takes none.")
        if self.support is not None and not self.reads_tokens:
            raise InvalidRequest("Classifier: support= is for a gradient, and this classifier is asked for texts.")
        named = isinstance(self.model, str)
        if named and self.target is None:
            raise InvalidRequest(f"Classifier: say which class of {self.model!r} is wanted, with target=.")
        if not named and self.method not in ("auto", "reward") and (self.tokenizer is None or self.target is None):
            raise InvalidRequest(
                f"Classifier: method={self.method!r} reads the model's own tokens: give target=, and the classifier's "
                "tokenizer= so that this can be made sure."
            )

    @property
    def reads_tokens(self) -> bool:
        """Whether the classifier guides each step, and not finished texts."""
        if self.method != "auto":
            return self.method != "reward"
        known = self.tokenizer is not None and self.target is not None
        return isinstance(self.model, str) or (isinstance(self.model, torch.nn.Module) and known)

    def _loaded(self) -> tuple[Any, Any]:
        """Return the model and its tokenizer."""
        return load_classifier(self.model) if isinstance(self.model, str) else (self.model, self.tokenizer)

    def compile(self, context: CompileContext) -> Guide:
        """Return an energy, a bias (method "exact") or a reward.

        Raises:
            VocabularyMismatch: a gradient is asked for and the classifier reads other tokens.
        """
        model, tokenizer = self._loaded()
        if not self.reads_tokens:
            score_texts = text_score(model, self.target, tokenizer)
            return Guide(reward=lambda texts, tokens: self.strength * score_texts(texts))
        require_shared(context.vocabulary, tokenizer, model)
        if isinstance(self.model, str):
            model.to(context.device)
        elif getattr(model, "training", False) and any(isinstance(part, _NOISY_LAYERS) for part in model.modules()):
            raise InvalidRequest(f"{self!r}: the classifier is in training mode, so it answers at random; call eval().")
        assert self.target is not None
        score = token_score(model, self.target, tokenizer)
        bias: Bias | None = None
        method = "relaxed" if self.method == "auto" else self.method
        if self.method == "exact":
            bias = partial(exact_bias, score, top_k=self.top_k)
        elif self.support is not None:
            bias = self._in_support(model, tokenizer, method)
        return token_guide(score, len(context.vocabulary), method, self.strength, repr(self), bias)

    def _in_support(self, model: Any, tokenizer: Any, method: str) -> Bias:
        """Return the gradient in the likeliest tokens.

        Raises:
            InvalidRequest: the module has no embeddings that could be summed.
        """
        if not hasattr(model, "get_input_embeddings"):
            raise InvalidRequest(
                f"{self!r}: support= sums embeddings, and a {type(model).__name__} has no get_input_embeddings(). "
                "Leave support out."
            )
        assert self.target is not None and self.support is not None
        score, support = embed_score(model, self.target, tokenizer), self.support
        weight_VD = model.get_input_embeddings().weight

        return lambda step: kept_bias(score, weight_VD, method, step, support)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Return log p(target | text), not multiplied by the strength."""
        model, tokenizer = self._loaded()
        if not self.reads_tokens:
            return float(text_score(model, self.target, tokenizer)([text])[0])
        assert self.target is not None
        vocabulary = as_vocabulary(tokenizer)
        ids = list(tokens) if tokens is not None else vocabulary.encode(text)
        if vocabulary.eos_id is not None:
            ids.append(vocabulary.eos_id)
        if not ids:
            return math.nan  # there is nothing to classify
        score = finished(token_score(model, self.target, tokenizer), len(vocabulary))
        place = next((value.device for value in model.parameters()), torch.device("cpu"))
        return float(score([text], torch.tensor([ids], dtype=torch.int64, device=place))[0])

    def __repr__(self) -> str:
        """Name the model by its class or function."""
        name = getattr(self.model, "__name__", type(self.model).__name__)
        name = repr(self.model) if isinstance(self.model, str) else name
        method = "" if self.method == "auto" else f", method={self.method!r}"
        return f"Classifier({name}, target={self.target!r}, strength={self.strength}{method})"


@register("energy")
@dataclass(frozen=True, kw_only=True, repr=False)
class Energy(Constraint):
    """Pull down `function(relaxed_BLV, step) -> [B]`, differentiable in the relaxed tokens; lower is better."""

    function: EnergyFn = field(kw_only=False)
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be called."""
        check_strength(self.strength, "Energy")
        if not callable(self.function):
            raise InvalidRequest(f"Energy takes a function of (relaxed_BLV, step), not {self.function!r}.")

    def compile(self, context: CompileContext) -> Guide:
        """Return the function, times the strength."""
        return Guide(energy=lambda relaxed_BLV, step: self.strength * self.function(relaxed_BLV, step))

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Return 0: an energy of relaxed tokens says nothing of a text."""
        return 0.0

    def __repr__(self) -> str:
        """Name the function."""
        return f"Energy({getattr(self.function, '__name__', self.function)}, strength={self.strength})"


@register("reward")
@dataclass(frozen=True, kw_only=True, repr=False)
class Reward(Constraint):
    """Favour texts by any function from a list of texts to scores in nats; higher is better. Followed with particles.

    With N particles the law tends to model(text) * exp(strength * score) as N grows.
    """

    function: Callable[[list[str]], Any] = field(kw_only=False)
    strength: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be called."""
        check_strength(self.strength, "Reward")
        if not callable(self.function):
            raise InvalidRequest(f"Reward takes a function of a list of texts, not {self.function!r}.")

    def compile(self, context: CompileContext) -> Guide:
        """Return the function, times the strength."""
        return Guide(reward=lambda texts, tokens: self.strength * torch.as_tensor(self.function(texts)))

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Return the function's score of the text."""
        return float(torch.as_tensor(self.function([text]))[0])

    def __repr__(self) -> str:
        """Name the function."""
        return f"Reward({getattr(self.function, '__name__', self.function)}, strength={self.strength})"
