"""Writes the generated pages of `docs/`, which tests compare with what is committed.

python tools/build_docs.py                        the pages, from the built-in models and what was measured (no torch)
python tools/build_docs.py --measure              first measure every architecture against PEFT again (20 minutes)
python tools/build_docs.py --measure-checkpoints  first save and read every architecture's checkpoint again (2 minutes)
python tools/build_docs.py --measure-released     first read the released configurations and names again (2 minutes)
python tools/build_docs.py --measure-traces       first trace every architecture again (2 minutes)
python tools/build_docs.py --measure-held-out     first trace the models that nobody has named again (1 minute)
python tools/build_docs.py --measure-others       first trace the models of other libraries again (2 minutes)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "tests" / "conformance" / "results.json"
CHECKPOINTS = ROOT / "tests" / "conformance" / "checkpoints.json"
RELEASED = ROOT / "tests" / "conformance" / "released.json"
TRACES = ROOT / "tests" / "conformance" / "traces.json"
HELD_OUT = ROOT / "tests" / "conformance" / "held_out.json"
for folder in (".", "src", "tools"):
    sys.path.insert(0, str(ROOT / folder))

from checking_page import checking_page  # noqa: E402
from evidence_page import evidence_page  # noqa: E402
from export_page import export_page  # noqa: E402
from memory_page import memory_page  # noqa: E402
from mistakes_page import mistakes_page  # noqa: E402
from others_page import others_section  # noqa: E402
from terminal_picture import SHOWN, picture  # noqa: E402

from lorascope.errors import LorascopeError  # noqa: E402
from lorascope.peft_rules.lora_config import peft_arguments  # noqa: E402
from lorascope.plan_api import plan  # noqa: E402
from lorascope.sources.builtin import builtin_models, load_builtin  # noqa: E402

_SAID_BY = "This page is generated: `python tools/build_docs.py`."
_NAMES = ("attention.q,v", "attention", "ffn")


def target_names() -> str:
    """`docs/target-names.md`: what to target in each architecture."""
    lines = [
        "# Target names per architecture",
        "",
        "For looking up the target modules of your model type: for q and v, for the whole attention, and for the FFN, on the",
        "default config of transformers 5.24. `[…]` is `target_modules` as a list, `/…/` is `target_modules` as one regular",
        "expression, `+` is `target_parameters`, `-` is `exclude_modules`. A dash: no such modules, or PEFT cannot adapt them.",
        "",
        _SAID_BY,
        "",
        "| model type | head | q and v | attention | FFN |",
        "|---|---|---|---|---|",
    ]
    for model_type, heads in builtin_models().items():
        model = load_builtin(model_type)
        cells = []
        for rule in _NAMES:
            try:
                cells.append(_names_cell(peft_arguments(plan(model, f"{rule}=8").config)))
            except LorascopeError:
                cells.append("–")
        lines.append(f"| {model_type} | {heads[0]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _names_cell(arguments: Mapping[str, Any]) -> str:
    modules = arguments.get("target_modules", [])
    text = f"/{modules}/" if isinstance(modules, str) else f"[{' '.join(modules)}]" if modules else ""
    if arguments.get("target_parameters"):
        text += f" + {' '.join(arguments['target_parameters'])}"
    if arguments.get("exclude_modules"):
        text += f" - {arguments['exclude_modules']}"
    return f"`{text.strip().replace('|', chr(92) + '|')}`"


def conformance() -> str:
    """`docs/conformance.md`: each architecture's plans, and the pasted lists, as PEFT really did them."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows: dict[str, dict[str, Any]] = results["entries"]
    reasons: dict[str, str] = {}
    body = list(_conformance_rows(rows, reasons))
    plans, pasted = _names_of(rows, "plans"), _names_of(rows, "pasted")
    lines = [
        "# What PEFT really adapts, architecture by architecture",
        "",
        "For looking up one architecture, or what a pasted list does in general.",
        "",
        f"{len(rows)} architectures, measured with `peft.get_peft_model` on the meta device (PEFT {results['peft']}, transformers",
        f"{results['transformers']}): every model type of the causal-LM, image-text-to-text, sequence-to-sequence and masked-LM",
        "mappings, and released layouts that default configs hide (after a `+`).",
        "",
        "## Plans",
        "",
        "*exact*: PEFT adapts exactly the planned modules, each with its rank and alpha, and trains exactly the counted",
        "parameters. *refused*: before training, because the model has no such modules or PEFT cannot adapt them.",
        "",
        "| plan | exact | refused | different |",
        "|---|---|---|---|",
    ]
    for name in plans:
        verdicts = Counter(row["plans"][name][0] for row in rows.values())
        lines.append(f"| {name} | {verdicts['exact']} | {verdicts['refused']} | {verdicts['different']} |")
    lines += [
        "",
        "## Pasted lists",
        "",
        "The seven names (`q_proj` … `down_proj`) and `all-linear` mean the attention and FFN of the language model; the other",
        "two mean its q and v. *misses*: PEFT silently leaves out part of that. *extra*: nothing is missed, but towers, routers",
        "or heads are adapted too.",
        "",
        "| list | error | misses | extra | exact | median share missed, if any |",
        "|---|---|---|---|---|---|",
    ]
    for name in pasted:
        verdicts = Counter(row["pasted"][name][0] for row in rows.values())
        missed = sorted(row["pasted"][name][1] for row in rows.values() if row["pasted"][name][0] == "misses")
        median = f"{missed[len(missed) // 2]:.1%}" if missed else "–"
        counts = " | ".join(str(verdicts[verdict]) for verdict in ("error", "misses", "extra", "exact"))
        lines.append(f"| {name} | {counts} | {median} |")
    lines += [
        "",
        "## By architecture",
        "",
        "A number is the number of adapted modules; a letter is the reason for a refusal:",
        "",
    ]
    lines += [f"- **{letter}**: {reason}" for reason, letter in reasons.items()]
    lines += [
        "",
        "For the lists: ✗ error, the share that is missed, and +n unintended modules.",
        "",
        _SAID_BY,
        "",
        f"| architecture | {' | '.join((*plans, *pasted))} |",
        "|---" * (1 + len(plans) + len(pasted)) + "|",
        *body,
    ]
    return "\n".join(lines) + "\n"


