"""Unsloth's own search for parts and experts.

Restated from Unsloth 2026.10.9, models/_utils.py and models/vision.py, and from unsloth_zoo 2026.10.9, peft_utils.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.model.types import ModelMap
from lorascope.peft_rules.matchers import parameter_names
from lorascope.peft_rules.name_patterns import Pattern, compiled

_VISION = ("vision", "image", "visual", "patch")
_LANGUAGE = ("language", "text")
_ATTENTION = ("self_attn", "attention", "attn", "mixer")
_MLP = ("mlp", "feed_forward", "ffn", "dense", "mixer")
_NOTHING = "(?!x)x"
# Subclasses of nn.Linear whose forward returns several values: what unsloth_zoo finds in the source of transformers 5.23.
_TUPLE_LINEARS = ("Llama4Router", "PhimoeTopKRouter")
_CLIPPABLE = "Gemma4ClippableLinear"
_ROUTER = "router"
_MAMBAS = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h", "nemotron_h_puzzle")
_MAMBA_LEAVES = ("conv1d", "out_proj")
_CODECS = "codec_model|audio_tokenizer|acoustic_tokenizer|semantic_tokenizer"
_BROAD = frozenset(("gate_proj", "up_proj", "down_proj", "gate_up_proj"))
# Types whose configuration gives the number of experts under a name that Unsloth does not look at, of all that 5.23 has.
_UNCOUNTED = ("aria", "aria_text")
# The type whose configuration gives a number of experts that its model has only with another option.
_COUNTED = frozenset({"doge"})
_EXPERT_MODULE = re.compile(r"(?:^|\.)experts\.\d+\.")


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """Which parts may be adapted: the arguments `finetune_…`."""

    vision: bool = True
    language: bool = True
    attention: bool = True
    mlp: bool = True
    audio: bool = False

    @property
    def narrows(self) -> bool:
        """A part is left out, so names are filtered."""
        return not (self.vision and self.language and self.attention and self.mlp)


class NothingToTrainError(ValueError):
    """Unsloth stops: there is nothing left to adapt."""


def parts_expression(model: ModelMap, scope: Scope, names: Sequence[str] | None = None) -> str:
    """The regular expression for the linear layers of the parts (`get_peft_regex`).

    Args:
        model: The map.
        scope: The parts.
        names: Names of layers, as `target_modules` gives them; None for all that are there.

    Raises:
        NothingToTrainError: There are none.
    """
    if not (scope.vision or scope.language or scope.audio):
        raise NothingToTrainError("no layers: neither vision nor language nor audio is to be trained")
    if not (scope.attention or scope.mlp):
        raise NothingToTrainError("no modules: neither attention nor MLP is to be trained")
    linears = _linears(model)
    leaves = _leaves(model, linears) if names is None else list(names)
    nested = ""
    if names is None and (mamba := _mamba_scope(model)):
        dropped = [leaf for leaf in leaves if leaf in _MAMBA_LEAVES]
        if mamba == "root":
            leaves = [leaf for leaf in leaves if leaf not in _MAMBA_LEAVES]
        elif dropped:
            nested = rf"(?!.*\.(?:mixer|mamba)\.(?:{'|'.join(_MAMBA_LEAVES)})$)"
    parts = "|".join((*(_VISION if scope.vision else ()), *(_LANGUAGE if scope.language else ())))
    components = "|".join((*(_ATTENTION if scope.attention else ()), *(_MLP if scope.mlp else ())))
    named = f"(?:{'|'.join(re.escape(leaf) for leaf in leaves)})"
    pattern = _NOTHING
    if parts:
        pattern = rf".*?(?:{parts}).*?(?:{components}).*?\.{named}"
        if scope.language:
            inner = rf"\bmodel\.layers\.[\d]{{1,}}(?!.*\.experts\.\d)\..*?(?:{components}).*?\.(?:{named})"
            pattern = f"(?:{pattern})|(?:{inner})"
    branches = [branch for branch in _branches(model, scope, names, linears) if _any(branch, linears)]
    if branches:
        pattern = f"(?:{pattern})|{'|'.join(branches)}"
    if parts and not _any(pattern, linears):
        pattern = rf"(?!(?:.*\.)?(?:{_CODECS})\.).*?(?:{components}).*?\.{named}"
    excluded = _placeholders(model, pattern) + (_gates(model, pattern) if names is None else [])
    if excluded:
        pattern = f"(?!(?:{'|'.join(re.escape(name) for name in excluded)})$)(?:{pattern})"
    if not any(map(_matcher(pattern).search, linears)):
        raise NothingToTrainError(f"no layers for {'these names' if names is not None else 'this model'}")
    return f"{nested}(?:{pattern})" if nested else pattern


def _linears(model: ModelMap) -> list[str]:
    linears = [m.name for m in model.modules if m.kind == "linear" and m.class_name not in _TUPLE_LINEARS]
    return linears + [f"{m.name}.linear" for m in model.modules if m.class_name == _CLIPPABLE]


def _leaves(model: ModelMap, linears: Sequence[str]) -> list[str]:
    """Last name components of linear layers, without heads (which occur once)."""
    counts = Counter(name.rpartition(".")[2] for name in linears)
    stacked = {name.rpartition(".")[2] for name in linears if re.search(r"\.\d+\.", name)}
    return [leaf for leaf, count in counts.items() if leaf != _ROUTER and (count != 1 or leaf in stacked)]


def _mamba_scope(model: ModelMap) -> str:
    """Whether the model is Mamba (`root`), contains it (`nested`), or neither."""
    if model.model_type in _MAMBAS:
        return "root"
    starts = ("FalconH1", "FalconMamba", "Mamba", "NemotronH")
    return "nested" if any(module.class_name.startswith(starts) for module in model.modules) else ""


def _any(pattern: str, names: Iterable[str]) -> bool:
    return any(map(_matcher(pattern).fullmatch, names))


def _matcher(pattern: str) -> Pattern:
    return compiled(f"(?s:{pattern})", "target_modules")


def _branches(model: ModelMap, scope: Scope, names: Sequence[str] | None, linears: Sequence[str]) -> Iterator[str]:
    """Expressions for embedders and audio towers of Gemma and Voxtral."""

    def scoped(leaves: Iterable[str]) -> list[str]:
        return [leaf for leaf in leaves if names is None or leaf in names]

    kind = f"{model.model_type} {model.architecture}".lower()
    gemma = any(word in kind for word in ("gemma4", "gemma3n", "embedding_gemma2", "embeddinggemma2"))
    cores: list[str] = []
    leaves: tuple[str, ...]
    more: tuple[str, ...]
    tower = r"\baudio_tower\.(?:.*\.)?"
    if scope.audio and gemma:
        leaves = ("q_proj", "k_proj", "v_proj", "relative_k_proj", "pos_proj", "post") if scope.attention else ()
        more = ("ffw_layer_1", "ffw_layer_2", "linear_start", "linear_end", "input_proj_linear", "output_proj")
        cores += [tower + re.escape(leaf) for leaf in scoped((*leaves, *(more if scope.mlp else ())))]
        if scope.mlp and scoped(["embedding_projection"]):
            cores.append(r"\bembed_audio\.embedding_projection")
    if scope.audio and "voxtral" in kind:
        leaves = ("q_proj", "k_proj", "v_proj", "out_proj", "o_proj") if scope.attention else ()
        more = ("fc1", "fc2", "gate_proj", "up_proj", "down_proj") if scope.mlp else ()
        cores += [tower + re.escape(leaf) for leaf in scoped((*leaves, *more))]
        if scope.mlp:
            cores += [r"\bmulti_modal_projector\." + re.escape(leaf) for leaf in scoped(["linear_1", "linear_2"])]
    if scope.vision and scope.mlp and gemma:
        places = {
            "embedding_projection": r"\bembed_vision\.embedding_projection",
            "patch_dense": r"\bvision_embedder\.patch_dense",
            "input_proj": r"\bvision_tower\.patch_embedder\.input_proj",
        }
        cores += [place for leaf, place in places.items() if scoped([leaf])]
    for core in cores:
        for branch in (rf".*?{core}\.linear", f".*?{core}"):
            if _any(branch, linears):
                yield f"(?:{branch})"


def _placeholders(model: ModelMap, pattern: str) -> list[str]:
    """Modules without parameters and children that a pattern matches."""
    parents = {module.name.rpartition(".")[0] for module in model.modules}
    matcher = _matcher(pattern)
    return [m.name for m in model.modules if not m.parameters and m.name not in parents and matcher.fullmatch(m.name)]


def _gates(model: ModelMap, pattern: str) -> list[str]:
    """Routers that are linear layers called gate and match a pattern."""
    by_name = model.module_by_name
    matcher = _matcher(pattern)
    gates = []
    for module in model.modules:
        parent, _, leaf = module.name.rpartition(".")
        if leaf != "gate" or module.kind != "linear" or parent not in by_name:
            continue
        is_router = f"{parent}.experts" in by_name or "router" in by_name[parent].class_name.lower()
        if is_router and matcher.fullmatch(module.name):
            gates.append(module.name)
    return gates


# Experts.


def counts_experts(model: ModelMap) -> bool:
    """Unsloth takes the model for a mixture of experts (`is_moe_model`)."""
    if model.model_type in _COUNTED:
        return True
    return bool(model.dimensions.experts) and model.model_type not in _UNCOUNTED


def has_expert_modules(model: ModelMap) -> bool:
    """Each expert is a module of its own."""
    return any(_EXPERT_MODULE.search(module.name) for module in model.modules)


def expert_words(modules: str | Sequence[str] | None) -> frozenset[str]:
    """The MLP projections that targets name, as far as experts go."""
    if modules is None:
        return frozenset()
    if not isinstance(modules, str):
        return frozenset(modules) & _BROAD
    if modules in _BROAD:
        return frozenset((modules,))
    is_pattern = re.search(r"[*+?()[\]{}|\\^$]", modules) is not None
    if not is_pattern or not any(tag in modules for tag in ("mlp", "ffn", "feed_forward", "experts")):
        return frozenset()
    if named := frozenset(name for name in _BROAD if name in modules):
        return named
    any_projection = re.search(r"(?<![qkvo]_)(?<!out_)(?<!in_)proj", modules)
    return _BROAD if any_projection or "mlp|feed_forward|ffn|dense" in modules else frozenset()


def expert_parameters(model: ModelMap, modules: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The `target_parameters` added for experts (`get_moe_target_parameters`), or None."""
    words = expert_words(modules)
    if not counts_experts(model) or not words:
        return None
    names = [name for _, name, _ in parameter_names(model)]
    places = []
    if words & {"gate_proj", "up_proj", "gate_up_proj"}:
        fused = _place(model, names, "gate_up_proj")
        if _is_end(fused, names):
            places.append(fused)
        else:
            leaves = [leaf for leaf in ("gate_proj", "up_proj") if words & {leaf, "gate_up_proj"}]
            halves = [_place(model, names, leaf) for leaf in leaves]
            places += [place for place in halves if _is_end(place, names)]
    if "down_proj" in words and _is_end(down := _place(model, names, "down_proj"), names):
        places.append(down)
    return tuple(places) or None


