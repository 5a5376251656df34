"""Models and vocabularies small enough to be made inside a test."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from guided_dlm import GuidedPipeline, Vocabulary
from guided_dlm.canvas import Canvas
from guided_dlm.denoisers import TabularDenoiser
from guided_dlm.denoisers.modeling import DiffusionTransformer, DiffusionTransformerConfig
from guided_dlm.denoisers.transformer import TransformerDenoiser
from guided_dlm.training.recipe import TrainingRecipe
from guided_dlm.training.tokenization import build_word_tokenizer

SENTENCES = [
    "The Mill is a cheap pub near the riverside .",
    "The Vaults is a family - friendly pub .",
    "Near Caf\u00e9 Rouge , there is a pub called The Mill .",
    "It serves Japanese food for \u00a3 20 - 25 .",
    "Is the food cheap ? No !",
]


@lru_cache(maxsize=1)
def word_tokenizer() -> PreTrainedTokenizerFast:
    return build_word_tokenizer(SENTENCES, min_count=1)


def tiny_model(canvas: int = 12, seed: int = 0, causal: bool = False, sharpness: float = 3.0) -> DiffusionTransformer:
    """A random transformer: 2 layers of width 32."""
    tokenizer = word_tokenizer()
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    config = DiffusionTransformerConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=canvas,
        causal=causal,
        mask_token_id=tokenizer.mask_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = DiffusionTransformer(config).eval()
    with torch.no_grad():
        model.logit_scale *= sharpness
        model.start += torch.randn(32)
    torch.set_rng_state(state)
    return model


class CountingDenoiser(TransformerDenoiser):
    """Counts how often the model was asked."""

    calls = 0

    def __call__(self, canvas: Canvas, t: float, carry: Any = None) -> tuple[Tensor, Any]:
        self.calls += 1
        return super().__call__(canvas, t, carry)


def tiny_pipeline(canvas: int = 12, seed: int = 0) -> GuidedPipeline:
    return GuidedPipeline(CountingDenoiser(tiny_model(canvas, seed), Vocabulary.from_tokenizer(word_tokenizer())))


def save_tiny_model(folder: Path, canvas: int = 12) -> Path:
    tiny_model(canvas).half().save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def small_recipe(data: Path, out: Path, **changes: Any) -> TrainingRecipe:
    """A run of seconds on a handful of sentences, which are held out as well."""
    small = TrainingRecipe(
        data=str(data), out=str(out), validation=str(data), canvas=16, hidden_size=32, layers=2,
        heads=2, min_count=1, batch_size=8, epochs=1, save_every=1000, bf16=False, learning_rate=1e-2,
    )  # fmt: skip
    return replace(small, **changes)


TOKENS = (b" a", b"a", b".", b" b", b"ab", b"", b"", b"")


def tiny_vocabulary() -> Vocabulary:
    """Five text tokens with several ways to write a text, end, padding and mask."""
    return Vocabulary(TOKENS, eos_id=5, pad_id=6, mask_id=7)


def tabular_pipeline(length: int = 3, seed: int = 0) -> GuidedPipeline:
    """A pipeline over a joint of well-formed canvases, with correlated random weights."""
    vocabulary = tiny_vocabulary()
    joint = torch.randn([len(vocabulary)] * length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return GuidedPipeline(TabularDenoiser((1.5 * joint).exp() * well_formed(length), vocabulary))


def well_formed(length: int) -> Tensor:
    """1 at canvases of text tokens, then nothing or end and padding; 0 elsewhere."""
    size = len(TOKENS)
    mass = torch.zeros([size] * length, dtype=torch.float64)
    for index in torch.cartesian_prod(*[torch.arange(size)] * length).reshape(-1, length).tolist():
        text = next((i for i, token in enumerate(index) if token > 4), length)
        mass[tuple(index)] = float(index[text:] in ([], [5] + [6] * (length - text - 1)))
    return mass


CORPUS = [
    *SENTENCES,
    "na\u00efve caf\u00e9 \u00a35 it's 'quoted' \U0001f600 \u4e2d\u6587",
    "low lower lowest new newer",
]


def byte_level_bpe() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<eos>", "<pad>", "<mask>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return _wrap(backend)


def sentencepiece_bpe() -> PreTrainedTokenizerFast:
    """As Llama 2: metaspace, byte fallback."""
    pieces = ["<unk>", "<eos>", "<pad>", "<mask>", *(f"<0x{b:02X}>" for b in range(256))]
    characters = ["\u2581", *sorted({c for text in CORPUS[:5] for c in text if c != " "})]
    merges = [("t", "h"), ("\u2581", "p"), ("\u2581p", "u"), ("\u2581pu", "b"), ("\u2581", "a"), ("i", "s"), ("e", "r")]
    pieces += [*characters, *("".join(pair) for pair in merges)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    return _wrap(backend, unk_token="<unk>")


def sentencepiece_unigram() -> PreTrainedTokenizerFast:
    """As T5 or Gemma: unigram, metaspace, byte fallback."""
    pieces = [(piece, -10.0) for piece in ["<unk>", "<eos>", "<pad>", "<mask>", *(f"<0x{b:02X}>" for b in range(256))]]
    pieces += [(c, -8.0) for c in ["\u2581", *sorted({c for text in CORPUS[:5] for c in text if c != " "})]]
    pieces += [("\u2581pub", -4.0), ("\u2581The", -4.0), ("\u2581a", -5.0), ("er", -6.0), ("\u2581.", -5.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    return _wrap(backend, unk_token="<unk>")


def wordpiece() -> PreTrainedTokenizerFast:
    """As BERT, cased: punctuation apart, pieces that continue a word marked with ##."""
    characters = sorted({c for text in CORPUS for c in text if not c.isspace()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "The", "pub", "low", "##er", "##est"]
    pieces += characters + ["##" + c for c in characters]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    names = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **{f"{name}_token": token for name, token in names.items()}
    )


def word_level() -> PreTrainedTokenizerFast:
    words = ["<unk>", "<eos>", "<pad>", "<mask>", *sorted({word for text in CORPUS for word in text.split()})]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _wrap(backend, unk_token="<unk>")


def _wrap(backend: Tokenizer, **extra: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>", mask_token="<mask>", **extra
    )


TOKENIZERS = {
    "byte-level BPE": byte_level_bpe,
    "SentencePiece BPE": sentencepiece_bpe,
    "SentencePiece unigram": sentencepiece_unigram,
    "WordPiece": wordpiece,
    "word level": word_level,
    "ours": word_tokenizer,
}
