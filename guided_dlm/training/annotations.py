"""Annotated texts: what a line of tags and constituents has to be."""

from __future__ import annotations

from typing import Any

from guided_dlm.errors import InvalidRequest


def checked(line: dict[str, Any], where: str) -> dict[str, Any]:
    """Return an annotated text.

    Raises:
        InvalidRequest: it is not as `python -m constraints.annotation` writes them.
    """
    words: Any = line.get("words")
    tags, spans = line.get("tags"), line.get("spans")
    fine = (
        isinstance(line.get("text"), str)
        and _are_texts(words)
        and isinstance(tags, dict)
        and all(_are_texts(found) and len(found) == len(words) for found in tags.values())
        and isinstance(spans, list)
        and all(_is_span(span, len(words)) for span in spans)
    )
    if not fine:
        raise InvalidRequest(
            f'{where}: expected "text", "words", as many "tags" of each tag set, and "spans" of [first, last, label] '
            f"inside the text, as `python -m constraints.annotation` writes them; got {str(line)[:80]}."
        )
    return line


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def _is_span(span: Any, words: int) -> bool:
    return (
        isinstance(span, list) and [type(part) for part in span] == [int, int, str] and 0 <= span[0] <= span[1] < words
    )


def tag_sets(lines: list[dict[str, Any]], source: str) -> dict[str, list[str]]:
    """Return the tags of each tag set.

    Raises:
        InvalidRequest: there is no text or tag set, a line lacks one that the first has, or its name cannot be one.
    """
    names = list(lines[0]["tags"]) if lines else []
    for number, line in enumerate(lines, start=1):
        if set(line["tags"]) != set(names):
            raise InvalidRequest(
                f"{source!r}: text {number} has tags of {sorted(line['tags'])}, the first of {sorted(names)}."
            )
    if not names or any(not name.isidentifier() or name in ("input_ids", "length", "spans") for name in names):
        raise InvalidRequest(
            f"{source!r} has {len(lines)} texts with tags of {names}; each needs at least one tag set, named like "
            "'penn'."
        )
    return {name: sorted({tag for line in lines for tag in line["tags"][name]}) for name in names}
