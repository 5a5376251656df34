"""What is said about finished texts: each leaf is checked on the text, by code that shares nothing with the guide."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from guided_dlm.algebra import conjuncts
from guided_dlm.constraint import CompileContext, Constraint
from guided_dlm.particles import Sampled
from guided_dlm.sampling_defaults import SamplingDefaults
from guided_dlm.trace import Trace


@dataclass(kw_only=True)
class Output:
    """The result of a pipeline call, one entry per row (prompts x samples).

    Attributes:
        texts: the completions, without the prompts.
        tokens: int64 `[N, max_new_tokens]`.
        satisfied: bool `[N]`, the constraint's boolean tree over its hard leaves, re-checked on the text.
        report: per row, {leaf: {"satisfied", "guaranteed", "score"}}; a choice adds "posterior" over its options, and
            a constraint that has something to say about its limits on this canvas adds "notes".
        log_weights: float64 `[N]`; with particles the estimate of the sample's log-normaliser: how likely, in nats,
            the model is to do what was asked. Zero without; None after a reward search, which estimates nothing.
        effective_size: float64 `[N]`, of the particles that competed for the sample at the end, from 1 to their number.
        truncated: bool `[N]`, True where the text filled the canvas without reaching its end, or where the run was
            stopped before it: then the text is the likeliest that satisfies the constraint, given what was written.
        stopped: whether the run was stopped, by its callback or by Ctrl-C, before all rows were finished.
        denoiser_calls: how many times the model ran, summed over batches.
        settings: the steps, temperature, sampler, corrector and top-p of the run, said in the call or the model's own.
        trace: what happened at each step, if asked.
    """

    texts: list[str]
    tokens: Tensor
    satisfied: Tensor
    report: list[dict[str, dict[str, Any]]]
    log_weights: Tensor | None
    truncated: Tensor
    denoiser_calls: int
    settings: SamplingDefaults = field(default_factory=SamplingDefaults)
    trace: Trace | None = None
    effective_size: Tensor | None = None
    stopped: bool = False

    def __len__(self) -> int:
        """Return N, the number of rows."""
        return len(self.texts)


def leaf_notes(constraint: Constraint | None, context: CompileContext) -> dict[str, dict[str, Any]]:
    """Return the notes of each leaf that has any."""
    leaves = constraint.leaves() if constraint is not None else ()
    return {repr(leaf): dict(notes) for leaf in leaves if (notes := leaf.notes(context))}


def search_notes(constraint: Constraint | None, context: CompileContext) -> dict[str, dict[str, Any]]:
    """Return a note for each leaf whose reward a search followed."""
    leaves = [leaf for leaf in constraint.leaves() if not leaf.hard] if constraint is not None else []
    found = [repr(leaf) for leaf in leaves if leaf.compile(context).reward is not None]
    return {name: {"resampling": "reward search, best effort"} for name in found}


def warn_rejected(weights: Sequence[Sampled], particles: int) -> None:
    """Warn of rows in which the reward rejects every particle; points at who called the caller's caller."""
    rejected = [row for row, bad in enumerate(bad for w in weights for bad in w.rejected_N.tolist()) if bad]
    if rejected:
        rows = ", ".join(map(str, rejected[:10])) + (", ..." if len(rejected) > 10 else "")
        warnings.warn(
            f"The reward rejects all {particles} particles (half a million nats or worse) in {len(rejected)} rows: "
            f"{rows}. Their texts do not do what was asked. Give more particles or steps, ask for it with a hard "
            "constraint, or let the reward say how near a text is.",
            UserWarning,
            stacklevel=4,
        )


def warn_stopped(found: int, asked: int, interrupted: bool) -> None:
    """Warn where rows were never begun, and where Ctrl-C ended the run; points at who called the caller."""
    if found < asked:
        warnings.warn(
            f"The run was stopped: rows 0 to {found - 1} came back, and {asked - found} of {asked} were never begun. "
            "Call again with the prompts, constraints and seeds of those.",
            UserWarning,
            stacklevel=3,
        )
    elif interrupted:
        warnings.warn(
            "Ctrl-C ended the run early; out.truncated marks the rows that it cut, and out.stopped is True.",
            UserWarning,
            stacklevel=3,
        )


def report_row(
    constraint: Constraint | None,
    text: str,
    tokens: Sequence[int],
    options: Mapping[str, float] | None = None,
    notes: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[bool, dict[str, dict[str, Any]]]:
    """Return whether the hard tree holds on the text, and an entry per conjunct and per leaf below it.

    `tokens` are the ids of the text, without its end.
    """
    entries: dict[str, dict[str, Any]] = {}
    held = True
    for part in conjuncts(constraint):
        entries[repr(part)] = _entry(part, text, tokens, guaranteed=part.hard)
        held = held and (not part.hard or entries[repr(part)]["satisfied"])
        for leaf in part.leaves():
            if leaf is not part:
                entries.setdefault(repr(leaf), _entry(leaf, text, tokens, guaranteed=False))
        if options is not None and hasattr(part, "options"):
            entries[repr(part)]["posterior"] = dict(options)
    for leaf_name, found in (notes or {}).items():
        entries[leaf_name]["notes"] = dict(found)
    return held, entries


def _entry(part: Constraint, text: str, tokens: Sequence[int], guaranteed: bool) -> dict[str, Any]:
    outcome = part.check(text, tokens)
    if part.hard:
        return {"satisfied": bool(outcome), "guaranteed": guaranteed, "score": None}
    return {"satisfied": None, "guaranteed": False, "score": float(outcome)}


def assemble(
    constraints: Sequence[Constraint | None],
    texts: list[str],
    tokens: Tensor,
    lengths: list[int],
    truncated: list[bool],
    options: Sequence[Mapping[str, float] | None],
    denoiser_calls: int,
    settings: SamplingDefaults,
    trace: Trace | None,
    context: CompileContext,
    weights: Sequence[Sampled] = (),
    stopped: bool = False,
) -> Output:
    """Check every text and put the output together; `lengths` says how many tokens of each row are text."""
    ids = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
    normalisers = [w.log_normaliser_N.cpu() for w in weights if w.log_normaliser_N is not None]
    searched = len(normalisers) < len(weights)
    known = {constraint: leaf_notes(constraint, context) for constraint in dict.fromkeys(constraints)}
    for constraint in known if searched else ():
        for name, note in search_notes(constraint, context).items():
            known[constraint][name] = known[constraint].get(name, {}) | note
    notes = [known[constraint] for constraint in constraints]
    rows = [report_row(*row) for row in zip(constraints, texts, ids, options, notes, strict=True)]
    return Output(
        texts=texts,
        tokens=tokens,
        satisfied=torch.tensor([held for held, _ in rows], dtype=torch.bool),
        report=[entries for _, entries in rows],
        log_weights=None if searched else torch.cat(normalisers or [torch.zeros(len(texts), dtype=torch.float64)]),
        effective_size=torch.cat([w.effective_size_N.cpu() for w in weights])
        if weights
        else torch.ones(len(texts), dtype=torch.float64),
        truncated=torch.tensor(truncated, dtype=torch.bool),
        denoiser_calls=denoiser_calls,
        settings=settings,
        trace=trace,
        stopped=stopped,
    )
