"""What happened at each step of a run, kept small: O(B L) per step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from guided_dlm.samplers.loop import Snapshot


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceStep:
    """One step: the tokens after it, which it wrote, with what marginal, and how hard the constraint pulled.

    `tokens_BL` int64, `written_BL` bool, `marginal_BL` float (the written token's posterior marginal, 0 elsewhere),
    `log_z_B` float (log-probability that the model's own factors satisfy the constraint; 0 without one). `moved` and
    `scores` are float `[B]` by guide: see `guided_dlm.constraint.Diagnostics`.
    """

    time: float
    tokens_BL: Tensor
    written_BL: Tensor
    marginal_BL: Tensor
    log_z_B: Tensor
    moved: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Trace:
    """The steps of a run, first to last; `cat` joins the traces of batches run one after the other."""

    steps: list[TraceStep] = field(default_factory=list)

    def record(self, snapshot: Snapshot) -> None:
        """Add one step."""
        law = snapshot.prediction.law
        after = snapshot.after.tokens_BL
        written_BL = after != snapshot.before.tokens_BL
        if snapshot.hidden_BL is not None:
            written_BL = written_BL & ~snapshot.hidden_BL
        self.steps.append(
            TraceStep(
                time=snapshot.at.s,
                tokens_BL=after.cpu(),
                written_BL=written_BL.cpu(),
                marginal_BL=(law.probability(after) * written_BL).float().cpu(),
                log_z_B=snapshot.prediction.log_z.cpu(),
                moved=_on_cpu(snapshot.diagnostics.moved if snapshot.diagnostics else {}),
                scores=_on_cpu(snapshot.diagnostics.scores if snapshot.diagnostics else {}),
            )
        )

    @classmethod
    def cat(cls, traces: list[Trace]) -> Trace:
        """Join traces along the batch; a batch that finished early repeats its last canvas."""
        longest = max((trace.steps for trace in traces), key=len, default=[])
        joined = []
        for index, template in enumerate(longest):
            steps = [trace.steps[index] if index < len(trace.steps) else _still(trace.steps[-1]) for trace in traces]
            joined.append(
                TraceStep(
                    time=template.time,
                    tokens_BL=torch.cat([step.tokens_BL for step in steps]),
                    written_BL=torch.cat([step.written_BL for step in steps]),
                    marginal_BL=torch.cat([step.marginal_BL for step in steps]),
                    log_z_B=torch.cat([step.log_z_B for step in steps]),
                    moved=_joined([step.moved for step in steps], [len(step.tokens_BL) for step in steps]),
                    scores=_joined([step.scores for step in steps], [len(step.tokens_BL) for step in steps]),
                )
            )
        return cls(joined)


def _on_cpu(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float().cpu() for name, value in values.items()}


def _joined(parts: list[dict[str, Tensor]], rows: list[int]) -> dict[str, Tensor]:
    """Join values by name; rows whose batch had no such guide are NaN."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: torch.cat([part.get(name, torch.full((n,), torch.nan)) for part, n in zip(parts, rows, strict=True)])
        for name in names
    }


def _still(step: TraceStep) -> TraceStep:
    return TraceStep(
        time=step.time,
        tokens_BL=step.tokens_BL,
        written_BL=torch.zeros_like(step.written_BL),
        marginal_BL=torch.zeros_like(step.marginal_BL),
        log_z_B=step.log_z_B,
        moved={name: torch.zeros_like(value) for name, value in step.moved.items()},
        scores=step.scores,
    )
