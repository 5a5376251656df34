"""Build the tokenizer of a training corpus: word level, or byte-level BPE."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from guided_dlm.vocabulary import Vocabulary

SPECIALS = {"unk_token": "<unk>", "eos_token": "<eos>", "pad_token": "<pad>", "mask_token": "<mask>"}


def build_word_tokenizer(texts: Iterable[str], min_count: int = 3) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word seen `min_count` times, and single characters for the rest.

    Rare words are spelled character by character, so every text over the corpus's characters and printable ASCII can
    be written, and a hard constraint may ask for a word that the corpus never had.
    """
    counts = Counter(word for text in texts for word in text.split())
    # A word that begins like a continuation would be read as one; it is spelled instead.
    common = (word for word, n in counts.items() if n >= min_count and not word.startswith("##"))
    words = sorted(common, key=lambda w: (-counts[w], w))
    characters = sorted({c for word in counts for c in word} | set(string.printable.strip()))
    pieces = [*SPECIALS.values(), *words, *characters, *("##" + c for c in characters)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    model = models.WordPiece(vocabulary, unk_token=SPECIALS["unk_token"], max_input_chars_per_word=1000)
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIALS)


def build_bpe_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer: any text can be written, frequent words are one token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIALS)


def unseen_fragments(tokenizer: Any, examples: Iterable[dict[str, Any]]) -> list[int]:
    """Return the ids of tokens that are parts of characters and in none of the examples.

    A model cannot know when to write them. Left out of completions, they cost automata nothing; kept, every state has
    hundreds of copies inside characters.
    """
    seen = {token for example in examples for token in example["input_ids"]}
    tokens = Vocabulary.from_tokenizer(tokenizer).tokens
    return [i for i, token in enumerate(tokens) if i not in seen and not _is_whole(token)]


def _is_whole(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return True
