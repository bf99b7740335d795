"""Maps from headers alone: 291 and 91,991 safetensors tensors and a GGUF file, on a disk and on a Hub.

The checkpoints have the names, shapes and files of Llama-2-7B and DeepSeek-V3 and no numbers; the Hub is a server in this
process. Needs the extra `test`; peers that are not installed are skipped. The first lines say whether the maps are those of
transformers' own modules. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from checkpoints import write_deepseek, write_gguf, write_llama
from processes import (
    Process,
    environment,
    lorascope,
    parse_options,
    print_processes,
    processor_seconds,
    python,
    with_transformers,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lorascope import ModelMap, inspect
from tests.helpers.hub_server import Repo, Server

PARTS: dict[str, Callable[[ModelMap], object]] = {
    "modules": lambda model: [(one.name, one.class_name, one.kind, one.parameters) for one in model.modules],
    "weights": lambda model: [(one.name, one.kind, one.shape, one.role, one.layer) for one in model.weights],
    "ties": lambda model: model.ties,
}
AIMS = {"llama": 8, "deepseek_v3": 30}
# Exit code 1 is a finding, not a failure: DeepSeek-V3 has a layer that transformers does not load.
_CODES = (0, 1)
_JSON = """
import json, pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("*.safetensors"):
    with path.open("rb") as file:
        json.loads(file.read(int.from_bytes(file.read(8), "little")))
"""
_SAFE_OPEN = """
import pathlib, sys, safetensors
for path in pathlib.Path(sys.argv[1]).glob("*.safetensors"):
    with safetensors.safe_open(path, "np") as file:
        for name in file.keys():
            tensor = file.get_slice(name)
            tensor.get_shape(), tensor.get_dtype()
"""
_FROM_CONFIG = """
import sys, torch, transformers
config = transformers.AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=False)
with torch.device("meta"):
    transformers.AutoModelForCausalLM.from_config(config)
"""
_SOURCE_CONFIG = "from lorascope.__main__ import start; sys.exit(start())"
_GGUF_DUMP = "from gguf.scripts.gguf_dump import main; main()"
_METADATA = "import sys; from huggingface_hub import get_safetensors_metadata; get_safetensors_metadata(sys.argv[1])"
_ESTIMATE = "from accelerate.commands.accelerate_cli import main; main()"


def main() -> None:
    options = parse_options(__doc__)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folders = {"llama": write_llama(root / "llama"), "deepseek_v3": write_deepseek(root / "deepseek_v3")}
        for model_type, folder in folders.items():
            print(agreement(inspect(folder), inspect(model_type)))
        rows = {title: row for model_type, path in folders.items() for title, row in on_disk(model_type, path)}
        rows |= dict(of_gguf(root / "llama.gguf"))
        print()
        print_processes(rows, options)
        on_hub(folders, root, options)


def agreement(model: ModelMap, builtin: ModelMap) -> str:
    """Whether a map has the modules and roles of the built-in one."""
    different = [name for name, part in PARTS.items() if part(model) != part(builtin)]
    verdict = f"DIFFERS from the built-in map in {', '.join(different)}" if different else "as in the built-in map"
    return f"{model.architecture}, {len(model.modules)} modules and {len(model.weights)} weights: {verdict}"


def on_disk(model_type: str, folder: Path) -> Iterator[tuple[str, Process]]:
    """The rows of one safetensors checkpoint."""
    path, own = str(folder), f"{model_type}: inspect"
    slow = f"{model_type}: inspect --source config"
    yield own, Process(lorascope("inspect", path), aim=AIMS[model_type], codes=_CODES)
    yield f"{model_type}: json.loads of the headers", Process(python(_JSON, path), peer_of=own)
    yield (
        f"{model_type}: safetensors.safe_open",
        Process(python(_SAFE_OPEN, path), peer_of=own, needs=("safetensors", "numpy")),
    )
    heavy = functools.partial(Process, needs=("torch", "transformers"), heavy=True)
    yield slow, heavy(with_transformers(_SOURCE_CONFIG, "inspect", path, "--source", "config"))
    yield f"{model_type}: from_config on meta", heavy(with_transformers(_FROM_CONFIG, path), peer_of=slow)


def of_gguf(path: Path) -> Iterator[tuple[str, Process]]:
    """The rows of the GGUF file, which takes the package gguf to write."""
    dump = Process(python(_GGUF_DUMP, str(path)), peer_of="llama GGUF: inspect", needs=("gguf",))
    if not dump.missing:
        write_gguf(path)
        yield "llama GGUF: inspect", Process(lorascope("inspect", str(path)))
    yield "llama GGUF: gguf-dump", dump


def on_hub(folders: Mapping[str, Path], root: Path, options: argparse.Namespace) -> None:
    """The table of the same checkpoints read from a Hub, with an empty cache each time."""
    # What accelerate asks the Hub beside the files.
    facts = {"library_name": "transformers", "config": {"model_type": "llama"}}
    repositories = {f"someone/{name}": Repo.of_folder(path, facts=facts) for name, path in folders.items()}
    homes = (str(root / f"home-{number}") for number in itertools.count())
    with Server(repositories) as hub:

        def variables() -> dict[str, str]:
            return {**environment(), "HF_ENDPOINT": hub.endpoint, "HF_HOME": next(homes)}

        rows = {"import huggingface_hub.HfApi": Process(python("from huggingface_hub import HfApi"))}
        for repository in repositories:
            name = repository.partition("/")[2]
            own = f"Hub, {name}: inspect"
            rows[own] = Process(lorascope("inspect", repository), codes=_CODES)
            rows[f"Hub, {name}: get_safetensors_metadata"] = Process(python(_METADATA, repository), peer_of=own)
        # Not of DeepSeek-V3, whose own code it would run.
        rows["Hub, llama: accelerate estimate-memory"] = Process(
            with_transformers(_ESTIMATE, "estimate-memory", "someone/llama"),
            peer_of="Hub, llama: inspect",
            needs=("accelerate", "transformers"),
            heavy=True,
        )
        print()
        print_processes(rows, options, variables)
        print("\n| process | requests | megabytes |\n|---|---|---|")
        for title, row in rows.items():
            if title.startswith("Hub") and options.only in title and not (row.missing or row.heavy):
                requests, sent = len(hub.requests), hub.sent
                processor_seconds(row, variables())
                print(f"| {title} | {len(hub.requests) - requests} | {(hub.sent - sent) / 1e6:.2f} |")


if __name__ == "__main__":
    main()
