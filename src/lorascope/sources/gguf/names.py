"""The original checkpoint of a GGUF file, by a packaged table.

`tools/build_gguf_names.py` makes the table; `docs/gguf.md` says what it rests on. Where the table has no row, a file's
own vocabulary still says what most tensors do (`gguf_role`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.errors import LorascopeError
from lorascope.packaged import load_json
from lorascope.sources.checkpoint.types import Stored
from lorascope.sources.files.gguf_header import Entry, Gguf

Shape = tuple[int, ...]

_MOST_MEMBERS = 16_384  # of one stack of experts; the largest models have 512
_MOST_TENSORS = 1_000_000  # of the original; DeepSeek-V3 has 91,000
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_HEADLESS = re.compile(r"(?<!LMHead)Model$")  # classes without an output matrix
_PLAIN = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8"})

# Tensors that the original does not have, by name or by their last two words, with the reason.
_HELPERS: Mapping[str, str] = {
    "rope_freqs": "rotary frequencies, which transformers computes",
    "rope_factors_long": "rotary factors, which are in the original's configuration",
    "rope_factors_short": "rotary factors, which are in the original's configuration",
    "attn_rot_embd": "rotary frequencies, which transformers computes",
}
_PREDICTS_FURTHER = "part of a layer that predicts further tokens, which transformers' model does not have"
_SCALE = "scale of the packed weight beside it"

_COMMON_KEYS: Mapping[str, str] = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
}

_TEXT_ROLES: Mapping[str, str] = {
    "token_embd": "embedding.token",
    "position_embd": "embedding.position",
    "token_types": "embedding.type",
    "per_layer_token_embd": "embedding.token",
    "output": "head.lm",
    "cls": "head",
    "cls.output": "head",
    **{f"attn_{part}": f"attention.self.{part}" for part in ("q", "k", "v", "qkv", "q_a", "q_b", "gate")},
    "attn_output": "attention.self.o",
    "attn_o": "attention.self.o",
    "attn_kv_a_mqa": "attention.self.kv_a",
    "attn_kv_b": "attention.self.kv_b",
    "attn_k_b": "attention.self.kv_b",
    "attn_v_b": "attention.self.kv_b",
    **{f"cross_attn_{part}": f"attention.cross.{part}" for part in "qkvo"},
    **{f"ffn_{part}": f"ffn.dense.{part}" for part in ("gate", "up", "down")},
    **{f"ffn_{part}_exps": f"ffn.expert.{part}" for part in ("gate", "up", "down", "gate_up")},
    **{f"ffn_{part}_chexps": f"ffn.expert.{part}" for part in ("gate", "up", "down")},
    **{f"ffn_{part}_shexp": f"ffn.shared.{part}" for part in ("gate", "up", "down")},
    "ffn_gate_inp": "router",
    "ffn_gate_inp_shexp": "router",
    "indexer.attn_k": "indexer.k",
    "indexer.attn_q_b": "indexer.q",
    "indexer.proj": "indexer.weight",
    "ssm_in": "mixer.in",
    "ssm_x": "mixer.x",
    "ssm_dt": "mixer.dt",
    "ssm_out": "mixer.out",
    "shortconv.in_proj": "mixer.in",
    "shortconv.out_proj": "mixer.out",
}
_TOWER_ROLES: Mapping[str, str] = {
    **{f"attn_{part}": f"attention.self.{part}" for part in ("q", "k", "v", "qkv")},
    "attn_out": "attention.self.o",
    **{f"ffn_{part}": f"ffn.dense.{part}" for part in ("gate", "up", "down")},
    "patch_embd": "embedding.patch",
    "position_embd": "embedding.position",
}
_STACKS = {"blk": "text", "enc": "text.encoder", "dec": "text.decoder", "v": "vision", "a": "audio"}


@dataclasses.dataclass(frozen=True)
class GgufCheckpoint:
    """The original checkpoint, as far as a GGUF file tells.

    Attributes:
        config: As much of the original's `config.json` as the file tells.
        tensors: The original's tensors by name; under the file's own names where `names_only`.
        unexplained: Tensors of the file that have no original.
        dropped: Tensors of the file that the original does not hold, each with the reason.
        absent: Tensors that the original has and the file does not, as patterns, each with the reason.
        names_only: The architecture is not in the table: the original's names are not known.
        notes: Notes on it.
    """

    config: dict[str, Any]
    tensors: dict[str, Stored]
    unexplained: tuple[str, ...]
    dropped: Mapping[str, str]
    absent: Mapping[str, str]
    names_only: bool
    notes: tuple[str, ...]


def original_checkpoint(gguf: Gguf) -> GgufCheckpoint:
    """The original checkpoint of a GGUF file.

    Raises:
        LorascopeError: It holds no model but an adapter, or more experts than any model has.
    """
    kind = gguf.metadata.get("general.type", "model")
    if kind == "adapter":
        raise LorascopeError(
            "it holds an adapter, not a model", where=gguf.where, hint="Give the model that the adapter was made for."
        )
    dropped = dict(_dropped(gguf))
    kept = {name: entry for name, entry in gguf.tensors.items() if name not in dropped}
    places = _places(kept)
    family = next((family for family in _table()["families"] if _fits(family, gguf, places)), None)
    if family is None:
        tensors = {name: _stored(name, shape, (name,), kept) for name, (shape, _) in kept.items()}
        return GgufCheckpoint(_config(gguf, _COMMON_KEYS), tensors, (), dropped, {}, True, (_unknown(gguf),))
    tensors, used = _original_tensors(family, kept, places, gguf.where)
    unexplained = tuple(sorted(kept.keys() - used))
    notes = tuple(_notes(family))
    config = _original_config(family, gguf)
    return GgufCheckpoint(config, tensors, unexplained, dropped, family.get("absent", {}), False, notes)


def gguf_role(name: str) -> str:
    """Role of a tensor by GGUF's own vocabulary.

    Args:
        name: As in the file: `blk.3.attn_q.weight`.

    Returns:
        `text.attention.self.q`; empty for norms, biases and what the vocabulary does not tell.
    """
    words = name.split(".")
    if words.pop() != "weight" or not words:
        return ""
    where = _STACKS.get(words[0], "text")
    while words and (words[0] in ("blk", "enc", "dec", "v", "a") or words[0].isdecimal()):
        words.pop(0)
    role = (_TOWER_ROLES if where in ("vision", "audio") else _TEXT_ROLES).get(".".join(words), "")
    if words and words[0] in ("mm", "resampler"):
        return "connector.other"
    return f"{where}.{role}" if role else ""


# Choosing the row.


@cache
def _table() -> Any:
    return load_json("gguf_names.json")


def _fits(family: Mapping[str, Any], gguf: Gguf, places: Mapping[str, Any]) -> bool:
    """The file has the family's architecture, tensors and metadata."""
    if family["architecture"] != gguf.architecture:
        return False
    for key, value in family.get("where", {}).items():
        stated = gguf.metadata.get(key) if key.startswith("tokenizer.") else gguf.setting(key)
        if stated is None or value not in (None, stated):
            return False
    return all(name in places or name in gguf.tensors for name in family.get("holds", ()))


