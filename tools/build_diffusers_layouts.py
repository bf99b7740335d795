"""Writes `src/lorascope/data/diffusers_layouts.tsv`: which modules the classes of diffusers are made of.

python tools/build_diffusers_layouts.py            build every model in many variations and write the table
python tools/build_diffusers_layouts.py --check    build the same, and exit with 1 if the table is another

Run it with a Python that has diffusers, such as that of `tests.helpers.venvs.environment("others")`. The format is that
of `layouts.tsv`. Classes of both libraries share names, so that the reader puts `diffusers:` before these.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LAYOUTS = ROOT / "src" / "lorascope" / "data" / "diffusers_layouts.tsv"
RELEASED = ROOT / "tests" / "data" / "diffusers" / "released.json"
sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "tools"))

from build_layouts import _class_rows  # noqa: E402
from layout_records import Recorder  # noqa: E402

Config = dict[str, Any]

# Arguments that decide no module, and those whose numbers may decide whether there is one.
_NO_STRUCTURE = re.compile(r".*(dropout|eps|theta|act_fn|activation|dtype|_mean|_std|scaling_factor|interpolation\w*)")
_COUNTS = re.compile(r"(num|n)_(?!attention|norm|embeds|train|vector|class|heads)\w*(layers|blocks|repeats)|depth\w*")
_PATIENCE = 20
_MOST_WORDS = 24
_BLOCK_TYPES = re.compile(r"(down|up|mid)_block_types?|layers_per_block|block_out_channels")


class DiffusersRecorder(Recorder):
    """Records models of diffusers; only the outermost has a configuration in the file."""

    root: Any = None

    def key(self, module: Any) -> str:
        """The class's name; torch makes a class of its own for each module with a parametrization."""
        name = type(module).__name__
        return name if name.startswith("Parametrized") else super().key(module)

    def is_model(self, module: Any) -> bool:
        """It is the whole, whose configuration is the file's."""
        return module is self.root

    def numbers(self, config: Any, value: int) -> set[str]:
        """Names of a configuration's counts that have a value."""
        return {
            name
            for name, number in config.items()
            if type(number) is int and number == value and _COUNTS.fullmatch(name)
        }

    def facts(self, module: Any) -> dict[str, Any]:
        """What the table keeps of a model as a whole."""
        ignored = sorted(module._keys_to_ignore_on_load_unexpected or ())
        return {"ignored": ignored} if ignored else {"head": "unknown"}


def model_classes() -> dict[str, type]:
    """Every model class of diffusers by its name."""
    import diffusers
    from diffusers import ModelMixin

    names = (name for name in dir(diffusers) if name[0].isupper())
    found = {name: getattr(diffusers, name) for name in names}
    return {
        name: cls
        for name, cls in found.items()
        if isinstance(cls, type) and issubclass(cls, ModelMixin) and cls is not ModelMixin and cls.__name__ == name
    }


def released_configs(name: str = "") -> list[Config]:
    """Released configurations of a class, or of all; without `_class_name`."""
    text: dict[str, Config] = json.loads(RELEASED.read_text(encoding="utf-8"))
    return [
        {key: value for key, value in config.items() if key != "_class_name"}
        for config in text.values()
        if not name or config["_class_name"] == name
    ]


def arguments_of(cls: type) -> Config:
    """The arguments of a class with their defaults."""
    parameters = list(inspect.signature(cls).parameters.values())
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.kind is not p.VAR_KEYWORD}


def shallow(config: Mapping[str, Any]) -> Config:
    """A copy with few layers of each kind, a different number of each."""
    few = itertools.count(2)
    return {
        key: next(few) if _COUNTS.fullmatch(key) and type(value) is int and value > 2 else value
        for key, value in config.items()
    }


def varied(cls: type, config: Mapping[str, Any], words: Mapping[str, list[Any]]) -> Iterator[Config]:
    """Configurations that differ from one in a single argument that may decide which modules there are."""
    for name, value in {**arguments_of(cls), **config}.items():
        if _NO_STRUCTURE.fullmatch(name):
            continue
        others: list[Any] = list(words.get(name, ()))
        if isinstance(value, bool):
            others = [not value]
        elif value is None or type(value) is int:
            others += [8, None, 1, 2, True, False, 0] if value is None else [value + 1, 2 * value, None, 0, 1]
        elif isinstance(value, list | tuple) and len(set(map(str, value))) == 1 and not isinstance(value[0], str):
            others += [value[:1], [*value, *value[:1]]]
        for other in others:
            if other != value or type(other) is not type(value):
                yield {**config, name: other}


