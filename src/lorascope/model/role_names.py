"""Reads the words of a weight's name by the lexicon."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from lorascope import light_dataclasses as dataclasses
from lorascope.model import lexicon
from lorascope.model.types import Kind, Role

# Blocks that have no part but those of `PARTS`, and embedders of which every linear layer is one.
_WHOLE = ("router", "indexer", "modulation")
_EMBEDDERS = ("embedding.time", "embedding.caption", "embedding.merger")
_ENDINGS = tuple((re.compile(pattern), block) for pattern, block in lexicon.ENDINGS)
_PARAMETRIZED = re.compile(r"\.parametrizations\.\w+\.original\d*$")
_COMPONENTS = tuple((re.compile(pattern), component) for pattern, component in lexicon.COMPONENT_PATTERNS)
_HEADS = re.compile(lexicon.HEADS)
# A module that weighs the stream between the blocks: what it is made of is no FFN, whatever it is called.
_GATE = re.compile(r"\w+_gates?")
_NORM = re.compile(r"(?:^|_)(?:[a-z]*norm|ln)\d*(?:_|$)", re.IGNORECASE)


@cache
def role_of_name(folded: str, kind: Kind, model_type: str) -> tuple[Role, bool]:
    """The role that a folded name implies; whether it is guessed."""
    text: str | None = None
    for pattern, exception in _exceptions(model_type):
        if any(pattern.fullmatch(name) for name in _with_prefixes(folded)):
            text = exception
            break
    if text is None or text.endswith(".*"):
        text = _block_variant_part(folded, kind, text.removesuffix(".*") if text else "")
    component = spoken_component(folded, model_type) or "text"
    if text == "head.lm" and component != "text" and folded.endswith(".proj_out"):  # of a tower, which writes no tokens
        text = None
    return dataclasses.replace(parse_role(text or "other"), component=component), text is None


@cache
def parse_role(text: str) -> Role:
    """The role of a text such as `attention.self.q` or `vision.ffn.dense.up`."""
    words = text.split(".")
    component = "" if words[0] in lexicon.BLOCK_NAMES else words.pop(0)
    stack = words.pop(0) if words[0] in ("encoder", "decoder") else ""
    block = words.pop(0)
    variant = words.pop(0) if words and block in ("attention", "ffn") else ""
    return Role(component, stack, block, variant, words.pop(0) if words else "")


def _block_variant_part(folded: str, kind: Kind, opened: str = "") -> str | None:
    """The role's text by the tables; None where none has a row."""
    folded = _PARAMETRIZED.sub("", folded)
    words = [word for word in folded.split(".") if word != "#"]
    if not words:  # a member of a bare Sequential
        return None
    if not lexicon.OTHER.isdisjoint(words) or (kind == "parameter" and words[-1] in lexicon.NO_MATRIX):
        return "other"
    if kind == "linear" and len(words) > 1 and _NORM.search(words[-2]) and words[-1] not in lexicon.PARTS["attention"]:
        return lexicon.TAILS.get(".".join(words[-2:]), "modulation")
    while len(words) > 1 and words[-1] in lexicon.WRAPPERS:
        words.pop()
    leaf = words[-1]
    if leaf.startswith(lexicon.RECURRENT):
        return "other"
    tail = lexicon.TAILS.get(".".join(words[-2:]))
    opened = opened or opened_block(words[:-1])
    block = opened.partition(".")[0]
    if kind == "parameter" and folded.endswith("query"):
        return "other" if opened == "attention.self" else "embedding.query"
    if not opened and any(map(_GATE.fullmatch, words[:-1])):
        return "other"
    if tail == "{o}":
        return f"{opened}.o" if block == "attention" else "ffn.dense.down"
    if tail:
        return opened if tail.startswith("ffn") and opened in _EMBEDDERS else tail
    if kind == "multihead_attention":
        cross = "attention.cross" in (opened, lexicon.BLOCKS.get(leaf))
        return "attention.cross.qkvo" if cross else "attention.self.qkvo"
    if leaf == "proj_out" and "#" in folded and not opened:  # of a layer, not of the model
        return "ffn.dense.down"
    return _by_leaf(folded, words, kind, opened)


