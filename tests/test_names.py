"""Folded names stand for exactly the names that they came from."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorascope.names import (
    count_written,
    fold,
    interleave,
    parse_intervals,
    parse_spans,
    spans,
    split_numbers,
    template,
    unfold,
    unfold_all,
)
from tests.helpers.samples import fails, sample
from tests.helpers.work import calls_at_most

WORDS = st.one_of(
    st.sampled_from(["layers", "q_proj", "mlp", "0", "1", "2", "3", "10", "007", "00", "٣", "²", "1a", "#", "{", "}"]),
    st.sampled_from(["{0-3}", "{{", "{{0}", "{1,2}x", "x{0-31}", "{}", "-1", "1-2", "\\1", "9" * 30]),
    st.text("ab0#{}-,", min_size=1, max_size=5),
)
NAMES = st.lists(WORDS, min_size=1, max_size=4).map(".".join)


@settings(derandomize=True, max_examples=500)
@given(st.sets(NAMES, max_size=30))
def test_unfold_undoes_fold(names: set[str]) -> None:
    unfolded = [name for folded in fold(sorted(names)) for name in unfold(folded)]
    assert sorted(unfolded) == sorted(names)  # none lost, none invented, none twice


@settings(derandomize=True)
@given(NAMES)
def test_a_name_is_put_together_again(name: str) -> None:
    pieces, numbers = split_numbers(name)
    assert len(pieces) == len(numbers) + 1
    assert interleave(pieces, [str(number) for number in numbers]) == name


@settings(derandomize=True)
@given(st.sets(st.integers(0, 300), min_size=1))
def test_spans_are_read_back(numbers: set[int]) -> None:
    assert parse_spans(spans(numbers)) == sorted(numbers)


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ([], []),
        (["lm_head"], ["lm_head"]),
        (["a.0.q", "a.1.q", "a.2.q"], ["a.{0-2}.q"]),
        (["a.0.q", "a.2.q", "a.3.q"], ["a.{0,2-3}.q"]),
        (["a.1.q", "a.0.q", "a.1.q"], ["a.{0-1}.q"]),
        (["a.0.q", "a.0.v", "a.1.q"], ["a.{0-1}.q", "a.0.v"]),
        (["a.0.e.0", "a.0.e.1", "a.1.e.0", "a.1.e.1"], ["a.{0-1}.e.{0-1}"]),
        (["a.0.e.0", "a.0.e.1", "a.1.e.0"], ["a.0.e.{0-1}", "a.1.e.0"]),
        (["a.03.q", "a.04.q"], ["a.03.q", "a.04.q"]),
        (["a.{0-3}.q"], ["a.{{0-3}.q"]),
        (["a.#.q", "a.3.q"], ["a.#.q", "a.3.q"]),
        (["0", "1"], ["{0-1}"]),
    ],
    ids=lambda value: "_".join(value) or "none",
)
def test_fold(names: list[str], folded: list[str]) -> None:
    assert fold(names) == folded


@pytest.mark.parametrize(
    ("folded", "names"),
    [
        ("lm_head", ["lm_head"]),
        ("a.{0-1}.q", ["a.0.q", "a.1.q"]),
        ("a.{3}.q", ["a.3.q"]),
        ("a.{0,0,1}.q", ["a.0.q", "a.1.q"]),
        ("a{b}", ["a{b}"]),
        ("a{{0-1}", ["a{0-1}"]),
        ("{", ["{"]),
        ("", [""]),
    ],
)
def test_unfold(folded: str, names: list[str]) -> None:
    assert unfold(folded) == names


@pytest.mark.parametrize(
    ("folded", "said"),
    [
        ("{0-99999999}", "rising ranges of at most 1000000 numbers"),
        ("{3-1}", "rising ranges"),
        ("{,}", "not a list of ranges such as 0-3,7"),
        ("{1-}", "not a list of ranges such as 0-3,7"),
        ("{-5}", "not a list of ranges such as 0-3,7"),
        ("{1--2}", "not a list of ranges such as 0-3,7"),
        ("{1-2-3}", "not a list of ranges such as 0-3,7"),
        ("{" + "9" * 5000 + "}", "not a list of ranges such as 0-3,7"),
        ("{0-999}.{0-999}.{0-1}", "stands for more than 1000000 names"),
        ("{0-999998}" * 1000, "stands for more than 1000000 names"),
        ("{" + "0-499998," * 1000 + "0}", "rising ranges of at most 1000000 numbers"),
        ("x" * 1000 + "{0-999998}", "stands for more than 100000000 characters"),
        ("{{" * 600_000, "1200000 characters, more than 1000000"),
    ],
    ids=lambda value: value[:24],
)
def test_hostile_braces_are_refused_at_once(folded: str, said: str) -> None:
    with calls_at_most(20_000), fails(said) as caught:
        unfold(folded)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["0-9", "8-12", "98-101,5", "0", "999999999999999998-999999999999999999", "0-123456"])
def test_ranges_are_counted_as_they_are_written(text: str) -> None:
    numbers = [number for low, high in parse_intervals(text) for number in range(low, high + 1)]
    assert count_written(parse_intervals(text)) == (len(numbers), sum(len(str(number)) for number in numbers))


def test_names_are_counted_together_before_one_is_made() -> None:
    assert list(unfold_all(["a.{0-1}", "b"], 3)) == ["a.0", "a.1", "b"]
    for folded, most, said in (
        (["a.{0-1}", "b"], 2, "together they stand for more than 2 names, from 'b' on"),
        (["x" * 99 + "{0-499998}"] * 3, 2_000_000, "together they stand for more than 100000000 characters"),
    ):
        with fails(said):
            next(unfold_all(folded, most))


@pytest.mark.parametrize("text", ["", " 1", "1 ", "a", "٣", "1.0", "+1", "0-3;7"])
def test_spans_take_ascii_digits_only(text: str) -> None:
    with fails(repr(text)):
        parse_spans(text)


def test_template_replaces_whole_numbers_only() -> None:
    assert template("model.layers.12.conv1d.w2.0") == "model.layers.#.conv1d.w2.#"


def test_a_real_model_folds_to_few_names() -> None:
    names = [weight.name for weight in sample("llama").weights]
    folded = fold(names)
    assert len(names) == 226
    assert len(folded) == 9
    assert "model.layers.{0-31}.self_attn.q_proj" in folded