def _names_of(rows: Mapping[str, Any], what: str) -> list[str]:
    return list(next(iter(rows.values()))[what])


def _conformance_rows(rows: Mapping[str, Any], reasons: dict[str, str]) -> Iterator[str]:
    for label, row in rows.items():
        cells = []
        for verdict, detail in row["plans"].values():
            cells.append(str(detail) if verdict == "exact" else _letter(str(detail), label, reasons))
        for verdict, missed, extra in row["pasted"].values():
            said = [f"{missed:.1%}"] if missed else []
            said += [f"+{extra}"] if extra else []
            cells.append("✗" if verdict == "error" else " ".join(said) or "exact")
        yield f"| {label} | {' | '.join(cells)} |"


def _letter(reason: str, label: str, reasons: dict[str, str]) -> str:
    model_type = label.partition("/")[2]
    return reasons.setdefault(reason.removeprefix(f"{model_type}: "), chr(ord("a") + len(reasons)))


def checkpoints() -> str:
    """`docs/checkpoints.md`: released checkpoints, and each architecture's, as their headers read."""
    from tests.conformance.checkpoints import FIELDS, PLANS, REASONS

    results = json.loads(CHECKPOINTS.read_text(encoding="utf-8"))
    rows: dict[str, dict[str, Any]] = results["entries"]
    saved = [row for row in rows.values() if "unsaved" not in row]
    plans = Counter(row["plans"][name][0] for row in saved for name in PLANS)
    bare = Counter(row["bare"] for row in saved)
    lines = [
        "# Checkpoints by their headers",
        "",
        *_released(),
        "## Every architecture, as transformers saves it",
        "",
        "For looking up whether the map of a checkpoint is exact for your architecture; those not listed are.",
        "",
        f"{len(rows)} architectures of transformers {results['transformers']} were built small, saved by `save_pretrained`, and read",
        "back from `config.json` and safetensors headers alone. The map is compared with that of the model itself: every module's",
        f"name, order, kind, parameters and shapes, experts, ties, and {len(FIELDS) - 3} further facts.",
        "",
        "| | |",
        "|---|---|",
        f"| saved and read | {len(saved)} of {len(rows)}, {sum(row['tensors'] for row in saved):,} tensors |",
        f"| maps without a difference | {sum(not row['differ'] for row in saved)} |",
        f"| weights in these maps | {sum(row['weights'] for row in saved):,} |",
        f"| names without the base model's prefix give the same map | {bare['yes']} of {bare['yes'] + bare['no']} |",
        f"| such names that transformers does not load either | {bare['neither']} |",
        f"| plans that PEFT {results['peft']} adapts exactly on the reloaded model | {plans['exact']} |",
        f"| plans refused: no such modules, or PEFT cannot adapt them | {plans['refused']} |",
        f"| plans that PEFT carries out differently (shieldgemma2: the map lacks a part) | {plans['different']} |",
        "",
        "| architecture | what differs | why |",
        "|---|---|---|",
    ]
    for (head, label), reason in REASONS.items():
        row = rows[f"{head}/{label}"]
        what = ", ".join(row.get("differ", ())) or ("not saved" if "unsaved" in row else "without the prefix")
        lines.append(f"| {head}/{label} | {what} | {reason} |")
    return "\n".join([*lines, "", _SAID_BY]) + "\n"


