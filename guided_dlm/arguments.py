"""What a pipeline call is given, checked in full sentences before any work is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from guided_dlm.constraint import Constraint, Guide
from guided_dlm.denoisers import Denoiser
from guided_dlm.errors import InvalidRequest
from guided_dlm.samplers import Corrector, Rerank
from guided_dlm.weighting import value_at

Constraints = Constraint | Sequence[Constraint | None] | None
Scale = float | Callable[[float], float]
RESAMPLING = ("systematic", "search")


def said_blocks(asked: int | None, own: int | None) -> str | None:
    """Return how to call what makes a run go block by block: the argument, or the model; None if nothing does."""
    if asked is not None:
        return f"block_length={asked}"
    return None if own is None else f"a model that writes blocks of {own}"


def check_counts(**counts: int) -> None:
    """Refuse what is no positive whole number."""
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidRequest(f"{name}={value!r} must be a whole number, at least 1.")


def check_together(particles: int, resampling: str, trace: bool, blocks: str | None, corrects: bool) -> None:
    """Refuse options that cannot be combined: traces, blocks, correctors, particles, and how these are resampled."""
    if trace and blocks:
        raise InvalidRequest(f"A trace is of a whole canvas; return_trace cannot be combined with {blocks}.")
    if resampling not in RESAMPLING:
        raise InvalidRequest(f"resampling={resampling!r}: choose 'systematic' or 'search'.")
    if resampling == "search" and particles == 1:
        raise InvalidRequest(
            "resampling='search' picks one of several particles at every step, and particles=1 leaves nothing to pick. "
            "Give particles=4 or more, or leave out resampling."
        )
    if corrects and particles > 1 and resampling != "search":
        raise InvalidRequest(
            f"particles={particles} with a corrector: the weights of runs that hide tokens again are not known. Leave "
            "out corrector, or give resampling='search', which needs no weights."
        )
    if particles > 1 and trace:
        raise InvalidRequest(
            f"particles={particles} cannot be combined with return_trace, because its rows would change places; leave "
            "one of them out."
        )


def check_rerank(rerank: object, temperature: float, particles: int, blocks: str | None) -> None:
    """Refuse reranking where nothing is drawn, or where the draws have another use."""
    if rerank is None:
        return
    if not isinstance(rerank, Rerank):
        raise InvalidRequest(f"rerank={rerank!r} is no Rerank; give Rerank(score=judge.log_p, candidates=8).")
    if temperature == 0:
        raise InvalidRequest(
            "rerank keeps one of several draws, and temperature=0 draws nothing; leave one of them out."
        )
    if particles > 1:
        raise InvalidRequest(f"rerank cannot be combined with particles={particles}, whose weights are of plain draws.")
    if blocks:
        raise InvalidRequest(f"rerank reads whole texts, so it cannot be combined with {blocks}.")


def check_distinct(corrector: Corrector | None, temperature: float, particles: int, blocks: str | None) -> None:
    """Refuse to keep rows distinct where they are modes, particles, or beginnings of texts."""
    if corrector is None or not corrector.compares_rows:
        return
    others = (blocks, f"particles={particles}" if particles > 1 else None, None if temperature else "temperature=0")
    for name in filter(None, others):
        raise InvalidRequest(
            f"{corrector!r} draws texts again that repeat each other, so it cannot be combined with {name}; leave out "
            "distinct and warmer."
        )


def check_alone(verifier: object, **others: object) -> None:
    """Refuse what would change the law of verified drafts, or have no effect on it."""
    given = [name for name, value in others.items() if value is not None]
    if verifier is not None and given:
        raise InvalidRequest(
            f"verifier= gives texts the law of the causal model, which {given[0]}={others[given[0]]!r} cannot change. "
            "Leave one of them out."
        )


def canvas_length(denoiser: Denoiser, prompts: list[str | None], max_new_tokens: int | None) -> int:
    """Return how many tokens a completion may have: what was asked for, or the room that the longest prompt leaves.

    Raises:
        InvalidRequest: there is no such room, or the model has no limit and nothing was asked for.
    """
    vocabulary, capacity = denoiser.vocabulary, denoiser.capacity
    longest = max((len(vocabulary.encode(p)) for p in prompts if p), default=0)
    if capacity is None:
        if max_new_tokens is None:
            raise InvalidRequest("This model has no canvas length of its own; give max_new_tokens.")
        return max_new_tokens
    room = capacity - longest
    if room < 1:
        raise InvalidRequest(
            f"The prompt is too long: prompt and completion share a canvas of {capacity} tokens, and the longest "
            f"prompt takes {longest}. Shorten it to at most {capacity - 1} tokens."
        )
    if max_new_tokens is not None and max_new_tokens > room:
        raise InvalidRequest(
            f"Prompt and completion share a canvas of {capacity} tokens; the longest prompt takes {longest} and "
            f"max_new_tokens is {max_new_tokens}. Shorten the prompt or ask for at most {room} new tokens."
        )
    return room if max_new_tokens is None else max_new_tokens


def check_rewards(compiled: Mapping[Constraint | None, Guide], particles: int, resampling: str) -> None:
    """Refuse wishes that score finished texts where nothing follows them, and a search where nothing is scored."""
    for constraint, guide in compiled.items():
        if guide.needs_particles and particles == 1:
            raise InvalidRequest(
                f"{constraint!r} scores finished texts (a reward), which cannot steer a single row. Give particles=8 "
                "or more, or an energy or bias instead."
            )
        if resampling == "search" and guide.reward is None:
            who = "a row without a constraint" if constraint is None else repr(constraint)
            raise InvalidRequest(
                f"resampling='search' picks by a reward, and {who} has none. Add a Reward or a Classifier, or leave "
                "out resampling."
            )


def scale_of(guidance_scale: Scale) -> Callable[[float], float]:
    """Return gamma as a function of progress in [0, 1).

    Raises:
        InvalidRequest: it is neither a finite number nor a function.
    """
    if callable(guidance_scale):
        return partial(value_at, guidance_scale, name="guidance_scale")
    if isinstance(guidance_scale, bool) or not isinstance(guidance_scale, int | float):
        raise InvalidRequest(f"guidance_scale={guidance_scale!r}: give a number, or a function of progress in [0, 1).")
    if not math.isfinite(guidance_scale):
        raise InvalidRequest(f"guidance_scale={guidance_scale!r} must be finite.")
    return lambda progress: float(guidance_scale)


def list_prompts(prompt: str | Sequence[str | None] | None) -> list[str | None]:
    """Return the prompts as a list."""
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    if not prompts or any(not (p is None or isinstance(p, str)) for p in prompts):
        raise InvalidRequest(f"prompt={prompt!r}: give None, a text, or a list of at least one of these.")
    return prompts  # type: ignore[return-value]


def list_negatives(
    prompts: list[str | None], negative_prompt: str | Sequence[str] | None, num_samples: int
) -> list[str] | None:
    """Return the negative prompt of each row, None where there is none."""
    if negative_prompt is None:
        return None
    given = [negative_prompt] * len(prompts) if isinstance(negative_prompt, str) else list(negative_prompt)
    if len(given) != len(prompts) or not all(isinstance(one, str) for one in given):
        raise InvalidRequest(f"negative_prompt={negative_prompt!r}: give one text, or one for each prompt.")
    return [one for one in given for _ in range(num_samples)]


def per_prompt(constraint: Constraints, prompts: int) -> list[Constraint | None]:
    """Return one wish, or None, for each prompt."""
    if constraint is None or isinstance(constraint, Constraint):
        return [constraint] * prompts
    if not isinstance(constraint, list | tuple) or any(
        not (c is None or isinstance(c, Constraint)) for c in constraint
    ):
        raise InvalidRequest(
            f"constraint={constraint!r}: give a Constraint, or a list with one (or None) for each prompt; "
            "Constraint.from_config reads plain JSON."
        )
    if len(constraint) != prompts:
        raise InvalidRequest(f"Got {len(constraint)} constraints for {prompts} prompts; give one, or one per prompt.")
    return list(constraint)
