"""Vocabularies of a real language model's size, made from any text: byte-level BPE, kept between runs."""

import argparse
import gzip
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoTokenizer

from guided_dlm import Vocabulary
from guided_dlm.training.tokenization import build_bpe_tokenizer

CACHE = Path(__file__).parent.parent / "runs" / "vocabularies"


def lines(files: list[str]) -> Iterator[str]:
    for name in files:
        with (gzip.open if name.endswith(".gz") else open)(name, "rt", encoding="utf-8", errors="replace") as file:
            yield from file


def bpe_vocabulary(files: list[str], size: int) -> Vocabulary:
    """A vocabulary of `size` tokens; the text files matter only the first time."""
    folder = CACHE / str(size)
    if not folder.is_dir():
        build_bpe_tokenizer(lines(files), size).save_pretrained(folder)
    vocabulary = Vocabulary.from_tokenizer(AutoTokenizer.from_pretrained(folder))
    if len(vocabulary) < size:
        raise SystemExit(f"The text gives only {len(vocabulary)} tokens, not {size}; name more files.")
    return vocabulary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text", nargs="*", default=[], help="files of text to make the vocabularies from")
