"""Built-in constraints: import them, compose them with & | ~, give them to a pipeline."""

from constraints.grammar import Grammar
from constraints.json_schema import JSONSchema
from constraints.length import Length
from constraints.pattern import Choice, Regex
from constraints.preferences import Preferences
from constraints.template import Blank, Template
from constraints.words import Words

__all__ = ["Blank", "Choice", "Grammar", "JSONSchema", "Length", "Preferences", "Regex", "Template", "Words"]
