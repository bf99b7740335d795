"""Random configurations for a model: mostly ones that a person could write, some that PEFT refuses."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from lorascope.model.types import ModelMap
from lorascope.peft_rules.matchers import parameter_names
from lorascope.peft_rules.types import AdapterConfig
from tests.helpers.oracle import peft_kwargs

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


# What few people set, by a label under which the tests count it. A function is given the model's words.
_TOKENS = ("embed_tokens", "lm_head", "wte", "shared", "word_embeddings", "ens", "rows", "norm", "nope", "turned")
_INITS: tuple[Any, ...] = (
    False,
    None,
    "gaussian",
    "Gaussian",
    "pissa",
    "pissa_niter_2",
    "pissa_niter_x",
    "pissa_4",
    "olora",
    "OLoRA",
    "orthogonal",
    "eva",
    "corda",
    "lora_ga",
    "loftq",
    "mica",
    "MiCA",
    "nonsense",
    "",
)


def _bdlora(words: Words, draw: st.DrawFn) -> dict[str, Any]:
    leaf = st.sampled_from([*words.linear_leaves, "proj", "attn"])
    names = st.one_of(st.none(), st.lists(leaf, max_size=4))
    return {
        "use_bdlora": {
            "target_modules_bd_a": draw(names),
            "target_modules_bd_b": draw(names),
            "nblocks": draw(st.sampled_from([1, 2, 2, 4, 3])),
            "match_strict": draw(st.sampled_from([False, False, True])),
        }
    }


def _tokens(words: Words, draw: st.DrawFn) -> dict[str, Any]:
    present = [name for name in _TOKENS if any(module.endswith(name) for module in words.all)]
    row = st.integers(0, 15) if draw(st.integers(0, 9)) else st.integers(-70, 70)
    rows = st.lists(row, max_size=4)
    if draw(st.booleans()):
        return {"trainable_token_indices": draw(rows)}
    entry = st.sampled_from([*present, *present, *present, *_TOKENS])
    return {"trainable_token_indices": draw(st.dictionaries(entry, rows, max_size=2))}


_SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "kasa_config": ({}, {"beta": 0.1}, {"beta": -1}, {"unknown": 1}),
    "velora_config": ({}, {"num_groups": 4}, {"num_groups": 0}, {"init_type": "random"}, {"init_type": "other"}),
    "monteclora_config": ({"buffer_size": 2}, {"num_samples": 3, "buffer_size": 1}, {"num_samples": 0}, {"other": 1}),
    "arrow_config": ({}, {"top_k": 0}),
    "eva_config": ({}, {"rho": 0.5}, {"tau": 2}),
    "corda_config": ({},),
    "lora_ga_config": ({}, {"direction": "random"}),
}
_PLAIN: dict[str, tuple[Any, ...]] = {
    "alora_invocation_tokens": ([1, 2], []),
    "inference_mode": (True,),
    "ensure_weight_tying": (True,),
    "use_qalora": (True,),
    "megatron_config": ({"a": 1}, {"a": 1}, {"a": 1}, {}, None),
    "megatron_core": ("elsewhere", "megatron.other", None),
    "layer_replication": (
        [[0, 2], [1, 2]],
        [[0, 1]],
        [[0, 2], [0, 2]],
        [[1, 2], [-1, 1]],
        [[0, 2], [1, 1]],
        [[0, 9]],
        [[0, 1, 2]],
        [[5, 3]],
        [],
        None,
    ),
    "lora_dropout": (float("nan"), float("inf"), -0.5, 1.0, 1.5),
    "lora_alpha": (float("nan"), float("inf"), -8, 0, 1e300),
    "r": (1, 3, 5, 17, 40),
}
LABELS = (
    *(f"init_lora_weights={value}" for value in _INITS),
    *_SETTINGS,
    *_PLAIN,
    "loftq_config",
    "use_bdlora",
    "trainable_token_indices",
    "two of them",
)


@st.composite
def rare_configurations(draw: st.DrawFn, model: ModelMap, label: str) -> dict[str, Any]:
    """The keyword arguments of one configuration that sets what a label names."""
    words = Words(model)
    # Most initializations and variants go with nothing else that is rare, and with linear layers alone.
    base = _usual(words, draw) if draw(st.integers(0, 3)) else draw(configurations(model))
    values = {**peft_kwargs(base), **_rare(words, draw, label)}
    if label == "two of them":
        values |= _rare(words, draw, draw(st.sampled_from(LABELS[:-1])))
    if not draw(st.integers(0, 3)):
        values |= _rare(words, draw, draw(st.sampled_from(["inference_mode", "r", "trainable_token_indices"])))
    return values


def _usual(words: Words, draw: st.DrawFn) -> AdapterConfig:
    """What people write beside the rare."""
    leaves = st.lists(st.sampled_from(words.linear_leaves), min_size=1, max_size=4).map(tuple)
    tails = st.lists(st.sampled_from(words.tails), min_size=1, max_size=2).map(tuple)
    parameters = st.lists(st.sampled_from(words.parameters or [""]), min_size=1, max_size=2).map(tuple)
    use = draw(st.integers(0, 7)) if words.parameters else 7
    return AdapterConfig(
        target_modules=() if not use else draw(st.one_of(leaves, leaves, leaves, tails, st.just("all-linear"))),
        target_parameters=draw(parameters) if use < 2 else None,
        r=draw(st.sampled_from([2, 4, 4, 8, 8, 16])),
        lora_alpha=draw(st.sampled_from([8, 16, 0.5])),
        bias=draw(st.sampled_from(["none"] * 4 + ["all", "lora_only"])),
        use_rslora=draw(_rarely(True, False)),
        use_dora=draw(_rarely(True, False)),
        rank_pattern=draw(_patterns(words, st.sampled_from([1, 2, 4, 6, 12, 32]))),
        modules_to_save=draw(_saved(words)),
        task_type=draw(st.sampled_from([None] * 4 + ["CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS"])),
    )


def _rare(words: Words, draw: st.DrawFn, label: str) -> dict[str, Any]:
    if label == "two of them":
        return _rare(words, draw, draw(st.sampled_from(LABELS[:-1])))
    if label == "use_bdlora":
        return _bdlora(words, draw)
    if label == "trainable_token_indices":
        return _tokens(words, draw)
    if label == "loftq_config":
        settings = ({}, {"loftq_bits": 4, "loftq_iter": 1}, {"loftq_bits": 4}, {"loftq_bits": 3, "loftq_iter": 1})
        return {"init_lora_weights": "loftq", "loftq_config": draw(st.sampled_from(settings))}
    if label in _SETTINGS:
        return {label: draw(st.sampled_from(_SETTINGS[label]))}
    if label in _PLAIN:
        return {label: draw(st.sampled_from(_PLAIN[label]))}
    value = next(value for value in _INITS if f"init_lora_weights={value}" == label)
    return {"init_lora_weights": value} | (
        {"loftq_config": {"loftq_bits": 8, "loftq_iter": 1}} if value == "loftq" else {}
    )
