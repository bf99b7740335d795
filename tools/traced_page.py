"""The page on roles by dataflow, from what was measured of every architecture and what was decided of contradictions."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.conformance.decisions import Case, cases, cases_of, contradictions

Rows = Mapping[str, Mapping[str, Any]]

_HEADS = ("causal-lm", "image-text-to-text", "seq2seq-lm", "masked-lm")
_RIGHT = {"names": "the name", "dataflow": "dataflow", "both": "both"}
# Of architectures that have the same weight, so many are named.
_NAMED = 3


def page(results: Mapping[str, Any], said_by: str) -> str:
    """The page.

    Args:
        results: What `traces.json` holds.
        said_by: The line that says that the page is generated.
    """
    rows: Rows = results["entries"]
    return "\n".join(
        [
            "# Roles by dataflow, architecture by architecture",
            "",
            "For looking up where name and dataflow disagree on your architecture.",
            "",
            f"{len(rows)} architectures of transformers {results['transformers']} were built at full depth on the meta device, called and",
            "recorded (`lorascope inspect SOURCE --trace`). The role of each weight by dataflow is compared with its role by name.",
            f"torch {results['torch']}; a few default configs that no device can run got the missing values of a released model.",
            "",
            *_summary(rows),
            "",
            "- *agree*: name and dataflow say the same. *part open*: dataflow says less, such as mixer input for q, k and v of a",
            "  linear attention.",
            "- *ambiguous*: the weight ran, but no role fits or a consistency check failed.",
            "- *not executed*: no call reached it.",
            "- *contradict*: each case is decided below by reading the model's code; a trace shows both roles.",
            "",
            "An expert that no token was routed to gets the role of the other experts, if all of them agree.",
            "",
            "## Attention and FFN",
            "",
            "Softmax attention and FFNs, towers included, by the role from the name. Fused and low-rank matrices have their own row.",
            "",
            *_parts(rows),
            "",
            "## Where name and dataflow contradict each other",
            "",
            "Decided by reading the modeling code. `#` stands for numbers.",
            "",
            *_decided(rows),
            "",
            "## What stays ambiguous",
            "",
            *_grouped(rows, "ambiguous"),
            "",
            "## What no call reached",
            "",
            *_grouped(rows, "unexecuted"),
            *_notes(rows),
            "",
            "## By architecture",
            "",
            "| architecture | weights | agree | part open | ambiguous | not executed | contradict |",
            "|---|---|---|---|---|---|---|",
            *(f"| {label} | {' | '.join(str(number) for number in _figures([row]))} |" for label, row in rows.items()),
            "",
            said_by,
            "",
        ]
    )


def _figures(rows: list[Mapping[str, Any]]) -> tuple[int, ...]:
    """Weights, and how many of them agree, agree with a part left open, are ambiguous, were not executed, contradict."""
    return (
        sum(row["weights"] for row in rows),
        sum(row["agree"] for row in rows),
        sum(row["open"] for row in rows),
        sum(sum(row["ambiguous"].values()) for row in rows),
        sum(sum(row["unexecuted"].values()) for row in rows),
        sum(number for row in rows for *_, number in row["disagree"]),
    )


def _summary(rows: Rows) -> Iterator[str]:
    yield "| head | architectures | weights | agree | part open | ambiguous | not executed | contradict |"
    yield "|---|---|---|---|---|---|---|---|"
    groups = {head: [row for label, row in rows.items() if _is_of(label, head)] for head in _HEADS}
    groups["released layouts"] = [row for label, row in rows.items() if "+" in label]
    groups["all"] = list(rows.values())
    for head, group in groups.items():
        yield f"| {head} | {len(group)} | {' | '.join(f'{number:,}' for number in _figures(group))} |"
    weights, agree, *_ = _figures(list(rows.values()))
    yield ""
    whole = sum(row["agree"] == row["weights"] for row in rows.values())
    yield f"{agree / weights:.1%} agree; on {whole} of the {len(rows)} architectures every weight does."


def _is_of(label: str, head: str) -> bool:
    return label.startswith(f"{head}/") and "+" not in label


def _parts(rows: Rows) -> Iterator[str]:
    yield "| role | weights | agree | part open | ambiguous | not executed | contradict |"
    yield "|---|---|---|---|---|---|---|"
    found: dict[str, Counter[int]] = {}
    for row in rows.values():
        for part, numbers in row["parts"].items():
            found.setdefault(part, Counter()).update(dict(enumerate(numbers)))
    for part, numbers in sorted(found.items()):
        same, part_open, *rest = (numbers[place] for place in range(5))
        figures = (sum(numbers.values()), same + part_open, part_open, *rest)
        yield f"| {part} | {' | '.join(f'{number:,}' for number in figures)} |"


def _decided(rows: Rows) -> Iterator[str]:
    counts: Counter[Case] = Counter()
    for found in contradictions(rows):
        for case in cases_of(found):
            counts[case] += found.number
    right: Counter[str] = Counter()
    for case, number in counts.items():
        right[case.right] += number
    yield (
        f"The name is right on {right['names']} weights, dataflow on {right['dataflow']}, and both on {right['both']}, where either"
        " describes what they do."
    )
    yield ""
    yield "| model type | weights | by name | by dataflow | number | right | why |"
    yield "|---|---|---|---|---|---|---|"
    alike: dict[tuple[str, ...], list[Case]] = {}
    for case in cases():
        module = _name(case).rpartition(".")[0]
        alike.setdefault((case.model_types, module, case.right, case.reason), []).append(case)
    for (types, _, side, reason), group in alike.items():
        columns = ([_name(case) for case in group], [case.named for case in group], [case.flow for case in group])
        name, named, flow = (_cell(_together(column)) for column in columns)
        number = sum(counts[case] for case in group)
        yield (
            f"| {types.replace(' ', ', ')} | `{name}` | {named} | {flow} | {number} | {_RIGHT[side]} | {_cell(reason)} |"
        )


def _name(case: Case) -> str:
    return case.pattern.replace("\\.", ".")


def _together(names: Sequence[str]) -> str:
    """Dotted names as one: `a.b.{c, d}` for `a.b.c` and `a.b.d`."""
    words = [name.split(".") for name in dict.fromkeys(names)]
    if len(words) == 1:
        return names[0]
    same = len(list(itertools.takewhile(lambda row: len(set(row)) == 1, zip(*words, strict=False))))
    rest = ", ".join(".".join(row[same:]) for row in words)
    return ".".join([*words[0][:same], f"{{{rest}}}"])


def _grouped(rows: Rows, state: str) -> Iterator[str]:
    """A table of the weights in a state: by the last word of their names and their role, with the architectures."""
    yield "| weights | role by name | number | architectures |"
    yield "|---|---|---|---|"
    numbers: Counter[tuple[str, str]] = Counter()
    labels: dict[tuple[str, str], dict[str, None]] = {}
    for label, row in rows.items():
        for folded, number in row[state].items():
            name, _, role = folded.partition(" ")
            key = (_tail(name), role.strip("()"))
            numbers[key] += number
            labels.setdefault(key, {})[label] = None
    for key, number in sorted(numbers.items(), key=lambda one: (-one[1], one[0])):
        named = list(labels[key])
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        yield f"| `{key[0]}` | {key[1]} | {number} | {', '.join(named[:_NAMED])}{more} |"


def _tail(name: str) -> str:
    """The last words of a folded name, from its last one that is no number."""
    words = name.split(".")
    place = max((place for place, word in enumerate(words) if word != "#"), default=0)
    return ".".join(words[place:])


def _notes(rows: Rows) -> Iterator[str]:
    said = [f"- {label}: {note}" for label, row in rows.items() for note in row["notes"]]
    if said:
        yield from ("", "Calls that ended early:", "", *said)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
