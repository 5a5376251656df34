"""The command line: `guided-dlm generate | constraints | explain | train | evaluate | demo`."""

from __future__ import annotations

import json
import sys
from functools import partial, reduce
from operator import and_
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from guided_dlm.cli_evaluate import DEFAULT_MODEL, evaluation
from guided_dlm.config import from_config
from guided_dlm.constraint import Constraint
from guided_dlm.errors import GuidedError, InvalidRequest, within

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Constrained text from diffusion language models.",
)
app.add_typer(evaluation, name="evaluate")


def main() -> None:
    """Run the command line; an error of ours is one clear sentence and exit status 1, not a traceback."""
    try:
        app()
    except GuidedError as error:
        shown = f"[red]{type(error).__name__}[/red]: {escape(str(error))}"
        Console(stderr=True, soft_wrap=True).print(shown, highlight=False)
        sys.exit(1)


@app.command()
def generate(
    prompt: Annotated[str | None, typer.Argument(help="Text to continue.")] = None,
    model: Annotated[str, typer.Option(help="Shipped name, local folder, or Hub id.")] = DEFAULT_MODEL,
    constraint: Annotated[list[Path] | None, typer.Option(help="A recipe.json; repeat to combine.")] = None,
    length: Annotated[str | None, typer.Option(help="Words: 12, 8-12 or 8-.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="A word or phrase to have; repeat.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="A word or phrase to lack; repeat.")] = None,
    regex: Annotated[str | None, typer.Option(help="A pattern the whole text matches.")] = None,
    template: Annotated[str | None, typer.Option(help="Fixed text with blanks: 'The {1-4} is a pub .'")] = None,
    num_samples: Annotated[int, typer.Option("-n", "--num-samples")] = 1,
    max_new_tokens: Annotated[int | None, typer.Option(help="Canvas of the completion, in tokens.")] = None,
    steps: Annotated[int | None, typer.Option(help="By default the model's own.")] = None,
    sampler: Annotated[str | None, typer.Option(help="By default the model's own.")] = None,
    corrector: Annotated[str | None, typer.Option(help="p2, gibbs, ...; none; by default the model's own.")] = None,
    temperature: Annotated[float | None, typer.Option(help="By default the model's own.")] = None,
    top_p: Annotated[float | None, typer.Option(help="By default the model's own.")] = None,
    guidance_scale: Annotated[float, typer.Option(help="Classifier-free guidance towards the prompt.")] = 1.0,
    particles: Annotated[int, typer.Option(help="Rows that compete for each text.")] = 1,
    block_length: Annotated[int | None, typer.Option(help="Write so many tokens at a time, left to right.")] = None,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Numbers to compute in: float32, bfloat16, float16, float64.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
) -> None:
    """Write texts that satisfy every constraint given."""
    from guided_dlm.pipeline import GuidedPipeline

    wish = combine(constraint or [], length, include or [], exclude or [], regex, template)
    out = GuidedPipeline.from_pretrained(model, device=device, dtype=dtype)(
        prompt,
        wish,
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        steps=steps,
        sampler=sampler,
        corrector=corrector,
        temperature=temperature,
        top_p=top_p,
        guidance_scale=guidance_scale,
        particles=particles,
        block_length=block_length,
        seed=seed,
        progress=sys.stderr.isatty(),
    )
    for text, satisfied, report in zip(out.texts, out.satisfied.tolist(), out.report, strict=True):
        if as_json:
            typer.echo(json.dumps({"text": text, "satisfied": satisfied, "report": report}, ensure_ascii=False))
        else:
            typer.echo(text if satisfied else f"{text}    [NOT SATISFIED]")
    if out.stopped:
        raise typer.Exit(130)  # as a shell says that Ctrl-C was pressed


@app.command()
def constraints() -> None:
    """List the constraints that are installed, and where each comes from."""
    from guided_dlm import registry

    table = Table("name", "class", "from", box=None, pad_edge=False)
    for row in registry.describe():
        table.add_row(row.name, row.target, f"{row.distribution} {row.version}".strip())
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@app.command()
def explain(
    recipe: Annotated[Path, typer.Argument(help="A recipe.json.")],
    model: Annotated[str, typer.Option(help="Whose vocabulary to compile for.")] = DEFAULT_MODEL,
    max_new_tokens: Annotated[int | None, typer.Option(help="Canvas of the completion, in tokens.")] = None,
) -> None:
    """Say what a recipe compiles to and what is guaranteed, before any sampling."""
    from guided_dlm.explain import explanation
    from guided_dlm.pipeline import GuidedPipeline

    pipeline = GuidedPipeline.from_pretrained(model)
    length = pipeline.denoiser.capacity if max_new_tokens is None else max_new_tokens
    if length is None:
        raise InvalidRequest("This model has no canvas length of its own; give --max-new-tokens.")
    table = Table("constraint", "states", "classes", "edges", "guaranteed", "notes", box=None, pad_edge=False)
    for row in explanation(read_recipe(recipe), pipeline.context(length)):
        sizes = ("-" if size is None else str(size) for size in (row.states, row.classes, row.edges))
        notes = ", ".join(f"{name} {value}" for name, value in row.notes.items())
        table.add_row(escape(row.name), *sizes, row.promise, escape(notes))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