def _unknown(gguf: Gguf) -> str:
    known = sorted({family["architecture"] for family in _table()["families"]})
    if gguf.architecture == "clip":
        return "This file holds only the towers of a multimodal model, for use beside its language model's file."
    if gguf.architecture in known:
        return (
            f'llama.cpp uses the architecture "{gguf.architecture}" for several models, and this file is none that '
            "lorascope knows: the original's names are not known, so no plan can be made from it."
        )
    return (
        f'The table of names has no architecture "{gguf.architecture}" ({len(known)} architectures): the original\'s '
        "names are not known, so no plan can be made from it. Give the original checkpoint."
    )


def _notes(family: Mapping[str, Any]) -> Iterator[str]:
    versions = _table()["versions"]
    yield (
        f"Names of the original checkpoint by lorascope's table for {family['model_type']} (llama.cpp's gguf "
        f"{versions['gguf']}, transformers {versions['transformers']}). Adapters are trained on that, not on this file."
    )
    if also := family.get("also"):
        yield f"Listed as {family['model_type']}; files of {', '.join(also)} have the same names."
    if "note" in family:
        yield family["note"]


# Names and shapes.


def _places(tensors: Mapping[str, Entry]) -> dict[str, dict[tuple[str, ...], str]]:
    """Template to (numbers to name): `blk.{b}.attn_q.weight` to `{("3",): "blk.3.attn_q.weight"}`."""
    places: dict[str, dict[tuple[str, ...], str]] = {}
    for name in tensors:
        numbers = tuple(_NUMBER.findall(name)[:2])
        template = _NUMBER.sub("{e}", _NUMBER.sub("{b}", name, count=1), count=1)
        places.setdefault(template, {})[numbers] = name
    return places


