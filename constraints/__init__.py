"""Built-in constraints: import them, compose them with & | ~, give them to a pipeline."""

from constraints.chunk import Chunk
from constraints.classifier import Classifier, Energy, Reward
from constraints.constituency import SyntaxSpan, SyntaxTree
from constraints.dependency import Dependency
from constraints.grammar import Grammar
from constraints.json_schema import JSONSchema
from constraints.length import Length
from constraints.pattern import Choice, Regex
from constraints.preferences import Preferences
from constraints.repetition import Repetition
from constraints.sounds import Rhyme, Syllables
from constraints.syntax import PartOfSpeech
from constraints.syntax_guide import SyntaxGuide
from constraints.template import Blank, Template
from constraints.topic import Sentiment, Topic
from constraints.words import Words

__all__ = [
    "Blank",
    "Choice",
    "Chunk",
    "Classifier",
    "Dependency",
    "Energy",
    "Grammar",
    "JSONSchema",
    "Length",
    "PartOfSpeech",
    "Preferences",
    "Regex",
    "Repetition",
    "Reward",
    "Rhyme",
    "Sentiment",
    "Syllables",
    "SyntaxGuide",
    "SyntaxSpan",
    "SyntaxTree",
    "Template",
    "Topic",
    "Words",
]
