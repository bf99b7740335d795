"""What a well-known name of a weight means anywhere, and where a model has that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.entries import endings_or_names, in_quotes
from lorascope.model import lexicon
from lorascope.model.classify import parse_role
from lorascope.model.types import ModelMap, Weight
from lorascope.names import NUMBER
from lorascope.peft_rules.adaptability import obstacle
from lorascope.peft_rules.addresses import as_parameter, peft_name
from lorascope.peft_rules.matchers import parameter_names
from lorascope.plans.rules import CONTENTS, holds, own_components

# (block, part); a part is empty where the name means the whole block.
Meaning = tuple[str, str]

_SAID = {
    ("attention", "q"): "the queries",
    ("attention", "k"): "the keys",
    ("attention", "v"): "the values",
    ("attention", "o"): "the attention's output",
    ("attention", "gate"): "the attention's gate",
    ("ffn", "gate"): "the FFN's gate",
    ("ffn", "up"): "the FFN's up projection",
    ("ffn", "down"): "the FFN's down projection",
    ("router", ""): "the router",
    ("head", "lm"): "the output embedding",
    ("head", "classifier"): "the classifier",
    ("embedding", "token"): "the token embedding",
    ("attention", ""): "the attention",
    ("ffn", ""): "the FFN",
}
_BLOCKS = {"attention": "attention", "ffn": "feed-forward weights", "mixer": "mixers"}
# Names that people paste and that no architecture of the lexicon has as a module: the mistral format's and others.
_ELSEWHERE = {"wq": ("attention", "q"), "wk": ("attention", "k"), "wv": ("attention", "v"), "wo": ("attention", "o")}


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a model has what a name means.

    Attributes:
        meanings: What the name means, as far as the model has it.
        weights: The weights that are or hold it.
        modules: Entries for `target_modules` that match exactly those weights that are modules; empty if none do.
        parameters: The same for `target_parameters`.
    """

    meanings: tuple[Meaning, ...]
    weights: tuple[Weight, ...]
    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def meanings_of(name: str) -> tuple[Meaning, ...]:
    """What a name of a weight, or the end of one, means in the architectures of the lexicon; nothing if nobody knows."""
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
    found: list[Meaning] = []
    if tail:
        found.append(_meaning(tail))
    for text in (lexicon.BARE_LEAVES.get(leaf), lexicon.LEAVES.get(leaf)):
        if text:
            found.append(_meaning(text))
    for other in ("attention", "ffn", "mixer"):
        part = lexicon.PARTS[other].get(leaf)
        if part and (not block or block == other) and not (tail or leaf in lexicon.BARE_LEAVES):
            found.append((other, part))
    if leaf in lexicon.BLOCKS and not found:
        found.append((lexicon.BLOCKS[leaf].partition(".")[0], ""))
    if not found and leaf in _ELSEWHERE:
        found.append(_ELSEWHERE[leaf])
    return tuple(dict.fromkeys(found))


def said_meaning(meanings: Iterable[Meaning]) -> str:
    """What meanings are, in words: `the queries, the keys`."""
    said = []
    for block, part in meanings:
        for piece in CONTENTS.get(part, (part,)):
            said.append(_SAID.get((block, piece), f"the {block}'s {piece}".rstrip(" ").removesuffix("'s")))
    return ", ".join(dict.fromkeys(said))


def place_in(model: ModelMap, meanings: Iterable[Meaning]) -> Place | None:
    """Where a model itself has something, or None where it has nothing of the kind that PEFT can adapt."""
    own = own_components(model)
    found: dict[str, Weight] = {}
    present: list[Meaning] = []
    for block, part in meanings:
        facts = ((block,), CONTENTS.get(part, (part,))) if part else ((block,),)
        weights = [w for w in model.weights if w.role.component in own and holds(w, facts) and not obstacle(model, w)]
        if weights:
            present.append((block, part))
            found.update((weight.name, weight) for weight in weights)
    return place_of_weights(model, list(found.values()), tuple(present)) if found else None


def place_of_weights(model: ModelMap, weights: Sequence[Weight], meanings: tuple[Meaning, ...] = ()) -> Place:
    """Some weights with the entries that reach them."""
    modules = [weight.name for weight in weights if not as_parameter(model, weight)]
    bare = [peft_name(model, weight) for weight in weights if as_parameter(model, weight)]
    return Place(
        meanings,
        tuple(weights),
        endings_or_names(modules, [module.name for module in model.modules]) if modules else (),
        endings_or_names(bare, [name for _, name, _ in parameter_names(model)]) if bare else (),
    )


def said_place(model: ModelMap, place: Place) -> str:
    """Where it is, in words: `in c_attn here, with the keys and the values`."""
    leaves = ", ".join([*place.modules, *place.parameters]) or _leaves(place.weights)
    asked = {piece for _, part in place.meanings for piece in CONTENTS.get(part, (part,))}
    along: dict[Meaning, None] = {}
    for weight in place.weights:
        pieces = CONTENTS.get(weight.role.part, ())
        if asked & {"", weight.role.part} or not pieces:
            continue
        along.update({(weight.role.block, piece): None for piece in pieces if piece not in asked})
    extra = f", together with {said_meaning(along)}" if along else ""
    return f"here in {leaves}{extra}"


def fix_for(model: ModelMap, place: Place, command: str) -> str:
    """What to write to reach a place."""
    ways = []
    if place.modules:
        ways.append(f"in target_modules: {in_quotes(place.modules)}")
    if place.parameters:
        ways.append(f"target_parameters=[{in_quotes(place.parameters)}]")
    bare = [weight for weight in place.weights if as_parameter(model, weight)]
    if not ways or (bare and not place.parameters) or (len(bare) < len(place.weights) and not place.modules):
        return f"Let it be written: {command}"
    dropout = " with lora_dropout=0" if place.parameters else ""
    return f"Write {' and '.join(ways)}{dropout}."


def selector_of(meanings: Iterable[Meaning]) -> str:
    """The rules that select what is meant, for a command: `attention.q,k ffn.down`."""
    parts: dict[str, list[str]] = {}
    for block, part in meanings:
        parts.setdefault(block, []).extend(CONTENTS.get(part, (part,)) if part else ())
    return " ".join(
        ".".join(word for word in (block, ",".join(dict.fromkeys(p))) if word) for block, p in parts.items()
    )


def said_lack(model: ModelMap, meanings: Iterable[Meaning]) -> str:
    """That a model has no such thing, and what it has instead."""
    own = own_components(model)
    blocks = {weight.role.block for weight in model.weights if weight.role.component in own}
    for block, part in meanings:
        if block in _BLOCKS and block not in blocks:
            return f"{model.model} has no {_BLOCKS[block]} of its own"
        if part:
            parts = {w.role.part for w in model.weights if w.role.component in own and w.role.block == block}
            shown = ", ".join(sorted(parts - {""}))
            return f"{model.model} has none that can be adapted" + (f": its {block} has {shown}" if shown else "")
    return f"{model.model} has none that can be adapted"


def _meaning(text: str) -> Meaning:
    role = parse_role(text)
    return role.block, role.part


def _leaves(weights: Iterable[Weight]) -> str:
    leaves = dict.fromkeys(".".join(NUMBER.sub("*", weight.name).split(".")[-2:]) for weight in weights)
    return ", ".join(leaves)