def _place(model: ModelMap, names: Sequence[str], leaf: str) -> str:
    """Where the experts' parameter of a name lies."""
    usual, other = f"mlp.experts.{leaf}", f"experts.{leaf}"
    for name in names:
        for place in (usual, other):
            if _is_end(place, (name,)):
                return place
    return other if model.model_type.startswith("gemma4") else usual


def _is_end(ending: str, names: Iterable[str]) -> bool:
    return any(name == ending or name.endswith(f".{ending}") for name in names)


def expert_modules(model: ModelMap, modules: str | Sequence[str] | None) -> tuple[str, ...]:
    """The modules added for lists of expert layers (`get_moe_target_modules`)."""
    words = expert_words(modules)
    if not counts_experts(model) or not words:
        return ()
    gate, up = bool(words & {"gate_proj", "gate_up_proj"}), bool(words & {"up_proj", "gate_up_proj"})
    added = set()
    children: dict[str, list[tuple[str, str]]] = {}
    for module in model.modules:
        parent, _, leaf = module.name.rpartition(".")
        children.setdefault(parent, []).append((leaf, module.kind))
    for module in model.modules:
        parent, _, leaf = module.name.rpartition(".")
        held = children.get(module.name, [])
        if module.class_name != "ModuleList" or not held or not parent.endswith("experts"):
            continue
        if any(kind != "linear" for _, kind in held):
            continue
        word = leaf.lower()
        is_down = "down" in word
        is_gate, is_up = not is_down and "gate" in word, not is_down and "up" in word
        if is_down:
            adapts = "down_proj" in words
        elif is_gate and is_up:
            adapts = gate or up
        else:
            adapts = not (is_gate and not gate) and not (is_up and not up)
        if adapts:
            added |= {f"{leaf}.{number}" for number, _ in held}
    return tuple(sorted(added))


