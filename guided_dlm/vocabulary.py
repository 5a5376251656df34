"""Tokens as bytes: the one view of a tokenizer that automata and decoding share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from guided_dlm.errors import InvalidRequest, shorten

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A finite list of tokens, each the bytes it adds to the text.

    `tokens[i]` is empty for a special token (end of text, padding, mask, unknown): specials add nothing to the text.
    `pad_id` defaults to `eos_id`. `never_written` are ids of tokens that a prompt may hold but a completion may not.
    Build one with `from_tokens` or `from_tokenizer`.
    """

    tokens: tuple[bytes, ...]
    eos_id: int | None = None
    pad_id: int | None = None
    mask_id: int | None = None
    encoder: Callable[[str], list[int]] | None = field(default=None, repr=False)
    never_written: frozenset[int] = field(default=frozenset(), repr=False)

    def __post_init__(self) -> None:
        """Check that the special ids exist and are distinct from the mask."""
        if not self.tokens:
            raise InvalidRequest("A vocabulary needs at least one token; got none.")
        if self.pad_id is None and self.eos_id is not None:
            object.__setattr__(self, "pad_id", self.eos_id)
        for name in ("eos_id", "pad_id", "mask_id"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < len(self.tokens):
                raise InvalidRequest(f"{name}={value} is outside the vocabulary of {len(self.tokens)} tokens.")
        if self.mask_id is not None and self.mask_id in (self.eos_id, self.pad_id):
            raise InvalidRequest(
                f"mask_id={self.mask_id} is also the end-of-text or padding token; give it its own id."
            )
        object.__setattr__(self, "never_written", frozenset(self.never_written))
        if strange := self.never_written - set(range(len(self.tokens))):
            raise InvalidRequest(
                f"never_written={sorted(strange)[:5]} is outside the vocabulary of {len(self)} tokens."
            )

    @classmethod
    def from_tokens(
        cls,
        tokens: Iterable[bytes],
        eos_id: int | None,
        pad_id: int | None = None,
        mask_id: int | None = None,
    ) -> Vocabulary:
        """Build from raw token bytes; the tokens at the special ids lose their bytes."""
        raw = [bytes(token) for token in tokens]
        for special in (eos_id, pad_id, mask_id):
            if special is not None and 0 <= special < len(raw):
                raw[special] = b""
        return cls(tuple(raw), eos_id=eos_id, pad_id=pad_id, mask_id=mask_id)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, never_written: Iterable[int] = ()) -> Vocabulary:
        """Build from a transformers tokenizer (byte-level BPE, SentencePiece, WordPiece or word level).

        Raises:
            InvalidRequest: the tokenizer has no `tokenizers` backend to read the token bytes from, or marks words in a
                way that is not known here.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise InvalidRequest(
                f"{type(tokenizer).__name__} has no fast backend, so its token bytes cannot be read. "
                "Load it with AutoTokenizer.from_pretrained(..., use_fast=True), or use Vocabulary.from_tokens."
            )
        spell = _speller(json.loads(backend.to_str()))
        specials = set(tokenizer.all_special_ids)
        added = {i: t.content for i, t in tokenizer.added_tokens_decoder.items()}
        specials.update(i for i, t in tokenizer.added_tokens_decoder.items() if t.special)
        ids = tokenizer.get_vocab()
        raw: list[bytes] = [b""] * (max(ids.values(), default=-1) + 1)  # ids may have holes
        for token, index in ids.items():
            if index not in specials:
                raw[index] = added[index].encode() if index in added else spell(token)
        return cls(
            tuple(raw),
            eos_id=tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id,
            pad_id=tokenizer.pad_token_id,
            mask_id=tokenizer.mask_token_id,
            encoder=lambda text: list(tokenizer.encode(text, add_special_tokens=False)),
            never_written=frozenset(never_written),
        )

    def __len__(self) -> int:
        """Return V, the number of tokens."""
        return len(self.tokens)

    @cached_property
    def is_text(self) -> NDArray[np.bool_]:
        """Bool `[V]`: the tokens that add bytes to the text."""
        return np.array([len(token) > 0 for token in self.tokens])

    @cached_property
    def writable(self) -> NDArray[np.bool_]:
        """Bool `[V]`: text tokens, the end of text and padding; a canvas holds nothing else once it is clean."""
        writable = self.is_text.copy()
        writable[list(self.never_written)] = False
        for special in (self.eos_id, self.pad_id):
            if special is not None:
                writable[special] = True
        return writable

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the tokens and special ids: equal for vocabularies that automata may share."""
        digest = hashlib.sha256(repr((self.eos_id, self.pad_id, self.mask_id)).encode())
        for token in self.tokens:
            digest.update(len(token).to_bytes(4, "big") + token)
        if self.never_written:
            digest.update(repr(sorted(self.never_written)).encode())
        return digest.hexdigest()[:16]

    def text_length(self, tokens: Sequence[int]) -> int:
        """Return how many leading tokens belong to the text: everything before the first end-of-text or padding."""
        for position, token in enumerate(tokens):
            if token == self.eos_id or token == self.pad_id:
                return position
        return len(tokens)

    def decode(self, tokens: Sequence[int]) -> str:
        """Join the bytes of the text tokens and drop one leading space; invalid UTF-8 becomes U+FFFD."""
        joined = b"".join(self.tokens[t] for t in tokens[: self.text_length(tokens)])
        return joined.removeprefix(b" ").decode("utf-8", errors="replace")

    def encode(self, text: str) -> list[int]:
        """Return token ids of a prompt, by the tokenizer where it is faithful, else by greedy longest match.

        The ids spell the text, but for one leading space. Where this vocabulary cannot write its white space (a word
        level knows single spaces between words only), each run of it becomes one space, and none stays at the ends.

        Raises:
            InvalidRequest: a character cannot be written with this vocabulary.
        """
        _refuse_surrogates(text)
        try:
            return self._exact(text)
        except InvalidRequest:
            plain = " ".join(text.split())
            if plain == text:
                raise
            return self._exact(plain)

    def _exact(self, text: str) -> list[int]:
        if self.encoder is not None:
            ids = self.encoder(text)
            if b"".join(self.tokens[i] for i in ids).removeprefix(b" ") == text.encode().removeprefix(b" "):
                return ids
        return self._greedy(text)

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        return {token: i for i, token in reversed(list(enumerate(self.tokens))) if token}

    def _greedy(self, text: str) -> list[int]:
        longest = max(map(len, self.tokens))
        data = text.encode()
        # Text starts at a word boundary, where many vocabularies keep the space inside the word's token.
        candidates = [b" " + data, data] if not data.startswith(b" ") else [data]
        for start in candidates:
            rest, ids = start, list[int]()
            while rest:
                size = next((n for n in range(min(longest, len(rest)), 0, -1) if rest[:n] in self._by_bytes), 0)
                if not size:
                    break
                ids.append(self._by_bytes[rest[:size]])
                rest = rest[size:]
            if not rest:
                return ids
        raise InvalidRequest(
            f"This vocabulary cannot write {shorten(text)!r}: it stops at {rest.decode(errors='replace')[:20]!r}. "
            "Reword the prompt without that character."
        )


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"The text {shorten(text)!r} holds a lone surrogate at position {error.start}, which is no character. "
            "Give valid Unicode; on a command line, UTF-8."
        ) from error


def _speller(spec: dict[str, Any]) -> Callable[[str], bytes]:
    """Return the function from a token's surface form to its bytes, read off the tokenizer's own description."""
    model, described = spec["model"], json.dumps([spec.get("pre_tokenizer"), spec.get("decoder")])
    if model["type"] == "WordPiece":
        prefix = model["continuing_subword_prefix"]
        return lambda token: (
            token[len(prefix) :].encode() if token.startswith(prefix) and token != prefix else b" " + token.encode()
        )
    if model["type"] == "WordLevel":
        return lambda token: b" " + token.encode()
    if "ByteLevel" in described:
        table = _bytes_of_unicode()
        return lambda token: bytes(table[c] for c in token)
    for mark in ("end_of_word_suffix", "continuing_subword_prefix"):
        if model.get(mark):
            raise InvalidRequest(
                f"A {model['type']} tokenizer with {mark}={model[mark]!r} is not supported; spell its tokens out with "
                "Vocabulary.from_tokens."
            )
    return _spell_sentencepiece


def _spell_sentencepiece(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").encode()


@lru_cache(maxsize=1)
def _bytes_of_unicode() -> dict[str, int]:
    """Return GPT-2's table: printable bytes stand for themselves, the others for code points from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