@app.command()
def train(
    context: typer.Context,
    data: Annotated[str, typer.Argument(help="A .txt or .jsonl file (may end in .gz), or a datasets name.")],
    out: Annotated[str, typer.Argument(help="The model folder to write.")],
    recipe: Annotated[
        str | None,
        typer.Option(help="A recipe that comes along, by name; DATA and OUT are then folders."),
    ] = None,
    validation: Annotated[str | None, typer.Option(help="Held-out text; 5 % of the data by default.")] = None,
    objective: Annotated[
        str, typer.Option(help="masked, block, uniform, gaussian, simplex, autoregressive.")
    ] = "masked",
    schedule: Annotated[
        str | None,
        typer.Option(help="Noise schedule: uniform (linear), gaussian (sqrt), simplex (cosine_squared)."),
    ] = None,
    embedding_size: Annotated[int, typer.Option(help="gaussian: width of the noisy embeddings.")] = 16,
    block_length: Annotated[
        int | None, typer.Option(help="Tokens written at a time: block (8), simplex (all).")
    ] = None,
    start: Annotated[str | None, typer.Option(help="A model folder to begin from.")] = None,
    validation_size: Annotated[int, typer.Option(help="Held-out examples that each validation scores.")] = 1000,
    canvas: int = 64,
    hidden_size: int = 256,
    layers: int = 6,
    heads: int = 4,
    record: Annotated[str | None, typer.Option(help="A field with a JSON object: learn text <-> record.")] = None,
    clean: Annotated[int, typer.Option(help="Folds in which records are first read again from their texts.")] = 0,
    swap: Annotated[list[str] | None, typer.Option(help="A slot whose values change in training; repeat it.")] = None,
    readings: Annotated[int, typer.Option(help="Pairs text -> record for each pair record -> text.")] = 1,
    onward: Annotated[float, typer.Option(help="masked: share of canvases hidden from some place to the end.")] = 0.0,
    weighting: Annotated[str, typer.Option(help="masked, block: bound, or flat (each hidden token alike).")] = "bound",
    label: Annotated[str | None, typer.Option(help="A field with a text label: learn label -> text.")] = None,
    label_dropout: Annotated[float, typer.Option(help="Share of examples whose label is hidden, for guidance.")] = 0.1,
    tokenizer: Annotated[str, typer.Option(help="word, or bpe (byte level).")] = "word",
    min_count: Annotated[int, typer.Option(help="word: words seen less often are spelled by characters.")] = 3,
    vocab_size: Annotated[int, typer.Option(help="bpe: how many tokens.")] = 2048,
    full_share: Annotated[float, typer.Option(help="Share of batches that are padded to the full canvas.")] = 0.25,
    epochs: float = 10.0,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    dropout: float = 0.0,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints, and between validations.")] = 500,
    seed: int = 0,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint.")] = False,
) -> None:
    """Train a denoiser; writes model, tokenizer, recipe.json and training.json."""
    from guided_dlm.training.catalogue import train_recipe
    from guided_dlm.training.recipe import TrainingRecipe, train

    options = {name: value for name, value in locals().items() if name in TrainingRecipe.__dataclass_fields__}
    options["swap"] = tuple(swap or ())
    how: dict[str, Any] = {"resume": resume, "progress": sys.stderr.isatty()}
    if recipe is None:
        figures = train(TrainingRecipe(**options), **how)
    else:
        sources = {name: context.get_parameter_source(name) for name in options.keys() - {"data", "out"}}
        given = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
        figures = train_recipe(recipe, data, out, {name: options[name] for name in given}, **how)
    typer.echo(json.dumps(figures))