def _released() -> Iterator[str]:
    """The part on released configurations and weight names."""
    from tests.conformance.released import REASONS, released_configs

    results = json.loads(RELEASED.read_text(encoding="utf-8"))
    configurations: dict[str, dict[str, Any]] = results["configurations"]
    lists: dict[str, dict[str, Any]] = results["names"]
    coded = [row for row in lists.values() if "by_names" not in row]
    others = [row for row in lists.values() if "by_names" in row]
    types = {row["config"].get("model_type") for row in released_configs().values()}
    equal = sum(not row["differ"] for row in configurations.values())
    same = sum(not row["differ"] for row in coded)
    yield f"**{len(configurations)} released configurations of {len(types)} model types: {equal} maps by headers equal the model's own."
    yield f"{len(coded)} released lists of weight names: {same} maps equal, with every name explained.**"
    yield ""
    yield "Released files are not what transformers would save today: parts with their parent's type, flat layouts, class names"
    yield "that transformers does not have, modules that only an option creates. The figures of each configuration and the names of"
    yield "each list stand in `tests/data/released_configs.jsonl` and `released_names.jsonl`, with their sources. Shapes come from"
    yield f"transformers {results['transformers']}: what it saves, or the parameter that it loads a name into."
    yield ""
    yield "| | configurations | lists of names |"
    yield "|---|---|---|"
    yield f"| maps without a difference | {equal} of {len(configurations)} | {same} of {len(coded)} |"
    yield f"| tensors | {_sum(configurations.values(), 'tensors')} | {_sum(coded, 'tensors')} |"
    yield f"| weights in these maps | {_sum(configurations.values(), 'weights')} | {_sum(coded, 'weights')} |"
    yield f"| names that transformers does not load | – | {_sum(coded, 'unexpected')} |"
    yield ""
    yield f"{len(others)} more lists are of models whose code transformers does not have. Their {_sum(others, 'by_names', 'others')} names"
    yield f"are judged by themselves: {_sum(others, 'by_names')} are parameters of the map, {_sum(others, 'others')} others with a reason."
    yield ""
    if REASONS:
        yield "| released | what differs | why |"
        yield "|---|---|---|"
        for name, reason in REASONS.items():
            row = configurations.get(name) or lists[name]
            yield f"| {name} | {', '.join(row['differ'])} | {reason} |"
        yield ""


