"""Which tags a word may bear, and how often: p(tag | word), counted from tagged text."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from constraints.tag_sets import UNIVERSAL, TagSet
from guided_dlm.errors import InvalidRequest

DATA = Path(__file__).parent / "data"
SHIPPED = {
    ("english", "universal"): DATA / "tags.tsv",
    ("english", "penn"): DATA / "penn.tsv",
    ("treebank", "penn"): DATA / "treebank.tsv",
}
CLOSING = frozenset(".,;:!?")


@dataclass(frozen=True, eq=False)
class TagLexicon:
    """Counts of the tags of words as a tagger splits them; punctuation marks are words too."""

    counts: Mapping[str, Mapping[str, int]]

    @classmethod
    def count(
        cls, tagged: Iterable[Iterable[tuple[str, str]]], min_count: int = 1, tags: TagSet = UNIVERSAL
    ) -> TagLexicon:
        """Count (word, tag) pairs of sentences; words seen fewer than `min_count` times are left out.

        Raises:
            InvalidRequest: a tag is none of the tag set's.
        """
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for sentence in tagged:
            for word, tag in sentence:
                found[word][tags.known(tag)] += 1
        return cls({word: seen for word, seen in found.items() if seen.total() >= min_count})

    @classmethod
    def read(cls, path: str | Path, tags: TagSet = UNIVERSAL) -> TagLexicon:
        """Read a file of lines like `kid<TAB>ADJ:12 NOUN:3`.

        Raises:
            InvalidRequest: there is no such file, or a line is written otherwise; the message names it.
        """
        counts: dict[str, dict[str, int]] = {}
        if not Path(path).is_file():
            raise InvalidRequest(f"There is no tag lexicon {str(path)!r}; leave lexicon out for the one of English.")
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
            word, _, rest = line.partition("\t")
            pairs = [item.rpartition(":") for item in rest.split()]
            if (
                not word
                or not pairs
                or not all(tag in tags.number and count.isdecimal() and int(count) for tag, _, count in pairs)
            ):
                raise InvalidRequest(
                    f"{path}, line {number}: expected a word, a tab and tags like NOUN:3; got {line!r}."
                )
            counts[word] = {tag: int(count) for tag, _, count in pairs}
        return cls(counts)

    def write(self, path: str | Path) -> None:
        """Write the file that `read` reads, words sorted, frequent tags first."""
        lines = []
        for word, tags in sorted(self.counts.items()):
            ranked = sorted(tags.items(), key=lambda pair: (-pair[1], pair[0]))
            lines.append(f"{word}\t{' '.join(f'{tag}:{count}' for tag, count in ranked)}\n")
        Path(path).write_text("".join(lines), encoding="utf-8")

    def probabilities(self, word: str) -> dict[str, float]:
        """Return p(tag | word); empty for a word that was never seen."""
        tags = self.counts.get(word, {})
        total = sum(tags.values())
        return {tag: count / total for tag, count in tags.items()}

    @cached_property
    def longest(self) -> int:
        """The number of characters of the longest word."""
        return max(map(len, self.counts), default=0)

    def splits(self, text: str, start: int) -> Iterator[tuple[str, int]]:
        """Yield the words that may begin at a place of a text, and where each ends.

        A word begins the text or follows a space; the marks `. , ; : ! ?` may also follow a word at once. It ends where
        one of these may begin.
        """
        spaced = start > 0 and text[start : start + 1] == " "
        begin = start + spaced
        if begin >= len(text) or (start > 0 and not spaced and text[begin] not in CLOSING):
            return
        for end in range(begin + 1, min(len(text), begin + self.longest) + 1):
            word = text[begin:end]
            if (end == len(text) or text[end] == " " or text[end] in CLOSING) and word in self.counts:
                yield word, end


def is_closing(word: str) -> bool:
    """Return whether a word may stand right after another: it begins with one of `. , ; : ! ?`."""
    return word[0] in CLOSING


@lru_cache(maxsize=8)
def lexicon(name: str, tags: TagSet = UNIVERSAL) -> TagLexicon:
    """Return the lexicon in a file, or one that comes along for the tag set: "english", and "treebank" of Penn tags."""
    return TagLexicon.read(SHIPPED.get((name, tags.name), name), tags)
