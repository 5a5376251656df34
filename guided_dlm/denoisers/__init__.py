"""Adapters that turn models into one distribution over clean tokens per position."""

from guided_dlm.denoisers.base import Denoiser
from guided_dlm.denoisers.tabular import TabularDenoiser

__all__ = [
    "BlockDenoiser",
    "Denoiser",
    "GaussianDenoiser",
    "SimplexDenoiser",
    "TabularDenoiser",
    "TransformerDenoiser",
    "UniformDenoiser",
]


def __getattr__(name: str) -> object:
    """Import the transformer adapters, and with them transformers, only when they are asked for."""
    if name in ("TransformerDenoiser", "UniformDenoiser"):
        from guided_dlm.denoisers import transformer

        return getattr(transformer, name)
    if name == "GaussianDenoiser":
        from guided_dlm.denoisers.gaussian import GaussianDenoiser

        return GaussianDenoiser
    if name == "SimplexDenoiser":
        from guided_dlm.denoisers.simplex import SimplexDenoiser

        return SimplexDenoiser
    if name == "BlockDenoiser":
        from guided_dlm.denoisers.block import BlockDenoiser

        return BlockDenoiser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
