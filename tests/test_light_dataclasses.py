"""The light dataclasses beside the standard ones: the same values, whatever is done with them."""

from __future__ import annotations

import copy
import dataclasses as standard
import inspect
import pickle
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import pytest

from lorascope import light_dataclasses as light


@light.dataclass(frozen=True, slots=True)
class LightPoint:
    x: int
    y: int = 2
    tags: Mapping[str, int] = light.field(default_factory=dict, hash=False)
    secret: str = light.field(default="s", repr=False)


@standard.dataclass(frozen=True, slots=True)
class StandardPoint:
    x: int
    y: int = 2
    tags: Mapping[str, int] = standard.field(default_factory=dict, hash=False)
    secret: str = standard.field(default="s", repr=False)


@light.dataclass(frozen=True)
class LightSquare:
    side: int = 3

    def __post_init__(self) -> None:
        if self.side < 0:
            raise ValueError("negative")

    @cached_property
    def area(self) -> int:
        return self.side**2


@light.dataclass(slots=True)
class LightCounter:
    count: int = 0


@light.dataclass(frozen=True, slots=True, eq=False)
class LightToken:
    name: str


@light.dataclass(frozen=True, slots=True)
class LightNothing:
    pass


CALLS: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = (
    ((1,), {}),
    ((1, 5), {}),
    ((), {"y": 4, "x": 3}),
    ((1, 2, {"a": 1}), {"secret": "t"}),
)


@pytest.mark.parametrize(("words", "named"), CALLS)
def test_values_are_those_of_the_standard_module(words: tuple[Any, ...], named: dict[str, Any]) -> None:
    mine, theirs = LightPoint(*words, **named), StandardPoint(*words, **named)
    assert repr(mine).replace("LightPoint", "") == repr(theirs).replace("StandardPoint", "")
    assert standard.asdict(mine) == standard.asdict(theirs)
    assert hash(mine) == hash(theirs)
    assert mine == LightPoint(*words, **named)
    assert mine != theirs
    assert standard.asdict(light.replace(mine, x=9)) == standard.asdict(standard.replace(theirs, x=9))
    assert standard.replace(mine, x=9) == light.replace(mine, x=9)
    assert pickle.loads(pickle.dumps(mine)) == copy.deepcopy(mine) == mine
    assert [member.name for member in light.fields(mine)] == [member.name for member in standard.fields(theirs)]
    assert light.astuple(mine) == standard.astuple(theirs)


def test_classes_look_like_those_of_the_standard_module() -> None:
    assert str(inspect.signature(LightPoint)).partition(", tags")[0] == "(x: 'int', y: 'int' = 2"
    assert LightPoint.__match_args__ == StandardPoint.__match_args__
    assert LightPoint.__slots__ == StandardPoint.__slots__
    assert standard.is_dataclass(LightPoint) and light.is_dataclass(LightPoint(1))
    assert LightPoint.__qualname__ == "LightPoint"
    assert LightPoint(1).tags is not LightPoint(1).tags
    with pytest.raises(TypeError):
        LightPoint()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="z"):
        light.replace(LightPoint(1), z=1)  # type: ignore[call-arg]


def test_frozen_is_frozen() -> None:
    point = LightPoint(1)
    with pytest.raises(standard.FrozenInstanceError, match="x"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(standard.FrozenInstanceError):
        del point.x
    counter = LightCounter()
    counter.count += 1
    assert counter == LightCounter(1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(counter)


def test_the_rest_of_what_the_package_uses() -> None:
    square = LightSquare()
    assert (square.area, square.area, LightSquare.side) == (9, 9, 3)
    with pytest.raises(ValueError, match="negative"):
        LightSquare(-1)
    assert LightToken("a") != LightToken("a") and len({LightToken("a"), LightToken("a")}) == 2
    assert LightNothing() == LightNothing() and hash(LightNothing()) == hash(LightNothing())
    assert light.replace(StandardPoint(1), x=2) == StandardPoint(2)
    assert [member.name for member in light.fields(StandardPoint(1))] == ["x", "y", "tags", "secret"]
    with pytest.raises(TypeError, match="has bases"):
        light.dataclass(frozen=True)(type("Child", (LightSquare,), {}))
    with pytest.raises(AttributeError, match="make_dataclass"):
        light.make_dataclass  # noqa: B018  # type: ignore[attr-defined]
