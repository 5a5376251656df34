"""Correctors: which written positions a masked sampler hides again, because tokens predicted in parallel may clash.

What is hidden was written before, so the old tokens are a witness that the canvas can still be completed: a hard
constraint holds on every output, under every corrector. Positions that the prompt or a template fixed are never hidden.
"""

from __future__ import annotations

import difflib

from guided_dlm.errors import InvalidRequest, UnknownName
from guided_dlm.samplers.corrector import Corrector, Written
from guided_dlm.samplers.remasking import P2, RemdmCap, RemdmConf, RemdmLoop, RemdmRescale
from guided_dlm.samplers.rewriting import Chain, Gibbs, Informed, Rescore

__all__ = [
    "CORRECTORS",
    "P2",
    "Chain",
    "Corrector",
    "Gibbs",
    "Informed",
    "RemdmCap",
    "RemdmConf",
    "RemdmLoop",
    "RemdmRescale",
    "Rescore",
    "Written",
    "corrector_of",
]

CORRECTORS: dict[str, Corrector] = {
    "remdm-cap": RemdmCap(),
    "remdm-rescale": RemdmRescale(),
    "remdm-conf": RemdmConf(),
    "remdm-loop": RemdmLoop(),
    "rescore": Rescore(),
    "informed": Informed(),
    "gibbs": Gibbs(),
    "p2": P2(),
    "p2+gibbs": Chain(first=P2(), then=Gibbs(sweeps=2)),
    "p2+cool-gibbs+distinct": Chain(first=P2(), then=Gibbs(sweeps=2, temperature=0.85, distinct=8, warmer=4)),
    "p2+gibbs+distinct": Chain(first=P2(), then=Gibbs(sweeps=2, distinct=8, warmer=4)),
}


def corrector_of(name: str | Corrector | None, selects: bool) -> Corrector | None:
    """Return the corrector of that name, or the corrector itself, or None; `selects` says whether the model is masked.

    Raises:
        UnknownName: nobody knows the name; the message suggests near ones.
        InvalidRequest: the process rewrites every position in every step, so that nothing is final before the end.
    """
    if name is None:
        return None
    if not isinstance(name, Corrector) and str(name) not in CORRECTORS:
        near = difflib.get_close_matches(str(name), CORRECTORS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownName(f"There is no corrector {name!r}.{hint} Choose one of {sorted(CORRECTORS)}.")
    if not selects:
        raise InvalidRequest(
            f"corrector={name!r} hides written positions again, and this process rewrites all positions in every step; "
            "leave it out."
        )
    return name if isinstance(name, Corrector) else CORRECTORS[str(name)]
