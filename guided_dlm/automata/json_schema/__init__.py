"""JSON Schema as a regular set of texts: every instance, in the schema's property order, to a bounded depth."""

from guided_dlm.automata.json_schema.compile import CompiledSchema, check_whitespace, compile_schema
from guided_dlm.automata.json_schema.document import Document, subschemas, validator_of
from guided_dlm.automata.json_schema.patterns import is_python, translate

__all__ = [
    "CompiledSchema",
    "Document",
    "check_whitespace",
    "compile_schema",
    "is_python",
    "subschemas",
    "translate",
    "validator_of",
]
