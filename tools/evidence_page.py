"""`docs/evidence.md`: claims, sources and recommendations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorascope.advice.evidence import Record, for_and_against, load_evidence, strength
from lorascope.advice.recommend import evidence_of_recipe
from lorascope.advice.tasks import Task, Why, load_advice
from lorascope.advice.types import Ground
from lorascope.plans.recipes import RECIPES
from lorascope.reports.advice import figure_text, setting_text

_CHOICES = ("targets", "rank")


_STRENGTH = """
This page is generated: `python tools/build_docs.py`.

## How strong a claim is

A source has a grade from 0 to 4:

- 0 if it shows neither a number nor a plot; else 1;
- plus 1 each for equal parameter budgets, learning rates tuned for each, and several runs or a known spread (nothing to match
  or to tune counts as done);
- minus 1 if read off a plot or derived without training, minus 1 if second-hand or read as an abstract, but never below 1.

Each author counts once for and once against a claim, with their best grade, and with at most 1 where a source tests only
something near it. With these sums for and against, a claim is

| word | rule |
|---|---|
| strong | at least 6 for it, two authors of grade 2 or more among them |
| moderate | at least 3 |
| weak | less |
| contested | against it at least half of the sum for it |
| contradicted | against it at least twice the sum for it |
| untested | only statements, or nothing |

A choice is as strong as the weakest claim that it rests on.
"""


def evidence_page() -> str:
    """Text of the page."""
    return "\n".join((*_head(), *_tasks(), *_recipes(), *_claims(), *_records())) + "\n"


def _head() -> Iterator[str]:
    evidence = load_evidence()
    yield "# Evidence and recommendations"
    yield ""
    yield (
        f"{len(evidence.claims)} claims on target modules, rank, alpha and learning rate, with {len(evidence.records)} sources for "
        "and against them."
    )
    yield "`lorascope recommend SOURCE --task TASK` makes a plan from them, and `--explain` prints the sources. To add a source, edit"
    yield "`evidence.toml` (or `tasks.toml` for recommendations) in `src/lorascope/data` and run `python tools/build_advice.py`."
    yield _STRENGTH


def _tasks() -> Iterator[str]:
    advice = load_advice()
    yield "## Tasks"
    yield ""
    yield "| task | recipe | rank | why these targets | why this rank | untested |"
    yield "|---|---|---|---|---|---|"
    yield from map(_task_row, advice.tasks.values())
    yield ""
    yield "For all tasks:"
    yield ""
    yield "| choice | why |"
    yield "|---|---|"
    yield f"| alpha {advice.alpha} for all modules | {_reason(_shared('alpha'))} |"
    yield f"| {advice.rate.multiple:g} times the learning rate of full fine-tuning | {_reason(_shared('learning_rate'))} |"
    yield f"| first learning rate, for Llama and Qwen | {_reason(_shared('first_rate'))} |"
    yield f"| routed experts: rank / active experts | {_reason(_shared('experts'))} |"
    yield f"| fewer than {advice.batch} sequences per step | {_reason(_shared('batch'))} |"
    yield f"| dropout 0.05 | {_reason(_shared('dropout'))} |"
    yield ""
    yield advice.note.reason


def _recipes() -> Iterator[str]:
    yield ""
    yield "## Recipes"
    yield ""
    yield "| recipe | adapts | supports it, if true | contradicts it, if true |"
    yield "|---|---|---|---|"
    for name in RECIPES:
        evidence = evidence_of_recipe(name)
        yield f"| `{name}` | {_cell(evidence.purpose)} | {_grounds(evidence.pro)} | {_grounds(evidence.contra)} |"


def _claims() -> Iterator[str]:
    yield ""
    yield "## Claims"
    yield ""
    yield "| claim | strength | supports | contradicts |"
    yield "|---|---|---|---|"
    for claim in load_evidence().claims.values():
        links = map(_links, for_and_against(claim.id))
        yield f"| {_cell(claim.text)} | {strength(claim.id)} | {' | '.join(links)} |"


def _records() -> Iterator[str]:
    yield ""
    yield "## Sources"
    for record in load_evidence().records:
        yield ""
        yield from _record(record)


def _shared(choice: str) -> Why:
    """Reason of a choice that all tasks share."""
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
        verdict = "supports" if bearing.supports else "contradicts"
        near = ", indirectly" if bearing.indirect else ""
        yield f"- {verdict} *{load_evidence().claims[bearing.claim].text}*{near}: {bearing.size}"
    yield f"- limits: {'; '.join(record.limits)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