def _by_leaf(folded: str, words: Sequence[str], kind: Kind, opened: str) -> str | None:
    """The role's text by the last word, inside the block that is open."""
    leaf, block = words[-1], opened.partition(".")[0]
    part = lexicon.PARTS.get(block, {}).get(leaf)
    if part is not None:
        return f"{opened if block in ('attention', 'ffn') else block}.{part}"
    if block == "attention" and kind != "parameter" and (part := _part_by_tokens(leaf)):
        return f"{opened}.{part}"
    if block in _WHOLE or opened in _EMBEDDERS:
        return opened
    if leaf in lexicon.LEAVES:
        return lexicon.LEAVES[leaf]
    if folded in lexicon.ROOT_LEAVES:
        return lexicon.ROOT_LEAVES[folded]
    if block in ("embedding", "head"):
        return opened
    if kind == "embedding":
        return lexicon.BARE_LEAVES.get(leaf, "embedding")
    if lexicon.BLOCKS.get(leaf, "") in _WHOLE or lexicon.BLOCKS.get(leaf, "").startswith("embedding."):
        return lexicon.BLOCKS[leaf]
    # A member of a Sequential has only a number.
    bare = None if folded.endswith("#") else lexicon.BARE_LEAVES.get(leaf)
    if bare is None and (lexicon.BLOCKS.get(leaf) == "head" or any(_HEADS.fullmatch(word) for word in words)):
        return "head"
    return bare


def opened_block(words: Sequence[str]) -> str:
    """The block that the last of the words opens."""
    opening = [block for word in words if (block := block_of_word(word))]
    opened = opening[-1] if opening else ""
    if opened == "ffn.dense" and len(opening) > 1 and opening[-2] in _EMBEDDERS and block_of_word(words[0]) != opened:
        last = max(index for index, word in enumerate(words) if block_of_word(word) == opened)
        return opening[-2] if block_of_word(words[last - 1]) == opening[-2] else opened
    for plain, special in (("attention.self", "attention.cross"), ("ffn.dense", "ffn.expert")):
        if opened == plain and special in opening:
            return special
    return opened


@cache
def block_of_word(word: str) -> str:
    """The block that a word opens, by the table or by its end; or empty."""
    if word in lexicon.BLOCKS:
        return lexicon.BLOCKS[word]
    return next((block for pattern, block in _ENDINGS if pattern.fullmatch(word)), "")


@cache
def _part_by_tokens(leaf: str) -> str:
    """What an attention's leaf is, by the words in it; empty where they do not agree."""
    tokens = {lexicon.ATTENTION_TOKENS[token] for token in leaf.split("_") if token in lexicon.ATTENTION_TOKENS}
    joined = "".join(letter for letter in "qkvo" if letter in tokens)
    return joined if joined in ("q", "k", "v", "o", "qkv", "kv", "qk") else ""


@cache
def spoken_component(folded: str, model_type: str) -> str:
    """The component that a word of the name says, or empty."""
    for pattern, component in lexicon.COMPONENT_EXCEPTIONS.get(model_type, ()):
        if any(re.match(pattern, name) for name in _with_prefixes(folded)):
            return component
    if folded in lexicon.ROOT_COMPONENTS:
        return lexicon.ROOT_COMPONENTS[folded]
    words = folded.split(".")
    spoken = next((component for component, marks in lexicon.COMPONENTS if not marks.isdisjoint(words)), "")
    outside = words[: words.index("#")] if "#" in words else words[:-1]
    return spoken or next((component for word in outside if (component := _component_by_parts(word))), "")


def _with_prefixes(folded: str) -> tuple[str, ...]:
    """A name, and the same where the model stands in another: a base model lacks the `model` of its heads."""
    return folded, f".{folded}", f"model.{folded}"


@cache
def _component_by_parts(word: str) -> str:
    return next((component for pattern, component in _COMPONENTS if pattern.fullmatch(word)), "")


@cache
def _exceptions(model_type: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple(
        (re.compile(pattern), role)
        for model_types, pattern, role, _ in lexicon.EXCEPTIONS
        if model_type in model_types.split()
    )
