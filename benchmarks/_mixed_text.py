"""Labelled texts from public data that weights may be shipped of: what the class-conditional model is trained on.

python benchmarks/_mixed_text.py DATA OUT    writes OUT/train.jsonl.gz and OUT/valid.jsonl.gz
"""

import argparse
import csv
import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

WORDS = range(4, 46)
HELD_OUT = 0.04
LIMITS = {"restaurant": 12_000, "everyday": 20_000, "comment": 12_000}
COARSE = re.compile(
    r"\b(\w*(fuck|shit|bitch|cunt|nigg|fag|whore|slut|asshole|porn|penis|vagina)\w*|"
    r"(rap(e|ed|es|ist|ists|ing)|ass|arse|dick|dicks|pussy|tits|retard\w*))\b",
    re.IGNORECASE,
)
# What politely worded comments say of violence and of groups of people; other sources may speak of these.
HEATED = re.compile(
    r"\b(kill|murder|terroris|nazi|hitler|jews?\b|jewish|muslim|islam|gay|blacks?\b|whites?\b)", re.IGNORECASE
)
# Before and after a mark, as tokenisers separate it; the order matters.
SPACING = [
    (r" @([-.,])@ ", r"\1"),
    (r"''|``", '"'),
    (r"(?<=[a-z])\.(?=[A-Z][a-z])", ". "),
    (r" +([,.;:!?)\]%])", r"\1"),
    (r" +('(?:s|m|re|ve|ll|d|t|all)\b|n't\b|n 't\b)", r"\1"),
    (r"n 't\b", "n't"),
    (r"([(\[$£#]) +", r"\1"),
    (r"(?<=\w) - (?=\w)", "-"),
    (r"(?<=\d)- (?=[£$\d])", "-"),
    (r'" ([^"]*?) ?"', r'"\1"'),
]


def prose(text: str) -> str:
    """Tokenised text with the spacing of prose."""
    text = " ".join(text.split())
    for pattern, replacement in SPACING:
        text = re.sub(pattern, replacement, text)
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """The sentences of a tokenised text, where a full stop that ends one stands alone."""
    return re.split(r"(?<= [.!?]) (?=\S)", " ".join(text.split()))


def rank(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from (line.rstrip("\n") for line in file)


def topic_text(text: str) -> str:
    """The first sentence without its asides, and the second where both are short."""
    text = re.sub(r"(?<=[a-z])\.(?=[A-Z][a-z])", " . ", text)
    first, *rest = sentences(re.sub(r"(\( (?!born )[^()]*\)|\[[^\]]*\]) ?", "", text))
    both = f"{first} {rest[0]}" if rest else first
    return both if len(both.split()) <= 30 else first


def neutral(path: Path) -> Iterator[str]:
    """The rewrites of a toxic sentence, without those that changed nothing and those that are heated still."""
    rows = csv.reader(lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    next(rows)
    for toxic, *rewrites in rows:
        changed = (text for text in rewrites if prose(text).lower() != prose(toxic).lower())
        yield from (text for text in changed if not HEATED.search(text))


def encyclopedia(path: Path) -> Iterator[str]:
    """Short sentences without unknown words; headings are left out."""
    for line in lines(path):
        if not line.strip().startswith("="):
            yield from (s for s in sentences(line) if "<unk>" not in s and len(s.split()) <= 32 and s.endswith(" ."))


def sources(data: Path) -> Iterator[tuple[str, Iterable[str]]]:
    """Label and raw texts."""
    yield "caption", lines(data / "coco/captions.txt.gz")
    yield "restaurant", (json.loads(line)["text"] for line in lines(data / "e2e/train.jsonl.gz"))
    yield "everyday", (json.loads(line)["text"] for line in lines(data / "commongen/train.jsonl.gz"))
    yield "comment", neutral(data / "paradetox/paradetox.tsv.gz")
    yield "encyclopedia", encyclopedia(data / "wikitext2/valid.txt.gz")
    topics: dict[str, list[str]] = {}
    for record in map(json.loads, lines(data / "dbpedia/train.jsonl.gz")):
        topics.setdefault(record["label"].lower(), []).append(topic_text(record["text"]))
    yield from sorted(topics.items())


def kept(text: str) -> bool:
    """Whether a text has the length and the form that a small model can learn."""
    balanced = text.count('"') % 2 == 0 and text.count("(") == text.count(")")
    torn = re.search(r'""|(?<!\S)[\'"](?!\S)', text)  # a quotation mark on its own, or two of them
    return len(text.split()) in WORDS and balanced and not torn and not COARSE.search(text)


def mixed(data: Path) -> list[dict[str, str]]:
    """All texts once, in an order that mixes labels."""
    found: dict[str, str] = {}
    for label, raw in sources(data):
        texts = sorted({text for text in map(prose, raw) if kept(text)} - set(found), key=rank)
        found |= dict.fromkeys(texts[: LIMITS.get(label)], label)
    return [{"text": text, "label": found[text]} for text in sorted(found, key=lambda text: rank("order " + text))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of public data")
    parser.add_argument("out", type=Path, help="the folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    texts = mixed(args.data)
    # Limit, order and held-out part each have a hash of their own, so none says anything of another.
    held_out = [rank("held out " + line["text"]) < HELD_OUT for line in texts]
    for name, wanted in (("train", False), ("valid", True)):
        part = [line for line, out in zip(texts, held_out, strict=True) if out is wanted]
        with gzip.GzipFile(args.out / f"{name}.jsonl.gz", "wb", mtime=0) as file:
            file.writelines((json.dumps(line, ensure_ascii=False) + "\n").encode() for line in part)
        counts = Counter(line["label"] for line in part)
        print(f"{name}: {len(part)}", *(f"{label} {n}" for label, n in counts.most_common()), sep="\n  ")


if __name__ == "__main__":
    main()
