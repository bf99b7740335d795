"""Maps as JSON and back; and JSON that somebody else wrote."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorascope.errors import LorascopeError
from lorascope.model.json import map_from_json, map_to_json
from lorascope.model.types import ModelMap, Role, Trace
from lorascope.plan_api import plan
from lorascope.plans.files import plan_from_json, plan_to_json
from lorascope.reports.json import map_json
from lorascope.reports.model import BY, map_text
from lorascope.sources.builtin import builtin_models, load_builtin
from tests.helpers.peak_memory import PEAK_MEMORY
from tests.helpers.samples import fails, sample
from tests.helpers.work import calls_at_most

HEADS = sorted({head for heads in builtin_models().values() for head in heads})


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_every_built_in_map_survives(head: str) -> None:
    names = [name for name, heads in builtin_models().items() if head in heads]
    for name in names:
        model = load_builtin(name, head)
        assert map_from_json(json.loads(json.dumps(map_to_json(model)))) == model, name


def test_all_507_maps_are_tried() -> None:
    assert sum(len(heads) for heads in builtin_models().values()) == 507


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2", "t5", "llava", "deepseek_v3", "bert"])
def test_plans_survive(name: str) -> None:
    for arguments in (
        {},
        {"scale": 2.5, "rslora": True},
        {"layers": "-2:", "bias": "all", "exclude": ["attention.q[0]"]},
    ):
        made = plan(sample(name), "qv+ffn", "attention.o[0]=3/1.5", **arguments)  # type: ignore[arg-type]
        assert plan_from_json(json.loads(json.dumps(plan_to_json(made)))) == made


# Traces.


def traced(model: ModelMap) -> ModelMap:
    """The map with a trace of every kind, in turn over its weights."""
    kinds: Any = itertools.cycle(
        [
            (None, "executed", "high", False),
            (Role("", "", "attention", "", "q"), "executed", "high", False),
            (Role("", "decoder", "ffn", "", "down"), "executed", "low", True),
            (Role("", "", "", "", "coef"), "executed", "medium", False),
            (None, "ambiguous", "medium", False),
            (None, "unexecuted", "medium", False),
        ]
    )
    traces = tuple(
        Trace(weight.name, weight.role, weight.layer == 0, flow, status, f"{status} in {weight.kind}", *said)
        for weight, (flow, status, *said) in zip(model.weights, kinds, strict=False)
    )
    return dataclasses.replace(model, traces=traces)


@pytest.mark.parametrize("name", ["llama", "mixtral", "gpt2", "t5", "llava", "deepseek_v3", "bert"])
def test_traces_survive(name: str) -> None:
    model = traced(sample(name))
    assert map_from_json(json.loads(json.dumps(map_to_json(model)))) == model
    made = plan(model, "qv")
    assert plan_from_json(json.loads(json.dumps(plan_to_json(made)))) == made


def test_a_map_without_traces_does_not_speak_of_them() -> None:
    assert "traces" not in map_to_json(sample("llama"))


def test_like_traces_stand_once() -> None:
    model = sample("llama")
    trace = Trace("", Role(), False, None, "ambiguous", "nothing fits", "low", False)
    model = dataclasses.replace(model, traces=tuple(dataclasses.replace(trace, weight=w.name) for w in model.weights))
    (group,) = map_to_json(model)["traces"]
    assert group.keys() == {"names", "named", "status", "evidence", "confidence"}
    assert len(group["names"]) == 9


@pytest.mark.parametrize(
    "role",
    [
        Role("text", "", "attention", "", "q"),
        Role("", "", "attention", "", "q"),
        Role("", "", "attention", "cross", ""),
        Role("vision", "encoder", "ffn", "", "gate_up"),
        Role("", "decoder", "ffn", "expert", ""),
        Role("", "", "mixer", "", "in"),
        Role("", "", "memory", "", "read"),
        Role("text", "", "other", "", "coef"),
    ],
    ids=repr,
)
def test_roles_with_open_facts_survive(role: Role) -> None:
    """Of a weight, and of a trace."""
    model = sample("gpt2")
    first = model.weights[2]
    trace = Trace(first.name, role, True, role, "executed", "seen", "high", False)
    weights = tuple(dataclasses.replace(w, role=role, guess=True) if w == first else w for w in model.weights)
    model = dataclasses.replace(model, weights=weights, traces=(trace,))
    assert map_from_json(json.loads(json.dumps(map_to_json(model)))) == model


# Hostile input. Small, so that thousands of broken copies are tried quickly.


def small(name: str) -> dict[str, Any]:
    """The JSON of a built-in map with few modules, and traces."""
    data = json.dumps(map_to_json(sample(name))).replace('"0-31"', '"0-1"').replace('"0-11"', '"0-1"')
    return map_to_json(traced(map_from_json(json.loads(data))))


@pytest.mark.parametrize("data", [None, 5, "text", [], {}, {"format": 1}, {"format": "lorascope.map/1"}], ids=repr)
def test_what_is_no_map(data: object) -> None:
    with fails("not a saved model map: format is", "not 'lorascope.map/2'", "lorascope inspect"):
        map_from_json(data)
    with fails("not a saved plan: format is"):
        plan_from_json(data)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["model"], 5, "model: must be a text"),
        (["head"], "foot", "head: 'foot' is none of"),
        (["dimensions"], [], "dimensions: must be an object"),
        (["dimensions", "layers"], "32", "dimensions: values must be whole numbers"),
        (["dimensions", "layers"], -1, "dimensions: values must be whole numbers"),
        (["dimensions", "toes"], 10, "dimensions: unknown ['toes']"),
        (["notes"], "x", "notes: must be a list of texts"),
        (["notes"], [1], "notes: must be a list of texts"),
        (["ties"], {}, "ties: must be a list"),
        (["ties"], [[1]], "ties: must be a list of texts"),
        (["prepares_generation"], "yes", "prepares_generation: must be true or false"),
        (["root_parameters"], {"x": "y"}, "x: 'y' is not a shape"),
        (["root_parameters"], {"x": [-1]}, "x: [-1] is not a shape"),
        (["root_parameters"], {"x": [2.0]}, "x: [2.0] is not a shape"),
        (["root_parameters"], {"x": [True]}, "x: [True] is not a shape"),
        (["root_parameters"], {"x": [10**30]}, "is not a shape"),
        (["versions"], [], "versions: must be an object"),
        (["modules"], [], "modules: must be an object"),
        (["modules", "x"], 5, "x: not a module"),
        (["modules", "x"], {"children": 5}, "x.: not a module tree"),
        (["modules", "x.y"], {}, "x.y: not a name"),
        (["modules", ""], {}, ": not a name"),
        (["modules", "\x1b[2J"], {}, "not a name"),
        (["modules", "\u202eevil"], {}, "not a name"),
        (["modules", "lm_head", "kind"], "liner", "lm_head: kind 'liner' is none of"),
        (["modules", "lm_head", "kind"], {}, "lm_head: kind {} is none of"),
        (["modules", "lm_head", "groups"], 0, "lm_head: groups 0 is not a positive number"),
        (["modules", "lm_head", "parameters"], [], "lm_head: parameters must be an object"),
        (["modules", "lm_head", "parameters", "weight"], [5], "lm_head.weight: [5] is not a shape of a linear"),
        (["modules", "lm_head", "parameters", "a.b"], [5], "lm_head: parameter 'a.b' is not a name"),
        (["modules", "lm_head", "roles"], "x", "lm_head: roles: must be an object"),
        (["modules", "lm_head", "roles", ""], 5, "lm_head: 5 is not a role"),
        (["modules", "lm_head", "roles", ""], "vision", "lm_head: 'vision' is not a role"),
        (["modules", "lm_head", "roles", ""], "text.head.lm.and.more", "is not a role"),
        (["modules", "lm_head", "roles", ""], "", "lm_head: '' is not a role"),
        (["modules", "x"], {"kind": "conv1d"}, "x: a conv1d without weight"),
        (["modules", "x"], {"kind": "conv", "parameters": {"weight": [3, 3]}}, "[3, 3] is not a shape of a conv"),
        (["modules", "0-99999999"], {}, "rising ranges of at most 1000000 numbers"),
        (["modules", "3-1"], {}, "rising ranges"),
        (["modules", "7"], {"children": {"0-5": {}, "3": {}}}, "7.3: stands there twice"),
        (["traces"], {}, "traces: must be a list"),
        (["traces", 0], [], "traces: 0: must be an object"),
        (["traces", 0, "names"], "lm_head", "traces: 0: names: must be a list of texts"),
        (["traces", 0, "names"], ["nowhere"], "traces: 0: 'nowhere' is not a weight of the model"),
        (
            ["traces", 0, "names"],
            ["lm_head", "lm_head"],
            "traces: 0: 'lm_head' is not a weight of the model, or is listed twice",
        ),
        (["traces", 0, "names"], ["{0-999999}{0-99}"], "traces: 0: '{0-999999}{0-99}' stands for more than 1000000"),
        (["traces", 0, "named"], "vision", "traces: 0: 'vision' is not a role"),
        (["traces", 0, "named"], "..q", "traces: 0: '..q' is not a role"),
        (["traces", 0, "flow"], None, "traces: 0: None is not a role"),
        (["traces", 4, "flow"], "attention..q", "traces: 4: a role by flow of what was not executed"),
        (["traces", 0, "status"], "done", "traces: 0: status 'done' is none of ('executed', 'ambiguous', "),
        (["traces", 0, "confidence"], 1, "traces: 0: confidence 1 is none of ('high', 'medium', 'low')"),
        (["traces", 0, "evidence"], None, "traces: 0: evidence None is not a text"),
        (["traces", 0, "disagrees"], 1, "traces: 0: disagrees must be true or false"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else repr(value)[:40],
)
def test_every_field_is_checked(path: list[Any], value: object, said: str) -> None:
    data: Any = small("llama")
    node = data
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with fails(said):
        map_from_json(data)


def test_all_faults_at_once() -> None:
    with fails("and 6 more", "model: must be a text", "lorascope inspect … -o FILE") as caught:
        map_from_json({"format": "lorascope.map/2"} | {"dimensions": {"layers": "x"}, "modules": {"": {}}})
    assert len(caught.value.faults) == 11


@pytest.mark.parametrize(
    "modules",
    [
        {"0-999998": {"children": {"0-999998": {}}}},
        {f"{n}00000-{n}99999": {"children": {"0-9": {}}} for n in range(1, 10)},
        {f"x{n}": {"children": {"0-999998": {}}} for n in range(50)},
    ],
    ids=["square", "wide", "many"],
)
def test_multiplying_ranges_are_stopped(modules: dict[str, Any]) -> None:
    whole = {**small("llama"), "modules": modules}
    with calls_at_most(100_000), fails("more than 1000000 modules"):
        map_from_json(whole)


def nested(depth: int, key: str, leaf: dict[str, Any]) -> dict[str, Any]:
    """A module within a module, and so on, all under the same key."""
    for _ in range(depth):
        leaf = {"children": {key: leaf}}
    return leaf["children"]


WIDE = {"parameters": {f"p{number}": [2, 2] for number in range(30)}}
MULTIPLIED: dict[str, tuple[dict[str, Any], str]] = {
    "nested ranges": (nested(60, "0-9", {}), "more than 1000000 modules"),
    "nested pairs": (nested(60, "0-1", {}), "more than 1000000 modules"),
    "parameters": ({"0-99999": WIDE}, "more than 2000000 modules, parameters and roles"),
    "roles": ({"0-999998": {"roles": {"a": "router", "b": "router"}}}, "more than 2000000 modules"),
    "long words": ({"x" * 200: {"children": {"0-999998": {}}}}, "more than 100000000 characters of names"),
    "long parameters": ({"0-999998": {"parameters": {"x" * 200: [2, 2]}}}, "more than 100000000 characters of names"),
    "deep words": (nested(60, "x" * 999, {"children": {"0-9999": {}}}), "more than 100000000 characters of names"),
    "the same over and over": ({"0-499998," * 5_000 + "0": {}}, "rising ranges of at most 1000000 numbers"),
}


@pytest.mark.parametrize("name", MULTIPLIED)
def test_what_a_map_stands_for_is_counted_first(name: str) -> None:
    modules, said = MULTIPLIED[name]
    whole = {**map_to_json(sample("llama")), "modules": modules}
    with calls_at_most(20_000), fails(said):
        map_from_json(whole)
    if name == "nested ranges":
        assert len(json.dumps(modules)) < 2_000


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ({"names": ["x" * 1000 + "{0-999998}"]}, "stands for more than 100000000 characters"),
        ({"names": ["{0-999998}"] * 1000}, "together they stand for more than 20 names"),
        ({"names": ["{0-499998,0-499998,0-499998}"]}, "rising ranges of at most 1000000 numbers"),
    ],
    ids=["characters", "names", "ranges"],
)
def test_names_of_traces_and_targets_are_counted_first(group: dict[str, Any], said: str) -> None:
    whole = small("llama")
    count = len(map_from_json(whole).weights)
    whole["traces"][0] |= group
    with calls_at_most(20_000), fails(said.replace("20 names", f"{count} names")):
        map_from_json(whole)
    made = json.loads(json.dumps(plan_to_json(plan(map_from_json(small("llama"))))))
    made["targets"][0] |= group
    with calls_at_most(20_000), fails(said.replace("20 names", f"{count} names")):
        plan_from_json(made)


def test_a_target_stands_once_and_sizes_are_few() -> None:
    made = json.loads(json.dumps(plan_to_json(plan(map_from_json(small("llama"))))))
    with fails("'model.layers.0.self_attn.q_proj' is a target twice"):
        plan_from_json({**made, "targets": made["targets"] * 2})
    modules = {"l": {"children": {"0-1999": {"children": {"q_proj": small("llama")["modules"]["lm_head"]}}}}}
    groups = [{"rank": 1 + n, "alpha": 16, "rule": 0, "names": [f"l.{n}.q_proj"]} for n in range(2000)]
    whole = {**small("llama"), "modules": modules, "traces": [], "ties": []}
    with fails("2000 targets have 2000 ranks and alphas, more than can be compiled"):
        plan_from_json({**made, "map": whole, "targets": groups, "unreachable": []})


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "x" * 24], ids=["short", "long"])
def test_the_largest_map_that_is_read(prefix: str) -> None:
    """666,000 weights of one line: what is largest within the bounds stays below two gigabytes and a minute."""
    leaf = {"class": "L", "kind": "linear", "parameters": {"weight": [9, 9]}, "roles": {"": "text.attention.self.q"}}
    modules = {f"{prefix}l": {"children": {"0-666000": leaf}}}
    text = json.dumps({**map_to_json(sample("llama")), "modules": modules, "ties": []})
    code = (
        f"{PEAK_MEMORY}import json, sys, time\nfrom lorascope.model.json import map_from_json\n"
        "from lorascope.reports.model import map_text\nbegun = time.process_time()\n"
        "model = map_from_json(json.loads(sys.stdin.read()))\nmap_text(model)\n"
        "print(len(model.weights), int(time.process_time() - begun), peak_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, text=True, check=True)
    weights, seconds, memory = map(int, done.stdout.split())
    assert weights == 666_001
    assert seconds < 60
    assert memory < 2 * 10**9


TEXTS: list[tuple[list[Any], Any, str]] = [
    (["architecture"], "X\nimport os", "architecture: 'X\\nimport os' is not a valid name"),
    (["architecture"], "X" * 201, "is not a valid name"),
    (["model_type"], "llama; rm", "model_type: 'llama; rm' is not a valid name"),
    (["moe_conversion"], "a b", "moe_conversion: 'a b' is not a valid name"),
    (["versions"], {"transformers": "5\nx"}, "versions: 'transformers': '5\\nx' is not a release"),
    (["versions"], {"a b": "5"}, "versions: 'a b': '5' is not a release"),
    (["versions"], {"torch": 5}, "versions: 'torch': 5 is not a release"),
    (["source"], "\x1b[2J", "source: '\\x1b[2J' cannot be printed"),
    (["input_embeddings"], "a\u202e", "input_embeddings: 'a\\u202e' cannot be printed"),
    (["ties"], [["a\n"]], "ties: ['a\\n'] cannot be printed"),
    (["unexplained"], ["a\n"], "unexplained: ['a\\n'] cannot be printed"),
    (["root_parameters"], {"a\n": [2]}, "root_parameters: 'a\\n' is not a name"),
    (["modules", "lm_head", "class"], "Linear\n", "lm_head: class: 'Linear\\n' cannot be printed"),
    (["modules", "lm_head", "class"], 5, "lm_head: class: must be a text"),
    (["modules", "lm_head", "quantization"], "fp8\n", "lm_head: quantization: 'fp8\\n' cannot be printed"),
    (["modules", "lm_head", "roles", ""], "text.\x1b[2J", "is not a role"),
    (["modules", "lm_head", "groups"], 2**60, "is not a positive number"),
    (["dimensions", "layers"], 1_000_001, "no larger than those of models"),
    (["dimensions", "hidden_size"], 2**60, "no larger than those of models"),
    (["root_parameters"], {"x": [2**59] * 2}, "is not a shape"),
    (["root_parameters"], {"x": [1] * 17}, "is not a shape"),
]


@pytest.mark.parametrize(("path", "value", "said"), TEXTS, ids=[f"{path[-1]} {said[:20]}" for path, _, said in TEXTS])
def test_texts_and_sizes_are_checked_where_they_enter(path: list[Any], value: object, said: str) -> None:
    data: Any = small("llama")
    node = data
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with fails(said):
        map_from_json(data)


def test_class_names_of_other_scripts_survive() -> None:
    model = dataclasses.replace(sample("llama"), architecture="Größe")
    assert map_from_json(map_to_json(model)) == model


def test_depth_is_bounded() -> None:
    node: dict[str, Any] = {}
    for _ in range(500):
        node = {"children": {"x": node}}
    with fails("x.x.x.x", "not a module tree") as caught:
        map_from_json({**small("llama"), "modules": {"x": node}})
    assert len(str(caught.value)) < 1000


# Broken copies: every value of a small file replaced, removed or moved.

STRANGE: list[Any] = [
    None,
    True,
    -1,
    0,
    10**20,
    1.5,
    float("nan"),
    "",
    "\x1b[31m\n",
    "0-3",
    "é" * 300,
    [],
    [[]],
    {},
    {"": {}},
    [0, 0],
]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def broken(data: Any, chance: random.Random) -> Any:
    data = copy.deepcopy(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        path = chance.choice(list(places(data)))
        node = data
        for key in path[:-1]:
            node = node[key]
        match chance.randrange(4):
            case 0 | 1:
                node[path[-1]] = copy.deepcopy(chance.choice(STRANGE))
            case 2:
                del node[path[-1]]
            case _ if isinstance(node, dict):
                node[chance.choice(["0-1", "x", "\x1b[0m", "weight", "children", "a.b", ""])] = node.pop(path[-1])
    return data


def used(model: ModelMap) -> None:
    """Everything that a reader does with a map; a fault that only shows here must be a clear one too."""
    for by in BY:
        assert not set(map_text(model, by=by)) & set("\x1b\x07\u202e")
    json.dumps(map_json(model))
    plan_to_json(plan(model, "qv"))


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
def test_broken_maps_are_refused_or_work(name: str) -> None:
    chance = random.Random(name)
    whole = small(name)
    refused = 0
    for _ in range(400):
        data = broken(whole, chance)
        try:
            used(map_from_json(data))
        except LorascopeError as error:
            refused += 1
            assert len(str(error)) < 5000
    assert 100 < refused < 400  # neither all too strict nor blind


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_broken_plans_are_refused_or_work(name: str) -> None:
    chance = random.Random(name)
    made = plan(map_from_json(small(name)), "qv+ffn", "attention.o[0]=2/3")
    whole = json.loads(json.dumps(plan_to_json(made)))
    refused = 0
    for _ in range(300):
        data = broken({**whole, "map": 0}, chance)
        data["map"] = whole["map"] if data.get("map") == 0 else data.get("map")
        try:
            plan_to_json(plan_from_json(data))
        except LorascopeError as error:
            refused += 1
            assert len(str(error)) < 5000
    assert 100 < refused < 300


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["targets", 0, "rank"], 0, "rank 0 is not a whole number"),
        (["targets", 0, "rank"], 2.5, "rank 2.5 is not a whole number"),
        (["targets", 0, "rank"], "8", "rank '8' is not a whole number"),
        (["targets", 0, "alpha"], float("nan"), "alpha nan is not a number above 0"),
        (["targets", 0, "rule"], 99, "or of no rule"),
        (["targets", 0, "rule"], 0.5, "0.5 is not a whole number"),
        (["targets"], [], "its targets are empty"),
        (["targets", 0, "names"], ["nowhere"], "KeyError: 'nowhere'"),
        (["targets", 0, "names"], ["{0-999999}{0-99}"], "stands for more than 1000000 names"),
        (["options", "bias"], "some", "bias 'some' is not one of"),
        (["options", "dora"], "no", "rslora, dora or recipe is of a wrong type"),
        (["options", "wings"], 2, "unexpected keyword argument 'wings'"),
        (["options"], None, "it is broken: TypeError"),
        (["rules"], ["ffn=0"], "rank '0' is not a whole number"),
        (["rules"], [5], "5 is not a rule"),
        (["map"], None, "not a saved model map"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else repr(value)[:40],
)
def test_every_field_of_a_plan_is_checked(path: list[Any], value: object, said: str) -> None:
    data = json.loads(json.dumps(plan_to_json(plan(map_from_json(small("llama"))))))
    node = data
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with fails(said):
        plan_from_json(data)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
)


@settings(derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(sorted(map_to_json(sample("gpt2")))), JSON))
def test_any_json_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(LorascopeError):
        map_from_json({**fields, "format": "lorascope.map/2"})
