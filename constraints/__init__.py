"""Built-in constraints: import them, compose them with & | ~, give them to a pipeline."""

from constraints.classifier import Classifier, Energy, Reward
from constraints.grammar import Grammar
from constraints.json_schema import JSONSchema
from constraints.length import Length
from constraints.pattern import Choice, Regex
from constraints.preferences import Preferences
from constraints.repetition import Repetition
from constraints.syntax import PartOfSpeech
from constraints.template import Blank, Template
from constraints.topic import Sentiment, Topic
from constraints.words import Words

__all__ = [
    "Blank",
    "Choice",
    "Classifier",
    "Energy",
    "Grammar",
    "JSONSchema",
    "Length",
    "PartOfSpeech",
    "Preferences",
    "Regex",
    "Repetition",
    "Reward",
    "Sentiment",
    "Template",
    "Topic",
    "Words",
]
