"""The front door: prompts and constraints in, texts and an honest report out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from guided_dlm.arguments import (
    Constraints,
    Scale,
    canvas_length,
    check_alone,
    check_counts,
    check_distinct,
    check_rerank,
    check_rewards,
    check_together,
    list_negatives,
    list_prompts,
    per_prompt,
    said_blocks,
    scale_of,
)
from guided_dlm.automata import TokenAutomaton
from guided_dlm.batching import batches, option_posteriors, shared_automata
from guided_dlm.block_particles import sample_block_particles
from guided_dlm.canvas import Canvas
from guided_dlm.constraint import CompileContext, Constraint, Guide
from guided_dlm.denoisers import Denoiser
from guided_dlm.errors import InvalidRequest, VocabularyMismatch
from guided_dlm.feasibility import compile_feasible
from guided_dlm.guidance import Truncation
from guided_dlm.models import load_denoiser
from guided_dlm.particles import Sampled, sample_particles
from guided_dlm.randomness import Randomness, particle_seeds, row_seeds
from guided_dlm.report import Output, assemble, warn_rejected, warn_stopped
from guided_dlm.samplers import (
    CommitRule,
    Contrast,
    Corrector,
    LatentGuidance,
    Plan,
    Rerank,
    Snapshot,
    Stopped,
    Verifier,
    check_drafts,
    commit_rule,
    corrector_of,
    latent_guidance_of,
    run_drafts,
    sample,
    sample_blocks,
)
from guided_dlm.sampling_defaults import SamplingDefaults
from guided_dlm.trace import Trace


@dataclass(kw_only=True, eq=False)
class _Run:
    """What the batches of one call share, and what they collect."""

    guides: list[Guide]
    seeds_B: Tensor
    prompts: list[str | None]
    length: int
    settings: SamplingDefaults
    rule: CommitRule
    truncation: Truncation
    observe: Callable[[Snapshot], Any] | None
    trace: bool
    unconditional: Denoiser
    negatives: list[str] | None = None
    scale: Callable[[float], float] | None = None
    particles: int = 1
    resampling: str = "systematic"
    block_length: int | None = None
    corrector: Corrector | None = None
    latent_guidance: LatentGuidance | None = None
    rerank: Rerank | None = None
    verifier: Verifier | None = None
    weights: list[Sampled] = field(default_factory=list)
    tokens: list[Tensor] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    options: list[Mapping[str, float] | None] = field(default_factory=list)
    calls: int = 0
    open_rows: list[bool] = field(default_factory=list)  # which rows a stop left unfinished


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
        dtype: str | torch.dtype = "float32",
    ) -> GuidedPipeline:
        """Load a shipped model by name, a local folder, or a Hub id, to compute in numbers of that type.

        "bfloat16" is faster where the processor or GPU multiplies it, and much slower where it does not; texts of one
        seed then differ from those of "float32" here and there.

        Raises:
            UnknownName: there is no such model; the message suggests the shipped ones.
            InvalidRequest: the device or number type cannot be used here.
        """
        return cls(load_denoiser(name, device, dtype))

    def context(self, max_new_tokens: int) -> CompileContext:
        """Return what constraints are compiled for: this model's vocabulary and a canvas of that many tokens."""
        denoiser = self.denoiser
        return CompileContext(
            vocabulary=denoiser.vocabulary,
            length=max_new_tokens,
            device=denoiser.device,
            embedding_VD=denoiser.embedding_VD,
        )

    def __call__(
        self,
        prompt: str | Sequence[str | None] | None = None,
        constraint: Constraints = None,
        *,
        num_samples: int = 1,
        max_new_tokens: int | None = None,
        steps: int | None = None,
        sampler: str | CommitRule | None = None,
        corrector: str | Corrector | None = None,
        latent_guidance: str | LatentGuidance | None = None,
        rerank: Rerank | None = None,
        verifier: Verifier | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | Sequence[int] = 0,
        particles: int = 1,
        resampling: str = "systematic",
        guidance_scale: Scale = 1.0,
        negative_prompt: str | Sequence[str] | None = None,
        unconditional: Denoiser | None = None,
        batch_size: int = 64,
        block_length: int | None = None,
        progress: bool = False,
        callback: Callable[[Snapshot], Any] | None = None,
        return_trace: bool = False,
    ) -> Output:
        """Generate `num_samples` completions of each prompt.

        Args:
            prompt: None, a text, or a list; the constraint reads the completion only.
            constraint: one for all, or one per prompt.
            num_samples: rows per prompt.
            max_new_tokens: the completion's canvas in tokens; by default what the model has room for.
            steps: denoising steps; masked models write at least one token in each. By default the model's own, else 32.
            sampler: a commit rule or its name; by default the model's own, else "confidence".
            corrector: hides written tokens again, and how, or its name; see `guided_dlm.samplers.correctors`. By
                default the model's own; "none" leaves that out.
            latent_guidance: for models of Gaussian noise, how the wish pulls the noisy vectors: "score", "diffusion-lm"
                or an object of `guided_dlm.samplers.latent`. By default each step is conditioned exactly.
            rerank: several draws per step, one kept by what an autoregressive model says of the whole text.
            verifier: a causal model that reads the denoiser's drafts: texts have its law, in as few calls as the drafts
                allow, and `steps` and `sampler` do not matter; see `guided_dlm.samplers.drafts`.
            temperature: 0 is the mode of each step's posterior; by default the model's own, else 1.
            top_k: keep this many tokens per position; the rest lose 50 nats.
            top_p: keep the smallest set of tokens with this mass; the rest lose 50 nats. By default the model's own.
            seed: one number, or one per row; a row's text depends on its own seed alone, unless a corrector keeps rows
                distinct.
            particles: rows that compete for each sample, weighted and resampled; follows rewards, and corrects what a
                step, or a block, cannot know of what comes later. `out.log_weights` estimates each log-normaliser.
            resampling: "systematic", by weights that correct whole runs; or "search": at every step one particle, drawn
                by its reward alone, goes on in all of them, which is a best effort and estimates nothing.
            guidance_scale: classifier-free guidance: how far to go from the unconditional law to that of the prompt;
                1 is the prompt alone. A number, or a function of progress in [0, 1).
            negative_prompt: what the unconditional law is told instead; by default the prompt is masked.
            unconditional: a second model for it.
            batch_size: rows sampled at once; the result does not depend on it, with the same exception.
            block_length: write the canvas in blocks of this many positions, left to right, `steps` steps each; what
                comes after a block is not predicted, only kept possible, and a `Choice` reports no posterior. Soft
                guides see the block alone, and progress is that of the block. By default a block model's own length.
            progress: show a progress bar.
            callback: called with a `Snapshot` after each step of each batch. Where it returns "stop", or Ctrl-C is
                pressed, each row that was begun comes back as the likeliest canvas that satisfies its constraint, and
                `out.truncated` says so; rows of later batches are left out, with a warning.
            return_trace: keep what each step did in `out.trace`.

        Raises:
            Infeasible: no text satisfies the constraint in this canvas; raised before any model call.
            InvalidRequest: an argument is out of range; the message says which and what to do.
        """
        check_counts(num_samples=num_samples, batch_size=batch_size, particles=particles)
        said = {"steps": steps, "temperature": temperature, "sampler": sampler, "corrector": corrector, "top_p": top_p}
        weighted, verified = particles > 1 and resampling == "systematic", verifier is not None
        used = self.denoiser.sampling.fill(verified=verified, weighted=weighted, **said)
        blocks = said_blocks(block_length, self.denoiser.block_length)
        block_length = self.denoiser.block_length if block_length is None else block_length
        optional = {"max_new_tokens": max_new_tokens, "block_length": block_length}
        check_counts(steps=used.steps, **{name: value for name, value in optional.items() if value is not None})
        check_rerank(rerank, used.temperature, particles, blocks)
        check_alone(
            verifier, corrector=used.corrector, rerank=rerank, block_length=block_length, top_k=top_k, top_p=used.top_p,
            particles=particles if particles > 1 else None,
            temperature=None if used.temperature else used.temperature,
        )  # fmt: skip
        check_together(particles, resampling, return_trace, blocks, used.corrector is not None)
        corrector = corrector_of(used.corrector, self.denoiser.process.selects)
        check_distinct(corrector, used.temperature, particles, blocks)
        prompts = list_prompts(prompt)
        wishes = [wish for wish in per_prompt(constraint, len(prompts)) for _ in range(num_samples)]
        negatives = list_negatives(prompts, negative_prompt, num_samples)
        length = canvas_length(self.denoiser, [*prompts, *(negatives or ())], max_new_tokens)
        run = _Run(
            rule=commit_rule(used.sampler, self.denoiser.process.selects),
            truncation=Truncation(temperature=used.temperature, top_k=top_k, top_p=used.top_p),
            guides=self._compile(wishes, length, particles, resampling),
            seeds_B=row_seeds(seed, len(wishes), self.denoiser.device),
            prompts=[p for p in prompts for _ in range(num_samples)],
            length=length,
            settings=used,
            observe=callback,
            trace=return_trace,
            block_length=block_length,
            corrector=corrector,
            latent_guidance=latent_guidance_of(
                latent_guidance, self.denoiser.process, wished=any(wish is not None for wish in wishes)
            ),
            rerank=rerank,
            verifier=verifier,
            particles=particles,
            resampling=resampling,
            scale=None if guidance_scale == 1.0 else scale_of(guidance_scale),
            negatives=negatives,
            unconditional=unconditional or self.denoiser,
        )
        if verifier is not None:
            check_drafts(self.denoiser, verifier, run.guides)
        self._check_condition(run, unconditional)
        interrupted = self._sample(run, batch_size, progress)
        warn_stopped(len(run.open_rows), len(wishes), interrupted)
        return self._output(run, wishes)

    def _compile(self, wishes: list[Constraint | None], length: int, particles: int, resampling: str) -> list[Guide]:
        """Return the guide of each row, compiled once for equal wishes; rows without one share an empty guide."""
        context = self.context(length)
        compiled = {w: Guide() if w is None else compile_feasible(w, context) for w in dict.fromkeys(wishes)}
        check_rewards(compiled, particles, resampling)
        return [compiled[wish] for wish in wishes]

    def _sample(self, run: _Run, batch_size: int, progress: bool) -> bool:
        """Run every batch; the bar counts steps of rows. Return whether Ctrl-C ended it."""
        width = run.length if run.block_length is None else run.block_length
        turns = 0 if run.corrector is None else run.corrector.turns(width)
        steps = (run.settings.steps + turns) * -(-run.length // width)
        with tqdm(total=len(run.guides) * steps, desc="sampling", unit="row-step", disable=not progress) as bar:
            size = max(1, batch_size // run.particles)
            for batch in batches(run.guides, size, alone=run.block_length is not None or run.verifier is not None):
                try:
                    self._run_batch(run, batch, bar)
                    run.open_rows.extend([False] * len(run.guides[batch]))
                except Stopped as stop:
                    run.tokens.append(stop.tokens_BL.cpu())
                    run.open_rows.extend(stop.open_B.tolist())
                    return stop.interrupted
                except KeyboardInterrupt:
                    if not run.tokens:
                        raise
                    return True
                bar.update(batch.stop * steps - bar.n)  # a canvas may be full before the last step
        return False

    def _run_batch(self, run: _Run, batch: slice, bar: Any) -> None:
        guides = [guide for guide in run.guides[batch] for _ in range(run.particles)]
        prompts = [prompt for prompt in run.prompts[batch] for _ in range(run.particles)]
        canvas = Canvas.from_prompts(prompts, self.denoiser.vocabulary, run.length, self.denoiser.device)
        trace = Trace()
        run.options.extend([None] * len(run.guides[batch]))
        run.traces.append(trace)

        def observe(snapshot: Snapshot) -> Any:
            run.calls += snapshot.calls
            bar.update(len(run.guides[batch]))
            if snapshot.at.index == 0 and run.block_length is None and run.particles == 1:
                run.options[batch] = option_posteriors(guides, snapshot)
            if run.trace:
                trace.record(snapshot)
            return None if run.observe is None else run.observe(snapshot)

        automata = shared_automata(guides)
        if automata is None and (run.rerank is not None or run.verifier is not None):
            automata = TokenAutomaton.well_formed(self.denoiser.vocabulary)  # what is judged is what is kept
        plan = Plan(
            denoiser=self.denoiser,
            guide=guides[0],
            automata=automata,
            rule=run.rule,
            randomness=Randomness(particle_seeds(run.seeds_B[batch], run.particles)),
            steps=run.settings.steps,
            truncation=run.truncation,
            diagnose=run.trace,
            corrector=run.corrector,
            latent_guidance=run.latent_guidance,
            rerank=run.rerank,
            contrast=None if run.scale is None else self._contrast(run, batch, canvas, run.scale),
        )
        if run.particles > 1:
            width = run.block_length
            steer = sample_particles if width is None else partial(sample_block_particles, width=width)
            found = steer(plan, canvas, run.particles, self._decode, observe, resampling=run.resampling)
            run.weights.append(found)
            tokens_BL = found.tokens_NL
            if found.stopped is not None:
                raise found.stopped
        elif run.verifier is not None:
            tokens_BL = sample(plan, canvas, observe, partial(run_drafts, verifier=run.verifier))
        elif run.block_length is None:
            tokens_BL = sample(plan, canvas, observe)
        else:
            tokens_BL = sample_blocks(plan, canvas, run.block_length, observe)
        run.tokens.append(tokens_BL.cpu())

    def _decode(self, tokens: Tensor) -> list[str]:
        return [self.denoiser.vocabulary.decode(row) for row in tokens.tolist()]

    def _check_condition(self, run: _Run, unconditional: Denoiser | None) -> None:
        """Refuse classifier-free guidance where nothing tells the two laws apart, or where they cannot be compared."""
        if run.scale is None:  # 1, where the condition alone counts
            return
        if unconditional is not None:
            if not isinstance(unconditional, Denoiser):
                raise InvalidRequest(f"unconditional={unconditional!r} is no Denoiser; give pipeline.denoiser of it.")
            if unconditional.vocabulary.fingerprint != self.denoiser.vocabulary.fingerprint:
                raise VocabularyMismatch("unconditional=: the second model writes other tokens than the first.")
        elif run.negatives is None and not any(run.prompts):
            raise InvalidRequest(
                "guidance_scale compares the law of a prompt with the law without it, and there is no prompt. Give a "
                "prompt, a negative_prompt, or a second model as unconditional=."
            )
        elif run.negatives is None and self.denoiser.vocabulary.mask_id is None:
            raise InvalidRequest("This model has no mask token to hide the prompt with; give a negative_prompt.")

    def _contrast(self, run: _Run, batch: slice, canvas: Canvas, scale: Callable[[float], float]) -> Contrast:
        """Return the unconditional half of a batch: the negative prompts, or the prompt masked."""
        mask = self.denoiser.vocabulary.mask_id
        if run.negatives is not None:
            negatives = [one for one in run.negatives[batch] for _ in range(run.particles)]
            canvas = Canvas.from_prompts(negatives, self.denoiser.vocabulary, run.length, self.denoiser.device)
            prompt_BP = canvas.prompt_BP
        elif mask is None:
            prompt_BP = canvas.prompt_BP
        else:
            prompt_BP = torch.where(canvas.visible_BP, mask, canvas.prompt_BP)
        return Contrast(denoiser=run.unconditional, scale=scale, prompt_BP=prompt_BP, visible_BP=canvas.visible_BP)

    def _output(self, run: _Run, constraints: list[Constraint | None]) -> Output:
        warn_rejected(run.weights, run.particles)
        vocabulary = self.denoiser.vocabulary
        tokens = torch.cat(run.tokens)
        rows = tokens.tolist()
        lengths = [vocabulary.text_length(row) for row in rows]
        has_end = vocabulary.eos_id is not None or vocabulary.pad_id is not None
        return assemble(
            constraints[: len(rows)],
            texts=[vocabulary.decode(row) for row in rows],
            tokens=tokens,
            lengths=lengths,
            truncated=[
                cut or (has_end and n == len(r)) for cut, n, r in zip(run.open_rows, lengths, rows, strict=True)
            ],
            options=run.options[: len(rows)],
            denoiser_calls=run.calls,
            settings=run.settings,
            trace=Trace.cat(run.traces[: len(run.tokens)]) if run.trace else None,
            context=self.context(tokens.shape[1]),
            weights=run.weights,
            stopped=len(rows) < len(constraints) or any(run.open_rows),
        )