def _original_tensors(
    family: Mapping[str, Any], kept: Mapping[str, Entry], places: Mapping[str, dict[tuple[str, ...], str]], where: str
) -> tuple[dict[str, Stored], set[str]]:
    """The original's tensors, and the file's names they came from."""
    tensors: dict[str, Stored] = {}
    used: set[str] = set()
    for template, operation, *sources in _rules(family):
        for numbers in places.get(sources[0], {}):
            names = [places.get(source, {}).get(numbers, "") for source in sources]
            shapes = [kept[name][0] for name in names if name]
            results = _OPERATIONS[operation](shapes) if len(shapes) == len(sources) else []
            name = template
            for mark, number in zip(("{b}", "{e}"), numbers, strict=False):
                name = name.replace(mark, number)
            targets = [name.replace("{e}", str(member)) for member in range(len(results))] if "{e}" in name else [name]
            if not results or not tensors.keys().isdisjoint(targets):
                continue
            used.update(names)
            for target, shape in zip(targets, results, strict=True):
                tensors[target] = _stored(target, shape, names, kept)
            if len(tensors) > _MOST_TENSORS:
                raise LorascopeError(f"its experts are more than {_MOST_TENSORS:,} matrices", where=where)
    return tensors, used


def _rules(family: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for source, template in family["names"].items():
        yield template, "same", source
    yield from family.get("rules", ())


def _stored(name: str, shape: Shape, sources: Sequence[str], kept: Mapping[str, Entry]) -> Stored:
    types = list(dict.fromkeys(kept[source][1] for source in sources))
    packed = ", ".join(kind for kind in types if kind not in _PLAIN)
    return Stored(name, shape, types[0], f"gguf {packed}" if packed else "", tuple(sources))


def _join(shapes: Sequence[Shape], axis: int) -> Shape:
    """Shapes joined along an axis; empty where they do not fit."""
    first = shapes[0]
    if len(first) < -axis or any(len(shape) != len(first) for shape in shapes):
        return ()
    place = len(first) + axis
    if any(shape[:place] + shape[place + 1 :] != first[:place] + first[place + 1 :] for shape in shapes):
        return ()
    return (*first[:place], sum(shape[place] for shape in shapes), *first[place + 1 :])


def _swap(shape: Shape) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if len(shape) > 1 else ()


def _one(shape: Shape) -> list[Shape]:
    return [shape] if shape else []


def _members(shapes: Sequence[Shape], halves: int = 1) -> list[Shape]:
    """Shapes of a stack's members, or of half of each."""
    (shape,) = shapes
    if len(shape) < 2 or shape[0] > _MOST_MEMBERS or shape[1] % halves:
        return []
    return [(shape[1] // halves, *shape[2:])] * shape[0]


def _key_and_value(shapes: Sequence[Shape]) -> list[Shape]:
    """The latent's expansion, from (heads, latent, key) and (heads, value, latent)."""
    key, value = shapes
    if len(key) != 3 or len(value) != 3 or (key[0], key[1]) != (value[0], value[2]):
        return []
    return [(key[0] * (key[2] + value[1]), key[1])]


def _unsqueezed(shapes: Sequence[Shape]) -> list[Shape]:
    (shape,) = shapes
    return [(shape[0], 1, *shape[1:])] if shape else []


def _rows(shape: Shape) -> list[Shape]:
    return [(shape[0] * shape[1], shape[2])] if len(shape) == 3 else []


def _flat(shapes: Sequence[Shape]) -> list[Shape]:
    (shape,) = shapes
    return [(shape[0] * shape[1],)] if len(shape) == 2 else _one(shape if len(shape) == 1 else ())


# What undoes the converter's changes to a shape: the shapes in the file to that of the original, or to those of all
# members of a stack; nothing where the shapes cannot be what the table takes them for.
_OPERATIONS: Mapping[str, Callable[[Sequence[Shape]], list[Shape]]] = {
    "same": lambda shapes: list(shapes),
    "member": _members,
    "half member": lambda shapes: _members(shapes, 2),
    "transpose": lambda shapes: _one(_swap(shapes[0])),
    "unsqueeze": _unsqueezed,
    "flatten": _flat,
    "row": lambda shapes: [(1, *shapes[0])] if len(shapes[0]) == 1 else _one(shapes[0]),
    "join": lambda shapes: _one(_join(shapes, -2)),
    "join last": lambda shapes: _one(_join(shapes, -1)),
    "join transposed": lambda shapes: _one(_swap(_join(shapes, -2))),
    "key and value": _key_and_value,
    "rows": lambda shapes: _rows(shapes[0]),
    "rows transposed": lambda shapes: _rows(_swap(shapes[0])),
    "four axes": lambda shapes: [(shapes[0][1], 1, shapes[0][3])] if len(shapes[0]) == 4 else [],
}


# What the original does not have.


def _dropped(gguf: Gguf) -> Iterator[tuple[str, str]]:
    blocks = _whole(gguf.setting("block_count"))
    further = _whole(gguf.setting("nextn_predict_layers")) or 0
    for name in gguf.tensors:
        words = name.split(".")
        stem, _, suffix = name.rpartition(".")
        if words[0] == "blk" and words[1:2] and words[1].isdecimal():
            number = int(words[1])
            if "nextn" in words or (further and blocks is not None and number >= blocks - further):
                yield name, _PREDICTS_FURTHER
                continue
        helper = next((reason for part, reason in _HELPERS.items() if part in words), "")
        if helper:
            yield name, helper
        elif suffix in ("scale", "input_scale") and gguf.tensors.get(f"{stem}.weight", ((), ""))[1] == "NVFP4":
            yield name, _SCALE


# The configuration.


def _whole(value: Any) -> int | None:
    """A whole number; the first non-zero one of per-layer values."""
    if isinstance(value, tuple):
        value = next((number for number in value if number), None)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48 else None


def _config(gguf: Gguf, keys: Mapping[str, str]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for key, name in keys.items():
        value = _whole(gguf.setting(key))
        if value is not None:
            config[name] = value
    if (layers := config.get(keys.get("block_count", ""))) is not None:
        config[keys["block_count"]] = layers - min(layers, _whole(gguf.setting("nextn_predict_layers")) or 0)
    embedding = gguf.tensors.get("token_embd.weight")
    if embedding and len(embedding[0]) == 2:
        config["vocab_size"] = embedding[0][0]
    return config


def _original_config(family: Mapping[str, Any], gguf: Gguf) -> dict[str, Any]:
    config = {"model_type": family["model_type"], "architectures": [family["class"]]}
    config |= _config(gguf, family["keys"])
    if not _HEADLESS.search(family["class"]):
        config["tie_word_embeddings"] = "output.weight" not in gguf.tensors
    for name, (shape, _) in gguf.tensors.items():
        # llama.cpp counts one key head where a latent is kept; the original has them all.
        if name.endswith(".attn_k_b.weight") and len(shape) == 3:
            config |= {"num_key_value_heads": shape[0], "qk_nope_head_dim": shape[2]}
            break
    return config
