"""Which sequences of Penn tags, between which neighbours, are constituents, and how surely."""

from __future__ import annotations

import gzip
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from guided_dlm.errors import InvalidRequest
from guided_dlm.parsing.spans import JOIN

SHIPPED = Path(__file__).parent / "data" / "spans.tsv.gz"
BEGIN, END = "^", "$$"  # what stands for a neighbour where the text begins and ends
Window = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SpanLexicon:
    """By label and width, windows of tags with how often they were such a constituent, and how often they occurred.

    A window is the tag before the words, theirs, and the tag after them. Constituents of the same words are one: its
    label is the chain of theirs, the outermost first, joined by "::".
    """

    windows: Mapping[tuple[str, int], Mapping[Window, tuple[int, int]]]

    @classmethod
    def count(cls, sentences: Iterable[tuple[Sequence[str], Iterable[tuple[int, int, str]]]], most: int) -> SpanLexicon:
        """Count tags and (first, last, label) spans; of each label and width the `most` frequent windows are kept."""
        right: defaultdict[tuple[str, int], Counter[Window]] = defaultdict(Counter)
        every: Counter[Window] = Counter()
        for tags, spans in sentences:
            padded = (BEGIN, *tags, END)
            for first, last, label in set(spans):
                right[label, last - first + 1][padded[first : last + 3]] += 1
            widths = range(3, len(padded) + 1)
            every.update(padded[i : i + width] for width in widths for i in range(len(padded) - width + 1))
        return cls(
            {
                key: {window: (number, every[window]) for window, number in found.most_common(most)}
                for key, found in sorted(right.items())
            }
        )

    @classmethod
    def read(cls, path: str | Path) -> SpanLexicon:
        """Read a file of lines like `NP<TAB>12 of 13<TAB>IN DT NN .`.

        Raises:
            InvalidRequest: there is no such file, or a line is written otherwise; the message names it.
        """
        if not Path(path).is_file():
            raise InvalidRequest(f"There is no span lexicon {str(path)!r}; leave it out for the one of English.")
        windows: defaultdict[tuple[str, int], dict[Window, tuple[int, int]]] = defaultdict(dict)
        try:
            text = gzip.decompress(Path(path).read_bytes()).decode()
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{path} is no gzipped span lexicon: {error}.") from error
        for number, line in enumerate(text.splitlines(), start=1):
            label, counts, tags = [*line.split("\t"), "", ""][:3]
            seen, _, total = counts.partition(" of ")
            window = tuple(tags.split())
            counted = seen.isdecimal() and total.isdecimal() and 0 < int(total) >= int(seen)
            if not (label and counted and len(window) > 2):
                raise InvalidRequest(
                    f"{path}, line {number}: expected a label, counts like '3 of 4' and tags; got {line!r}."
                )
            windows[label, len(window) - 2][window] = (int(seen), int(total))
        return cls(windows)

    def write(self, path: str | Path) -> None:
        """Write the file that `read` reads."""
        with gzip.GzipFile(path, "wb", mtime=0) as file:
            for (label, _), found in self.windows.items():
                for window, (number, total) in found.items():
                    file.write(f"{label}\t{number} of {total}\t{' '.join(window)}\n".encode())

    def labels(self) -> list[str]:
        """Return the labels, those of chains each for itself."""
        return sorted({label for chain, _ in self.windows for label in chain.split(JOIN)})

    def chains(self) -> list[str]:
        """Return the chains of labels, single ones among them."""
        return sorted({chain for chain, _ in self.windows})

    def widths(self, label: str) -> list[int]:
        """Return how many words constituents of this label have, or of this chain."""
        return sorted(width for name, width in self.windows if name == label)

    def surest(self, label: str, width: int, certainty: float) -> list[Window]:
        """Return the windows that are such a constituent at least so often, the most frequent first."""
        return [window for window in self.windows.get((label, width), {}) if self.share(label, window) >= certainty]

    def share(self, label: str, window: Window) -> float:
        """Return in which share of its occurrences a window was such a constituent, 0 to 1."""
        number, total = self.windows[label, len(window) - 2][window]
        return number / total


@lru_cache(maxsize=4)
def span_lexicon(name: str) -> SpanLexicon:
    """Return the lexicon in a file; "english" is the one that comes along."""
    return SpanLexicon.read(SHIPPED if name == "english" else name)