@app.command(name="train-classifier")
def train_classifier(
    data: Annotated[str, typer.Argument(help='A .jsonl file (may end in .gz) of {"text", label} lines.')],
    out: Annotated[str, typer.Argument(help="The folder to write.")],
    model: Annotated[str, typer.Option(help="The diffusion model whose tokens it reads.")] = DEFAULT_MODEL,
    label: Annotated[str, typer.Option(help="The field that holds the label.")] = "label",
    hidden_size: int = 64,
    layers: int = 2,
    heads: int = 2,
    epochs: float = 5.0,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> None:
    """Train a classifier on canvases with masks, to guide a model at every step: Classifier(OUT, target)."""
    from guided_dlm.training.noisy_classifier import ClassifierRecipe, train_classifier

    options = {name: value for name, value in locals().items() if name in ClassifierRecipe.__dataclass_fields__}
    typer.echo(json.dumps(train_classifier(ClassifierRecipe(**options), progress=sys.stderr.isatty())))


@app.command(name="train-syntax-reader")
def train_syntax_reader(
    data: Annotated[str, typer.Argument(help="What `python -m constraints.annotation` wrote.")],
    out: Annotated[str, typer.Argument(help="The folder to write.")],
    model: Annotated[str, typer.Option(help="The diffusion model, of whole words, whose tokens it reads.")] = (
        DEFAULT_MODEL
    ),
    hidden_size: int = 128,
    layers: int = 3,
    heads: int = 4,
    span_size: Annotated[int, typer.Option(help="Width of the form that scores a span by its ends.")] = 16,
    epochs: float = 4.0,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> None:
    """Train a reader of tags and constituents on noisy canvases, to guide a model: SyntaxGuide(wish, model=OUT)."""
    from guided_dlm.training.syntax_reader import SyntaxRecipe, train_syntax_reader

    options = {name: value for name, value in locals().items() if name in SyntaxRecipe.__dataclass_fields__}
    typer.echo(json.dumps(train_syntax_reader(SyntaxRecipe(**options), progress=sys.stderr.isatty())))


@app.command()
def demo(seed: int = 0, num_samples: Annotated[int, typer.Option("-n")] = 3) -> None:
    """Guided generation with the shipped model under several constraints."""
    from guided_dlm.demo import run_demo

    run_demo(seed=seed, num_samples=num_samples)


def read_recipe(path: Path) -> Constraint:
    """Read a constraint from a JSON file.

    Raises:
        InvalidRequest: there is no such file, it is no JSON, or a key stands twice.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=partial(_unique, path))
    except GuidedError:
        raise
    except FileNotFoundError as error:
        raise InvalidRequest(f"There is no recipe {str(path)!r}; give the path of a JSON file.") from error
    except OSError as error:
        raise InvalidRequest(f"{path} could not be read: {error.strerror}. Give a JSON file.") from error
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}.") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is no UTF-8 text: {error.reason} at byte {error.start}.") from error
    except RecursionError as error:
        raise InvalidRequest(f"{path} nests too many levels deep; write it flatter.") from error
    except ValueError as error:  # Python reads no number of more than some thousand digits
        raise InvalidRequest(f"{path} holds a number that is too long. {str(error).partition(';')[0]}.") from error
    return from_config(config, f"{path}: $")


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise InvalidRequest(f"{path}: the key {key!r} stands twice in one object; keep one of them.")
        seen[key] = value
    return seen


def combine(
    recipes: list[Path],
    length: str | None,
    include: list[str],
    exclude: list[str],
    regex: str | None,
    template: str | None,
) -> Constraint | None:
    """Return the conjunction of recipes and flags, or None without any."""
    configs: dict[str, dict[str, Any]] = {}
    if length is not None:
        with within("--length"):
            configs["--length"] = {"constraint": "length", "words": read_range(length)}
    words = {name: values for name, values in (("include", include), ("exclude", exclude)) if values}
    if words:
        configs[" and ".join(f"--{name}" for name in words)] = {"constraint": "words", **words}
    if regex is not None:
        configs["--regex"] = {"constraint": "regex", "pattern": regex}
    if template is not None:
        with within(f"--template {template!r}"):
            configs["--template"] = {"constraint": "template", "parts": read_template(template)}
    wishes = [read_recipe(path) for path in recipes] + [from_config(config, flag) for flag, config in configs.items()]
    return reduce(and_, wishes) if wishes else None


def read_range(text: str) -> list[int | None]:
    """Read "12", "8-12" or "8-" as [min, max].

    Raises:
        InvalidRequest: it reads as none of these.
    """
    low, dash, high = text.partition("-")
    if not low.isdecimal() or (high and not high.isdecimal()):
        raise InvalidRequest(f"{text!r} is no length; write 12, 8-12 or 8- (words).")
    return [int(low), (int(high) if high else None) if dash else int(low)]


def read_template(text: str) -> list[Any]:
    """Read "The {1-4} is a pub ." as fixed texts and blanks; {} is any text, {{ and }} are braces.

    Raises:
        InvalidRequest: a brace is not closed, or a blank is no length.
    """
    from string import Formatter

    parts: list[Any] = []
    try:
        for fixed, blank, form, conversion in Formatter().parse(text):
            if fixed:
                parts.append(fixed)
            if form or conversion:
                raise InvalidRequest("a blank is {}, {3}, {1-4} or {2-}, and nothing else.")
            if blank is not None:
                parts.append({"blank": {"words": read_range(blank)} if blank else {}})
    except InvalidRequest:
        raise
    except ValueError as error:
        raise InvalidRequest(f"{error}. Write {{{{ and }}}} for braces.") from error
    return parts


if __name__ == "__main__":
    main()
