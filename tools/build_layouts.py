"""Writes `src/lorascope/data/layouts.tsv`: which modules the classes of transformers are made of.

python tools/build_layouts.py            build every model in many variations and write the table
python tools/build_layouts.py --check    build the same, and exit with 1 if the table is another
python tools/build_layouts.py --refusals tell anew for every row whether PEFT can wrap the model (half a minute)
python tools/build_layouts.py --only gemma4 t5    make the rows of these model types anew

A checkpoint's names do not say what a module is: `mlp.gate.weight` is a linear layer in one model and a router that PEFT
refuses in the next. The table says it, class by class, as seen on models that transformers built on the meta device.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LAYOUTS = ROOT / "src" / "lorascope" / "data" / "layouts.tsv"
sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT))

from layout_configs import configs  # noqa: E402
from layout_merge import merged  # noqa: E402
from layout_records import Recorder  # noqa: E402
from layout_variations import buildables  # noqa: E402

from lorascope.sources.dimensions import NAMES  # noqa: E402

# Models that a process builds before it hands over what it saw.
_AT_ONCE = 24
# Seconds for one model: modeling code that divides by what a variation makes zero may never end.
_PATIENCE = 20


def table(model_types: frozenset[str] = frozenset(), jobs: int = 1) -> dict[str, Any]:
    """The whole table, made anew.

    Args:
        model_types: Only these, if any are given.
        jobs: Processes to build models in.
    """
    import transformers
    from architectures import HEADS
    from transformers.models.auto import modeling_auto

    from lorascope.sources.transformers.meta_model import moe_conversion

    _prepare()
    count = len(list(buildables(lambda: 0, model_types)))
    parts = [(start, min(start + _AT_ONCE, count), model_types) for start in range(0, count, _AT_ONCE)]
    recorder = Recorder()
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=_prepare) as pool:
        facts = pool.apply_async(configs, [[name for names in NAMES.values() for name in names]])
        for (_, end, _), seen in zip(parts, pool.imap(_seen, parts), strict=True):  # in order, as if built one by one
            recorder.merge(seen)
            print(f"\r{end} of {count} models, {len(recorder.records)} classes", end="", file=sys.stderr)
        print(file=sys.stderr)
        found = facts.get()
    return {
        "transformers": transformers.__version__,
        "moe": {name: pattern for name in found if (pattern := moe_conversion(name))},
        "heads": {head: _first(getattr(modeling_auto, mapping)) for head, mapping in HEADS.items()},
        "base": _first(modeling_auto.MODEL_MAPPING_NAMES),
        "configs": found,
        "classes": {name: record.json(recorder.records) for name, record in sorted(recorder.records.items())},
    }


def _prepare() -> None:
    import transformers
    from architectures import mend_torchvision

    transformers.logging.set_verbosity(transformers.logging.CRITICAL)  # configurations say what they refuse
    warnings.simplefilter("ignore")
    mend_torchvision()


def _seen(part: tuple[int, int, frozenset[str]]) -> Recorder:
    """What the models of one stretch of the list are made of."""
    from lorascope.sources.transformers.meta_model import build

    start, end, model_types = part
    recorder = Recorder()
    signal.signal(signal.SIGALRM, _give_up)
    for model in itertools.islice(buildables(lambda: recorder.novelties, model_types), start, end):
        name = model.architecture
        try:
            for index, config in enumerate(model.configurations()):
                try:
                    signal.alarm(_PATIENCE)
                    recorder.see(build(config, architecture=name))
                except Exception:
                    if index == 0:
                        raise
                finally:
                    signal.alarm(0)
        except Exception as error:  # a class without usable defaults has no row
            print(f"\rnot built: {name}: {str(error)[:100]!r}", file=sys.stderr)
    return recorder


def _give_up(*_: object) -> None:
    raise TimeoutError(f"not built within {_PATIENCE} seconds")


def _first(mapping: Any) -> dict[str, str]:
    return {name: found[0] if isinstance(found, list | tuple) else found for name, found in mapping.items()}


def layouts_text(found: dict[str, Any]) -> str:
    """The text of the table: a section, a key and JSON on each line.

    A reader parses only the lines that it needs, and a diff is readable.
    """
    lines = [f"transformers\t\t{json.dumps(found['transformers'])}", f"base\t\t{_compact(found['base'])}"]
    for section in ("heads", "moe", "configs"):
        lines += (f"{section}\t{key}\t{_compact(value)}" for key, value in found[section].items())
    lines += (f"classes\t{key}\t{row}" for key, row in _class_rows(found["classes"]))
    return "\n" + "\n".join(lines) + "\n"


def _class_rows(classes: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(key, row) of each class: slots by number once they are named, and of classes built alike the first one's key.

    Models keep rows of their own, among which those of one model type are searched for.
    """
    first: dict[str, str] = {}
    for key, value in classes.items():
        row = dict(value)
        numbers = {slot: number for number, slot in enumerate(row.get("slots", ()))}
        for field in ("required", "bare"):
            if field in row:
                row[field] = [numbers[slot] for slot in row[field]]
        if "variants" in row:
            row["variants"] = [[[numbers[slot] for slot in slots] for slots in pair] for pair in row["variants"]]
        if "slots" in row:
            row["slots"] = {slot: keys[0] if len(keys) == 1 else keys for slot, keys in row["slots"].items()}
        text = _compact(row)
        yield key, text if "model" in row or text not in first else _compact(first[text])
        first.setdefault(text, key)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def retold(text: str) -> str:
    """The table with every row's `refusal` made anew, which does not take the many variations of a model.

    A class that transformers does not build by itself is judged by its own attributes.
    """
    import transformers
    from architectures import Entry, entries, layouts, mend_torchvision

    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    mend_torchvision()
    promised = {entry.architecture: entry for entry in (*entries(), *layouts())}
    lines = []
    for line in text.split("\n"):
        section, _, rest = line.partition("\t")
        key, _, value = rest.partition("\t")
        row = json.loads(value) if section == "classes" else {}
        facts = row.get("model") if isinstance(row, dict) else None
        # Only where the input embeddings have no name is there a fault that PEFT could meet.
        if facts and not facts.get("input"):
            name = key.partition("~")[0]
            entry = promised.get(name) or Entry("unknown", facts.get("model_type", ""), name)
            told = _refusal(entry, facts)
            row["model"] = {
                field: told if field == "refusal" else facts.get(field)
                for field in (
                    "model_type",
                    "base",
                    "ties",
                    "ignored",
                    "input",
                    "output",
                    "refusal",
                    "generates",
                    "head",
                )
            }
            row["model"] = {field: one for field, one in row["model"].items() if one}
            line = f"{section}\t{key}\t{_compact(row)}"
        lines.append(line)
    return "\n".join(lines)


def _refusal(entry: Any, facts: Mapping[str, Any]) -> str:
    """Why PEFT cannot wrap the model of an entry, or empty."""
    from lorascope.sources.transformers.meta_model import build, embedding_names

    signal.signal(signal.SIGALRM, _give_up)
    try:
        signal.alarm(_PATIENCE)
        return embedding_names(build(entry.config(), architecture=entry.architecture)).refusal
    except Exception:  # a part of other models alone: by its class, of which a dictionary of ties makes PEFT ask
        return str(facts.get("refusal", "")) if facts.get("ties") else ""
    finally:
        signal.alarm(0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--refusals", action="store_true")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="TYPE", help="model types; all others stay as they are"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes to build in")
    parser.add_argument("--output", type=Path, default=LAYOUTS)
    options = parser.parse_args()
    if options.refusals:
        options.output.write_text(retold(LAYOUTS.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    text = layouts_text(table(frozenset(options.only), options.jobs))
    if options.only:
        text = merged(LAYOUTS.read_text(encoding="utf-8"), text, frozenset(options.only))
    if options.check:
        return int(text != LAYOUTS.read_text(encoding="utf-8"))
    options.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
