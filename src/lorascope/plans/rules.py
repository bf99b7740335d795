"""The rule language, such as `attention.q,v[-8:]=8/16`.

A selector is facts of a role joined by dots; alternatives of one fact are joined by commas. The vocabularies of the
facts do not overlap, so each word says by itself which fact it speaks of.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from lorascope.errors import LorascopeError, did_you_mean
from lorascope.model.types import ModelMap, Weight
from lorascope.names import spans
from lorascope.plans.types import Rule

COMPONENTS = ("text", "vision", "audio", "connector", "codec", "action", "protein", "diffusion")
STACKS = ("encoder", "decoder")
BLOCKS = ("attention", "ffn", "mixer", "router", "indexer", "modulation", "embedding", "head", "other")
# Those that a model computes with between its ends.
MAIN_BLOCKS = ("attention", "ffn", "mixer")
VARIANTS = ("self", "cross", "linear", "dense", "shared", "expert")
# A part that holds more than one thing, and what it holds: a selector for a piece selects the whole.
CONTENTS: dict[str, tuple[str, ...]] = {
    "qkv": ("q", "k", "v"),
    "qkvo": ("q", "k", "v", "o"),
    "qk": ("q", "k"),
    "kv": ("k", "v"),
    "q_gate": ("q", "gate"),
    "qkv_gate": ("q", "k", "v", "gate"),
    "q_a": ("q",),
    "q_b": ("q",),
    "kv_a": ("k", "v"),
    "kv_b": ("k", "v"),
    "o_a": ("o",),
    "o_b": ("o",),
    "gate_a": ("gate",),
    "gate_b": ("gate",),
    "decay_a": ("decay",),
    "decay_b": ("decay",),
    "beta_decay": ("beta", "decay"),
    "gate_up": ("gate", "up"),
}
PARTS = (
    *("q", "k", "v", "o", "gate", "beta", "decay", "position", "bias", "conv", "up", "down"),
    *CONTENTS,
    *("in", "x", "dt", "out", "input_gate", "recurrent_gate", "forget_gate"),
    "weight",
    *("token", "type", "patch", "time", "caption", "query", "merger", "projection"),
    *("lm", "transform", "pooler", "classifier"),
)
_FACTS = {"component": COMPONENTS, "stack": STACKS, "block": BLOCKS, "variant": VARIANTS, "part": PARTS}
FACT_OF = {value: fact for fact, values in _FACTS.items() for value in values}

_RULE = re.compile(
    r"(?P<selector>[^\[\]=/]+)(?:\[(?P<layers>[^\[\]]*)\]\s*)?(?:=(?P<rank>[^/]*)(?:/(?P<alpha>.*))?)?", re.DOTALL
)
_LAYERS = re.compile(r"-?[0-9]{1,6}|(?:-?[0-9]{1,6})?:(?:-?[0-9]{1,6})?(?::(?:-?[1-9][0-9]{0,5})?)?")
_RANK = re.compile(r"[1-9][0-9]{0,5}")
_ALPHA = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_FORM = "Write SELECTOR[LAYERS]=RANK/ALPHA, such as attention.q,v=8 or ffn[-8:]=4."
# Names of modules that people write where a role belongs.
_USUAL_ROLES = {
    "q_proj": "attention.q",
    "k_proj": "attention.k",
    "v_proj": "attention.v",
    "o_proj": "attention.o",
    "qkv_proj": "attention.qkv",
    "gate_proj": "ffn.gate",
    "up_proj": "ffn.up",
    "down_proj": "ffn.down",
    "gate_up_proj": "ffn.gate_up",
    "lm_head": "head.lm",
    "embed_tokens": "embedding.token",
}
# So many of a model's selectors are named to someone whose own finds nothing.
_MOST_NAMED = 8


def parse_rule(text: str) -> Rule:
    """The rule of a text such as `attention.q,v=8` or `ffn[-8:]=4/16`.

    Raises:
        LorascopeError: With every fault of the text.
    """
    match = _RULE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise LorascopeError(f"{text!r} is not a rule", hint=_FORM)
    faults: list[str] = []
    facts = tuple(_fact(word, faults) for word in match["selector"].strip().split("."))
    spoken = [FACT_OF[values[0]] for values in facts if values]
    for fact in sorted({fact for fact in spoken if spoken.count(fact) > 1}):
        faults.append(f"the {fact} is given twice; join alternatives by commas")
    layers = (match["layers"] or "").replace(" ", "")
    if match["layers"] is not None:
        check_layers(layers, faults)
    rank = _rank(match["rank"], faults)
    alpha = _alpha(match["alpha"], faults)
    if faults:
        raise LorascopeError(*faults, where=f"rule {text!r}", hint=_FORM)
    return Rule(facts, layers, rank, alpha)


def check_layers(layers: str, faults: list[str]) -> None:
    """Add a fault for each piece that is not a number or slice."""
    for piece in layers.split(","):
        if not _LAYERS.fullmatch(piece):
            faults.append(f"layers {piece!r} is neither a number nor a slice such as -8: or 0:4")


def _fact(word: str, faults: list[str]) -> tuple[str, ...]:
    values = tuple(value.strip() for value in word.split(","))
    unknown = [value for value in values if value not in FACT_OF]
    faults.extend(_unknown_word(value) for value in unknown)
    kinds = sorted({FACT_OF[value] for value in values if value in FACT_OF})
    if len(kinds) > 1:
        faults.append(f"{word!r} mixes {' and '.join(kinds)}; give each its own rule")
    return () if unknown else values


def _unknown_word(word: str) -> str:
    if role := _USUAL_ROLES.get(word):
        return (
            f"{word!r} is a module name; its usual role is {role}. To see what names do: lorascope check MODEL {word}"
        )
    return f"unknown word {word!r} in a selector. {did_you_mean(word, FACT_OF)}".rstrip(" .")


def _rank(text: str | None, faults: list[str]) -> int | None:
    if text is None:
        return None
    if not _RANK.fullmatch(text.strip()):
        faults.append(f"rank {text!r} is not a whole number from 1 to 999999")
        return None
    return int(text)


def _alpha(text: str | None, faults: list[str]) -> float | None:
    if text is None:
        return None
    if not _ALPHA.fullmatch(text.strip()) or float(text) == 0:
        faults.append(f"alpha {text!r} is not a number above 0 such as 16 or 0.5")
        return None
    return float(text)


def select(model: ModelMap, rule: Rule) -> tuple[Weight, ...]:
    """The weights that a rule selects, adaptable or not.

    Raises:
        LorascopeError: It names a layer that the model does not have, or selects nothing.
    """
    matches = [weight for weight in candidates(model, rule.facts) if holds(weight, rule.facts)]
    if not matches:
        available = nearest_selectors(model, rule)
        hint = f"Selectors that match: {' '.join(available)}" if available else "The model has no weights."
        if model.unexplained:
            hint += f" {len(model.unexplained)} tensors are unexplained, see lorascope inspect."
        raise LorascopeError(f"selects nothing in {model.model}", where=f"rule {str(rule)!r}", hint=hint)
    if not rule.layers:
        return tuple(matches)
    chosen = _in_layers(model, matches, rule)
    if not chosen:
        layers = spans(weight.layer for weight in matches if weight.layer is not None)
        raise LorascopeError(
            f"selects nothing in {model.model}: none of its weights lies in layers {rule.layers}",
            where=f"rule {str(rule)!r}",
            hint=f"They lie in layers {layers}."
            if layers
            else "They lie outside of the layers: leave out the brackets.",
        )
    return tuple(chosen)


def candidates(model: ModelMap, facts: Sequence[tuple[str, ...]]) -> list[Weight]:
    """Weights of the named components, or else of the model itself."""
    if any(FACT_OF[values[0]] == "component" for values in facts):
        return list(model.weights)
    own = own_components(model)
    return [weight for weight in model.weights if weight.role.component in own]


def own_components(model: ModelMap) -> frozenset[str]:
    """Components that a selector without one means: text, or the largest.

    A text model that only embeds, as the prediction network of a transducer does, is none. A speech encoder that the
    text decoder beside it attends to, as Whisper's, is half of one model and belongs to it.
    """
    sizes: dict[str, int] = {}
    for weight in model.weights:
        if weight.role.block in MAIN_BLOCKS:
            sizes[weight.role.component] = sizes.get(weight.role.component, 0) + weight.size
    main = {component: size for component, size in sizes.items() if component != "connector"} or sizes
    if not main:
        return frozenset(weight.role.component for weight in model.weights)
    if "audio" in main and "text" in main and _decodes_speech(model):
        return frozenset({"audio", "text"})
    return frozenset({"text" if "text" in main else max(main, key=lambda component: (main[component], component))})


def _decodes_speech(model: ModelMap) -> bool:
    """A text `decoder` attends to the speech `encoder` beside it, and there is nothing else."""
    speech = [weight.name for weight in model.weights if _is_layer_of("audio", weight)]
    text = [weight for weight in model.weights if _is_layer_of("text", weight)]
    around, found, _ = f".{speech[0]}".partition(".encoder.")
    beside = (f"{around}.encoder.", f"{around}.decoder.")
    return (
        bool(found)
        and all(f".{name}".startswith(beside[0]) for name in speech)
        and all(f".{weight.name}".startswith(beside[1]) for weight in text)
        and any(weight.role.variant == "cross" for weight in text)
    )


def _is_layer_of(component: str, weight: Weight) -> bool:
    return weight.role.component == component and weight.role.block in MAIN_BLOCKS


def covered_blocks(model: ModelMap, names: Collection[str]) -> dict[str, tuple[int, int]]:
    """Parameters of each of `MAIN_BLOCKS`: (in some weights, in all).

    Only blocks that the model itself has, in its order.
    """
    own = own_components(model)
    blocks: dict[str, tuple[int, int]] = {}
    for weight in model.weights:
        block = weight.role.block
        if weight.role.component in own and block in MAIN_BLOCKS:
            covered, size = blocks.get(block, (0, 0))
            blocks[block] = (covered + (weight.size if weight.name in names else 0), size + weight.size)
    return blocks


def holds(weight: Weight, facts: Iterable[tuple[str, ...]]) -> bool:
    """Whether all facts hold; a fused part counts as its pieces."""
    role = weight.role
    for values in facts:
        fact = FACT_OF[values[0]]
        has = (role.part, *CONTENTS.get(role.part, ())) if fact == "part" else (getattr(role, fact),)
        if not any(value in values for value in has):
            return False
    return True


def nearest_selectors(model: ModelMap, rule: Rule) -> list[str]:
    """Selectors that match something in the model, the most similar first."""
    own = own_components(model)
    parts: dict[tuple[str, str, str], set[str]] = {}
    for weight in model.weights:
        role = weight.role
        component = "" if role.component in own else role.component
        parts.setdefault((component, role.block, role.variant), set()).add(role.part)
    wanted = {value for values in rule.facts for value in values}

    def distance(key: tuple[str, str, str]) -> tuple[int, str, int, str]:
        words = {*key, *(value for part in parts[key] for value in (part, *CONTENTS.get(part, ())))}
        component, block, variant = key
        # Who names a component wants that one first.
        return (
            -len(wanted & words) - (component in wanted),
            component,
            BLOCKS.index(block) if block in BLOCKS else len(BLOCKS),
            variant,
        )

    return [
        ".".join(word for word in (*key, ",".join(sorted(parts[key] - {""}))) if word)
        for key in sorted(parts, key=distance)[:_MOST_NAMED]
    ]


def layer_counts(model: ModelMap) -> dict[tuple[str, str], int]:
    """How many layers each (component, stack) has."""
    counts: dict[tuple[str, str], int] = {}
    for weight in model.weights:
        if weight.layer is not None:
            key = (weight.role.component, weight.role.stack)
            counts[key] = max(counts.get(key, 0), weight.layer + 1)
    return counts


def _in_layers(model: ModelMap, weights: list[Weight], rule: Rule) -> list[Weight]:
    counts = layer_counts(model)
    allowed: dict[tuple[str, str], set[int]] = {}
    for key in {(weight.role.component, weight.role.stack) for weight in weights if weight.layer is not None}:
        there = {
            weight.layer
            for weight in weights
            if weight.layer is not None and (weight.role.component, weight.role.stack) == key
        }
        allowed[key] = _numbers(rule, there, counts[key], ".".join(word for word in key if word))
    return [
        weight
        for weight in weights
        if weight.layer is not None and weight.layer in allowed[weight.role.component, weight.role.stack]
    ]


def _numbers(rule: Rule, there: set[int], count: int, place: str) -> set[int]:
    """The layers that a rule means, of those that exist.

    One number in a name may stand for 10^17 layers.
    """
    numbers: set[int] = set()
    for piece in rule.layers.split(","):
        if ":" in piece:
            bounds = [int(bound) if bound else None for bound in piece.split(":")]
            meant = range(count)[slice(*bounds)]
            numbers |= {number for number in there if number in meant}
        elif -count <= int(piece) < count:
            numbers.add(int(piece) % count)
        else:
            raise LorascopeError(
                f"there is no layer {piece}: {place} has {count} layers, 0 to {count - 1}",
                where=f"rule {str(rule)!r}",
                hint="Negative numbers count from the end: [-1] is the last layer, [-8:] are the last eight.",
            )
    return numbers
