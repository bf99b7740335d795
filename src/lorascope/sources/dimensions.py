"""Dimensions of a model, by whatever names its configuration uses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import Dimensions, Module, Weight

# Configurations' names for each dimension, the most specific first.
NAMES: dict[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "d_model", "n_embd", "dim"),
    "intermediate_size": (
        "intermediate_size",
        "ffn_dim",
        "d_ff",
        "n_inner",
        "ffn_hidden_size",
        "decoder_ffn_dim",
        "encoder_ffn_dim",
        "dff",
        "dim_ff",
        "d_inner",
        "hidden_dim",
    ),
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "decoder_layers"),
    "attention_heads": ("num_attention_heads", "n_head", "decoder_attention_heads"),
    "key_value_heads": ("num_key_value_heads", "num_kv_heads", "multi_query_group_num"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "active_experts": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "moe_topk",
        "top_k_experts",
        "moe_top_k",
        "moe_k",
        "top_k",
    ),
}


# Bounds of what real models have, for dimensions that the tensors leave open: heads and experts, layers, runs of each
# layer, and the feed-forward width in multiples of the largest size.
_MOST = 100_000
_DEEPEST = 1_000
_MOST_RUNS = 16
_WIDEST = 64
_LARGEST = 2**60


# Where a configuration may keep the language model's: the more specific keys first, then any other.
_LANGUAGE_PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
_MOST_PARTS = 64
_TOWER = re.compile("vision|visual|image|audio|speech|siglip|clip|encoder")


def read_dimensions(get: Callable[[str], Any], weights: Sequence[Weight], parameters: int) -> Dimensions:
    """The dimensions of a model.

    Args:
        get: The value of a name in the (text) configuration; anything but a whole number counts as absent.
        weights: The model's weights, for what configurations leave to the modeling code.
        parameters: Number of scalars in all parameters, tied ones counted once.
    """
    values: dict[str, int | None] = {
        dimension: next(iter(_stated(get, dimension).values()), None) for dimension in NAMES
    }
    values["layers"] = _layers(_stated(get, "layers"), weights)
    values["intermediate_size"] = values["intermediate_size"] or intermediate_size(weights)
    if weights and not _has_experts(weights):  # many classes have a default, and `top_k` is a setting of generation too
        values |= {"experts": None, "active_experts": None}
    return Dimensions(**values, parameters=parameters)


def _layers(stated: Mapping[str, int], weights: Sequence[Weight]) -> int | None:
    """The first stated number of layers that the weights allow, else the first.

    A decoder under an encoder's configuration has layers of its own number.
    """
    evidence = TensorEvidence(weights, (), complete=True)
    return next(
        (value for value in stated.values() if evidence.agrees("layers", value)), next(iter(stated.values()), None)
    )


def checked_dimensions(
    get: Callable[[str], Any],
    stated: Collection[str],
    weights: Sequence[Weight],
    modules: Sequence[Module],
    parameters: int,
    where: str,
    *,
    complete: bool = True,
) -> tuple[Dimensions, list[str]]:
    """Dimensions of a checkpoint, corrected where its tensors contradict them.

    A default of the configuration's class counts only as far as the tensors bear it out.

    Args:
        get: As for `read_dimensions`.
        stated: The configuration itself, or the names that it has; `get` may know defaults for others.
        weights: The checkpoint's weights.
        modules: Its modules.
        parameters: As for `read_dimensions`.
        where: What the configuration is called: `config.json`, `the metadata`.
        complete: Nothing is known to be missing; else some of the layers may be.
    """
    evidence = TensorEvidence(weights, modules, complete)
    part = language_part(get, stated, evidence)
    if part is not None:
        get, stated = part.get, part
    read = read_dimensions(get, weights, parameters)
    dimensions = {field.name: getattr(read, field.name) for field in dataclasses.fields(read)}
    notes = []
    doubted = False  # a default is wrong, and the figures that are meant stand elsewhere
    for dimension in NAMES:
        stated_values = _stated(get, dimension)
        if not stated_values or (dimensions[dimension] is None and dimension in ("experts", "active_experts")):
            continue
        name, value = next(iter(stated_values.items()))
        default = not _is_said(stated, name, value)
        if default and doubted and dimension in ("attention_heads", "key_value_heads"):
            dimensions[dimension] = None
            continue
        if any(evidence.agrees(dimension, value, default=default) for value in stated_values.values()):
            continue
        dimensions[dimension] = own = evidence.own(dimension)
        doubted |= default and dimension == "hidden_size"
        if name in stated:  # or it is the class's default, which others that are stated may replace
            instead = (
                f"the tensors show {own}, which counts here" if own is not None else "the tensors cannot have that"
            )
            notes.append(f"{where} says {name} {value}; {instead}")
    heads, pairs = dimensions["attention_heads"], dimensions["key_value_heads"]
    if heads and pairs and heads % pairs and not _is_said(stated, "num_key_value_heads", pairs):
        dimensions["key_value_heads"] = heads
    return Dimensions(**dimensions), notes


def _is_said(stated: Collection[str], name: str, value: int) -> bool:
    """The configuration has the name, or the value under another one."""
    return name in stated or (isinstance(stated, Mapping) and value in stated.values())


def language_part(
    get: Callable[[str], Any], stated: Collection[str], evidence: TensorEvidence
) -> Mapping[str, Any] | None:
    """The part of a configuration that holds the language model's figures, or None.

    It is looked for only where the whole has none, or defaults that the tensors contradict.
    """
    own = _stated(get, "hidden_size")
    if not (isinstance(stated, Mapping) and evidence.has_text) or any(
        name in stated or evidence.agrees("hidden_size", own[name], default=True) for name in own
    ):
        return None
    parts = _inner_parts(stated)
    fitting: list[tuple[int, Mapping[str, Any]]] = []
    for part in [*parts, *(inner for outer in parts for inner in _inner_parts(outer))][:_MOST_PARTS]:
        widths = [one for one in _stated(part.get, "hidden_size").values() if evidence.agrees("hidden_size", one)]
        layers = [one for one in _stated(part.get, "layers").values() if evidence.agrees("layers", one)]
        if widths and layers:
            fitting.append((max(widths) ** 2 * max(layers), part))
    return max(fitting, key=lambda one: one[0])[1] if fitting else None  # the first of equals


def _inner_parts(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Configurations in a configuration, towers left out, the likely language model first."""
    keys = [key for key in _LANGUAGE_PARTS if key in config]
    keys += [key for key in config if key not in _LANGUAGE_PARTS and not _TOWER.search(str(key))]
    return [config[key] for key in keys[:_MOST_PARTS] if isinstance(config[key], Mapping)]


