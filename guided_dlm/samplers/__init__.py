"""The sampling loop and the rules that pick which positions it writes."""

from guided_dlm.samplers.blocks import sample_blocks
from guided_dlm.samplers.commit import RULES, CommitRule, commit_rule
from guided_dlm.samplers.loop import Contrast, Plan, Snapshot, run, sample

__all__ = ["RULES", "CommitRule", "Contrast", "Plan", "Snapshot", "commit_rule", "run", "sample", "sample_blocks"]
