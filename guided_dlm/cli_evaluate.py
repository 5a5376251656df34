"""The command line's measurements: `guided-dlm evaluate coherence | control | infilling | model`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

DEFAULT_MODEL = "restaurant-words"
evaluation = typer.Typer(no_args_is_help=True, help="Measure the texts of a model.")


@evaluation.command()
def coherence(
    model: Annotated[str, typer.Argument(help="Shipped name, local folder, or Hub id.")] = DEFAULT_MODEL,
    samples: Annotated[int, typer.Option(help="How many texts to sample.")] = 64,
    steps: Annotated[int | None, typer.Option(help="By default the model's own.")] = None,
    sampler: Annotated[str | None, typer.Option(help="By default the model's own.")] = None,
    corrector: Annotated[str | None, typer.Option(help="Hide written tokens again: gibbs, remdm-cap, ...")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Canvas of the completion, in tokens.")] = None,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Say whether the tokens of sampled texts agree with each other, as the model itself sees it."""
    from guided_dlm.evaluation.coherence import measure
    from guided_dlm.pipeline import GuidedPipeline

    found = measure(
        GuidedPipeline.from_pretrained(model, device=device),
        num_samples=samples,
        steps=steps,
        sampler=sampler,
        corrector=corrector or "none",
        max_new_tokens=max_new_tokens,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    table = Table(
        "corrector", "self-acceptance", "introspective acceptance", "denoiser calls", box=None, pad_edge=False
    )
    shares = (f"{share:.3f}" for share in (found.self_acceptance, found.introspective_acceptance))
    table.add_row(corrector or "none", *shares, str(found.denoiser_calls))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@evaluation.command()
def control(
    data: Annotated[str, typer.Option(help="The folder of the target files.")],
    more: Annotated[list[str] | None, typer.Argument(help="Tasks, as in --tasks.", metavar="TASK")] = None,
    suite: str = "e2e",
    tasks: Annotated[list[str] | None, typer.Option(help="length, semantic, pos, ...; all by default.")] = None,
    targets: Annotated[int | None, typer.Option(help="At most so many of each task, evenly spread.")] = None,
    samples: Annotated[int, typer.Option(help="Texts of each target and seed.")] = 50,
    seeds: Annotated[int, typer.Option(help="3 is the seeds 0, 1 and 2.")] = 3,
    model: Annotated[str, typer.Option(help="Shipped name, local folder, or Hub id.")] = DEFAULT_MODEL,
    steps: int = 32,
    corrector: Annotated[str | None, typer.Option(help="p2, p2+gibbs+distinct, p2+cool-...; none by default.")] = None,
    temperature: float = 1.0,
    tolerance: Annotated[
        float | None, typer.Option(help="Weight of a tag that a word lacks; 0 for models of word pieces.")
    ] = None,
    reader: Annotated[
        str | None, typer.Option(help="restaurant-syntax, or a folder: ask for spans and trees softly as well.")
    ] = None,
    reader_strength: Annotated[float, typer.Option(help="How hard the reader pulls.")] = 1.0,
    judge: Annotated[str | None, typer.Option(help="An autoregressive model's folder, for fluency.")] = None,
    texts: Annotated[str | None, typer.Option(help="Score a folder of TASK.txt files instead of sampling.")] = None,
    out: Annotated[str | None, typer.Option(help="The folder for tables, JSON, plot and texts.")] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Numbers to compute in: float32, bfloat16, float16, float64.")] = "float32",
) -> None:
    """Measure control, fluency, diversity and cost on the targets of a published benchmark."""
    from guided_dlm.evaluation.control import ControlRun, evaluate_control

    options = {name: value for name, value in locals().items() if name in ControlRun.__dataclass_fields__}
    run = ControlRun(**options | {"tasks": (*(tasks or ()), *(more or ()))})
    typer.echo(evaluate_control(run, progress=sys.stderr.isatty()))


@evaluation.command(name="model")
def evaluate_card(
    model: Annotated[str, typer.Argument(help="Shipped name, local folder, or Hub id.")] = DEFAULT_MODEL,
    samples: Annotated[int, typer.Option(help="How many texts to sample, and human texts to set beside them.")] = 256,
    steps: Annotated[int | None, typer.Option(help="By default the model's own.")] = None,
    sampler: Annotated[str | None, typer.Option(help="By default the model's own.")] = None,
    corrector: Annotated[str | None, typer.Option(help="p2, gibbs, ...; none; by default the model's own.")] = None,
    temperature: Annotated[float | None, typer.Option(help="By default the model's own.")] = None,
    guidance_scale: Annotated[float, typer.Option(help="Of classifier-free guidance, with --label.")] = 1.0,
    seed: int = 0,
    batch_size: int = 64,
    judge: Annotated[str | None, typer.Option(help="A folder with an autoregressive model.")] = None,
    validation: Annotated[str | None, typer.Option(help="Held-out texts: a .txt or .jsonl file.")] = None,
    training: Annotated[str | None, typer.Option(help="The texts that the model was trained on.")] = None,
    label: Annotated[str | None, typer.Option(help="The files' field with a label, for a model of labels.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the card, as JSON and Markdown.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A histogram of lengths: .png, .pdf or .svg.")] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Set figures of a model's texts beside those of human text: bound, judge, length, diversity, copying, records."""
    from guided_dlm.evaluation.model import CardRequest, evaluate_model

    options = {name: value for name, value in locals().items() if name in CardRequest.__dataclass_fields__}
    card = evaluate_model(CardRequest(**options), out=out, plot=plot, progress=sys.stderr.isatty())
    typer.echo(card.markdown(), nl=False)


@evaluation.command()
def infilling(
    data: Annotated[str, typer.Argument(help="e2e: a .txt or .jsonl file of texts; anlg: its .json file.")],
    task: Annotated[
        str, typer.Option(help="e2e: texts with words blanked out; anlg: the sentence between two.")
    ] = "e2e",
    model: Annotated[str, typer.Option(help="Shipped name, local folder, or Hub id.")] = DEFAULT_MODEL,
    prompt: Annotated[str | None, typer.Option(help="A line before each text, such as a model's label.")] = None,
    targets: Annotated[int | None, typer.Option(help="At most so many, evenly spread; all by default.")] = None,
    samples: Annotated[int, typer.Option(help="Texts of each target.")] = 1,
    blank: Annotated[int, typer.Option(help="e2e: how many words are blanked out.")] = 4,
    steps: Annotated[int | None, typer.Option(help="By default the model's own.")] = None,
    sampler: Annotated[str | None, typer.Option(help="By default the model's own.")] = None,
    corrector: Annotated[str | None, typer.Option(help="p2, gibbs, ...; none; by default the model's own.")] = None,
    temperature: Annotated[float | None, typer.Option(help="By default the model's own.")] = None,
    seed: int = 0,
    judge: Annotated[str | None, typer.Option(help="An autoregressive model's folder, for fluency.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the card, as JSON and Markdown.")] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")] = "cpu",
) -> None:
    """Fill blanks in given texts: is what is given kept, and how near is the rest to what people wrote there?"""
    from guided_dlm.evaluation.infilling import InfillingRequest, evaluate_infilling

    options = {name: value for name, value in locals().items() if name in InfillingRequest.__dataclass_fields__}
    card = evaluate_infilling(InfillingRequest(**options), out=out, progress=sys.stderr.isatty())
    typer.echo(card.markdown(), nl=False)
