"""Writes `src/lorascope/data/gguf_names.json`: from the names of GGUF files to those of the original checkpoints.

python tools/build_gguf_names.py            needs `pip install gguf`, torch and transformers
python tools/build_gguf_names.py --check    builds, says what has no name, writes nothing

Three things are put together, for small models of every row of `ROWS`:

- what the original checkpoint holds: transformers' own `save_pretrained`;
- what llama.cpp calls each tensor: the gguf library's `TensorNameMap`;
- what llama.cpp's converter does to a tensor's shape before that: the edits of `gguf_rows`. Values do not matter here:
  a permuted query matrix and a norm with one added have the shape that they had.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf_rows import ROWS, TINY, Config, Row, Shape

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "src" / "lorascope" / "data" / "gguf_names.json"


def small(row: Row, variant: int = 0) -> Config:
    """The configuration of a small model."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[row.model_type]
    default, renamed = kind().to_dict(), kind.attribute_map or {}
    arguments = {renamed.get(key, key): value for key, value in TINY.items() if renamed.get(key, key) in default}
    if "kv_lora_rank" in default:  # every head has a key of its own there
        arguments["num_key_value_heads"] = arguments["num_attention_heads"]
    arguments |= row.tiny[variant]
    return kind(**{key: value for key, value in arguments.items() if value is not ...})


def class_name(row: Row) -> str:
    """Transformers' class of a row."""
    from transformers.models.auto import modeling_auto

    return row.head or str(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[row.model_type])


def configurations(row: Row) -> list[Config]:
    """The configurations of a row's small models: its variants, and one whose embeddings are not tied."""
    made = [small(row, variant) for variant in range(len(row.tiny))]
    if made[0].tie_word_embeddings and not row.head.endswith("Model") and "output" in known_tensors(row):
        made.append(small(row))
        made[-1].tie_word_embeddings = False
    return made


def saved(row: Row, config: Config) -> dict[str, Shape]:
    """What `save_pretrained` writes of a small model: names to shapes."""
    import transformers

    model = getattr(transformers, class_name(row))(config)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        raw = (Path(folder) / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}


def known_tensors(row: Row) -> set[str]:
    """The tensors that llama.cpp's architecture can have, without their suffixes, `{b}` for the layer."""
    from gguf.constants import MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES

    number = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}[row.architecture]
    return {TENSOR_NAMES[tensor].replace("{bid}", "{b}") for tensor in MODEL_TENSORS[number]}


@dataclasses.dataclass
class Written:
    """What llama.cpp would write for an original checkpoint.

    Attributes:
        tensors: Names in the file to shapes.
        names: The table: original templates to (operation, source, …).
        absent: Original names that the file does not hold, as templates, to the reason.
        faults: What has no name, or a name twice.
    """

    tensors: dict[str, Shape] = dataclasses.field(default_factory=dict)
    names: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    faults: list[str] = dataclasses.field(default_factory=list)


# What llama.cpp names without `.weight`; the norm only in falcon-h1, whose loader expects it so.
BARE = ("blk.{b}.ssm_a", "blk.{b}.ssm_d", "blk.{b}.ffn_norm")
_NUMBERED = re.compile(r"(\.(?:experts|norms|\w+_projections)\.)(\d+)(?=\.)")
_BLOCK = re.compile(r"(?<=\.)\d+(?=\.)")


def written(row: Row, originals: Mapping[str, Shape], config: Config) -> Written:
    """What llama.cpp's converter makes of an original checkpoint, by its names and shapes."""
    from gguf.constants import MODEL_ARCH_NAMES
    from gguf.tensor_mapping import get_tensor_name_map

    number = {name: arch for arch, name in MODEL_ARCH_NAMES.items()}[row.architecture]
    names = get_tensor_name_map(number, 64)
    known = known_tensors(row)
    made = Written()
    stacks: dict[str, list[Shape]] = {}
    for name, shape in originals.items():
        template, block, member = _template(name)
        reason = next((reason for pattern, reason in row.absent if re.fullmatch(pattern, name)), "")
        if reason:
            made.absent[template] = reason
            continue
        edit = next((edit for edit in row.edits if re.fullmatch(edit.pattern, name)), None)
        if edit is not None:
            operation, sources, shapes = edit.operation, edit.sources, edit.shapes(shape, config)
        else:
            plain = _NUMBERED.sub(r"\1", name).replace("..", ".")
            for pattern, replacement in row.renames:
                plain = re.sub(pattern, replacement, plain)
            found = names.get_name(plain, try_suffixes=(".weight", ".bias"))
            if found is None:
                made.faults.append(f"{row.model_type}: no name for {name} {shape}")
                continue
            operation, sources, shapes = "same", (_template(found)[0],), (shape,)
        if member:
            operation = "member"
        for source, one in zip(sources, shapes, strict=True):
            stem, _, suffix = source.rpartition(".")
            if suffix not in ("weight", "bias", "scale") and source in BARE:
                stem = source
            if stem not in known:
                made.faults.append(f"{row.architecture} has no tensor {source} (for {name})")
            concrete = source.replace("{b}", block)
            if member:
                stacks.setdefault(concrete, []).append(one)
            elif concrete in made.tensors:
                made.faults.append(f"{row.model_type}: {concrete} is two originals, one of them {name}")
            made.tensors[concrete] = one
        made.names[template] = (operation, *sources)
    for source, members in stacks.items():
        made.tensors[source] = (len(members), *members[0])
    return made


