"""Find a model by name: shipped with the package, a local folder, or the Hub."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch

from guided_dlm.denoisers import Denoiser
from guided_dlm.errors import GuidedError, UnknownName

WEIGHTS = Path(__file__).parent / "weights"


def shipped() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


def locate(name: str) -> str:
    """Return where to load a model from: a shipped folder, a local folder, or a Hub id with a slash.

    Raises:
        UnknownName: it is none of these; the message suggests the shipped models.
    """
    if name in shipped():
        return str(WEIGHTS / name)
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UnknownName(f"The folder {name!r} has no config.json, so it is no model. {_offer(name)}")
        return name
    if "/" in name and not name.startswith((".", "/")) and name.count("/") == 1:
        return name
    raise UnknownName(f"There is no model {name!r}: neither shipped nor a local folder. {_offer(name)}")


def _offer(name: str) -> str:
    names = shipped()
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Shipped models: {', '.join(names) or 'none'}."


def load_denoiser(name: str, device: str | torch.device, dtype: torch.dtype) -> Denoiser:
    """Load a model and the adapter that fits it.

    Raises:
        UnknownName: there is no such model here and it cannot be fetched.
    """
    from guided_dlm.denoisers.transformer import TransformerDenoiser

    where = locate(name)
    try:
        return TransformerDenoiser.from_pretrained(where, device=device, dtype=dtype)
    except GuidedError:
        raise
    except (OSError, ValueError) as error:
        raise UnknownName(f"The model {name!r} could not be loaded: {error} {_offer(name)}") from error
