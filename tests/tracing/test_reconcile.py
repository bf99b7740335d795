"""Roles by dataflow beside roles by name: which one stands, and what is said of both."""

from __future__ import annotations

import dataclasses

import pytest

from lorascope.model.role_names import parse_role
from lorascope.model.types import Dimensions, ModelMap, Module, Role, Trace, Weight
from lorascope.tracing.classify.aggregate import Aggregate
from lorascope.tracing.reconcile import Observation, compatible, reconcile, with_siblings

WHY = "no call reached it"


def role(text: str) -> Role:
    return dataclasses.replace(parse_role(text), component="text")


def named(**weights: str) -> ModelMap:
    """A map of linear layers in `layers.3`: name to role, with a question mark behind a guess."""
    modules = tuple(Module(f"layers.3.{name}", "Linear", "linear", (("weight", (8, 8)),)) for name in weights)
    found = tuple(
        Weight(module.name, module.name, "linear", (8, 8), role(text.rstrip("?")), 3, text.endswith("?"))
        for module, text in zip(modules, weights.values(), strict=True)
    )
    return ModelMap("m", "", "M", "unknown", "module", {}, Dimensions(), modules, found)


def observed(text: str, component: str = "") -> Observation:
    found = parse_role(text)
    return Observation(Aggregate(found.block, found.variant, found.part, "it was seen"), component)


def merged(name: str, flow: Observation | None, *, audited: bool = False) -> tuple[Weight, Trace]:
    """A weight whose name and dataflow say these roles, after both were set beside each other."""
    model = reconcile(named(w=name), {} if flow is None else {"layers.3.w": flow}, WHY, audited=audited)
    (weight,), (trace,) = model.weights, model.traces
    return weight, trace


@pytest.mark.parametrize("audited", [True, False])
def test_both_agree(audited: bool) -> None:
    weight, trace = merged("attention.self.q", observed("attention.self.q"), audited=audited)
    assert (str(weight.role), weight.guess) == ("text.attention.self.q", False)
    assert trace == Trace(
        "layers.3.w",
        role("attention.self.q"),
        False,
        role("attention.self.q"),
        "executed",
        "it was seen",
        "high",
        False,
    )


@pytest.mark.parametrize(
    ("name", "flow", "stands"),
    [
        ("ffn.dense", "ffn.dense.up", "ffn.dense.up"),  # dataflow fills what names leave open
        ("ffn.dense.up", "ffn.dense", "ffn.dense.up"),  # and leaves alone what it does not know
        ("embedding.position", "other", "embedding.position"),
        ("attention.linear.q", "mixer.in", "attention.linear.q"),
    ],
)
def test_both_agree_and_one_says_more(name: str, flow: str, stands: str) -> None:
    weight, trace = merged(name, observed(flow))
    assert (str(weight.role), trace.disagrees, trace.confidence) == (f"text.{stands}", False, "high")
    assert trace.flow == role(flow)


@pytest.mark.parametrize(("audited", "stands"), [(True, "text.ffn.dense.gate"), (False, "text.attention.self.gate")])
def test_they_contradict_each_other(audited: bool, stands: str) -> None:
    """Names stand where reading the code decided them, dataflow anywhere else; the trace has both."""
    weight, trace = merged("ffn.dense.gate", observed("attention.self.gate"), audited=audited)
    assert (str(weight.role), weight.guess) == (stands, False)
    assert (str(trace.named), str(trace.flow)) == ("text.ffn.dense.gate", "text.attention.self.gate")
    assert (trace.status, trace.confidence, trace.disagrees) == ("executed", "low", True)


@pytest.mark.parametrize("audited", [True, False])
def test_a_guess_from_an_unknown_name_gives_way(audited: bool) -> None:
    weight, trace = merged("other?", observed("ffn.dense.up"), audited=audited)
    assert (str(weight.role), weight.guess) == ("text.ffn.dense.up", False)
    assert (trace.guess, trace.confidence, trace.disagrees) == (True, "medium", False)
    assert trace.named == role("other")


@pytest.mark.parametrize(("name", "confidence"), [("router", "medium"), ("other?", "low")])
def test_nothing_ran(name: str, confidence: str) -> None:
    weight, trace = merged(name, None)
    assert (weight.role, weight.guess) == (role(name.rstrip("?")), name.endswith("?"))
    assert (trace.flow, trace.status, trace.evidence) == (None, "unexecuted", WHY)
    assert (trace.confidence, trace.disagrees) == (confidence, False)