def template_of(name: str) -> str:
    """A name with `{b}` for its layer and `{e}` for its place in a stack."""
    return _template(name)[0]


def _template(name: str) -> tuple[str, str, str]:
    """A name with `{b}` for its layer and `{e}` for its place in a stack, and the two numbers."""
    member = _NUMBERED.search(name)
    folded = _NUMBERED.sub(r"\1{e}", name)
    block = _BLOCK.search(folded)
    if block:
        folded = folded[: block.start()] + "{b}" + folded[block.end() :]
    return folded, block[0] if block else "", member[2] if member else ""


# GGUF's keys, within the architecture's own, and under which names configurations have them: the first that one has.
KEYS: Mapping[str, tuple[str, ...]] = {
    "embedding_length": ("hidden_size",),
    "block_count": ("num_hidden_layers",),
    "decoder_block_count": ("num_decoder_layers",),
    "feed_forward_length": ("intermediate_size", "d_ff", "n_inner", "ffn_hidden_size", "hidden_dim"),
    "context_length": ("max_position_embeddings",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads", "num_kv_heads"),
    "attention.key_length": ("head_dim", "d_kv"),
    "attention.sliding_window": ("sliding_window",),
    "expert_count": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "expert_used_count": ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts", "moe_k"),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "expert_shared_count": ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"),
    "expert_shared_feed_forward_length": ("shared_expert_intermediate_size", "shared_intermediate_size"),
    "leading_dense_block_count": ("first_k_dense_replace", "num_dense_layers"),
}
# With a latent attention the file describes the form that llama.cpp computes, not the original's.
LATENT_KEYS: Mapping[str, tuple[str, ...]] = {
    "attention.q_lora_rank": ("q_lora_rank",),
    "attention.kv_lora_rank": ("kv_lora_rank",),
    "attention.value_length_mla": ("v_head_dim",),
    "rope.dimension_count": ("qk_rope_head_dim",),
}
_NOT_LATENT = ("attention.head_count_kv", "attention.key_length")


def keys_of(config: Config) -> dict[str, str]:
    """GGUF's keys that say something which a configuration has, to the configuration's names for it."""
    own, renamed = config.to_dict(), config.attribute_map or {}
    wanted = dict(KEYS)
    if "kv_lora_rank" in own and config.model_type != "minicpm3":
        wanted = {key: names for key, names in KEYS.items() if key not in _NOT_LATENT} | dict(LATENT_KEYS)
    keys = {}
    for key, names in wanted.items():
        found = next((renamed.get(name, name) for name in names if renamed.get(name, name) in own), None)
        if found:
            keys[key] = found
    return keys


def build() -> tuple[dict[str, Any], list[str]]:
    """The table, and what is wrong with it."""
    import importlib.metadata

    import transformers
    from architectures import mend_torchvision

    mend_torchvision()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    families, faults = [], []
    for row in ROWS:
        names: dict[str, tuple[str, ...]] = {}
        absent: dict[str, str] = {}
        for config in configurations(row):
            made = written(row, saved(row, config), config)
            names |= made.names
            absent |= made.absent
            faults += made.faults
        plain = [rule[1] for rule in names.values() if rule[0] == "same"]
        faults += [f"{row.model_type}: {one} is several originals" for one in set(plain) if plain.count(one) > 1]
        rules = [(original, *rule) for original, rule in names.items() if rule[0] != "same"]
        rules += row.others
        family = {
            "architecture": row.architecture,
            "model_type": row.model_type,
            "class": class_name(row),
            "also": row.also,
            "holds": row.holds,
            "where": row.where,
            "note": row.note,
            "keys": keys_of(configurations(row)[0]) | dict(row.keys),
            "absent": absent,
            "names": {rule[1]: original for original, rule in names.items() if rule[0] == "same"},
            "rules": rules,
        }
        families.append({key: value for key, value in family.items() if value})
        print(f"{row.architecture} {row.model_type}: {len(names)}", file=sys.stderr)
    versions = {name: importlib.metadata.version(name) for name in ("gguf", "transformers")}
    return {"versions": versions, "families": families}, faults


def table_text(table: Mapping[str, Any]) -> str:
    """The file: one line for each family, so that a change is readable in a diff."""
    lines = ",\n".join(json.dumps(family, separators=(",", ":")) for family in table["families"])
    return f'{{"versions": {json.dumps(table["versions"])},\n"families": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    only_check = parser.parse_args().check
    built, wrong = build()
    if wrong:
        sys.exit("\n".join(wrong))
    if not only_check:
        TABLE.write_text(table_text(built), encoding="utf-8")
