"""A user's classifier as log p(target | canvas): differentiable in relaxed tokens, or of finished texts.

Where a module reads the model's own tokens its gradient can guide every step; where it has a tokenizer of its own, or
none, it can only judge texts. The gradient methods differ in the point at which the module is differentiated; at each
of them the shift is minus the gradient of the energy in the one-hot tokens (FORMULAS C).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from guided_dlm.constraint import RewardFn, Step
from guided_dlm.errors import InvalidRequest, VocabularyMismatch, shorten
from guided_dlm.vocabulary import Vocabulary

TokenScore = Callable[[Tensor], Tensor]  # relaxed or one-hot tokens [N, L, V] -> log p(target) [N]
EmbedScore = Callable[[Tensor], Tensor]  # embeddings of the text [N, L, D] -> log p(target) [N]
TextScore = Callable[[Sequence[str]], Tensor]  # texts -> log p(target) [N]
POINTS = ("relaxed", "first_order", "straight_through", "entropy_weighted")
_SMALLEST = 1e-30
_BATCH = 64
_CELLS = 1 << 26  # of one-hot tokens at a time


def load_classifier(folder: str) -> tuple[Any, Any]:
    """Return model and tokenizer of a folder that `guided-dlm train-classifier` wrote, or of a Hub id.

    Raises:
        InvalidRequest: there is none.
    """
    files = sorted(Path(folder).glob("*.safetensors")) if Path(folder).is_dir() else []
    return _load(folder, tuple(file.stat().st_mtime_ns for file in files))


@lru_cache(maxsize=4)
def _load(folder: str, written: tuple[int, ...]) -> tuple[Any, Any]:
    """Load a folder once for each time that its weights are written."""
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval().requires_grad_(False)
        return model, AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"The classifier {folder!r} could not be loaded: {shorten(str(error), 200)}") from error


def as_vocabulary(tokenizer: Any) -> Vocabulary:
    """Return the tokens of a tokenizer, or a vocabulary itself."""
    return tokenizer if isinstance(tokenizer, Vocabulary) else Vocabulary.from_tokenizer(tokenizer)


CURE = "use method='reward', which hands it texts, or train one on this model's tokens (guided-dlm train-classifier)"


def require_shared(
    vocabulary: Vocabulary, tokenizer: Any, model: Any, called: str = "classifier", cure: str = CURE
) -> None:
    """Make sure that a module reads the tokens that the diffusion model writes; errors say what it is `called`.

    Raises:
        VocabularyMismatch: its tokenizer has other tokens, or its embedding another number of them.
    """
    theirs = as_vocabulary(tokenizer)
    roles = [(v.eos_id, v.pad_id, v.mask_id) for v in (theirs, vocabulary)]
    if theirs.tokens == vocabulary.tokens and roles[0] != roles[1]:
        raise VocabularyMismatch(
            f"The {called}'s end, padding and mask are the ids {roles[0]}, the model's are {roles[1]}; its gradient "
            "means nothing here."
        )
    if theirs.tokens != vocabulary.tokens:
        different = sum(a != b for a, b in zip(theirs.tokens, vocabulary.tokens, strict=False))
        raise VocabularyMismatch(
            f"The {called} reads {len(theirs)} tokens and the model writes {len(vocabulary)}; {different} of the ids "
            f"that both have are different tokens. Its gradient means nothing here: {cure}."
        )
    embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    if embedding is not None and embedding.num_embeddings < len(vocabulary):
        raise VocabularyMismatch(
            f"The {called} embeds {embedding.num_embeddings} tokens, the model writes {len(vocabulary)}."
        )


def token_score(model: Any, target: int | str, tokenizer: Any) -> TokenScore:
    """Return log p(target | tokens), differentiable in relaxed tokens `[N, L, V]`.

    A transformers classifier gets the expected embeddings; any other module gets the relaxed tokens themselves and
    returns class logits `[N, K]`.
    """
    if not hasattr(model, "get_input_embeddings"):
        return _log_p(model, model, target)
    score, weight_VD = embed_score(model, target, tokenizer), model.get_input_embeddings().weight
    return lambda tokens_NLV: score(tokens_NLV.to(weight_VD) @ weight_VD[: tokens_NLV.shape[-1]]).to(tokens_NLV.device)


def embed_score(model: Any, target: int | str, tokenizer: Any) -> EmbedScore:
    """Return log p(target | text) of a transformers classifier, differentiable in the text's embeddings `[N, L, D]`."""
    weight_VD = model.get_input_embeddings().weight
    special = [] if isinstance(tokenizer, Vocabulary) else list(tokenizer("")["input_ids"])
    head, tail = special[: (len(special) + 1) // 2], special[(len(special) + 1) // 2 :]

    def forward(embeds_NLD: Tensor) -> Tensor:
        around = [weight_VD[ids].expand(len(embeds_NLD), -1, -1) for ids in (head, tail)]
        logits: Tensor = model(inputs_embeds=torch.cat([around[0], embeds_NLD, around[1]], dim=1)).logits
        return logits

    return _log_p(model, forward, target)


def _log_p(model: Any, forward: Callable[[Tensor], Any], target: int | str) -> Callable[[Tensor], Tensor]:
    """Return log p(target) `[N]` of what `forward` says of N inputs, on the model's device; its logits are checked."""
    index = class_index(model, target)
    weight = next(model.parameters(), None) if isinstance(model, nn.Module) else None

    def score(given: Tensor) -> Tensor:
        logits_NK = forward(given if weight is None else given.to(weight.device))
        if not isinstance(logits_NK, Tensor) or logits_NK.dim() != 2 or logits_NK.shape[0] != given.shape[0]:
            got = tuple(logits_NK.shape) if isinstance(logits_NK, Tensor) else type(logits_NK).__name__
            raise InvalidRequest(f"A classifier returns class logits of shape ({given.shape[0]}, classes); got {got}.")
        if not 0 <= index < logits_NK.shape[1]:
            raise InvalidRequest(f"target={target!r}: the classifier has {logits_NK.shape[1]} classes.")
        log_p_N: Tensor = F.log_softmax(logits_NK, dim=-1)[:, index].to(given.device)
        return log_p_N

    return score


def class_index(model: Any, target: int | str) -> int:
    """Return the number of a class given by number or by name (transformers `id2label`, scikit-learn `classes_`).

    Raises:
        InvalidRequest: there is no such class; the message lists those there are.
    """
    names = getattr(getattr(model, "config", None), "id2label", None)
    classes = list(getattr(model, "classes_", ()))
    known = [str(names[i]) for i in sorted(names)] if names else [str(c) for c in classes]
    numbered = any(not isinstance(c, str) for c in classes)  # then a number is a class and no place in the list
    if isinstance(target, int) and not isinstance(target, bool) and not numbered and str(target) not in known:
        return target
    if str(target) not in known:
        raise InvalidRequest(f"target={target!r}: the classifier knows {known or 'its classes by number only'}.")
    return known.index(str(target))


def point_of(method: str, relaxed_BLV: Tensor, step: Step) -> Tensor:
    """Return where the classifier is differentiated, with the gradient passing straight to the relaxed tokens.

    "relaxed" is the model's own probabilities; "first_order" the canvas as it stands, noise included (TAG, 2406.01572);
    "straight_through" each position's best token; "entropy_weighted" between the last and the first by how sure the
    position is (2602.05000).
    """
    if method == "relaxed":
        return relaxed_BLV
    size = relaxed_BLV.shape[-1]
    if method == "first_order":
        value_BLV = F.one_hot(step.tokens_BL, size).to(relaxed_BLV.dtype)
    else:
        value_BLV = F.one_hot(relaxed_BLV.detach().argmax(-1), size).to(relaxed_BLV.dtype)
    if method == "entropy_weighted":
        doubt_BL1 = _doubt(relaxed_BLV.detach(), size)
        value_BLV = doubt_BL1 * relaxed_BLV.detach() + (1 - doubt_BL1) * value_BLV
    return relaxed_BLV + (value_BLV - relaxed_BLV).detach()


def onehot(tokens_NL: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Return tokens as probabilities `[N, L, V]` of this number type."""
    zeros_NLV = torch.zeros(*tokens_NL.shape, size, dtype=dtype, device=tokens_NL.device)
    return zeros_NLV.scatter_(-1, tokens_NL[..., None], 1.0)


def kept_bias(score: EmbedScore, weight_VD: Tensor, method: str, step: Step, support: int) -> Tensor:
    """Return the pull of one gradient in the `support` likeliest tokens of each position, `[B, L, V]`.

    What a whole vocabulary would hold is never made: the embeddings are sums over the tokens kept, whose probabilities
    are renormalised and are the leaf. The other tokens get the position's average, so that they are neither favoured
    nor punished. With `support` = V it is the gradient in all relaxed tokens.

    Raises:
        InvalidRequest: the step does not say what the model predicts.
    """
    if step.logits_BLV is None:
        raise InvalidRequest("A gradient in the likeliest tokens needs the model's logits; run it in a pipeline.")
    rows, length, size = step.logits_BLV.shape
    kept_BLK, ids_BLK = step.logits_BLV.topk(min(support, size), dim=-1)
    p_BLK = kept_BLK.softmax(-1)
    if step.known_BL is not None:  # a model's logits at a position that is already decided mean nothing
        known_BL1 = step.known_BL[..., None] >= 0
        first_K = torch.zeros_like(p_BLK[0, 0]).index_fill_(0, torch.tensor([0], device=p_BLK.device), 1.0)
        p_BLK = torch.where(known_BL1, first_K, p_BLK)
        ids_BLK[..., :1] = torch.where(known_BL1, step.known_BL[..., None], ids_BLK[..., :1])
    weight_VD, token_BL = weight_VD.detach(), step.tokens_BL.to(weight_VD.device)
    p_BLK, ids_BLK = p_BLK.to(weight_VD), ids_BLK.to(weight_VD.device)
    with torch.enable_grad():
        p_BLK.requires_grad_()
        flat_NK, per_NK = ids_BLK.reshape(rows * length, -1), p_BLK.reshape(rows * length, -1)
        mean_BLD = F.embedding_bag(flat_NK, weight_VD, mode="sum", per_sample_weights=per_NK).reshape(rows, length, -1)
        place_BLD = mean_BLD
        if method != "relaxed":
            value_BLD = weight_VD[token_BL if method == "first_order" else ids_BLK[..., 0]]
            if method == "entropy_weighted":
                doubt_BL1 = _doubt(p_BLK.detach(), size)
                value_BLD = doubt_BL1 * mean_BLD.detach() + (1 - doubt_BL1) * value_BLD
            place_BLD = mean_BLD + (value_BLD - mean_BLD).detach()
        log_p_B = score(place_BLD)
        (pull_BLK,) = torch.autograd.grad(log_p_B.sum(), p_BLK)
    average_BL1 = (p_BLK.detach() * pull_BLK).sum(-1, keepdim=True)
    pull_BLV = average_BL1.expand(-1, -1, size).scatter(-1, ids_BLK, pull_BLK)
    return pull_BLV.to(step.logits_BLV.device, step.logits_BLV.dtype)


def first_order_bias(at: Callable[[Step], EmbedScore], weight_VD: Tensor, step: Step, shown: str) -> Tensor:
    """Return the pull of one gradient at the canvas as it stands, `[B, L, V]`: "first_order", no relaxed tokens made.

    `at` gives the score of a step's embeddings. The report shows the probability there as that of `shown`.
    """
    weight_VD = weight_VD.detach()
    with torch.enable_grad():
        place_BLD = weight_VD[step.tokens_BL.to(weight_VD.device)].requires_grad_()
        log_p_B = at(step)(place_BLD)
        (pull_BLD,) = torch.autograd.grad(log_p_B.sum(), place_BLD)
    if step.diagnostics is not None:
        step.diagnostics.scores[shown] = log_p_B.detach().exp().to(step.tokens_BL.device)
    return (pull_BLD @ weight_VD.T).to(step.tokens_BL.device)


def _doubt(p_BLK: Tensor, size: int) -> Tensor:
    """Return the entropy of each position's law over that of `size` equally likely tokens, `[B, L, 1]` in [0, 1]."""
    entropy_BL: Tensor = -torch.special.xlogy(p_BLK, p_BLK).sum(-1)
    return (entropy_BL / math.log(size)).clamp(0, 1)[..., None]


@torch.no_grad()
def exact_bias(score: TokenScore, step: Step, top_k: int | None) -> Tensor:
    """Return log p(target | z with l set to v) - log p(target | z) `[B, L, V]` (2412.10193, eq. 11 and 12).

    One classifier call for each open position and each of its `top_k` likeliest tokens (None: all); the others get the
    position's average over those tried, under the model, so that they are neither favoured nor punished.

    Raises:
        InvalidRequest: the step does not say what the model predicts.
    """
    if step.logits_BLV is None:
        raise InvalidRequest("Exact classifier guidance needs the model's logits; run it in a pipeline.")
    logits_BLV, tokens_BL = step.logits_BLV, step.tokens_BL
    rows, _, size = logits_BLV.shape
    dtype = logits_BLV.dtype
    open_BL = torch.ones_like(tokens_BL, dtype=torch.bool) if step.known_BL is None else step.known_BL < 0
    count = size if top_k is None else min(top_k, size)
    best_BLK = logits_BLV.topk(count, dim=-1).indices
    row_N, place_N = open_BL.nonzero(as_tuple=True)
    row_N, place_N = row_N.repeat_interleave(count), place_N.repeat_interleave(count)
    token_N = best_BLK[open_BL].reshape(-1)
    now_B = score(onehot(tokens_BL, size, dtype))
    gain_N = torch.empty(token_N.shape, dtype=dtype, device=logits_BLV.device)
    batch = max(1, min(_BATCH, _CELLS // (tokens_BL.shape[1] * size)))
    for begin in range(0, len(token_N), batch):
        here = slice(begin, begin + batch)
        canvas_NL = tokens_BL[row_N[here]].clone()
        canvas_NL[torch.arange(len(canvas_NL)), place_N[here]] = token_N[here]
        gain_N[here] = score(onehot(canvas_NL, size, dtype)).to(dtype) - now_B[row_N[here]].to(dtype)
    chosen_BLK = logits_BLV.gather(-1, best_BLK)
    gain_BLK = torch.zeros_like(chosen_BLK)
    gain_BLK[open_BL] = gain_N.reshape(-1, count)
    average_BL1 = torch.logsumexp(chosen_BLK.log_softmax(-1) + gain_BLK, dim=-1, keepdim=True)
    return average_BL1.expand(rows, -1, size).scatter(-1, best_BLK, gain_BLK)


def finished(score: TokenScore, size: int) -> RewardFn:
    """Return the score of finished canvases over `size` tokens, as a reward."""

    @torch.no_grad()
    def reward(texts: list[str], tokens_NL: Tensor) -> Tensor:
        return score(onehot(tokens_NL, size, torch.get_default_dtype()))

    return reward


def text_score(model: Any, target: int | str | None, tokenizer: Any = None) -> TextScore:
    """Return log p(target | text) of a transformers, scikit-learn or spaCy classifier, or of a function of texts.

    A function returns one log-probability (or any score) per text, or a row of class probabilities per text.

    Raises:
        InvalidRequest: nothing says how the model is asked.
    """
    if hasattr(model, "predict_proba"):
        index = class_index(model, _need(target, model))
        return lambda texts: _log(np.asarray(model.predict_proba(list(texts)))[:, index])
    if hasattr(model, "pipe") and hasattr(model, "pipe_names"):
        return lambda texts: _log(np.array([_category(doc, target) for doc in model.pipe(texts)]))
    if isinstance(model, nn.Module):
        if tokenizer is None:
            raise InvalidRequest(f"{type(model).__name__} reads tokens; give its tokenizer= so that texts can be read.")
        return _transformers_score(model, class_index(model, _need(target, model)), tokenizer)
    if not callable(model):
        raise InvalidRequest(
            f"A classifier is a transformers model, a scikit-learn or spaCy pipeline, or a function; {model!r} is none."
        )
    return lambda texts: _of_function(model, target, texts)


def _of_function(function: Callable[[list[str]], Any], target: int | str | None, texts: Sequence[str]) -> Tensor:
    found = torch.as_tensor(function(list(texts)), dtype=torch.float64)
    return found if found.dim() < 2 else _log(found.numpy()[:, _need(target, function)])


def _transformers_score(model: Any, index: int, tokenizer: Any) -> TextScore:
    @torch.no_grad()
    def score(texts: Sequence[str]) -> Tensor:
        batch = tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True).to(model.device)
        if not batch["input_ids"].shape[1]:  # nothing but empty texts, and no special tokens around them
            return torch.full((len(texts),), -math.log(model.config.num_labels), dtype=torch.float64)
        return F.log_softmax(model(**batch).logits.double(), dim=-1)[:, index].cpu()

    return score


def _category(doc: Any, target: int | str | None) -> float:
    if target not in doc.cats:
        raise InvalidRequest(f"target={target!r}: the pipeline's categories are {sorted(doc.cats)}.")
    return float(doc.cats[target])


def _log(probability: Any) -> Tensor:
    return torch.as_tensor(np.asarray(probability, dtype=np.float64)).clamp_min(_SMALLEST).log()


def _need(target: Any, model: Any) -> Any:
    if target is None:
        raise InvalidRequest(f"{type(model).__name__}: say which class is wanted, with target=.")
    return target
