"""Random configurations for a model: mostly ones that a person could write, some that PEFT refuses."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from lorascope.peft_rules.matching import parameter_names
from lorascope.records import AdapterConfig, ModelMap

_ADAPTABLE = ("linear", "conv1d", "embedding", "conv", "multihead_attention")


def _tails(names: list[str], parts: int) -> list[str]:
    return sorted({".".join(name.split(".")[-parts:]) for name in names})


class Words:
    """The names of a model from which configurations are put together."""

    def __init__(self, model: ModelMap) -> None:
        self.all = [module.name for module in model.modules]
        self.full = [module.name for module in model.modules if module.kind in _ADAPTABLE]
        self.linear = [module.name for module in model.modules if module.kind in ("linear", "conv1d")]
        self.leaves = [leaf for leaf in _tails(self.full, 1) if not leaf.isdigit()]
        self.linear_leaves = [leaf for leaf in _tails(self.linear, 1) if not leaf.isdigit()]
        self.tails = _tails(self.full, 2)
        named = [(name, shape) for owner, name, shape in parameter_names(model) if owner]
        self.parameters = [name for name, shape in named if len(shape) > 1]
        self.stacks = [name for name, shape in named if len(shape) == 3] or self.parameters
        self.everything = [name for name, _ in named]
        self.children = sorted({name.split(".")[0] for name in self.all})


def _regexes(words: Words) -> st.SearchStrategy[str]:
    leaf = st.sampled_from(words.leaves)
    full = st.sampled_from(words.full)
    return st.one_of(
        leaf.map(lambda name: rf".*\.{name}"),
        st.lists(st.sampled_from(words.linear_leaves), min_size=1, max_size=4).map(
            lambda names: rf".*\.({'|'.join(names)})"
        ),
        st.lists(leaf, min_size=1, max_size=4).map(lambda names: rf".*\.({'|'.join(names)})"),
        st.tuples(st.integers(0, 2), leaf).map(lambda pair: rf".*\.{pair[0]}\..*{pair[1]}"),
        st.lists(full, min_size=1, max_size=5).map(lambda names: "|".join(map(re.escape, names))),
        full.map(lambda name: f"^{re.escape(name)}$"),
        st.sampled_from([*words.linear_leaves, words.all[-1]]).map(lambda name: rf".*{name}.*"),
        st.sampled_from(words.tails).map(lambda name: rf".*{re.escape(name)}"),
        st.sampled_from([".*", "(", "q_proj", "[qv]_proj", r".*_proj", r".*experts.*", "", "dummy-target-modules"]),
    )


def _lists(words: Words) -> st.SearchStrategy[tuple[str, ...]]:
    leaf = st.sampled_from(words.leaves)
    linear = st.sampled_from(words.linear_leaves)
    linear_tail = st.sampled_from(_tails(words.linear, 2))
    full = st.sampled_from(words.full)
    entry = st.one_of(leaf, linear, linear, st.sampled_from(words.tails), full)
    odd = st.one_of(entry, st.sampled_from([*words.all, "nope", "", "proj", ".*q_proj", "all-linear", ".q_proj"]))
    return st.one_of(
        st.lists(linear, min_size=1, max_size=5, unique=True),
        st.lists(linear, min_size=1, max_size=5, unique=True),
        st.lists(linear_tail, min_size=1, max_size=5),
        st.lists(entry, min_size=1, max_size=4),
        st.lists(odd, min_size=0, max_size=3),
        st.lists(full, min_size=1, max_size=8),
        st.lists(st.sampled_from(words.linear), min_size=1, max_size=8),
        st.integers(0, len(words.linear)).map(lambda n: words.linear[n:]),
        st.just(words.linear),
        st.integers(0, 3).map(lambda n: [name for at, name in enumerate(words.linear) if at % 4 != n]),
    ).map(tuple)


def _patterns(words: Words, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    name = st.sampled_from([*words.full, *words.parameters])
    key = st.one_of(
        st.sampled_from(words.leaves),
        st.sampled_from(words.tails),
        name,
        name.map(lambda text: f"^{re.escape(text)}$"),
        name.map(lambda text: text.rpartition(".")[2]),
        name.map(lambda text: text.replace("_", ".")),
        st.sampled_from(words.leaves).map(lambda leaf: rf".*{leaf}"),
        st.sampled_from(words.leaves).map(lambda leaf: rf"(0|1)\..*\.{leaf}"),
        st.sampled_from(["proj", "nope", ".*", "layers.0", "layers.1.*", "experts", "[kq]_proj"]),
    )
    return st.one_of(st.just({}), st.just({}), st.dictionaries(key, values, max_size=4))


def _excludes(words: Words) -> st.SearchStrategy[str | tuple[str, ...] | None]:
    entry = st.one_of(st.sampled_from(words.all), st.sampled_from(words.leaves), st.sampled_from(words.tails))
    return st.one_of(
        st.none(),
        st.none(),
        st.none(),
        st.lists(entry, max_size=3).map(tuple),
        _regexes(words),
    )


def _saved(words: Words) -> st.SearchStrategy[tuple[str, ...] | None]:
    entry = st.one_of(
        st.sampled_from(words.leaves),
        st.sampled_from(words.tails),
        st.sampled_from(words.children),
        st.sampled_from([name.rpartition(".")[2] for name in words.all]),
        st.sampled_from(["head", "norm", "lm_head", "embed_tokens", "score", "nope", "mlp", "self_attn"]),
    )
    none = st.none()
    return st.one_of(none, none, none, none, st.lists(entry, max_size=2).map(tuple))


_LAYERS = st.one_of(
    st.none(),
    st.none(),
    st.none(),
    st.integers(0, 4),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
)
_LAYER_PATTERNS = st.one_of(
    st.none(),
    st.none(),
    st.sampled_from(
        ["layers", "h", "block", "layer", "", "nope", "(layers|h)", "blocks", (), ("layers",), ("nope", "layers", "h")]
    ),
)


def _parameters(words: Words) -> st.SearchStrategy[tuple[str, ...] | None]:
    if not words.parameters:
        return st.none()
    stack = st.sampled_from(words.stacks)
    some = st.sampled_from(words.parameters)
    entry = st.one_of(
        stack,
        stack.map(lambda name: name.rpartition(".")[2]),
        stack.map(lambda name: ".".join(name.split(".")[-2:])),
        some,
        some.map(lambda name: ".".join(name.split(".")[-2:])),
    )
    odd = st.one_of(entry, entry, st.sampled_from([*words.everything, "nope", "weight", "bias"]))
    none = st.none()
    usual = st.lists(entry, min_size=1, max_size=3).map(tuple)
    return st.one_of(none, none, none, usual, usual, usual, usual, usual, st.lists(odd, max_size=2).map(tuple))


def _rarely(value: Any, usual: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 7 + [value])


@st.composite
def configurations(draw: st.DrawFn, model: ModelMap) -> AdapterConfig:
    """One configuration for a model."""
    words = Words(model)
    parameters = draw(_parameters(words))
    lists = _lists(words)
    targets = draw(
        st.one_of(lists, lists, lists, _regexes(words), st.just("all-linear"), st.none())
        if parameters is None
        else st.one_of(st.just(()), st.just(()), st.none(), lists, _regexes(words))
    )
    layers = draw(_LAYERS)
    pattern = draw(_LAYER_PATTERNS) if layers is not None else draw(st.sampled_from([None] * 19 + ["layers"]))
    if isinstance(targets, str) and draw(st.integers(0, 19)):
        layers = pattern = None
    saved = draw(_saved(words))
    tasks = [None] * 16 + [
        "CAUSAL_LM",
        "SEQ_CLS",
        "SEQ_CLS",
        "TOKEN_CLS",
        "SEQ_2_SEQ_LM",
        "QUESTION_ANS",
        "FEATURE_EXTRACTION",
    ]
    plain = parameters is not None and bool(draw(st.integers(0, 11)))
    return AdapterConfig(
        target_modules=targets,
        target_parameters=parameters,
        r=draw(st.sampled_from([8] * 9 + [1, 2, 4, 12, 16, 32, 64, 256])),
        lora_alpha=draw(st.sampled_from([1, 8, 16, 32, 0.5])),
        lora_dropout=0.0 if plain else draw(_rarely(0.1, 0.0)),
        bias=draw(st.sampled_from(["none"] * 12 + ["all"] * 4 + ["lora_only"] * 4)),
        use_rslora=draw(_rarely(True, False)),
        use_dora=False if plain else draw(_rarely(True, False)),
        lora_bias=False if plain else draw(_rarely(True, False)),
        fan_in_fan_out=False if plain else draw(_rarely(True, False)),
        rank_pattern=draw(_patterns(words, st.sampled_from([1, 2, 3, 4, 5, 6, 12, 16, 32, 64]))),
        alpha_pattern=draw(_patterns(words, st.sampled_from([1, 4, 32, 0.25]))),
        exclude_modules=draw(_excludes(words)),
        layers_to_transform=layers,
        layers_pattern=pattern,
        modules_to_save=saved,
        task_type=draw(st.sampled_from(tasks)),
    )
