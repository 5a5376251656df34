"""The conformance kit that plugin authors run: `check_constraint(c)` and `check_denoiser(d)`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from guided_dlm.algebra import Not
from guided_dlm.canvas import Canvas
from guided_dlm.constraint import CompileContext, Constraint, Guide, RegularConstraint, Step
from guided_dlm.denoisers import Denoiser
from guided_dlm.errors import Infeasible, NotSerializable
from guided_dlm.posterior import Posterior
from guided_dlm.randomness import Randomness
from guided_dlm.vocabulary import Vocabulary

TEXTS = (
    "",
    " ",
    "a",
    "The Mill is a pub.",
    "the mill near the riverside ?!",
    "Caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{POUND SIGN}20 - 25 (\N{GRINNING FACE})",
    "two\nlines  and\ttabs",
    "UPPER lower 123 _x_ it's 'quoted'.",
)


class ConformanceError(AssertionError):
    """A constraint or denoiser breaks the contract; the message says which clause and on what input."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConformanceError(message)


def byte_vocabulary() -> Vocabulary:
    """Return a vocabulary that can write every text: all bytes, some pairs, end, padding and mask."""
    tokens = [bytes([b]) for b in range(256)] + [b"th", b" the", b" a", b"ing"] + [b""] * 3
    return Vocabulary(tuple(tokens), eos_id=260, pad_id=261, mask_id=262)


def check_constraint(constraint: Constraint, texts: Sequence[str] = TEXTS, length: int = 24, samples: int = 32) -> None:
    """Check that a constraint keeps the contract.

    Its repr, equality and config round trip; for a hard one that automaton and `check` agree on `texts`, on examples of
    the automaton and of its complement, and on samples drawn under it in a canvas of `length` tokens; for a soft one
    that its channels are finite, well shaped and treat every row alone.

    Raises:
        ConformanceError: a clause is broken; the message says which, and on what input.
    """
    _check_value(constraint)
    context = CompileContext(vocabulary=byte_vocabulary(), length=length)
    guide = constraint.compile(context)
    if constraint.hard:
        _require(guide.automaton is not None, f"{constraint!r} is hard, but its guide has no automaton.")
        if isinstance(constraint, RegularConstraint):
            _check_texts(constraint, texts)
        _check_samples(constraint, context, samples)
    else:
        _check_soft(constraint, guide, context)


def _check_value(constraint: Constraint) -> None:
    _require(dataclasses.is_dataclass(constraint), f"{type(constraint).__name__} must be a dataclass.")
    parameters = getattr(type(constraint), "__dataclass_params__", None)
    _require(bool(parameters and parameters.frozen), f"{type(constraint).__name__} must be a frozen dataclass.")
    try:
        hash(constraint)
    except TypeError as error:
        raise ConformanceError(f"{constraint!r} must be hashable: {error}; hold tuples instead of lists.") from error
    try:
        config = constraint.to_config()
    except NotSerializable:
        return
    again = Constraint.from_config(config)
    _require(again == constraint, f"{constraint!r} comes back from its config {config} as {again!r}.")
    _require(repr(again) == repr(constraint), f"{constraint!r} comes back from its config as {again!r}.")


def _check_texts(constraint: RegularConstraint, texts: Sequence[str]) -> None:
    try:
        automaton = constraint.to_automaton()
    except TypeError:  # it counts tokens, so the samples below have to tell
        return
    examples = [a.example() for a in (automaton, ~automaton)]
    for text in [*texts, *(example.decode() for example in examples if example is not None)]:
        by_automaton = automaton.accepts(text.encode())
        by_check = bool(constraint.check(text))
        _require(
            by_automaton == by_check,
            f"{constraint!r}: on {text!r} the automaton says {by_automaton}, check() says {by_check}.",
        )


def _check_samples(constraint: Constraint, context: CompileContext, samples: int) -> None:
    vocabulary = context.vocabulary
    generator = torch.Generator().manual_seed(0)
    wishes: list[tuple[Constraint, bool]] = [(constraint, True)]
    if not any(leaf.notes(context).get("depth_can_bind") for leaf in constraint.leaves()):
        wishes.append((Not(constraint), False))  # what is followed to a depth only has no complement
    for wish, expected in wishes:
        try:
            automaton = wish.compile(context).automaton
        except Infeasible:
            continue
        if automaton is None or not automaton.feasible_lengths(context.length)[context.length]:
            continue
        logits_BLV = 3.0 * torch.randn(samples, context.length, len(vocabulary), generator=generator)
        for row in Posterior(logits_BLV, automaton).sample(generator).tolist():
            text = vocabulary.decode(row)
            found = bool(constraint.check(text, row[: vocabulary.text_length(row)]))
            _require(found is expected, f"{wish!r} was sampled as {text!r}, but check() says {found}.")