def with_expert_modules(modules: str | Sequence[str], added: Sequence[str]) -> str | tuple[str, ...]:
    """Targets with those names, in the form that they have (`add_moe_target_modules`)."""
    if not isinstance(modules, str):
        return (*modules, *(name for name in added if name not in modules))
    if not added or modules == "all-linear":
        return modules
    leaves = sorted({name.rpartition(".")[0] for name in added})
    return rf"(?:{modules})|(?:.*\.experts\.(?:{'|'.join(re.escape(leaf) for leaf in leaves)})\.\d+)"


# Layers.


def is_in_layers(name: str, layers: Sequence[int], patterns: Sequence[str]) -> bool:
    """A name's layer number is one of the layers (`_in_layers`)."""
    match = None
    for pattern in [pattern for pattern in patterns if pattern] or [""]:
        text = rf"(?:^|.*?\.){pattern}\.(\d+)\." if pattern else r".*?\.[^.]*\.(\d+)\."
        match = compiled(text, "layers_pattern").match(name)
        if match:
            break
    return match is not None and int(match.group(1) or "") in layers


def parameters_in_layers(
    model: ModelMap, parameters: Sequence[str], layers: Sequence[int], patterns: Sequence[str]
) -> tuple[str, ...] | None:
    """Full names of parameters within layers (`_target_parameters_in_layers`)."""
    names = [f"{m.name}.{parameter}" for m in model.modules for parameter, _ in m.parameters]
    matches = [name for name in names if any(name == end or name.endswith(f".{end}") for end in parameters)]
    return tuple(name for name in matches if is_in_layers(name, layers, patterns)) or None
