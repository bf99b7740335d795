"""Builds `src/lorascope/data/servers/*.json` from unpacked releases of vLLM and SGLang, read and never imported.

    python tools/build_server_facts.py FOLDER…

Each folder is an unpacked wheel (with its `*.dist-info`). The newest release of each server is written in full, every
older one as what differs from the next newer. With `--modules FILE…` the modules that vLLM's own code wrapped
(`tests/data/record_vllm.py`) are put beside them, small.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DATA = ROOT / "src" / "lorascope" / "data" / "servers"

LAYERS = {
    "QKVParallelLinear",
    "MergedColumnParallelLinear",
    "ColumnParallelLinear",
    "RowParallelLinear",
    "ReplicatedLinear",
    "VocabParallelEmbedding",
    "ParallelLMHead",
}
# What an adapter's names are never in need of: transformers' renaming of checkpoints older than its modules.
UNUSED = ("orig_to_new_renaming",)

Classes = dict[str, list[tuple[Path, ast.ClassDef]]]


def release_key(release: str) -> tuple[int, ...]:
    """Releases in order; a post release comes after its own."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file; an empty one if it is not there."""
    return ast.parse(path.read_text(encoding="utf-8-sig")) if path.is_file() else ast.Module([], [])


def literal(node: ast.expr | None) -> Any:
    """The value of a literal, or its source text with a question mark in front."""
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except ValueError:
        return f"?{ast.unparse(node)}"


def named(tree: ast.AST, name: str) -> Iterator[ast.expr]:
    """Whatever is assigned to a name anywhere in a tree."""
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            yield from (node.value for target in targets if ast.unparse(target) == name)


def classes_of(folders: list[Path]) -> Classes:
    """Every class of some folders by name."""
    found: Classes = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, []).append((path, node))
    return found


def lineage(classes: Classes, name: str, path: Path | None, seen: set[str]) -> Iterator[tuple[Path, ast.ClassDef]]:
    """A class and its bases, nearest first; among classes of one name those of the same file come first."""
    if name in seen:
        return
    seen.add(name)
    rows = sorted(classes.get(name, ()), key=lambda row: row[0] != path)
    if not rows:
        return
    yield rows[0]
    for base in rows[0][1].bases:
        head = base.value if isinstance(base, ast.Subscript) else base
        yield from lineage(classes, ast.unparse(head).rpartition(".")[2], rows[0][0], seen)


def attribute(family: list[tuple[Path, ast.ClassDef]], name: str) -> ast.expr | None:
    """What the nearest class of a family assigns to a class attribute."""
    for _, node in family:
        for statement in node.body:
            if isinstance(statement, ast.Assign) and any(ast.unparse(target) == name for target in statement.targets):
                return statement.value
            if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == name and statement.value:
                return statement.value
    return None


def vllm_facts(package: Path) -> dict[str, Any]:
    """What a release of vLLM says about adapters."""
    configs = [
        parsed(path) for path in (package / "config/lora.py", package / "config.py", package / "config/__init__.py")
    ]
    ranks: Any = None
    for tree in configs:
        for name in ("MaxLoRARanks", "possible_max_ranks"):
            for value in named(tree, name):
                ranks = ranks or literal(value.slice if isinstance(value, ast.Subscript) else value)
    helper_tree = parsed(package / "lora/peft_helper.py")
    helper = next(n for n in ast.walk(helper_tree) if isinstance(n, ast.ClassDef) and n.name == "PEFTHelper")
    fields = [ast.unparse(s.target) for s in helper.body if isinstance(s, ast.AnnAssign)]
    inits: list[str] = []
    saved: list[str] = []
    for node in ast.walk(helper):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In) and "init" in ast.unparse(node.left):
            inits = list(literal(node.comparators[0]))
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.NotIn) and ast.unparse(node.left) == "m":
            saved = list(literal(node.comparators[0]))
    loader = next(p for p in (package / "lora/lora_model.py", package / "lora/models.py") if p.is_file())
    lora_text = "".join(path.read_text(encoding="utf-8") for path in sorted((package / "lora").glob("*.py")))
    arguments = (package / "engine/arg_utils.py").read_text(encoding="utf-8")
    rules = {
        "ranks": list(ranks),
        "fields": [name for name in fields if not name.startswith("vllm_")],
        "inits": inits,
        "saved": saved,
        "regex": "is_regex_target_modules" in loader.read_text(encoding="utf-8"),
        "fused_experts": "base_layer" in loader.read_text(encoding="utf-8"),
        "mixed_experts": "enable_mixed_moe_lora_format" in lora_text,
        "bias_flag": "--enable-lora-bias" in arguments,
        "tower_flag": "--enable-tower-connector-lora" in arguments,
        "text_names": "_get_text_lora_names" in lora_text,
        "extra_vocabulary": "lora_extra_vocab_size" in "".join(map(ast.unparse, configs)),
        "skips_base_embeddings": ".lm_head.base_layer.weight" in lora_text,
    }
    models = package / "model_executor/models"
    classes = classes_of([models])
    registry = parsed(models / "registry.py")
    table: dict[str, Any] = {}
    backend: list[str] = []
    for node in ast.walk(registry):
        if not isinstance(node, ast.Dict):
            continue
        for key, entry in zip(node.keys, node.values, strict=True):
            if not (isinstance(key, ast.Constant) and isinstance(entry, ast.Tuple) and len(entry.elts) == 2):
                continue
            where, name = (literal(one) for one in entry.elts)
            if isinstance(key.value, str) and isinstance(name, str) and isinstance(where, str):
                if where == "transformers" or where.startswith("transformers"):
                    backend.append(key.value)
                    continue
                table[key.value] = vllm_row(classes, name, models / f"{where}.py")
    return {"rules": rules, "models": dict(sorted(table.items())), "transformers_backend": sorted(set(backend))}


