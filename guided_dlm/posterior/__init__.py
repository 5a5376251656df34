"""Exact joint inference for one denoising step."""

from guided_dlm.posterior.factors import Factors
from guided_dlm.posterior.posterior import Posterior

__all__ = ["Factors", "Posterior"]
