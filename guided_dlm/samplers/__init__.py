"""The sampling loop and the rules that pick which positions it writes."""

from guided_dlm.samplers.blocks import sample_blocks
from guided_dlm.samplers.commit import RULES, CommitRule, commit_rule
from guided_dlm.samplers.correctors import CORRECTORS, Corrector, corrector_of
from guided_dlm.samplers.finish import STOP, Stopped, sample
from guided_dlm.samplers.loop import Contrast, Plan, Snapshot, run

__all__ = [
    "CORRECTORS",
    "RULES",
    "STOP",
    "CommitRule",
    "Contrast",
    "Corrector",
    "Plan",
    "Snapshot",
    "Stopped",
    "commit_rule",
    "corrector_of",
    "run",
    "sample",
    "sample_blocks",
]
