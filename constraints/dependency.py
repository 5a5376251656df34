"""`Dependency`: words that depend on one another as a pattern of spaCy's `DependencyMatcher` says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import and_
from typing import Any

from torch import Tensor, tensor

from constraints.syntax import PartOfSpeech
from constraints.tag_pattern import pattern_text
from constraints.tag_sets import PENN, UNIVERSAL
from constraints.taggers import spacy_parser
from constraints.words import Words
from guided_dlm.constraint import CompileContext, Constraint, Guide
from guided_dlm.errors import InvalidRequest, within
from guided_dlm.registry import register

_KEYS = frozenset({"RIGHT_ID", "RIGHT_ATTRS"})


@register("dependency")
@dataclass(frozen=True, kw_only=True, repr=False)
class Dependency(Constraint):
    """The text has words that a dependency pattern matches, by a spaCy pipeline: a best effort, with `particles=`.

    The pattern is a list of dicts as for spaCy's `DependencyMatcher` ("RIGHT_ID", "RIGHT_ATTRS", "LEFT_ID", "REL_OP").
    What the pattern names of single words holds in every text: a word with each "POS" or "TAG", by the tag lexicon
    that comes along, and each "ORTH" of letters, unless "OP" says how often. How they depend on one another only the
    parser can tell: `weight` nats reward the texts in which it finds the pattern, and particles follow that.
    """

    pattern: str = field(kw_only=False)
    parser: str = "en_core_web_sm"
    weight: float = 10.0

    def __post_init__(self) -> None:
        """Refuse patterns that spaCy refuses, and pipelines that are not installed; keep the pattern as JSON."""
        with within("Dependency"):
            if not isinstance(self.pattern, str):
                object.__setattr__(self, "pattern", json.dumps(list(self.pattern), sort_keys=True))
            if not isinstance(self.weight, int | float) or not 0.0 < self.weight < float("inf"):
                raise InvalidRequest(f"weight={self.weight!r} must be a positive number of nats.")
            tuple(self._needed())
            _matcher(self.pattern, self.parser)

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """The pattern itself.

        Raises:
            InvalidRequest: it is no JSON list of objects.
        """
        try:
            nodes = json.loads(self.pattern)
        except json.JSONDecodeError as error:
            raise InvalidRequest(f"The pattern is no JSON: {error.msg}; give a list of dicts.") from error
        named = isinstance(nodes, list) and all(isinstance(node, Mapping) and set(node) >= _KEYS for node in nodes)
        if not nodes or not named:
            raise InvalidRequest(
                f"{self.pattern} is no pattern; give a list of dicts, each with {' and '.join(sorted(_KEYS))}."
            )
        return list(nodes)

    def check(self, text: str, tokens: Sequence[int] | None = None) -> float:
        """Return 1 where the parser finds the pattern, and 0 elsewhere."""
        return float(bool(_matcher(self.pattern, self.parser)(spacy_parser(self.parser)(text))))

    def _needed(self) -> Iterator[Constraint]:
        """Yield what single words have to be."""
        for node in self.nodes:
            wishes = node["RIGHT_ATTRS"]
            if not isinstance(wishes, Mapping):
                raise InvalidRequest(f"RIGHT_ATTRS={wishes!r} is no dict of a word's attributes.")
            if "OP" in wishes:  # how often it is there only spaCy decides
                continue
            for key, tags in (("POS", UNIVERSAL), ("TAG", PENN)):
                if isinstance(wishes.get(key), str):
                    tags.known(wishes[key])
                    yield PartOfSpeech(pattern_text([{key: wishes[key]}], tags), tagset=tags.name)
            if isinstance(wishes.get("ORTH"), str) and wishes["ORTH"].isalpha():  # spaCy splits off "n't" and signs
                yield Words(include=(wishes["ORTH"],))

    def compile(self, context: CompileContext) -> Guide:
        """Compile what single words have to be; the parser's verdict is a reward.

        Raises:
            Infeasible: no words of this vocabulary can bear such tags.
        """
        needed = list(dict.fromkeys(self._needed()))
        guide = reduce(and_, needed).compile(context) if needed else Guide()
        return Guide(automaton=guide.automaton, bias=guide.bias, reward=self._reward)

    def _reward(self, texts: list[str], tokens_BL: Tensor) -> Tensor:
        return tensor([self.weight * self.check(text) for text in texts], device=tokens_BL.device)

    def notes(self, context: CompileContext) -> Mapping[str, Any]:
        """Say what is guaranteed, and what is not."""
        return {"guaranteed": [repr(wish) for wish in dict.fromkeys(self._needed())], "dependencies": "best effort"}


@lru_cache(maxsize=32)
def _matcher(pattern: str, parser: str) -> Any:
    """Return spaCy's matcher.

    Raises:
        ValueError: spaCy refuses the pattern.
        InvalidRequest: the pipeline is not installed.
    """
    from spacy.matcher import DependencyMatcher

    matcher = DependencyMatcher(spacy_parser(parser).vocab)
    matcher.add("pattern", [json.loads(pattern)])
    return matcher
