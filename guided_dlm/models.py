"""Find a model by name (shipped with the package, a local folder, or the Hub) and load it onto a device."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from guided_dlm.denoisers import Denoiser
from guided_dlm.errors import GuidedError, InvalidRequest, UnknownName, shorten
from guided_dlm.samplers import commit_rule, corrector_of

WEIGHTS = Path(__file__).parent / "weights"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def shipped() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))


def locate(name: str | Path) -> str:
    """Return where to load a model from: a shipped folder, a local folder, or a Hub id with a slash.

    Raises:
        UnknownName: it is none of these; the message suggests the shipped models.
    """
    if not isinstance(name, str | os.PathLike):
        raise InvalidRequest(
            f"A model is a shipped name, a local folder or a Hub id, not {name!r}. Shipped models: "
            f"{', '.join(shipped())}."
        )
    is_path, name = not isinstance(name, str), str(name)
    if name in shipped():
        return str(WEIGHTS / name)
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UnknownName(f"The folder {name!r} has no config.json, so it is no model. {_offer(name)}")
        return name
    if not is_path and not name.startswith((".", "/")) and name.count("/") == 1:
        return name
    raise UnknownName(f"There is no model {name!r}: neither shipped nor a local folder. {_offer(name)}")


def _offer(name: str) -> str:
    names = shipped()
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Shipped models: {', '.join(names) or 'none'}."


def load_denoiser(name: str | Path, device: str | torch.device, dtype: str | torch.dtype) -> Denoiser:
    """Load a model and the adapter that fits it.

    Raises:
        UnknownName: there is no such model here and it cannot be fetched.
        InvalidRequest: the device or number type cannot be used, or the folder holds no model that can be loaded.
    """
    from guided_dlm.denoisers.transformer import TransformerDenoiser

    where = locate(name)
    _refuse_device(device)
    kind = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if kind is None or kind not in DTYPES.values():
        raise InvalidRequest(f"dtype={dtype!r} is nothing a model computes in; give one of {', '.join(DTYPES)}.")
    if kind is torch.bfloat16 and not multiplies_bf16(device):
        warnings.warn(
            f"dtype='bfloat16': {device} has no instructions for it, so that a run takes many times as long as with "
            "dtype='float32'.",
            stacklevel=3,
        )
    try:
        denoiser = TransformerDenoiser.from_pretrained(where, device=device, dtype=kind)
    except GuidedError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        reason = shorten(str(error), 300).rstrip(".")
        if Path(where).is_dir():
            raise InvalidRequest(f"The model in {where!r} could not be loaded: {reason}.") from error
        raise UnknownName(
            f"{where!r} is neither shipped nor a local folder, so it was taken as a Hub id, and could not be fetched: "
            f"{reason}. {_offer(where)}"
        ) from error
    _check_defaults(denoiser, str(Path(where) / "config.json"))
    return denoiser


def multiplies_bf16(device: str | torch.device) -> bool:
    """Whether bfloat16 is the faster type there: elsewhere it is emulated, and ten times slower than float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return kind != "cpu" or any(getattr(torch.cpu, name, bool)() for name in names)


def _check_defaults(denoiser: Denoiser, file: str) -> None:
    """Refuse a default sampler or corrector that nobody knows, or that the model's noise has no use for."""
    finders: dict[str, Callable[[Any, bool], Any]] = {"sampler": commit_rule, "corrector": corrector_of}
    for key, find in finders.items():
        try:
            find(getattr(denoiser.sampling.fill(), key), denoiser.process.selects)
        except GuidedError as error:
            raise InvalidRequest(f"{file}: sampling.{key}: {error}") from error


def _refuse_device(device: str | torch.device) -> None:
    """Put a number there and read it back: torch tells what is wrong with a device only on use."""
    try:
        torch.zeros(1, device=torch.device(device)).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        usable = "'cpu'" if here is None else f"'cpu' or '{here.type}'"
        reason = shorten(str(error), 80).rstrip(".")
        raise InvalidRequest(f"device={device!r} cannot be used ({reason}); this machine has {usable}.") from error
