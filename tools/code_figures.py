"""Figures on how the package reads: docstrings, function bodies, lines, repeated blocks.

python tools/code_figures.py             the figures beside their aims
python tools/code_figures.py --list      and what is over them
python tools/code_figures.py --source PATH   of another checkout's package
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import io
import itertools
import keyword
import statistics
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "lorascope"
LONGEST_BODY = 50
SHORTEST_BLOCK = 6
LEAST_SHAPE = 65  # characters: closing brackets alone are no block
MOST_PLACES = 8

Place = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class CodeFigures:
    """The figures of a package.

    Attributes:
        docstrings: Words of every docstring's first line, with its place.
        bodies: Lines of every function's body, without its docstring, with its place.
        lines: Lines of all files, in all.
        repeated: Pairs of places whose next six or more lines have one shape.
    """

    docstrings: tuple[tuple[int, str], ...]
    bodies: tuple[tuple[int, str], ...]
    lines: int
    repeated: tuple[tuple[Place, Place, int], ...]

    @property
    def docstring_median(self) -> float:
        """Words of the median first line."""
        return statistics.median(words for words, _ in self.docstrings)

    @property
    def docstring_90th(self) -> int:
        """Words that nine of ten first lines do not exceed."""
        words = sorted(words for words, _ in self.docstrings)
        return words[int(0.9 * (len(words) - 1))]

    @property
    def long_bodies(self) -> int:
        """Functions over 50 lines."""
        return sum(lines > LONGEST_BODY for lines, _ in self.bodies)


def code_figures(source: Path = SOURCE) -> CodeFigures:
    """Measure every file below a folder."""
    texts = {str(path.relative_to(source)): path.read_text(encoding="utf-8") for path in sorted(source.rglob("*.py"))}
    docstrings: list[tuple[int, str]] = []
    bodies: list[tuple[int, str]] = []
    for name, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            place = f"{name}:{getattr(node, 'lineno', 1)}"
            documentation = ast.get_docstring(node)
            if documentation:
                docstrings.append((len(documentation.splitlines()[0].split()), place))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if documentation else node.body
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                bodies.append((lines, f"{place} {node.name}"))
    return CodeFigures(
        docstrings=tuple(docstrings),
        bodies=tuple(bodies),
        lines=sum(len(text.splitlines()) for text in texts.values()),
        repeated=tuple(repeated_blocks(texts)),
    )


def repeated_blocks(texts: dict[str, str]) -> Iterator[tuple[Place, Place, int]]:
    """Pairs of blocks of six or more lines of one shape, whatever their names, texts and numbers.

    Imports, comments, docstrings and empty lines do not count, nor does a shape that stands in more than eight places:
    that is an idiom. Of two files that share several blocks the longest is given.
    """
    rows: dict[str, list[tuple[int, str]]] = {}
    windows: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, text in texts.items():
        rows[name] = list(_shapes(text))
        for start in range(len(rows[name]) - SHORTEST_BLOCK + 1):
            window = tuple(line for _, line in rows[name][start : start + SHORTEST_BLOCK])
            if sum(len(line) for line in window) >= LEAST_SHAPE:
                windows[window].append((name, start))
    matches = {
        (one, other)
        for places in windows.values()
        if len(places) <= MOST_PLACES
        for one, other in itertools.combinations(places, 2)
        if one[0] != other[0] or other[1] - one[1] >= SHORTEST_BLOCK
    }
    longest: dict[tuple[str, str], tuple[int, Place, Place]] = {}
    for (one, start), (other, begin) in sorted(matches):
        if ((one, start - 1), (other, begin - 1)) in matches:
            continue
        length = 1
        while ((one, start + length), (other, begin + length)) in matches:
            length += 1
        pair = (length + SHORTEST_BLOCK - 1, (one, rows[one][start][0]), (other, rows[other][begin][0]))
        longest[one, other] = max(longest.get((one, other), pair), pair)
    for length, place, place_of_other in longest.values():
        yield place, place_of_other, length


def _shapes(text: str) -> Iterator[tuple[int, str]]:
    """The lines that count, each as keywords and signs with `n`, `s` and `0` for names, texts and numbers."""
    documentation = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    shapes: dict[int, list[str]] = defaultdict(list)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        shape = {tokenize.NAME: "n", tokenize.STRING: "s", tokenize.NUMBER: "0", tokenize.OP: token.string}
        if token.type in shape and token.start[0] not in documentation:
            shapes[token.start[0]].append(token.string if keyword.iskeyword(token.string) else shape[token.type])
    for number, words in sorted(shapes.items()):
        if words[0] not in ("import", "from"):
            yield number, " ".join(words)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list long first lines, long bodies and repeated blocks")
    parser.add_argument("--source", type=Path, default=SOURCE, help="the package's folder")
    options = parser.parse_args()
    figures = code_figures(options.source)
    print("| figure | now | aim |\n|---|---|---|")
    print(f"| words of a docstring's first line, median | {figures.docstring_median:g} | ≤ 9 |")
    print(f"| the same, 90th percentile | {figures.docstring_90th} | ≤ 13 |")
    print(f"| function bodies over {LONGEST_BODY} lines, of {len(figures.bodies):,} | {figures.long_bodies} | ≤ 8 |")
    print(f"| lines of src | {figures.lines:,} | ≤ 29,500 |")
    print(f"| pairs of repeated blocks of {SHORTEST_BLOCK} lines or more | {len(figures.repeated)} | < 19 |")
    if options.list:
        for words, place in sorted(figures.docstrings, reverse=True):
            if words > 13:
                print(f"docstring of {words} words: {place}")
        for lines, place in sorted(figures.bodies, reverse=True):
            if lines > LONGEST_BODY:
                print(f"body of {lines} lines: {place}")
        for one, other, length in figures.repeated:
            print(f"{length} lines: {one[0]}:{one[1]} and {other[0]}:{other[1]}")


if __name__ == "__main__":
    main()