def words_of(classes: Mapping[str, type]) -> dict[str, list[Any]]:
    """The words, and tuples of them, that an argument of each name has in any class or released configuration."""
    found: dict[str, dict[str, Any]] = {}
    configs = [arguments_of(cls) for cls in classes.values()] + released_configs()
    literals = ((name, word) for cls in classes.values() for name, word in _literals(cls))
    pairs = itertools.chain(literals, *(config.items() for config in configs))
    for name, value in pairs:
        worded = isinstance(value, str) or (
            isinstance(value, list | tuple) and value and all(isinstance(one, str) for one in value)
        )
        if worded and not _NO_STRUCTURE.fullmatch(name) and not _BLOCK_TYPES.fullmatch(name):
            found.setdefault(name, {})[repr(value)] = value
    return {name: list(values.values())[:_MOST_WORDS] for name, values in found.items()}


def _literals(cls: type) -> Iterator[tuple[str, str]]:
    """(argument, word) that the text of a class compares an argument with."""
    try:
        source = inspect.getsource(sys.modules[cls.__module__])
    except OSError:
        return
    yield from re.findall(r"\b(\w+) == \"([\w-]+)\"", source)


def blocks(config: Mapping[str, Any]) -> Iterator[Config]:
    """UNets of every pair of block types."""
    from diffusers.models.unets import unet_2d_blocks

    if not {"down_block_types", "up_block_types"} <= {*config}:
        return
    source = inspect.getsource(unet_2d_blocks)
    downs = sorted(set(re.findall(r'== "(\w*Down\w*Block\w*)"', source)))
    ups = sorted(set(re.findall(r'== "(\w*Up\w*Block\w*)"', source)))
    channels = {
        "block_out_channels": [320, 640],
        "layers_per_block": 2,
        "attention_head_dim": 8,
        "num_attention_heads": None,
    }
    plain = {"transformer_layers_per_block": 1, "only_cross_attention": False, "cross_attention_dim": 768}
    kept = {**config, **{key: value for key, value in {**channels, **plain}.items() if key in config}}
    for down in downs:
        yield {**kept, "down_block_types": [down, down], "up_block_types": [ups[-1], ups[-1]]}
    for up in ups:
        yield {**kept, "down_block_types": ["DownBlock2D"] * 2, "up_block_types": [up, up]}


def _build(cls: type, config: Config) -> Any:
    import torch

    signal.alarm(_PATIENCE)
    try:
        with torch.device("meta"):
            return cls(**config)
    finally:
        signal.alarm(0)


def _give_up(*_: object) -> None:
    raise TimeoutError(f"not built within {_PATIENCE} seconds")


def record_class(recorder: DiffusersRecorder, cls: type, words: Mapping[str, list[Any]]) -> tuple[int, str]:
    """Records a class in its variations: how many were built, and the last fault where none was."""
    seeds = [{}, *released_configs(cls.__name__)]
    built, fault = 0, ""
    for seed in seeds:
        base = {**arguments_of(cls), **seed}
        few = shallow(base)
        more = varied(cls, few, words) if seed is seeds[0] or not built else iter(())
        for config in itertools.chain([base, few], more, blocks(few) if not seed else ()):
            try:
                recorder.root = _build(cls, config)
            except Exception as error:  # a combination that the class refuses
                fault = f"{type(error).__name__}: {error}"
                continue
            recorder.see(recorder.root)
            built += 1
    return built, fault


def table_text() -> str:
    """The whole table, made anew."""
    import diffusers

    warnings.simplefilter("ignore")
    diffusers.logging.set_verbosity_error()
    signal.signal(signal.SIGALRM, _give_up)
    classes = model_classes()
    words = words_of(classes)
    recorder = DiffusersRecorder()
    builds = 0
    for number, (name, cls) in enumerate(classes.items(), 1):
        built, fault = record_class(recorder, cls, words)
        builds += built
        if not built:
            print(f"\rnot built: {name}: {fault[:100]!r}", file=sys.stderr)
        print(f"\r{number} classes in {builds} variations, {len(recorder.records)} in all", end="", file=sys.stderr)
    print(file=sys.stderr)
    rows = {name: record.json(recorder.records) for name, record in sorted(recorder.records.items())}
    lines = [f"diffusers\t\t{json.dumps(diffusers.__version__)}"]
    lines += (f"classes\t{key}\t{row}" for key, row in _class_rows(rows))
    return "\n" + "\n".join(lines) + "\n"


def main() -> int:
    """Write or compare the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    text = table_text()
    if parser.parse_args().check:
        return int(text != LAYOUTS.read_text(encoding="utf-8"))
    LAYOUTS.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
