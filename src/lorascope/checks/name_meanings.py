"""Well-known names of weights: their meaning, and where a model has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.context import CheckContext
from lorascope.checks.phrases import in_quotes, joined
from lorascope.model import lexicon
from lorascope.model.role_names import parse_role
from lorascope.model.types import Weight
from lorascope.names import NUMBER
from lorascope.number_text import share_text
from lorascope.peft_rules.adaptability import why_not_adaptable
from lorascope.peft_rules.addresses import as_parameter, peft_name
from lorascope.plans.rules import CONTENTS, holds

# (block, part); a part is empty where the name means the whole block.
Meaning = tuple[str, str]

_WORDS = {
    ("attention", "q"): "query",
    ("attention", "k"): "key",
    ("attention", "v"): "value",
    ("attention", "o"): "attention output",
    ("attention", "gate"): "attention gate",
    ("ffn", "gate"): "FFN gate",
    ("ffn", "up"): "FFN up projection",
    ("ffn", "down"): "FFN down projection",
    ("router", ""): "router",
    ("head", "lm"): "output embedding",
    ("head", "classifier"): "classifier",
    ("embedding", "token"): "token embedding",
    ("attention", ""): "attention",
    ("ffn", ""): "FFN",
}
_BLOCKS = {"attention": "attention", "ffn": "FFN", "mixer": "mixer"}
# Names that people paste and that no architecture of the lexicon has as a module: the mistral format's and others.
_ELSEWHERE = {"wq": ("attention", "q"), "wk": ("attention", "k"), "wv": ("attention", "v"), "wo": ("attention", "o")}


# Last words that say nothing by themselves.
_GENERIC = frozenset({"proj", "linear", "weight"})


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """The weights of a model that a name means.

    Attributes:
        meanings: What the name means, without what the model lacks.
        weights: The weights that are that or hold it.
        modules: Entries for `target_modules` that match exactly those of them that are modules; empty if none do.
        parameters: The same for `target_parameters`.
    """

    meanings: tuple[Meaning, ...]
    weights: tuple[Weight, ...]
    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def meanings_of(name: str) -> tuple[Meaning, ...]:
    """What a name, or its end, means in known architectures."""
    words = [word for word in NUMBER.sub("", name).split(".") if word]
    while len(words) > 1 and words[-1] in lexicon.WRAPPERS:
        words.pop()
    if not words:
        return ()
    leaf = words[-1]
    opening = [lexicon.BLOCKS[word] for word in words[:-1] if word in lexicon.BLOCKS]
    block = opening[-1].partition(".")[0] if opening else ""
    tail = lexicon.TAILS.get(".".join(words[-2:]), "")
    if tail == "{o}":
        return (("attention", "o"),) if block == "attention" else (("ffn", "down"),)
    meanings: list[Meaning] = []
    if tail:
        meanings.append(_meaning(tail))
    for text in (lexicon.BARE_LEAVES.get(leaf), lexicon.LEAVES.get(leaf)):
        if text:
            meanings.append(_meaning(text))
    for other in ("attention", "ffn", "mixer"):
        part = lexicon.PARTS[other].get(leaf)
        if part and (not block or block == other) and not (tail or leaf in lexicon.BARE_LEAVES):
            meanings.append((other, part))
    if leaf in lexicon.BLOCKS and not meanings:
        meanings.append((lexicon.BLOCKS[leaf].partition(".")[0], ""))
    if not meanings and leaf in _ELSEWHERE:
        meanings.append(_ELSEWHERE[leaf])
    return tuple(dict.fromkeys(meanings))


def describe_meanings(meanings: Iterable[Meaning]) -> str:
    """Meanings in words: `the query, key and value`."""
    words = dict.fromkeys(
        _WORDS.get((block, piece), f"{block} {piece}".rstrip())
        for block, part in meanings
        for piece in CONTENTS.get(part, (part,))
    )
    return f"the {joined(words)}" if words else ""


def find_place(context: CheckContext, meanings: Iterable[Meaning]) -> Place | None:
    """The adaptable weights with some meanings; None if there are none."""
    model = context.model
    weights: dict[str, Weight] = {}
    present: list[Meaning] = []
    for block, part in meanings:
        facts = ((block,), CONTENTS.get(part, (part,))) if part else ((block,),)
        holders = [
            weight
            for weight in model.weights
            if weight.role.component in context.main_components
            and holds(weight, facts)
            and not why_not_adaptable(model, weight)
        ]
        if holders:
            present.append((block, part))
            weights.update((weight.name, weight) for weight in holders)
    return place_of_weights(context, list(weights.values()), tuple(present)) if weights else None


def place_of_weights(context: CheckContext, weights: Sequence[Weight], meanings: tuple[Meaning, ...] = ()) -> Place:
    """Weights with the entries that match them."""
    modules = [weight.name for weight in weights if not as_parameter(context.model, weight)]
    parameters = [peft_name(context.model, weight) for weight in weights if as_parameter(context.model, weight)]
    return Place(
        meanings,
        tuple(weights),
        context.module_entries(modules) if modules else (),
        context.parameter_entries(parameters) if parameters else (),
    )


def describe_place(context: CheckContext, texts: Sequence[str], place: Place) -> str:
    """Where the model has what well-known names mean, in a sentence."""
    names, many = joined(dict.fromkeys(texts)), len(texts) > 1
    pieces = {piece for _, part in place.meanings for piece in CONTENTS.get(part, (part,))}
    extra = describe_meanings(_other_pieces(place, pieces))
    where = _where(place) + (f", together with {extra}" if extra else "") + _expert_share(context, place)
    if all(len(CONTENTS.get(weight.role.part, ())) > 1 for weight in place.weights) and pieces != {""}:
        if many:
            return f"Most models have separate {names}; this one fuses them into {where}."
        if extra:
            return f"Most models have a separate {names}; this one fuses it into {where}."
    if not many and len(pieces) > 1 and len(place.modules) > 1:
        return f"Elsewhere it fuses {describe_meanings(place.meanings)}; here they are separate: {where}."
    verb = "are" if len(pieces) > 1 else "is"
    return f"Here {describe_meanings(place.meanings)} {verb} {where}."


def describe_lack(context: CheckContext, texts: Sequence[str], meanings: Sequence[Meaning]) -> str:
    """What well-known names mean, and that the model lacks it."""
    model, own = context.model, context.main_components
    meaning = f"{'They mean' if len(texts) > 1 else 'It means'} {describe_meanings(meanings)}"
    blocks = {weight.role.block for weight in model.weights if weight.role.component in own}
    for block, part in meanings:
        if block in _BLOCKS and block not in blocks:
            return f"{meaning}, and {model.model} has no {_BLOCKS[block]} of its own."
        if part:
            parts = {w.role.part for w in model.weights if w.role.component in own and w.role.block == block} - {""}
            others = f": its {_BLOCKS.get(block, block)} has {', '.join(sorted(parts))}" if parts else ""
            return f"{meaning}, and {model.model} has none that can be adapted{others}."
    return f"{meaning}, and {model.model} has none that can be adapted."


def fix_for_place(context: CheckContext, place: Place, command: str, purpose: str = "") -> str:
    """Settings that adapt a place, or the command that writes them."""
    ways = []
    if place.modules:
        ways.append(f"{in_quotes(place.modules)} in {context.syntax.name('target_modules')}")
    if place.parameters:
        ways.append(context.parameters_setting(place.parameters))
    parameters = [weight for weight in place.weights if as_parameter(context.model, weight)]
    if (parameters and not place.parameters) or (len(parameters) < len(place.weights) and not place.modules):
        return f"{purpose}, generate it: {command}" if purpose else f"Generate it: {command}"
    return f"{purpose}, use {' and '.join(ways)}." if purpose else f"Use {' and '.join(ways)}."


def selector_of(meanings: Iterable[Meaning]) -> str:
    """The rules that select some meanings, for a command: `attention.q,k ffn.down`."""
    parts: dict[str, list[str]] = {}
    for block, part in meanings:
        parts.setdefault(block, []).extend(CONTENTS.get(part, (part,)) if part else ())
    return " ".join(
        ".".join(word for word in (block, ",".join(dict.fromkeys(p))) if word) for block, p in parts.items()
    )


def _where(place: Place) -> str:
    ways = [joined(place.modules)] if place.modules else []
    if place.parameters:
        ways.append(f"the parameter{'s' if len(place.parameters) > 1 else ''} {joined(place.parameters)}")
    return " and ".join(ways) or ", ".join(_leaves(place.weights))


def _other_pieces(place: Place, pieces: set[str]) -> dict[Meaning, None]:
    """What the weights hold besides what is meant."""
    others: dict[Meaning, None] = {}
    for weight in place.weights:
        contents = CONTENTS.get(weight.role.part, ())
        if contents and not pieces & {"", weight.role.part}:
            others.update({(weight.role.block, piece): None for piece in contents if piece not in pieces})
    return others


def _expert_share(context: CheckContext, place: Place) -> str:
    """How much of the FFN the experts are, where they are parameters."""
    if not any(w.role.block == "ffn" and w.role.variant == "expert" and w.kind == "parameter" for w in place.weights):
        return ""
    ffn = [w for w in context.model.weights if w.role.component in context.main_components and w.role.block == "ffn"]
    experts = sum(weight.size for weight in ffn if weight.role.variant == "expert")
    share = experts / (sum(weight.size for weight in ffn) or 1)  # all may be without numbers
    return f" (experts: {share_text(share)} of the FFN)"


def _meaning(text: str) -> Meaning:
    role = parse_role(text)
    return role.block, role.part


def _leaves(weights: Iterable[Weight]) -> list[str]:
    """The last words of names, numbers as `*`: `mlp.up_proj`, `ff.net.*`; `proj_mlp` of a block's own layer."""
    return list(dict.fromkeys(_leaf(NUMBER.sub("*", weight.name).split(".")) for weight in weights))


def _leaf(words: list[str]) -> str:
    first = len(words) - 1
    while first > 0 and (words[first] == "*" or first == len(words) - 1):
        if words[first] != "*" and words[first - 1] == "*" and words[first] not in _GENERIC:
            break
        first -= 1
    return ".".join(words[first:])
