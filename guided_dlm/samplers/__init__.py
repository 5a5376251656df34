"""The sampling loop and the rules that pick which positions it writes."""

from guided_dlm.samplers.blocks import sample_blocks
from guided_dlm.samplers.commit import RULES, CommitRule, commit_rule
from guided_dlm.samplers.contrast import Contrast
from guided_dlm.samplers.correctors import (
    CORRECTORS,
    P2,
    Chain,
    Corrector,
    Gibbs,
    Informed,
    RemdmCap,
    RemdmConf,
    RemdmLoop,
    RemdmRescale,
    Rescore,
    corrector_of,
)
from guided_dlm.samplers.drafts import Verifier, check_drafts, run_drafts
from guided_dlm.samplers.finish import STOP, Stopped, sample
from guided_dlm.samplers.latent import LATENT_GUIDANCE, DiffusionLM, LatentGuidance, ScoreGuidance, latent_guidance_of
from guided_dlm.samplers.loop import Plan, Snapshot, run
from guided_dlm.samplers.rerank import Rerank

__all__ = [
    "CORRECTORS",
    "LATENT_GUIDANCE",
    "P2",
    "RULES",
    "STOP",
    "Chain",
    "CommitRule",
    "Contrast",
    "Corrector",
    "DiffusionLM",
    "Gibbs",
    "Informed",
    "LatentGuidance",
    "Plan",
    "RemdmCap",
    "RemdmConf",
    "RemdmLoop",
    "RemdmRescale",
    "Rerank",
    "Rescore",
    "ScoreGuidance",
    "Snapshot",
    "Stopped",
    "Verifier",
    "check_drafts",
    "commit_rule",
    "corrector_of",
    "latent_guidance_of",
    "run",
    "run_drafts",
    "sample",
    "sample_blocks",
]