def vllm_row(classes: Classes, name: str, path: Path) -> dict[str, Any]:
    """What a model class says about adapters."""
    family = list(lineage(classes, name, path, set()))
    supported = any(node.name == "SupportsLoRA" for _, node in family)
    row: dict[str, Any] = {"lora": supported}
    if not supported:
        return row
    own = [one for one in family if one[1].name != "SupportsLoRA"]
    packed = literal(attribute(own, "packed_modules_mapping"))
    row["packed"] = packed if packed else {}
    embeddings = literal(attribute(own, "embedding_modules"))
    row["embedding"] = sorted(embeddings) if isinstance(embeddings, dict | list) else embeddings
    for key, attribute_name in (("three_d", "is_3d_moe_weight"), ("tower", "supports_tower_connector_lora")):
        row[key] = literal(attribute(own, attribute_name)) is True
    mapper = attribute(own, "hf_to_vllm_mapper")
    row["mapper"] = hashlib.sha256(ast.unparse(mapper).encode()).hexdigest()[:8] if mapper is not None else ""
    return {key: value for key, value in row.items() if value not in (None, {}, [], False, "")}


def sglang_facts(package: Path) -> dict[str, Any]:
    """What a release of SGLang says about adapters."""
    server = package / "srt"
    trees = [
        parsed(path)
        for path in (
            server / "utils/common.py",
            server / "utils.py",
            server / "server_args.py",
            server / "lora/utils.py",
        )
    ]
    values = [value for tree in trees for value in named(tree, "SUPPORTED_LORA_TARGET_MODULES")]
    mapping = list(named(trees[-1], "params_mapping"))
    lora_text = "".join(path.read_text(encoding="utf-8") for path in sorted((server / "lora").glob("*.py")))
    rules = {
        "targets": sorted(literal(values[0])) if values else [],
        "stacked": literal(mapping[0]) if mapping and isinstance(literal(mapping[0]), dict) else {},
        "refuses_dora": "doesn't support DoRA" in lora_text,
        "rslora": "use_rslora" in lora_text,
        "patterns": "rank_pattern" in lora_text,
        "all_linear": "all-linear" in lora_text,
        "strict": "strict_loading" in lora_text,
        "embeddings": "embed_tokens" in (server / "lora/lora.py").read_text(encoding="utf-8"),
        "experts": "moe" in (server / "lora/mem_pool.py").read_text(encoding="utf-8"),
        "sized": sized_names(trees[-1]),
        "dotted": "base_name" in (server / "lora/utils.py").read_text(encoding="utf-8"),
    }
    table: dict[str, Any] = {}
    classes = classes_of([server / "models"])
    for path in sorted((server / "models").rglob("*.py")):
        tree = parsed(path)
        for value in named(tree, "EntryClass"):
            for node in value.elts if isinstance(value, ast.List | ast.Tuple) else [value]:
                name = ast.unparse(node)
                own = next((n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name), None)
                row: dict[str, Any] = {"layers": sorted(set(layers_of(tree)))}
                if own is None:
                    row["sized"] = ["?"]
                else:
                    methods = {s.name for s in own.body if isinstance(s, ast.FunctionDef)}
                    chosen = literal(next(named(own, "supported_lora_modules"), None))
                    if chosen:
                        row["modules"] = chosen
                    row["filter"] = "should_apply_lora" in methods
                    row["sized"] = class_sizes(lineage(classes, name, path, set()), tree)
                table[name] = {key: value for key, value in row.items() if value}
    return {"rules": rules, "models": dict(sorted(table.items()))}


