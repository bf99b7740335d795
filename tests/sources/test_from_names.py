"""Modules, kinds and roles from names and shapes alone: released remote-code checkpoints, and every recorded map."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorascope.model.classify import classify
from lorascope.model.types import ModelMap, Module, Weight
from lorascope.names import template
from lorascope.sources.builtin import builtin_models, load_builtin
from lorascope.sources.checkpoint.from_names import NamedTree, input_output_embeddings, modules_from_names
from lorascope.sources.checkpoint.types import Stored
from tests.helpers import remote_models
from tests.helpers.paths import DATA
from tests.helpers.samples import fails, sample

LAYOUTS = {layout.model: layout for layout in remote_models.LAYOUTS}
IDS = [layout.model.replace("/", "-") for layout in remote_models.LAYOUTS]


@cache
def _rows() -> list[list[str]]:
    path = DATA / "expectations" / "remote_roles.tsv"
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]


@cache
def _reading(model: str) -> NamedTree:
    return modules_from_names(LAYOUTS[model].tensors())


@cache
def _weights(model: str, model_type: str | None = None) -> tuple[Weight, ...]:
    chosen = LAYOUTS[model].model_type if model_type is None else model_type
    return classify(_reading(model).modules, model_type=chosen)


def _read(**shapes: tuple[int, ...] | Stored) -> NamedTree:
    """A reading of tensors whose names have `__` for a dot."""
    tensors = {}
    for key, shape in shapes.items():
        name = key.replace("__", ".")
        tensors[name] = shape if isinstance(shape, Stored) else Stored(name, shape, "BF16")
    return modules_from_names(tensors)


def _kinds(named: NamedTree) -> dict[str, str]:
    return {module.name: module.kind for module in named.modules if module.parameters}


def _wrong_roles(model: str, weights: tuple[Weight, ...]) -> dict[str, set[bool]]:
    """Templates of weights whose role is not that of the table, and whether they are guesses."""
    expected = {row[1]: row[2] for row in _rows() if row[0] == model}
    wrong: dict[str, set[bool]] = {}
    for weight in weights:
        row = weight.name if weight.name in expected else template(weight.name)
        if expected.get(row) != str(weight.role):
            wrong.setdefault(row, set()).add(weight.guess)
    return wrong


@pytest.mark.parametrize("model", LAYOUTS, ids=IDS)
def test_every_weight_of_a_released_checkpoint_has_the_role_that_its_code_gives_it(model: str) -> None:
    weights = _weights(model)
    assert _wrong_roles(model, weights) == {}
    assert [weight.name for weight in weights if weight.guess] == []
    names = {weight.name for weight in weights} | {template(weight.name) for weight in weights}
    assert {row[1] for row in _rows() if row[0] == model} <= names


def test_that_is_eighteen_checkpoints_and_every_row() -> None:
    assert len(LAYOUTS) == 18
    assert {row[0] for row in _rows()} == LAYOUTS.keys()
    assert len(_rows()) == len({tuple(row[:2]) for row in _rows()}) == 180
    assert [row[0] for row in _rows()] == sorted(row[0] for row in _rows())
    assert sum(len(_weights(model)) for model in LAYOUTS) == 19_005
    assert sum(len(layout.tensors()) for layout in LAYOUTS.values()) == 23_050
    stated = {model: layout.parameters for model, layout in LAYOUTS.items() if layout.parameters}
    assert stated == {model: sum(t.size for t in LAYOUTS[model].tensors().values()) for model in stated}
    assert len(stated) == 2


@pytest.mark.parametrize("model", LAYOUTS, ids=IDS)
def test_kinds_buffers_and_embeddings_are_those_of_the_code(model: str) -> None:
    layout, named = LAYOUTS[model], _reading(model)
    kinds = {}
    for module in named.modules:
        matrices = any(len(shape) > 1 for _, shape in module.parameters)
        if matrices and module.kind != "linear":
            kinds[template(module.name)] = module.kind
    # A class of its own that holds nothing but a `weight` looks like a linear layer.
    hidden = {"lm_head": "other"} if layout.model_type == "baichuan" else {}
    assert kinds == dict(layout.kinds.items() - hidden.items())
    assert {template(name) for name in named.dropped} == layout.buffers
    assert all(named.dropped.values())
    assert input_output_embeddings(_weights(model)) == layout.embeddings


@pytest.mark.parametrize("model", LAYOUTS, ids=IDS)
def test_no_tensor_is_lost(model: str) -> None:
    named = _reading(model)
    held = {f"{module.name}.{name}": shape for module in named.modules for name, shape in module.parameters}
    held |= dict(named.root_parameters)
    tensors = LAYOUTS[model].tensors()
    assert held.keys() | named.dropped.keys() == tensors.keys()
    assert held.keys().isdisjoint(named.dropped)
    assert all(tensors[name].shape == shape for name, shape in held.items())
    names = [module.name for module in named.modules]
    assert len(names) == len(set(names))
    assert {name.rpartition(".")[0] for name in names} <= {"", *names}


def test_without_its_model_type_a_checkpoint_is_read_by_its_names_and_what_is_wrong_is_mostly_a_guess() -> None:
    wrong = {model: found for model in LAYOUTS if (found := _wrong_roles(model, _weights(model, "")))}
    visual = "transformer.visual."
    qwen = {"transformer.h.#.mlp.w1": {True}, "transformer.h.#.mlp.w2": {True}}
    assert wrong == {
        "Qwen/Qwen-7B": qwen,
        "Qwen/Qwen-VL-Chat": {
            **qwen,
            f"{visual}proj": {True},
            f"{visual}attn_pool.kv_proj": {True},
            f"{visual}attn_pool.attn": {False},  # a tower that pools, rather than a connector
            f"{visual}attn_pool.pos_embed": {False},
            f"{visual}attn_pool.query": {False},
        },
    }


def _from_map(recorded: ModelMap) -> tuple[NamedTree, dict[str, Module]]:
    """What the parameter names of a recorded map say, and the modules that transformers built."""
    shapes = {f"{module.name}.{name}": shape for module in recorded.modules for name, shape in module.parameters}
    shapes |= dict(recorded.root_parameters)
    named = modules_from_names({name: Stored(name, shape, "F32") for name, shape in shapes.items()})
    return named, {module.name: module for module in recorded.modules}


@pytest.mark.parametrize(
    "model_type",
    ["gpt2", "llama", "bert", "t5", "whisper", "mamba", "opt", "gpt_neox", "blip-2", "mixtral", "phi3"],
)
def test_names_alone_give_the_kinds_that_transformers_builds(model_type: str) -> None:
    recorded = sample(model_type)
    named, built = _from_map(recorded)
    kinds = _kinds(named)
    routers = {name for name, module in built.items() if "Router" in module.class_name}
    assert {name: kinds[name] for name in kinds.keys() - routers} == {
        name: module.kind for name, module in built.items() if module.parameters and name not in routers
    }
    read = {weight.name: weight for weight in classify(named.modules, model_type=model_type)}
    assert [weight for weight in recorded.weights if weight.module not in routers and read[weight.name] != weight] == []


@pytest.mark.slow
def test_names_alone_over_all_recorded_maps() -> None:
    kinds: Counter[tuple[str, str]] = Counter()
    classes: Counter[str] = Counter()
    weights: Counter[bool] = Counter()
    embeddings: Counter[str] = Counter()
    for model_type, heads in builtin_models().items():
        for head in heads:
            recorded = load_builtin(model_type, head)
            named, built = _from_map(recorded)
            read = _kinds(named)
            for name, module in built.items():
                if module.parameters:
                    kinds[module.kind, read[name]] += 1
                    if module.kind != read[name]:
                        classes["router" if module.class_name.endswith(("Router", "Gate")) else module.class_name] += 1
            found = classify(named.modules, model_type=recorded.model_type)
            by_name = {weight.name: weight for weight in found}
            weights.update(
                (other := by_name.get(weight.name)) is not None
                and (other.role, other.shape, other.kind) == (weight.role, weight.shape, weight.kind)
                for weight in recorded.weights
            )
            stated = (recorded.input_embeddings, recorded.output_embeddings)
            for name, other in zip(input_output_embeddings(found), stated, strict=True):
                embeddings["same" if name == other else "wrong" if name else "unclear"] += 1
    assert {pair: count for pair, count in kinds.items() if pair[0] == pair[1]} == {
        ("linear", "linear"): 122_787,
        ("other", "other"): 61_808,
        ("conv", "conv"): 4_158,
        ("embedding", "embedding"): 1_053,
        ("conv1d", "conv1d"): 288,
        ("multihead_attention", "multihead_attention"): 16,
    }
    # What no name tells: classes that hold nothing but a `weight`, or the parameters of a torch layer.
    assert classes == {
        "router": 3_404,
        "QuantLinear": 144,
        "QuantEmbedding": 6,
        "ConvTranspose1d": 1,
        "DoryLMHead": 1,
        "Linear": 1,
        "ParametrizedConv1d": 18,
    }
    assert weights == {True: 137_425, False: 3_557}
    assert embeddings == {"same": 959, "unclear": 48, "wrong": 7}


def test_numbers_sort_as_numbers_and_containers_are_modules() -> None:
    named = _read(layers__10__a__weight=(2, 3), layers__2__a__weight=(2, 3), head__weight=(4, 3))
    assert [(module.name, module.kind) for module in named.modules] == [
        ("head", "linear"),
        ("layers", "other"),
        ("layers.2", "other"),
        ("layers.2.a", "linear"),
        ("layers.10", "other"),
        ("layers.10.a", "linear"),
    ]
    assert {module.class_name for module in named.modules} == {""}


def test_weight_and_bias_come_first_and_the_root_has_parameters_of_its_own() -> None:
    named = _read(token=(1, 8), a__extra=(2,), a__bias=(4,), a__weight=(4, 2))
    assert named.root_parameters == (("token", (1, 8)),)
    (module,) = named.modules
    assert [name for name, _ in module.parameters] == ["weight", "bias", "extra"]
    assert module.kind == "other"  # an nn.Linear has no third parameter


def test_a_square_matrix_with_a_bias_is_stored_as_those_of_its_layer_are() -> None:
    layer = {"h__0__c_attn__weight": (8, 24), "h__0__c_attn__bias": (24,)}
    square = {"h__0__c_proj__weight": (8, 8), "h__0__c_proj__bias": (8,), "h__1__c_proj__weight": (8, 8)}
    named = _read(**layer, **square, h__1__c_proj__bias=(8,), h__0__free__weight=(8, 8))
    assert _kinds(named) == {
        "h.0.c_attn": "conv1d",
        "h.0.c_proj": "conv1d",
        "h.0.free": "linear",
        "h.1.c_proj": "linear",
    }
    turned, undecided = named.notes
    assert turned.startswith("2 matrices are stored (in, out)")
    assert undecided.startswith("1 matrices stand beside those")


def test_where_the_biases_of_a_layer_disagree_a_square_matrix_stays_linear() -> None:
    named = _read(
        h__0__a__weight=(8, 24),
        h__0__a__bias=(24,),
        h__0__b__weight=(24, 8),
        h__0__b__bias=(24,),
        h__0__c__weight=(8, 8),
        h__0__c__bias=(8,),
    )
    assert _kinds(named) == {"h.0.a": "conv1d", "h.0.b": "linear", "h.0.c": "linear"}


@pytest.mark.parametrize(
    ("first", "shape", "transposed"),
    [
        ("gate_up_proj", (4, 8, 32), True),
        ("gate_up_proj", (4, 32, 8), False),
        ("gate_up_proj", (4, 9, 16), False),
        ("up_proj", (4, 16, 8), False),
    ],
)
def test_shapes_tell_how_experts_are_stored(first: str, shape: tuple[int, ...], transposed: bool) -> None:
    down = (4, 16, 8) if transposed else (4, 8, 16)
    named = modules_from_names(
        {
            f"experts.{first}": Stored(f"experts.{first}", shape, "BF16"),
            "experts.down_proj": Stored("experts.down_proj", down, "BF16"),
        }
    )
    (module,) = named.modules
    assert (module.kind, module.transposed) == ("other", transposed)
    assert len(named.notes) == transposed


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("wte", (90, 8), "embedding"),
        ("fancy_embeds", (90, 8), "embedding"),
        ("embed_out", (90, 8), "linear"),
        ("patch_embed", (8, 90), "linear"),
        ("embed_proj", (8, 90), "linear"),
        ("q_norm", (4, 8), "other"),
        ("ln_1", (4, 8), "other"),
        ("ln", (8,), "other"),
        ("normal", (4, 8), "linear"),
        ("conv", (4, 8, 3), "conv"),
        ("conv", (4, 8, 3, 3), "conv"),
        ("conv", (4, 8, 3, 3, 3), "conv"),
        ("moe.output", (4, 8, 3), "other"),
        ("output", (4, 300, 300), "other"),
        ("scalar", (), "other"),
    ],
)
def test_kinds_by_name_and_shape(name: str, shape: tuple[int, ...], kind: str) -> None:
    weight = f"{name}.weight"
    assert _kinds(modules_from_names({weight: Stored(weight, shape, "F16")})) == {name: kind}


def test_an_embedding_has_no_bias() -> None:
    assert _kinds(_read(time_embed__weight=(8, 8), time_embed__bias=(8,))) == {"time_embed": "linear"}


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "reason"),
    [
        ("a.rotary_emb.inv_freq", (32,), "F32", "rotary frequencies"),
        ("a.rope.freqs", (32,), "F32", "rotary frequencies"),
        ("a.alibi.slopes", (40, 1), "F32", "slopes of ALiBi"),
        ("a.attn.bias", (1, 1, 64, 64), "F16", "a causal mask"),
        ("a.attn.masked_bias", (), "F16", "an attention mask"),
        ("a.bn.running_var", (8,), "F32", "statistics of a batch norm"),
        ("a.table", (8, 8), "I64", "holds I64 numbers, which are not trained"),
        ("a.attn.bias", (64,), "F16", ""),
        ("a.freqs", (32,), "F32", ""),
        ("a.f8.weight", (8, 8), "F8_E4M3", ""),
    ],
)
def test_buffers_are_dropped_with_a_reason(name: str, shape: tuple[int, ...], dtype: str, reason: str) -> None:
    named = modules_from_names({name: Stored(name, shape, dtype)})
    assert named.dropped == ({name: reason} if reason else {})
    assert named.modules[0].name == "a"


def test_a_packed_weight_is_a_parameter_though_its_numbers_are_whole() -> None:
    named = _read(q_proj__weight=Stored("q_proj.weight", (8, 8), "I32", quantization="gptq 4 bit"))
    assert named.dropped == {}
    assert _kinds(named) == {"q_proj": "linear"}


def test_a_router_is_noted_because_it_may_be_no_linear_layer() -> None:
    bare = _read(mlp__gate__weight=(8, 16), mlp__gate__e_score_correction_bias=(8,))
    assert (_kinds(bare), bare.notes) == ({"mlp.gate": "other"}, ())
    (note,) = _read(mlp__gate__weight=(8, 16)).notes
    assert note.startswith("1 routers are taken for linear layers")


def _roles(**shapes: tuple[int, int]) -> dict[str, str]:
    weights = classify(_read(**{f"h__0__mlp__{leaf}__weight": shape for leaf, shape in shapes.items()}).modules)
    return {weight.name.rpartition(".")[2]: ("guess " if weight.guess else "") + weight.role.part for weight in weights}


def test_the_width_of_the_first_of_two_matrices_tells_whether_it_holds_the_gate() -> None:
    assert _roles(fc1=(64, 8), fc2=(8, 32)) == {"fc1": "gate_up", "fc2": "down"}
    assert _roles(fc1=(32, 8), fc2=(8, 32)) == {"fc1": "up", "fc2": "down"}
    assert _roles(w1=(32, 8), w2=(8, 32)) == {"w1": "up", "w2": "down"}
    assert _roles(w1=(48, 8), w2=(8, 32)) == {"w1": "gate", "w2": "down"}


def test_members_of_a_bare_sequential_have_no_name_to_read() -> None:
    weights = classify(_read(**{"0__weight": (8, 4), "2__weight": (4, 8)}).modules)
    assert [(weight.name, str(weight.role), weight.guess) for weight in weights] == [
        ("0", "text.other", True),
        ("2", "text.other", True),
    ]


def test_three_matrices_whose_names_contradict_their_widths_are_guesses() -> None:
    assert _roles(w1=(32, 8), w2=(32, 8), c_proj=(8, 32)) == {"w1": "guess gate", "w2": "guess up", "c_proj": "down"}
    assert _roles(w1=(32, 8), w2=(8, 32), w3=(32, 8)) == {"w1": "gate", "w2": "down", "w3": "up"}


def test_of_several_embeddings_the_one_of_the_layers_width_is_meant_and_two_alike_are_unclear() -> None:
    layer = {"layers__0__self_attn__q_proj__weight": (8, 8), "layers__0__self_attn__k_proj__weight": (8, 8)}
    tables = {"embed_tokens__weight": (90, 8), "embed_tokens_per_layer__weight": (90, 80)}
    two = classify(_read(**layer, **tables, lm_head__weight=(90, 8)).modules)
    assert input_output_embeddings(two) == ("embed_tokens", "lm_head")
    alike = classify(_read(encoder__embed_tokens__weight=(90, 8), decoder__embed_tokens__weight=(90, 8)).modules)
    assert input_output_embeddings(alike) == ("", "")
    assert input_output_embeddings(()) == ("", "")


def test_names_nested_beyond_reason_are_refused() -> None:
    deep = ".".join("a" * 41)
    assert len(_read(**{"__".join("a" * 41): (1,)}).modules) == 40
    with fails("is nested deeper than 40 modules", "tensor names: 5 faults"):
        modules_from_names({f"{deep}.{number}": Stored(deep, (1,), "F32") for number in range(9)})


_TEXT = "0 10 007 ² model h mlp experts gate attn wte ln_1 weight bias w1 w2 in_proj_weight out_proj inv_freq"
_WORDS = st.sampled_from([*_TEXT.split(), "gate_up_proj", "down_proj"])
_NAMES = st.lists(_WORDS, min_size=1, max_size=6).map(".".join)
_SHAPES = st.lists(st.sampled_from([0, 1, 8, 16, 300]), max_size=6).map(tuple)


@given(st.dictionaries(_NAMES, _SHAPES, max_size=12))
@settings(max_examples=100, deadline=None)
def test_any_names_and_shapes_are_read_and_nothing_is_lost(shapes: dict[str, tuple[int, ...]]) -> None:
    named = modules_from_names({name: Stored(name, shape, "BF16") for name, shape in shapes.items()})
    held = {f"{module.name}.{leaf}": shape for module in named.modules for leaf, shape in module.parameters}
    held |= dict(named.root_parameters)
    assert held == {name: shape for name, shape in shapes.items() if name not in named.dropped}
    input_output_embeddings(classify(named.modules))


def test_more_containers_than_any_model_has_are_refused() -> None:
    names = [f"q{number}" + ".a" * 39 for number in range(40)]
    with fails("tensor names: they pass through more than 1120 modules"):
        modules_from_names({name: Stored(name, (1,), "F32") for name in names})


@pytest.mark.parametrize("name", ["", ".", ".a", "a.", "a..b"])
def test_names_that_no_module_can_have_are_refused(name: str) -> None:
    with fails(f"tensor names: {name!r} has an empty word"):
        modules_from_names({name: Stored(name, (1,), "F32")})


def test_an_empty_checkpoint_has_no_modules() -> None:
    assert modules_from_names({}) == NamedTree((), (), {}, ())