def _sum(rows: Iterable[Mapping[str, Any]], *fields: str) -> str:
    return f"{sum(row[field] for row in rows for field in fields):,}"


def traced_roles() -> str:
    """`docs/traced-roles.md`: what dataflow says of every weight, beside its name."""
    from traced_page import page

    return page(json.loads(TRACES.read_text(encoding="utf-8")), _SAID_BY)


# Roles that adapters are put on, in the order of the page.
_CORE = str.split(
    "attention.q attention.k attention.v attention.o attention.qkv attention.kv attention.qk attention.qkvo "
    "attention.q_gate attention.qkv_gate attention.gate attention.q_a attention.q_b attention.kv_a attention.kv_b "
    "attention.o_a attention.o_b ffn.gate ffn.up ffn.gate_up ffn.down"
)
_KINDS = {
    "written": "Written from scratch in plain PyTorch",
    "renamed": "Models of transformers under random names",
}


def held_out() -> str:
    """`docs/held-out.md`: what dataflow makes of models that nobody has named."""
    recorded = json.loads(HELD_OUT.read_text(encoding="utf-8"))
    lines = [
        "# Models without meaningful names",
        "",
        "For judging how far to trust roles by dataflow on your own model.",
        "",
        _SAID_BY,
        "",
        "77 models were written from scratch in plain PyTorch, in the many ways people write them (`tests/zoo`). 47 models of",
        "transformers got random names for every module and parameter, and no config is shown. The true role of each weight was",
        "decided from the code before any trace.",
        "",
        "*right*: the full role. *open*: part of the role and nothing wrong, such as attention without self or cross. *coarse*: a",
        "wider word where dataflow cannot distinguish, such as mixer for a linear attention. *none*: ambiguous or not reached.",
        "*wrong*: a contradiction.",
        "",
        "## First run",
        "",
        "A model that a rule was fixed for proves nothing about the rule. These are the figures of each batch at its first trace.",
        "The rules were fixed after each batch but the last two; the last row has the rules after all batches before it.",
        "",
        "| batch | weights | right | open | coarse | none | wrong |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row['batch']} | {row['weights']:,} | " + " | ".join(f"{row[one]:,}" for one in _FIRST) + " |"
            for row in recorded["first"]
        ),
        "",
        "## Today",
    ]
    for kind, title in _KINDS.items():
        counts = recorded[kind]
        lines += [
            "",
            f"### {title}",
            "",
            "| role | weights | right | open | coarse | none | wrong | precision | recall |",
            "|---|---|---|---|---|---|---|---|---|",
            *(_held_out_row(role, [counts[role]]) for role in _CORE if role in counts),
            _held_out_row("all of these", [counts[role] for role in _CORE if role in counts]),
            _held_out_row("all others", [found for role, found in counts.items() if role not in _CORE]),
        ]
    lines += [
        "",
        "Precision: right and open, of right, open and wrong. Recall: right and open, of all weights of the role.",
        "",
        *others_section(),
    ]
    return "\n".join(lines)


_FIRST = ("right", "open", "coarse", "none", "wrong")


def _held_out_row(role: str, several: Iterable[Mapping[str, int]]) -> str:
    total: Counter[str] = Counter()
    for counts in several:
        total.update(counts)
    good, wrong, weights = total["right"] + total["open"], total["wrong"], total.total()
    none = total["ambiguous"] + total["unexecuted"]
    precision = f"{good / (good + wrong):.1%}" if good + wrong else ""
    cells = [total["right"], total["open"], total["coarse"], none, wrong]
    figures = " | ".join(f"{cell:,}" for cell in cells)
    return f"| {role} | {weights:,} | {figures} | {precision} | {good / weights:.1%} |"


