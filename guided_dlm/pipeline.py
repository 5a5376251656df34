"""The front door: prompts and constraints in, texts and an honest report out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from guided_dlm.automata import TokenAutomaton
from guided_dlm.canvas import Canvas
from guided_dlm.constraint import CompileContext, Constraint, Guide
from guided_dlm.denoisers import Denoiser
from guided_dlm.errors import InvalidRequest
from guided_dlm.feasibility import compile_feasible
from guided_dlm.guidance import Truncation
from guided_dlm.models import load_denoiser
from guided_dlm.posterior import Posterior
from guided_dlm.randomness import Randomness, row_seeds
from guided_dlm.report import Output, assemble
from guided_dlm.samplers import CommitRule, Plan, Snapshot, commit_rule, sample, sample_blocks
from guided_dlm.trace import Trace

Constraints = Constraint | Sequence[Constraint | None] | None


@dataclass(kw_only=True, eq=False)
class _Run:
    """What the batches of one call share, and what they collect."""

    guides: list[Guide]
    seeds_B: Tensor
    prompts: list[str | None]
    length: int
    steps: int
    rule: CommitRule
    truncation: Truncation
    observe: Callable[[Snapshot], None] | None
    trace: bool
    block_length: int | None = None
    tokens: list[Tensor] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    options: list[Mapping[str, float] | None] = field(default_factory=list)
    calls: int = 0


class GuidedPipeline:
    """Guided generation with one model; holds no state between calls."""

    def __init__(self, denoiser: Denoiser) -> None:
        """Take any denoiser; `from_pretrained` loads one by name."""
        if not isinstance(denoiser, Denoiser):
            raise InvalidRequest(
                f"GuidedPipeline takes a Denoiser, not {denoiser!r}; to load a model by name or from a folder, call "
                "GuidedPipeline.from_pretrained(...)."
            )
        self.denoiser = denoiser

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "restaurant-words",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> GuidedPipeline:
        """Load a shipped model by name, a local folder, or a Hub id.

        Raises:
            UnknownName: there is no such model; the message suggests the shipped ones.
            InvalidRequest: the device or number type cannot be used here.
        """
        return cls(load_denoiser(name, device, dtype))

    def context(self, max_new_tokens: int) -> CompileContext:
        """Return what constraints are compiled for: this model's vocabulary and a canvas of that many tokens."""
        return CompileContext(vocabulary=self.denoiser.vocabulary, length=max_new_tokens, device=self.denoiser.device)

    def __call__(
        self,
        prompt: str | Sequence[str | None] | None = None,
        constraint: Constraints = None,
        *,
        num_samples: int = 1,
        max_new_tokens: int | None = None,
        steps: int = 32,
        sampler: str | CommitRule = "confidence",
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | Sequence[int] = 0,
        particles: int = 1,
        guidance_scale: float = 1.0,
        batch_size: int = 64,
        block_length: int | None = None,
        progress: bool = False,
        callback: Callable[[Snapshot], None] | None = None,
        return_trace: bool = False,
    ) -> Output:
        """Generate `num_samples` completions of each prompt.

        Args:
            prompt: None, a text, or a list; the constraint reads the completion only.
            constraint: one for all, or one per prompt.
            num_samples: rows per prompt.
            max_new_tokens: the completion's canvas in tokens; by default what the model has room for.
            steps: denoising steps; with masked models at least one token is written in each.
            sampler: a commit rule or its name.
            temperature: 0 is the mode of each step's posterior.
            top_k: keep this many tokens per position; the rest lose 50 nats.
            top_p: keep the smallest set of tokens with this mass; the rest lose 50 nats.
            seed: one number, or one per row; a row's text depends on its own seed alone.
            particles: 1; more arrive with particle guidance.
            guidance_scale: 1; classifier-free guidance needs a conditional model.
            batch_size: rows sampled at once; the result does not depend on it.
            block_length: write the canvas in blocks of this many positions, left to right, `steps` steps each; what
                comes after a block is not predicted, only kept possible, and a `Choice` reports no posterior.
            progress: show a progress bar.
            callback: called with a `Snapshot` after each step of each batch.
            return_trace: keep what each step did in `out.trace`.

        Raises:
            Infeasible: no text satisfies the constraint in this canvas; raised before any model call.
            InvalidRequest: an argument is out of range; the message says which and what to do.
        """
        _check_unavailable(particles, guidance_scale, return_trace and block_length is not None)
        given = {"max_new_tokens": max_new_tokens, "block_length": block_length}
        counts = {"num_samples": num_samples, "steps": steps, "batch_size": batch_size}
        _check_counts(**counts, **{name: value for name, value in given.items() if value is not None})
        truncation = Truncation(temperature=temperature, top_k=top_k, top_p=top_p)
        rule = commit_rule(sampler, self.denoiser.process.selects)
        prompts = _prompts(prompt)
        wishes = [wish for wish in _per_prompt(constraint, len(prompts)) for _ in range(num_samples)]
        length = self._length(prompts, max_new_tokens)
        run = _Run(
            guides=self._compile(wishes, length),
            seeds_B=row_seeds(seed, len(wishes), self.denoiser.device),
            prompts=[p for p in prompts for _ in range(num_samples)],
            length=length,
            steps=steps,
            rule=rule,
            truncation=truncation,
            observe=callback,
            trace=return_trace,
            block_length=block_length,
        )
        self._sample(run, batch_size, progress)
        return self._output(run, wishes)

    def _compile(self, wishes: list[Constraint | None], length: int) -> list[Guide]:
        """Return the guide of each row, compiled once for equal wishes; rows without one share an empty guide."""
        context, free = self.context(length), Guide()
        compiled = {wish: compile_feasible(wish, context) for wish in dict.fromkeys(wishes) if wish is not None}
        _check_channels(compiled)
        return [free if wish is None else compiled[wish] for wish in wishes]

    def _sample(self, run: _Run, batch_size: int, progress: bool) -> None:
        """Run every batch; the bar counts steps of rows."""
        steps = run.steps * (1 if run.block_length is None else -(-run.length // run.block_length))
        with tqdm(total=len(run.guides) * steps, desc="sampling", unit="row-step", disable=not progress) as bar:
            for batch in _batches(run.guides, batch_size, alone=run.block_length is not None):
                self._run_batch(run, batch, bar)
                bar.update(batch.stop * steps - bar.n)  # a canvas may be full before the last step

    def _length(self, prompts: list[str | None], max_new_tokens: int | None) -> int:
        vocabulary, capacity = self.denoiser.vocabulary, self.denoiser.capacity
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

    def _run_batch(self, run: _Run, batch: slice, bar: Any) -> None:
        guides = run.guides[batch]
        canvas = Canvas.from_prompts(run.prompts[batch], self.denoiser.vocabulary, run.length, self.denoiser.device)
        trace = Trace()
        run.options.extend([None] * len(guides))

        def observe(snapshot: Snapshot) -> None:
            run.calls += 1
            bar.update(len(guides))
            if snapshot.at.index == 0 and run.block_length is None:
                run.options[batch] = _option_posteriors(guides, snapshot)
            if run.trace:
                trace.record(snapshot)
            if run.observe is not None:
                run.observe(snapshot)

        plan = Plan(
            denoiser=self.denoiser,
            guide=guides[0],
            automata=_automata(guides),
            rule=run.rule,
            randomness=Randomness(run.seeds_B[batch]),
            steps=run.steps,
            truncation=run.truncation,
        )
        if run.block_length is None:
            tokens_BL = sample(plan, canvas, observe)
        else:
            tokens_BL = sample_blocks(plan, canvas, run.block_length, observe)
        run.tokens.append(tokens_BL.cpu())
        run.traces.append(trace)

    def _output(self, run: _Run, constraints: list[Constraint | None]) -> Output:
        vocabulary = self.denoiser.vocabulary
        tokens = torch.cat(run.tokens)
        rows = tokens.tolist()
        lengths = [vocabulary.text_length(row) for row in rows]
        has_end = vocabulary.eos_id is not None or vocabulary.pad_id is not None
        return assemble(
            constraints,
            texts=[vocabulary.decode(row) for row in rows],
            tokens=tokens,
            lengths=lengths,
            truncated=[has_end and length == tokens.shape[1] for length in lengths],
            options=run.options,
            denoiser_calls=run.calls,
            trace=Trace.cat(run.traces) if run.trace else None,
            context=self.context(tokens.shape[1]),
        )


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidRequest(f"{name}={value!r} must be a whole number, at least 1.")


def _check_unavailable(particles: int, guidance_scale: float, trace_of_blocks: bool) -> None:
    if trace_of_blocks:
        raise InvalidRequest("A trace is of a whole canvas; leave out return_trace, or block_length.")
    if particles != 1:
        raise InvalidRequest(f"particles={particles}: particle guidance is not available yet; use particles=1.")
    if guidance_scale != 1.0:
        raise InvalidRequest(
            f"guidance_scale={guidance_scale}: classifier-free guidance needs a conditional model, and none is loaded; "
            "use guidance_scale=1."
        )


def _check_channels(compiled: Mapping[Constraint, Guide]) -> None:
    for constraint, guide in compiled.items():
        if guide.reward is not None:
            raise InvalidRequest(
                f"{constraint!r} scores finished texts (a reward), which needs particle guidance; that is not "
                "available yet. Give an energy or a bias instead."
            )


def _prompts(prompt: str | Sequence[str | None] | None) -> list[str | None]:
    prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
    if not prompts or any(not (p is None or isinstance(p, str)) for p in prompts):
        raise InvalidRequest(f"prompt={prompt!r}: give None, a text, or a list of at least one of these.")
    return prompts  # type: ignore[return-value]


def _per_prompt(constraint: Constraints, prompts: int) -> list[Constraint | None]:
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


def _soft(guide: Guide) -> bool:
    return guide.bias is not None or guide.energy is not None


def _batches(guides: list[Guide], batch_size: int, alone: bool) -> Iterator[slice]:
    """Yield runs of rows that one loop can carry: soft guides are per guide, automata may differ from row to row.

    With `alone` a run has one guide only.
    """
    start = 0
    for row in range(1, len(guides) + 1):
        full = row - start == batch_size
        if (
            row == len(guides)
            or full
            or _clash(guides[start], guides[row])
            or (alone and guides[row] is not guides[start])
        ):
            yield slice(start, row)
            start = row


def _clash(a: Guide, b: Guide) -> bool:
    mixed = (a.automaton is None) != (b.automaton is None)
    return a is not b and (mixed or _soft(a) or _soft(b))


def _automata(guides: list[Guide]) -> TokenAutomaton | list[TokenAutomaton] | None:
    if all(guide is guides[0] for guide in guides):
        return guides[0].automaton
    automata = [guide.automaton for guide in guides]
    return [a for a in automata if a is not None] or None


def _option_posteriors(guides: list[Guide], snapshot: Snapshot) -> list[Mapping[str, float] | None]:
    """Return, per row, the posterior of each option of a choice under the first step's factors.

    log Z of (option and everything else) for each option, normalised; summed over tokenisations by construction.
    """
    found: list[Mapping[str, float] | None] = [None] * len(guides)
    known_BL = snapshot.prediction.law.known_BL
    for guide in dict.fromkeys(g for g in guides if g.options):
        rows = [i for i, g in enumerate(guides) if g is guide]
        if guide.options is None or guide.automaton is None:
            continue
        logits = snapshot.logits_BLV[rows]
        joint = {text: option & guide.automaton for text, option in guide.options.items()}
        log_z = [
            Posterior(logits, automaton, known_BL=known_BL[rows]).log_z
            if automaton.accepting.any()
            else torch.full((len(rows),), -torch.inf, dtype=torch.float64, device=logits.device)
            for automaton in joint.values()
        ]
        shares = torch.stack(log_z).softmax(0)
        for column, row in enumerate(rows):
            found[row] = dict(zip(joint, shares[:, column].tolist(), strict=True))
    return found
