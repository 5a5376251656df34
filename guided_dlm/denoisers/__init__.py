"""Adapters that turn models into one distribution over clean tokens per position."""

from guided_dlm.denoisers.base import Denoiser
from guided_dlm.denoisers.tabular import TabularDenoiser

__all__ = ["Denoiser", "TabularDenoiser", "TransformerDenoiser"]


def __getattr__(name: str) -> object:
    """Import the transformer adapter, and with it transformers, only when it is asked for."""
    if name == "TransformerDenoiser":
        from guided_dlm.denoisers.transformer import TransformerDenoiser

        return TransformerDenoiser
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
