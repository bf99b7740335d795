"""How often PEFT's rules are applied to a whole configuration: once where the releases agree, never to print."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

import lorascope
from lorascope.checks.check import check
from lorascope.cli.main import main
from lorascope.peft_rules import resolve as rules
from lorascope.plan_api import plan
from lorascope.plans.files import plan_from_json, plan_to_json
from lorascope.reports.check import check_text
from lorascope.reports.json import check_json, map_json, plan_json
from lorascope.reports.model import map_text
from lorascope.reports.plan import plan_text
from tests.helpers.samples import sample


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The releases that `resolve` was called for, wherever the package calls it."""
    releases: list[str] = []
    resolve = rules.resolve

    def counted(model: Any, config: Any, peft: str = "default") -> Any:
        releases.append(peft)
        return resolve(model, config) if peft == "default" else resolve(model, config, peft)

    places = 0
    for module in pkgutil.walk_packages(lorascope.__path__, "lorascope."):
        if module.name != "lorascope.__main__":
            found = importlib.import_module(module.name)
            if getattr(found, "resolve", None) is resolve:
                monkeypatch.setattr(found, "resolve", counted)
                places += 1
    assert places > 3
    return releases


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plan", "mistral"], ["0.21.2"]),
        (["plan", "mixtral", "all"], ["0.21.2"]),
        (["plan", "mistral", "--json"], ["0.21.2"]),
        (["plan", "llama", "attention.q[0]"], ["0.21.2", "0.19.1", "0.20.0"]),
        # Of the older ones with the task type, which they refuse, and without it.
        (["plan", "t5"], ["0.21.2", "0.19.1", "0.19.1", "0.20.0", "0.20.0"]),
        (["inspect", "t5"], []),
    ],
    ids=lambda value: " ".join(value) if value and value[0] in ("plan", "inspect") else "",
)
def test_resolves_of_a_command(
    arguments: list[str], expected: list[str], calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    assert len(capsys.readouterr().out) > 100
    assert calls == expected


@pytest.mark.parametrize("name", ["mistral", "t5", "mixtral"])
def test_printing_resolves_nothing(name: str, calls: list[str]) -> None:
    model = sample(name)
    made = plan(model, "all")
    checked = check(model, made.config)
    calls.clear()
    printers: list[Callable[[], object]] = [
        lambda: map_text(model),
        lambda: map_json(model),
        lambda: plan_text(made),
        lambda: plan_json(made),
        lambda: check_text(checked),
        lambda: check_json(checked),
        lambda: str(made),
    ]
    assert all(printed() for printed in printers)
    assert calls == []


def test_a_saved_plan_is_compiled_once(calls: list[str]) -> None:
    data = plan_to_json(plan(sample("mistral")))
    calls.clear()
    plan_from_json(data)
    assert calls == ["0.21.2"]
