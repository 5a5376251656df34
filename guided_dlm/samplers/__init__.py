"""The sampling loop and the rules that pick which positions it writes."""

from guided_dlm.samplers.blocks import sample_blocks
from guided_dlm.samplers.commit import RULES, CommitRule, commit_rule
from guided_dlm.samplers.correctors import CORRECTORS, Corrector, corrector_of
from guided_dlm.samplers.loop import Contrast, Plan, Snapshot, run, sample

__all__ = [
    "CORRECTORS",
    "RULES",
    "CommitRule",
    "Contrast",
    "Corrector",
    "Plan",
    "Snapshot",
    "commit_rule",
    "corrector_of",
    "run",
    "sample",
    "sample_blocks",
]
