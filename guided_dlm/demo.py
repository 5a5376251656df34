"""`make demo`: the shipped model under several constraints, satisfaction printed beside the text."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.table import Table

from guided_dlm.constraint import Constraint
from guided_dlm.pipeline import GuidedPipeline

# Plain recipes, as a recipe.json would hold them: the demo finds the constraints as any user of the registry does.
RECIPES: list[tuple[str, dict[str, Any] | None]] = [
    ("no constraint", None),
    ("8 to 12 words", {"constraint": "length", "words": [8, 12]}),
    ("these phrases", {"constraint": "words", "include": ["riverside", "family - friendly"]}),
    (
        "a template",
        {
            "constraint": "template",
            "parts": [
                "The ",
                {"blank": {"words": [1, 3]}},
                " is a ",
                {"blank": {}},
                " near ",
                {"blank": {"words": [1, 3]}},
                " .",
            ],
        },
    ),
    (
        "all of these",
        {
            "all": [
                {"constraint": "length", "words": [10, 16]},
                {"constraint": "words", "include": ["Japanese"], "exclude": ["restaurant", "the"]},
                {"not": {"constraint": "regex", "pattern": ".*[0-9£].*", "flags": "s"}},
                {
                    "any": [
                        {"constraint": "words", "include": ["cheap"]},
                        {"constraint": "words", "include": ["expensive"]},
                    ]
                },
            ]
        },
    ),
]


def run_demo(seed: int = 0, num_samples: int = 3) -> None:
    """Print a table of texts per recipe."""
    console = Console()
    began = time.perf_counter()
    pipeline = GuidedPipeline.from_pretrained("restaurant-words")
    console.print(f"loaded restaurant-words in {time.perf_counter() - began:.1f} s\n")
    for title, recipe in RECIPES:
        constraint = Constraint.from_config(recipe) if recipe is not None else None
        began = time.perf_counter()
        out = pipeline(constraint=constraint, num_samples=num_samples, seed=seed)
        table = Table("holds", "text", title=f"{title}  ({time.perf_counter() - began:.1f} s)", title_justify="left")
        for text, held in zip(out.texts, out.satisfied.tolist(), strict=True):
            table.add_row("[green]yes[/green]" if held else "[red]NO[/red]", text)
        console.print(table)
        if constraint is not None:
            console.print(f"  {constraint!r}\n", highlight=False)