def _check_soft(constraint: Constraint, guide: Guide, context: CompileContext) -> None:
    size, rows = len(context.vocabulary), 3
    tokens_BL = torch.arange(rows * context.length).reshape(rows, context.length) % 256
    step = Step(index=0, total=2, time=1.0, tokens_BL=tokens_BL)
    if guide.bias is not None:
        whole = _broadcast_bias(constraint, guide.bias(step), (rows, context.length, size))
        for row in range(rows):
            alone = dataclasses.replace(step, tokens_BL=tokens_BL[row : row + 1])
            bias_1LV = _broadcast_bias(constraint, guide.bias(alone), (1, context.length, size))
            _require(
                torch.allclose(bias_1LV[0], whole[row], atol=1e-5),
                f"{constraint!r}: the bias at row {row} depends on the other rows of the batch.",
            )
    if guide.energy is not None:
        generator = torch.Generator().manual_seed(0)
        relaxed_BLV = torch.randn(rows, context.length, size, generator=generator).softmax(-1)
        whole = _energy_gradient(guide, relaxed_BLV, step)
        _require(bool(torch.isfinite(whole).all()), f"{constraint!r}: the gradient of the energy is not finite.")
        for row in range(rows):
            alone = dataclasses.replace(step, tokens_BL=tokens_BL[row : row + 1])
            gradient = _energy_gradient(guide, relaxed_BLV[row : row + 1], alone)
            _require(
                torch.allclose(gradient[0], whole[row], atol=1e-5),
                f"{constraint!r}: the energy's gradient at row {row} depends on the other rows of the batch.",
            )
    if guide.reward is not None:
        reward_B = guide.reward(list(TEXTS[:rows]), tokens_BL)
        _require(reward_B.shape == (rows,), f"{constraint!r}: a reward returns one number per row.")
        _require(bool(torch.isfinite(reward_B).all()), f"{constraint!r}: the reward is not finite.")
    score = constraint.check("The Mill is a pub.")
    _require(isinstance(score, bool | int | float), f"{constraint!r}: check() must return a number, not {score!r}.")


def _broadcast_bias(constraint: Constraint, bias: Tensor, shape: tuple[int, int, int]) -> Tensor:
    _require(bool(torch.isfinite(bias).all()), f"{constraint!r}: the bias is not finite.")
    try:
        return bias.broadcast_to(shape)
    except RuntimeError as error:
        raise ConformanceError(
            f"{constraint!r}: a bias of shape {tuple(bias.shape)} does not broadcast to {shape}."
        ) from error


def _energy_gradient(guide: Guide, relaxed_BLV: Tensor, step: Step) -> Tensor:
    if guide.energy is None:
        raise ValueError("This guide has no energy.")
    leaf = relaxed_BLV.clone().requires_grad_()
    energy_B = guide.energy(leaf, step)
    _require(
        energy_B.shape == leaf.shape[:1], f"An energy returns one number per row, got shape {tuple(energy_B.shape)}."
    )
    return torch.autograd.grad(energy_B.sum(), leaf)[0]


def check_denoiser(denoiser: Denoiser, length: int | None = None) -> None:
    """Check that a denoiser keeps the contract: shapes, support, determinism, `at_open`, and rows that do not mix.

    Raises:
        ConformanceError: a clause is broken; the message says which.
    """
    vocabulary, rows = denoiser.vocabulary, 3
    length = length or min(denoiser.capacity or 16, 16 if denoiser.full_support else denoiser.capacity or 16)
    canvas = Canvas.from_prompts([None] * rows, vocabulary, length, denoiser.device)
    canvas = denoiser.process.start(canvas, Randomness(torch.arange(rows, device=denoiser.device)))
    first = int(vocabulary.writable.nonzero()[0][0])
    given = torch.full((rows, length), -1, device=denoiser.device)
    if denoiser.full_support:
        given[1, 0] = first  # rows that differ, so that mixing them shows
    canvas = canvas.fix(given)
    logits_BLV, _ = denoiser(canvas, 1.0, None)
    expected = (rows, length, len(vocabulary))
    _require(tuple(logits_BLV.shape) == expected, f"The logits have shape {tuple(logits_BLV.shape)}, not {expected}.")
    _require(logits_BLV.dtype in (torch.float32, torch.float64), f"The logits are {logits_BLV.dtype}; give float32.")
    _require(not bool(torch.isnan(logits_BLV).any()), "The logits hold NaN.")
    writable_V = torch.from_numpy(vocabulary.writable).to(logits_BLV.device)
    _require(bool(logits_BLV[..., ~writable_V].isneginf().all()), "Specials other than end and padding must be -inf.")
    if denoiser.full_support:
        _require(
            bool(logits_BLV[..., writable_V].isfinite().all()), "A writable token has no support; see full_support."
        )
    again, _ = denoiser(canvas, 1.0, None)
    _require(torch.equal(again, logits_BLV), "The same canvas gave different logits.")
    _check_open(denoiser, canvas)
    if denoiser.full_support and denoiser.process.selects:
        given[0, length // 2 :] = first if vocabulary.pad_id is None else vocabulary.pad_id
        given[1] = first
        _check_open(denoiser, canvas.fix(given))
    for row in range(rows):
        one = slice(row, row + 1)
        alone = dataclasses.replace(
            canvas,
            **{
                f.name: value[one] if isinstance(value := getattr(canvas, f.name), Tensor) else value
                for f in dataclasses.fields(canvas)
            },
        )
        logits_1LV, _ = denoiser(alone, 1.0, None)
        _require(
            torch.allclose(logits_1LV[0], logits_BLV[row], atol=1e-4),
            f"Row {row} alone gives other logits than in the batch.",
        )


def _check_open(denoiser: Denoiser, canvas: Canvas) -> None:
    whole_BLV, _ = denoiser(canvas, 1.0, None)
    partly_BLV, _ = denoiser.at_open(canvas, 1.0, None)
    open_BL = denoiser.process.known(canvas) < 0
    _require(
        partly_BLV.shape == whole_BLV.shape
        and partly_BLV.dtype == whole_BLV.dtype
        and torch.allclose(partly_BLV[open_BL], whole_BLV[open_BL], atol=1e-4)
        and torch.equal(partly_BLV.isfinite(), whole_BLV.isfinite()),
        "at_open gives other logits at open positions than a call, or another support.",
    )
