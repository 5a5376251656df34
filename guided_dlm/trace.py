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
    `log_z_B` float (log-probability that the model's own factors satisfy the constraint; 0 without one).
    """

    time: float
    tokens_BL: Tensor
    written_BL: Tensor
    marginal_BL: Tensor
    log_z_B: Tensor


@dataclass
class Trace:
    """The steps of a run, first to last; `cat` joins the traces of batches run one after the other."""

    steps: list[TraceStep] = field(default_factory=list)

    def record(self, snapshot: Snapshot) -> None:
        """Add one step."""
        law = snapshot.prediction.law
        after = snapshot.after.tokens_BL
        written_BL = after != snapshot.before.tokens_BL
        self.steps.append(
            TraceStep(
                time=snapshot.at.s,
                tokens_BL=after.cpu(),
                written_BL=written_BL.cpu(),
                marginal_BL=(law.probability(after) * written_BL).float().cpu(),
                log_z_B=snapshot.prediction.log_z.cpu(),
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
                )
            )
        return cls(joined)


def _still(step: TraceStep) -> TraceStep:
    return TraceStep(
        time=step.time,
        tokens_BL=step.tokens_BL,
        written_BL=torch.zeros_like(step.written_BL),
        marginal_BL=torch.zeros_like(step.marginal_BL),
        log_z_B=step.log_z_B,
    )
