"""Built-in constraints: import them, compose them with & | ~, give them to a pipeline."""

from constraints.length import Length
from constraints.pattern import Choice, Regex
from constraints.preferences import Preferences
from constraints.template import Blank, Template
from constraints.words import Words

__all__ = ["Blank", "Choice", "Length", "Preferences", "Regex", "Template", "Words"]