@pytest.mark.parametrize(("name", "confidence"), [("router", "medium"), ("other?", "low")])
def test_it_ran_and_its_role_is_in_doubt(name: str, confidence: str) -> None:
    doubted = Observation(Aggregate("", "", "", "it was seen", "that cannot be"))
    weight, trace = merged(name, doubted)
    assert weight.role == role(name.rstrip("?"))
    assert (trace.flow, trace.status, trace.evidence) == (None, "ambiguous", "that cannot be (it was seen)")
    assert (trace.confidence, trace.disagrees) == (confidence, False)


def test_it_ran_and_showed_nothing() -> None:
    _, trace = merged("router", Observation(None))
    assert (trace.status, trace.evidence) == ("ambiguous", "it ran, and its place in the computation fits no role")


def test_a_layer_number_follows_the_role_that_stands() -> None:
    assert merged("ffn.dense.up", None)[0].layer == 3
    assert merged("head.lm", observed("embedding.projection"))[0].layer is None
    assert merged("other?", observed("ffn.dense.up"))[0].layer == 3


@pytest.mark.parametrize("seen", ["other", "embedding", "embedding.projection", "head"])
def test_a_plain_name_of_a_block_outweighs_a_dataflow_that_sees_no_block(seen: str) -> None:
    weight, trace = merged("ffn.expert.up", observed(seen))
    assert (str(weight.role), weight.guess) == ("text.ffn.expert.up", False)
    assert (trace.disagrees, trace.confidence) == (True, "low")
    assert str(merged("ffn.expert.up?", observed(seen))[0].role) == f"text.{seen}"
    assert str(merged("ffn.expert.up", observed("attention.self.q"))[0].role) == "text.attention.self.q"
    assert str(merged("embedding", observed("other"))[0].role) == "text.embedding"  # which dataflow cannot tell


def test_the_part_of_the_model_that_ran_stands_in_the_role() -> None:
    _, trace = merged("other?", observed("ffn.dense.up", "vision"))
    assert str(trace.flow) == "vision.ffn.dense.up"
    _, trace = merged("ffn.dense.up", observed("ffn.dense.up", "vision"))
    assert trace.disagrees  # a text model's weight ran inside of a tower


def test_the_rest_of_the_map_is_as_it_was_and_traces_are_in_the_order_of_the_weights() -> None:
    before = dataclasses.replace(named(a="router", b="other?", c="ffn.dense.up"), notes=("a note",))
    after = reconcile(before, {"layers.3.b": observed("head.lm")}, WHY, audited=False)
    assert [trace.weight for trace in after.traces] == [weight.name for weight in before.weights]
    assert dataclasses.replace(after, weights=before.weights, traces=()) == before
    assert [weight.role for weight in after.weights] == [role("router"), role("head.lm"), role("ffn.dense.up")]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("attention.self.q", "attention.self.q", True),
        ("attention.self.q", "attention.self.k", False),
        ("attention.self.q", "attention.cross.q", False),
        ("attention.self.q", "ffn.dense.up", False),
        ("router", "indexer", False),
        ("mixer.in", "mixer.z", True),
        ("mixer.in", "mixer.out", False),
        ("mixer.in", "mixer.dt", False),
        ("mixer", "mixer.dt", True),
        ("mixer.out", "attention.linear.o", True),
        ("mixer.out", "attention.self.o", False),
        ("attention.self.position", "embedding.position", True),
        ("attention.self.q", "embedding.position", False),
        ("other", "ffn.dense.up", False),
    ],
)
def test_roles_that_can_be_of_one_weight(one: str, other: str, expected: bool) -> None:
    assert compatible(role(one), role(other)) is expected


def test_what_did_not_run_is_as_its_siblings_that_did() -> None:
    ran = {"experts.0": observed("ffn.expert.up"), "experts.1": observed("ffn.expert.up"), "alone": observed("router")}
    found = with_siblings(ran, [["experts.0", "experts.1", "experts.2", "experts.3"], ["alone"]])
    assert found.keys() == {*ran, "experts.2", "experts.3"}
    assert found["experts.2"] == dataclasses.replace(ran["experts.0"], siblings=2)
    assert {name: found[name] for name in ran} == ran
    model = named(w="ffn.expert.up")
    (trace,) = reconcile(model, {"layers.3.w": found["experts.2"]}, WHY, audited=False).traces
    assert (trace.status, trace.evidence) == ("executed", "as 2 like it that ran: it was seen")


def test_siblings_that_differ_or_show_nothing_say_nothing() -> None:
    different = {"a.0": observed("ffn.expert.up"), "a.1": observed("ffn.dense.up")}
    assert with_siblings(different, [["a.0", "a.1", "a.2"]]) == different
    silent = {"a.0": observed("ffn.expert.up"), "a.1": Observation(None)}
    assert with_siblings(silent, [["a.0", "a.1", "a.2"]]) == silent
    assert with_siblings({}, [["a.0", "a.1"]]) == {}
