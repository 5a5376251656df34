"""guided_dlm: constraints and guidance for diffusion language models.

Shape suffixes of tensors, everywhere: B batch, L positions of the completion, P positions of the prompt, V vocabulary,
S automaton states, C token classes, G token groups on arcs, A arcs, D embedding width; M open positions of a batch,
N and R the states and columns of a chain.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guided_dlm.constraint import CompileContext, Constraint, Guide, RegularConstraint, Step
    from guided_dlm.errors import GuidedError
    from guided_dlm.pipeline import GuidedPipeline
    from guided_dlm.registry import register
    from guided_dlm.report import Output
    from guided_dlm.vocabulary import Vocabulary

_HOMES = {
    "CompileContext": "constraint",
    "Constraint": "constraint",
    "Guide": "constraint",
    "GuidedError": "errors",
    "GuidedPipeline": "pipeline",
    "Output": "report",
    "RegularConstraint": "constraint",
    "Step": "constraint",
    "Vocabulary": "vocabulary",
    "register": "registry",
}

__all__ = [
    "CompileContext",
    "Constraint",
    "Guide",
    "GuidedError",
    "GuidedPipeline",
    "Output",
    "RegularConstraint",
    "Step",
    "Vocabulary",
    "register",
]


def __getattr__(name: str) -> object:
    """Import a public name only when it is used, so that the command line and the registry stay quick."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"guided_dlm.{_HOMES[name]}"), name)
