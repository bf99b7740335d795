"""`docs/evidence.md`: what is known about where adapters go, and what is recommended from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorascope.advice.evidence import Record, for_and_against, load_evidence, strength
from lorascope.advice.recommend import evidence_of_recipe
from lorascope.advice.tasks import Task, Why, load_advice
from lorascope.advice.types import Ground
from lorascope.plans.recipes import RECIPES
from lorascope.reports.advice import figure_text, setting_text

_CHOICES = ("targets", "rank")


def evidence_page() -> str:
    """The page's text."""
    known, advice = load_evidence(), load_advice()
    lines = [
        "# What is known, and what is recommended from it",
        "",
        f"{len(known.records)} records bear on {len(known.claims)} claims about where adapters go, at which rank, alpha and",
        "learning rate. `lorascope recommend SOURCE --task TASK` makes a plan of them for a model, and `--explain` prints the",
        "records behind it. Both are data, `evidence.toml` and `tasks.toml` in `src/lorascope/data`: whoever knows better adds",
        "a record.",
        "",
        "This page is generated: `python tools/build_docs.py`.",
        "",
        "## How strong a claim is",
        "",
        "A record has a grade from 0 to 4: 0 where no number and no figure was seen; else 1, and one more for each of equal",
        "parameter budgets, learning rates tuned for each, and several runs or a known spread (where there is nothing to match",
        "or to tune, that counts as done); one less for a figure without numbers and for what is derived without training, one",
        "less for what was read second hand or as an abstract, but never less than 1. Each author counts once on each side of a",
        "claim, with their best grade, and with 1 at most where a record tests only something near it. With the sums of both",
        "sides a claim is",
        "",
        "| word | rule |",
        "|---|---|",
        "| strong | at least 6 for it, two authors of grade 2 or more among them |",
        "| moderate | at least 3 |",
        "| weak | less |",
        "| contested | what is against it comes to at least half of what is for it |",
        "| contradicted | what is against it comes to at least twice what is for it |",
        "| untested | nothing but statements, or nothing at all |",
        "",
        "A choice is as strong as the weakest claim that it rests on.",
        "",
        "## Tasks",
        "",
        "| task | recipe | rank | targets, why | rank, why | nobody knows |",
        "|---|---|---|---|---|---|",
        *(_task_row(task) for task in advice.tasks.values()),
        "",
        "For all of them:",
        "",
        "| choice | why |",
        "|---|---|",
        f"| alpha {advice.alpha} for every weight | {_reason(_shared('alpha'))} |",
        f"| {advice.rate.multiple:g} times the learning rate of full fine-tuning | {_reason(_shared('learning_rate'))} |",
        f"| a first rate, for Llama and Qwen | {_reason(_shared('first_rate'))} |",
        f"| routed experts: rank / active experts | {_reason(_shared('experts'))} |",
        f"| fewer than {advice.batch} sequences a step | {_reason(_shared('batch'))} |",
        f"| dropout 0.05 | {_reason(_shared('dropout'))} |",
        "",
        f"{advice.note.reason[0].upper()}{advice.note.reason[1:]}.",
        "",
        "## Recipes",
        "",
        "| recipe | adapts | for it, where true | against it, where true |",
        "|---|---|---|---|",
    ]
    for name in RECIPES:
        said = evidence_of_recipe(name)
        lines.append(f"| `{name}` | {_cell(said.purpose)} | {_grounds(said.pro)} | {_grounds(said.contra)} |")
    lines += ["", "## Claims", "", "| claim | strength | for | against |", "|---|---|---|---|"]
    for claim in known.claims.values():
        sides = (_links(records) for records in for_and_against(claim.id))
        lines.append(f"| {_cell(claim.text)} | {strength(claim.id)} | {' | '.join(sides)} |")
    lines += ["", "## Records"]
    for record in known.records:
        lines += ["", *_record(record)]
    return "\n".join(lines) + "\n"


def _shared(choice: str) -> Why:
    """The reason that all tasks share."""
    return next(iter(load_advice().tasks.values())).why[choice]


def _task_row(task: Task) -> str:
    whys = (_reason(task.why[choice]) for choice in _CHOICES)
    unknown = _cell("; ".join(task.unknown))
    return f"| `{task.name}`: {task.purpose} | `{task.recipe}` | {task.rank} | {' | '.join(whys)} | {unknown} |"


def _reason(why: Why) -> str:
    words = ", ".join(f"{claim}: {strength(claim)}" for claim in why.claims)
    return _cell(f"{why.reason} ({words})")


def _grounds(grounds: Iterable[Ground]) -> str:
    return _cell("; ".join(f"{ground.claim.text} ({ground.strength})" for ground in grounds)) or "–"


def _links(records: Iterable[Record]) -> str:
    return ", ".join(f"[{record.id}](#{record.id}) ({record.grade})" for record in records) or "–"


def _record(record: Record) -> Iterator[str]:
    yield f"### {record.id}"
    yield ""
    yield f"[{record.title}]({record.url}), {record.by}, {record.year}, {record.section}. Grade {record.grade}."
    yield ""
    yield f"- {setting_text(record)}"
    yield from (f"- {figure_text(figure)}" for figure in record.figures)
    for bearing in record.bears:
        side = "for" if bearing.supports else "against"
        near = ", indirectly" if bearing.indirect else ""
        yield f"- {side} *{load_evidence().claims[bearing.claim].text}*{near}: {bearing.size}"
    yield f"- limits: {'; '.join(record.limits)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