def measure(path: Path, one: Callable[[Any], Any], *libraries: str) -> None:
    """Writes what `one` finds of every architecture to a file, with the versions of the libraries that it rests on."""
    prepare()
    from architectures import entries, layouts

    wanted = [*entries(), *layouts()]
    measured: dict[str, Any] = {}
    with ProcessPoolExecutor(2, initializer=prepare) as pool:
        for entry, row in zip(wanted, pool.map(one, wanted), strict=True):
            measured[f"{entry.head}/{entry.label}"] = row
            print(f"\r{len(measured)} of {len(wanted)} {entry.label:40}", end="", file=sys.stderr)
    head = {library: version(library).partition("+")[0] for library in libraries}
    lines = ",\n".join(f"{json.dumps(label)}: {json.dumps(row, ensure_ascii=False)}" for label, row in measured.items())
    path.write_text(json.dumps(head)[:-1] + ', "entries": {\n' + lines + "\n}}\n", encoding="utf-8")


def prepare() -> None:
    """Libraries that say nothing, on one thread, for a process that builds models."""
    import warnings

    import torch
    import transformers
    from architectures import mend_torchvision

    mend_torchvision()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)


def measured_plans(entry: Any) -> Any:
    from tests.conformance.verdicts import built, measure_pasted, measure_plans, recorded

    module, model = built(entry)
    return recorded(measure_plans(module, model), measure_pasted(module, model))


def measured_checkpoint(entry: Any) -> Any:
    from tests.conformance.checkpoints import measure_checkpoint

    return measure_checkpoint(entry)


def measured_traces(entry: Any) -> Any:
    from tests.conformance.traces import measure_traces

    return measure_traces(entry)


def measure_released_checkpoints() -> None:
    """Reads the released configurations and names again."""
    prepare()
    from tests.conformance.released import measure_released

    RELEASED.write_text(json.dumps(measure_released(), indent=1) + "\n", encoding="utf-8")


def measure_models_without_names() -> None:
    """Traces the held-out models again; the figures of the first time stay as they were."""
    prepare()
    from tests.conformance.held_out import measure_held_out

    first = json.loads(HELD_OUT.read_text(encoding="utf-8"))["first"]
    found = {"first": first, **measure_held_out()}
    HELD_OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure_other_libraries() -> None:
    """Traces the models of other libraries again; the figures of the first look stay as they were."""
    prepare()
    from tests.conformance.others import figures, run_others

    path = ROOT / "tests" / "conformance" / "others.json"
    found = {"first": json.loads(path.read_text(encoding="utf-8"))["first"], **figures(run_others())}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


PAGES: dict[str, Callable[[], str]] = {
    "evidence.md": evidence_page,
    "mistakes.md": mistakes_page,
    "checking.md": checking_page,
    "memory.md": memory_page,
    "exporting.md": export_page,
    "target-names.md": target_names,
    "conformance.md": conformance,
    "checkpoints.md": checkpoints,
    "traced-roles.md": traced_roles,
    "held-out.md": held_out,
    **{f"pictures/{name}.svg": partial(picture, name) for name in SHOWN},
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--measure-checkpoints", action="store_true")
    parser.add_argument("--measure-released", action="store_true")
    parser.add_argument("--measure-traces", action="store_true")
    parser.add_argument("--measure-held-out", action="store_true")
    parser.add_argument("--measure-others", action="store_true")
    options = parser.parse_args()
    if options.measure:
        measure(RESULTS, measured_plans, "peft", "transformers")
    if options.measure_checkpoints:
        measure(CHECKPOINTS, measured_checkpoint, "peft", "transformers")
    if options.measure_released:
        measure_released_checkpoints()
    if options.measure_traces:
        measure(TRACES, measured_traces, "transformers", "torch")
    if options.measure_held_out:
        measure_models_without_names()
    if options.measure_others:
        measure_other_libraries()
    for name, page in PAGES.items():
        (ROOT / "docs" / name).parent.mkdir(exist_ok=True)
        (ROOT / "docs" / name).write_text(page(), encoding="utf-8")