SIZES = ("get_hidden_dim", "get_default_hidden_dim")


def sized_names(tree: ast.AST) -> list[str]:
    """The modules whose sizes a `get_hidden_dim` knows: what it compares `module_name` with.

    One that asks the default for the rest has `*` among them.
    """
    names: set[str] = set()
    for method in ast.walk(tree):
        if isinstance(method, ast.FunctionDef) and method.name in SIZES:
            for node in ast.walk(method):
                if isinstance(node, ast.Compare) and ast.unparse(node.left) == "module_name":
                    values = literal(node.comparators[0])
                    names.update([values] if isinstance(values, str) else values)
                if isinstance(node, ast.Call) and method.name == SIZES[0] and ast.unparse(node.func) == SIZES[1]:
                    names.add("*")
    return sorted(name for name in names if not name.startswith("?"))


def class_sizes(family: Iterable[tuple[Path, ast.ClassDef]], file: ast.Module) -> list[str]:
    """The same of a model's class; of its whole file where it hands the question on."""
    for _, node in family:
        if any(isinstance(method, ast.FunctionDef) and method.name == SIZES[0] for method in node.body):
            return sized_names(node) or sized_names(file) or ["?"]
    return []


def layers_of(tree: ast.Module) -> Iterator[str]:
    """Names under which the classes of a file hold SGLang's own linear layers, embeddings and heads."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and len(node.targets) == 1:
            target, made = node.targets[0], ast.unparse(node.value.func)
            if isinstance(target, ast.Attribute) and made in LAYERS:
                yield target.attr


def differences(newer: dict[str, Any], older: dict[str, Any]) -> dict[str, Any]:
    """What to change in the newer facts to get the older ones; None takes a key away."""
    changes: dict[str, Any] = {}
    for part in newer:
        if not isinstance(newer[part], dict):
            if newer[part] != older.get(part):
                changes[part] = older.get(part)
            continue
        inner = {key: older[part].get(key) for key in newer[part] | older[part]}
        inner = {key: value for key, value in inner.items() if value != newer[part].get(key)}
        if inner:
            changes[part] = inner
    return changes


def small_modules(paths: list[Path]) -> dict[str, Any]:
    """The recorded modules of every architecture, without what can be told from the rest."""
    found: dict[str, Any] = {}
    for path in paths:
        for architecture, row in json.loads(path.read_text(encoding="utf-8")).items():
            if "modules" in row and "modules" not in found.get(architecture, {}):
                kept = {k: v for k, v in row.items() if v not in ({}, [], False) and k != "class"}
                if "mapper" in kept:
                    kept["mapper"] = {k: v for k, v in kept["mapper"].items() if k not in UNUSED}
                kept["modules"] = sorted(row["modules"])
                if "towers" in row:
                    kept["towers"] = sorted(row["towers"])
                found[architecture] = kept
            elif "unsupported" in row:
                found.setdefault(architecture, {"unsupported": True})
    return dict(sorted(found.items()))


def main() -> int:
    """Read every folder, and write a file for each server."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--modules", nargs="*", type=Path, default=[])
    parser.add_argument("--release", default="", help="the release that the modules were recorded with")
    arguments = parser.parse_args()
    DATA.mkdir(parents=True, exist_ok=True)
    for server, read in (("vllm", vllm_facts), ("sglang", sglang_facts)):
        facts = {}
        for folder in arguments.folders:
            for info in folder.glob(f"{server}-*.dist-info"):
                facts[info.name.removeprefix(f"{server}-").removesuffix(".dist-info")] = read(folder / server)
        order = sorted(facts, key=release_key, reverse=True)
        if not order:
            continue
        content: dict[str, Any] = {"releases": order, "newest": facts[order[0]], "older": {}}
        for newer, older in itertools.pairwise(order):
            content["older"][older] = differences(facts[newer], facts[older])
        _write(DATA / f"{server}.json", content)
    if arguments.modules:
        _write(DATA / "vllm_modules.json", {"release": arguments.release, "models": small_modules(arguments.modules)})
    return 0


def _write(path: Path, content: dict[str, Any]) -> None:
    """One line per model or release: small, and readable in a diff."""
    text = json.dumps(content, separators=(",", ":"))
    text = re.sub(r'(?<=[{,])("[A-Z]\w+":[{n])', r"\n\1", text)
    text = re.sub(r'(?<=[{,])("\d+\.\d[\w.]*":\{)', r"\n\1", text)
    path.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(f"{path.relative_to(ROOT)}: {len(text):,} bytes\n")


if __name__ == "__main__":
    raise SystemExit(main())
