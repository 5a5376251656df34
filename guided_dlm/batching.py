"""Which rows one loop can carry, and what the report wants to know of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from guided_dlm.automata import TokenAutomaton
from guided_dlm.constraint import Guide
from guided_dlm.posterior import Posterior
from guided_dlm.samplers import Snapshot


def _soft(guide: Guide) -> bool:
    return any(channel is not None for channel in (guide.bias, guide.energy, guide.reward))


def batches(guides: list[Guide], batch_size: int, alone: bool) -> Iterator[slice]:
    """Yield runs of rows that one loop can carry: soft guides are per guide, automata may differ from row to row.

    With `alone` a run has one guide only.
    """
    start = 0
    for row in range(1, len(guides) + 1):
        full = row - start == batch_size
        if (
            row == len(guides)
            or full
            or _clash(guides[start], guides[row])
            or (alone and guides[row] is not guides[start])
        ):
            yield slice(start, row)
            start = row


def _clash(a: Guide, b: Guide) -> bool:
    mixed = (a.automaton is None) != (b.automaton is None)
    return a is not b and (mixed or _soft(a) or _soft(b))


def shared_automata(guides: list[Guide]) -> TokenAutomaton | list[TokenAutomaton] | None:
    """Return None, the one automaton of all rows, or one for each."""
    if all(guide is guides[0] for guide in guides):
        return guides[0].automaton
    automata = [guide.automaton for guide in guides]
    return [a for a in automata if a is not None] or None


def option_posteriors(guides: list[Guide], snapshot: Snapshot) -> list[Mapping[str, float] | None]:
    """Return, per row, the posterior of each option of a choice under the first step's factors.

    log Z of (option and everything else) for each option, normalised; summed over tokenisations by construction.
    """
    found: list[Mapping[str, float] | None] = [None] * len(guides)
    known_BL = snapshot.prediction.law.known_BL
    for guide in dict.fromkeys(g for g in guides if g.options):
        rows = [i for i, g in enumerate(guides) if g is guide]
        if guide.options is None or guide.automaton is None:
            continue
        logits = snapshot.logits_BLV[rows]
        joint = {text: option & guide.automaton for text, option in guide.options.items()}
        log_z = [
            Posterior(logits, automaton, known_BL=known_BL[rows]).log_z
            if automaton.accepting.any()
            else torch.full((len(rows),), -torch.inf, dtype=torch.float64, device=logits.device)
            for automaton in joint.values()
        ]
        shares = torch.stack(log_z).softmax(0)
        for column, row in enumerate(rows):
            found[row] = dict(zip(joint, shares[:, column].tolist(), strict=True))
    return found