def intermediate_size(weights: Sequence[Weight]) -> int | None:
    """The most common width of dense feed-forward layers, of the text model if the model has one."""
    text = [weight for weight in weights if weight.role.component == "text" and weight.role.block != "embedding"]
    wide = [w for w in text or weights if (w.role.variant, w.role.part) == ("dense", "up") and len(w.shape) == 2]
    widths = Counter(weight.shape[0] for weight in wide)
    return widths.most_common(1)[0][0] if widths else None


def _stated(get: Callable[[str], Any], dimension: str) -> dict[str, int]:
    values = {name: get(name) for name in NAMES[dimension]}
    return {name: int(v) for name, v in values.items() if isinstance(v, int) and not isinstance(v, bool)}


class TensorEvidence:
    """Evidence of a checkpoint's tensors on its dimensions.

    Configurations mean many things by one name: a value is contradicted only where no reading of the tensors fits it.
    """

    def __init__(self, weights: Sequence[Weight], modules: Sequence[Module], complete: bool) -> None:
        self._complete = complete
        text = [weight for weight in weights if weight.role.component == "text"]
        self.has_text = bool(text)
        self._weights = [weight for weight in text or weights if len(weight.shape) > 1]
        self._sizes = {size for module in modules for _, shape in module.parameters for size in shape}
        self._largest = max(self._sizes, default=0)
        self._widths = {width for weight in self._weights if (width := _width(weight))}
        self._experts = _expert_counts(self._weights)
        layers: dict[tuple[str, str], set[int]] = {}
        for weight in self._weights:
            if weight.layer is not None:
                layers.setdefault((weight.role.component, weight.role.stack), set()).add(weight.layer)
        self._layers = {len(numbers) for numbers in layers.values()}

    def agrees(self, dimension: str, value: int, *, default: bool = False) -> bool:
        """The tensors allow for the value, or leave it open.

        Of a default, no layers can be missing.
        """
        if not 0 <= value < _LARGEST:
            return False
        if not self._weights:
            return True
        match dimension:
            case "hidden_size":
                return value in self._widths or not self._widths
            case "intermediate_size":
                if self._dense():
                    return not {value, 2 * value}.isdisjoint(self._sizes) or self._is_part(value)
                return value <= _WIDEST * self._largest
            case "layers":
                return self._may_have(value, self._complete or default)
            case "experts":
                return value in self._experts if self._experts and value else value <= _MOST
            case "active_experts":
                return value <= max(self._experts, default=_MOST)
            case "attention_heads":
                return self._divides(value, ("q", "q_b", "q_gate"))
            case _:
                return self._divides(value, ("k",))

    def own(self, dimension: str) -> int | None:
        """The dimension by the tensors alone; None where they leave it open."""
        match dimension:
            case "hidden_size":
                return _commonest(size for weight in self._weights if (size := _width(weight)))
            case "intermediate_size":
                return intermediate_size(self._weights)
            case "layers":
                return max(self._layers, default=None)
            case "experts":
                return next(iter(self._experts)) if len(self._experts) == 1 else None
            case _:
                return None

    def _may_have(self, layers: int, complete: bool) -> bool:
        most = max(self._layers, default=0)
        if most < 2:  # all layers may share the weights of one
            return layers <= _DEEPEST
        runs, left = divmod(layers, most)  # or each is run several times
        return layers <= most or (runs <= _MOST_RUNS and not left) or (not complete and layers <= _DEEPEST)

    def _is_part(self, value: int) -> bool:
        """Half of the value is a size, or two thirds rounded up.

        RecurrentGemma halves it; LFM2 rounds two thirds up to a multiple of 256.
        """
        parts = {value // 2, -(-(value * 2 // 3) // 256) * 256}
        return not parts.isdisjoint(self._sizes)

    def _dense(self) -> bool:
        return any(weight.role.variant == "dense" and weight.role.part == "down" for weight in self._weights)

    def _divides(self, value: int, parts: Collection[str]) -> bool:
        """The number of heads divides the rows of some matrix."""
        rows = {
            weight.shape[-2]
            for weight in self._weights
            if weight.role.block == "attention" and weight.role.part in parts and weight.role.variant != "linear"
        }
        if not rows or not value:
            return value <= max(self._largest, _MOST)
        return any(row % value == 0 for row in rows)


def _width(weight: Weight) -> int:
    """Hidden size that a weight reads or writes; 0 where unknown."""
    role = weight.role
    if role.block in ("attention", "ffn"):
        if role.part in ("q", "k", "v", "qkv", "gate", "up", "gate_up"):
            return weight.shape[-1]
        return weight.shape[-2] if role.part in ("o", "down") else 0
    return weight.shape[-1] if (role.block, role.part) in (("embedding", "token"), ("head", "lm")) else 0


def _has_experts(weights: Sequence[Weight]) -> bool:
    """Some weight is of routed experts."""
    return any(weight.role.variant == "expert" for weight in weights)


def _expert_counts(weights: Sequence[Weight]) -> set[int]:
    """Numbers of routed experts; none where several share one matrix."""
    counts: set[int] = set()
    numbered: dict[str, set[str]] = {}
    for weight in weights:
        if (weight.role.block, weight.role.variant) != ("ffn", "expert"):
            continue
        if weight.kind != "parameter":
            owner, _, number = weight.name.rpartition(".")[0].rpartition(".")
            numbered.setdefault(owner, set()).add(number)
        elif len(weight.shape) == 3:
            counts.add(weight.shape[0])
        else:
            return set()
    return counts | {len(members) for members in numbered.values()}


def _commonest(sizes: Iterable[int]) -> int | None:
    most = Counter(sizes).most_common(1)
    return most[0][0] if most else None
