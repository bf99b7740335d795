"""No sentence is data: with every message of a diagnostic worded otherwise, checks find the same."""

from __future__ import annotations

import ast
import functools
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as settings_of_runs
from hypothesis import strategies as st

import lorascope
from lorascope.checks.check import check
from lorascope.errors import LorascopeError
from lorascope.peft_rules import diagnostics
from lorascope.peft_rules.diagnostics import Diagnostic, Reason
from lorascope.peft_rules.releases import SUPPORTED_PEFT
from lorascope.sources.builtin import load_builtin
from lorascope.trainers.registry import TRAINERS
from tests.helpers import peft_models
from tests.helpers.oracle import peft_kwargs
from tests.helpers.paths import DATA
from tests.helpers.random_configs import LABELS, configurations, rare_configurations

ROWS: list[dict[str, Any]] = tomllib.loads((DATA / "mistakes.toml").read_text(encoding="utf-8"))["mistake"]
SUFFIXES = {"json": ".json", "yaml": ".yaml", "command": ".sh", "python": ".py"}
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# PEFT's keyword arguments, of which each brings out other diagnostics on some of the models.
CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {},
    {"target_modules": "all-linear"},
    {"target_modules": SEVEN},
    {"target_modules": ["q_proj", "nowhere"]},
    {"target_modules": ["self_attn"]},
    {"target_modules": ["0"]},
    {"target_modules": "q_proj"},
    {"target_modules": ".*(q_proj|v_proj|query|c_attn|q)"},
    {"target_modules": "(", "layers_pattern": "("},
    {"target_modules": []},
    {"target_modules": SEVEN, "r": 0},
    {"target_modules": SEVEN, "lora_dropout": 2.0},
    {"target_modules": SEVEN, "bias": "some"},
    {"target_modules": SEVEN, "bias": "lora_only", "use_dora": True, "lora_bias": True},
    {"target_modules": SEVEN, "task_type": "NONE"},
    {"target_modules": SEVEN, "task_type": "SEQ_CLS", "modules_to_save": ["head", "nothing"]},
    {"target_modules": SEVEN, "task_type": "SEQ_2_SEQ_LM"},
    {"target_modules": SEVEN, "modules_to_save": ["q_proj"]},
    {"target_modules": SEVEN, "modules_to_save": ["self_attn", "lm_head", "embed_tokens"]},
    {"target_modules": ["q_proj", "lm_head", "embed_tokens"], "ensure_weight_tying": True},
    {"target_modules": ["lm_head", "embed_tokens", "wte"], "lora_bias": True},
    {"target_modules": SEVEN, "layers_to_transform": [0, 99], "layers_pattern": "layers"},
    {"target_modules": "q_proj", "layers_to_transform": [0]},
    {"target_modules": SEVEN, "layers_pattern": "layers"},
    {"target_modules": SEVEN, "exclude_modules": ["nothing"]},
    {"target_modules": SEVEN, "exclude_modules": SEVEN},
    {"target_modules": SEVEN, "rank_pattern": {"nowhere": 4, "q_proj": 0}},
    {"target_modules": SEVEN, "rank_pattern": {"experts.down_proj": 4}, "alpha_pattern": {"(": 4}},
    {"target_modules": ["q_proj"], "target_parameters": ["down_proj", "gate_up_proj", "nowhere"]},
    {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.down_proj"], "lora_dropout": 0.1},
    {"target_modules": ["q_proj"], "target_parameters": "experts"},
    {"target_modules": ["q_proj"], "target_parameters": ["q_proj.weight", "norm.weight"]},
    {"target_modules": ["conv1d", "in_proj", "x_proj", "out_proj"]},
    {"target_modules": ["out_proj", "conv"], "use_dora": True},
    {"target_modules": SEVEN, "init_lora_weights": "nonsense"},
    {"target_modules": SEVEN, "init_lora_weights": "pissa"},
    {"target_modules": SEVEN, "init_lora_weights": "loftq"},
    {"target_modules": SEVEN, "init_lora_weights": "orthogonal", "r": 3},
    {"target_modules": SEVEN, "trainable_token_indices": [0, 1]},
    {"target_modules": SEVEN, "trainable_token_indices": {"q_proj": [0]}},
    {"target_modules": SEVEN, "kasa_config": {"beta": -1}},
    {"target_modules": SEVEN, "monteclora_config": {"num_samples": 0}},
    {"target_modules": SEVEN, "arrow_config": {}},
    {"target_modules": [f"layers.{n}.self_attn.q_proj" for n in range(24)], "layers_to_transform": [0]},
)
MODELS = ("llama", "mixtral", "qwen3_moe", "gpt2", "falcon_mamba", "whisper", "nemotron_h", "t5")
TINY_MODELS = ("plain", "normed", "mixtral", "qwen3_moe", "t5", "llama-tied")
Row = tuple[str, str, str, str]


def reworded(diagnostic: Diagnostic) -> str:
    """Nothing of what a message says but its code."""
    return f"§{diagnostic.code}"


def outcome(run: functools.partial[Any], met: set[Reason]) -> tuple[bool, list[Row]] | str:
    """The exit code that matters and every finding without its message; what is refused at the door by its hint."""
    try:
        result = run()
    except LorascopeError as error:
        return f"{len(error.faults)} faults, {error.hint}"
    resolution = result.resolution
    of_findings = (finding.diagnostic for finding in result.findings)
    every = (*resolution.warnings, *filter(None, (resolution.refusal, *of_findings)))
    met.update(diagnostic.reason for diagnostic in every)
    return result.matters, [(f.code, f.severity, f.where, f.fix) for f in result.findings]


def mistakes(folder: Path) -> Iterator[functools.partial[Any]]:
    """Every mistake of the table."""
    for row in ROWS:
        model = load_builtin(row["model"], row.get("head", ""))
        if "trainer" in row:
            path = folder / f"{row['id']}{SUFFIXES[TRAINERS[row['trainer']].form]}"
            path.write_text(row["text"], encoding="utf-8")
            yield functools.partial(check, model, path, trainer=row["trainer"])
        elif "names" in row:
            yield functools.partial(check, model, *row["names"])
        else:
            settings = json.loads(row["config"])
            yield functools.partial(check, model, settings, peft=row.get("peft", ""), serve=row.get("serve", ""))


def matrix(name: str) -> Iterator[functools.partial[Any]]:
    """Every configuration on one model, under the newest and the oldest release."""
    model = load_builtin(name)
    for settings in CONFIGURATIONS:
        for release in (SUPPORTED_PEFT[0], SUPPORTED_PEFT[-1]):
            yield functools.partial(check, model, settings, peft=release)


def compare(runs: list[functools.partial[Any]], monkeypatch: pytest.MonkeyPatch) -> set[Reason]:
    """Asserts that nothing but messages changes; gives the reasons of all diagnostics."""
    met: set[Reason] = set()
    before = [outcome(run, met) for run in runs]
    with monkeypatch.context() as patch:
        patch.setattr(diagnostics, "message", reworded)
        after = [outcome(run, met) for run in runs]
    for run, one, other in zip(runs, before, after, strict=True):
        assert one == other, run.args[1:]
    return met


def codes(met: set[Reason]) -> set[str]:
    return {reason.code for reason in met}


def test_other_words_are_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"target_modules": ["nowhere"]}
    monkeypatch.setattr(diagnostics, "message", reworded)
    refused, *_ = check(load_builtin("llama"), settings).findings
    assert refused.message == "PEFT raises: §no-match"


def test_some_mistakes_in_other_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = list(mistakes(tmp_path))[::5]
    assert len(runs) >= 20
    assert len(compare(runs, monkeypatch)) >= 8


@pytest.mark.slow
def test_mistakes_in_other_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = list(mistakes(tmp_path))
    assert len(runs) == len(ROWS) >= 103
    met = compare(runs, monkeypatch)
    assert len(codes(met)) >= 18
    assert len(met) >= 30


@pytest.mark.slow
def test_configurations_in_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    met: set[Reason] = set()
    cases = 0
    for name in MODELS:
        runs = list(matrix(name))
        cases += len(runs)
        met |= compare(runs, monkeypatch)
    assert cases == len(MODELS) * len(CONFIGURATIONS) * 2 == 704
    assert len(codes(met)) >= 24
    assert len(met) >= 40


@pytest.mark.slow
def test_random_configurations_in_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configurations that are compared with PEFT elsewhere."""
    met: set[Reason] = set()
    cases = 0
    for name in TINY_MODELS:
        model = peft_models.mapped(name)
        settings = [peft_kwargs(config) for config in drawn(configurations(model), 60)]
        settings += [values for label in LABELS for values in drawn(rare_configurations(model, label), 2)]
        cases += len(settings)
        met |= compare([functools.partial(check, model, values) for values in settings], monkeypatch)
    assert cases == len(TINY_MODELS) * (60 + 2 * len(LABELS))
    assert len(codes(met)) >= 22
    assert len(met) >= 40


def drawn(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """So many examples, the same in every run."""
    examples: list[Any] = []

    @settings_of_runs(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(example: Any) -> None:
        examples.append(example)

    run()
    return examples[:count]


# The source.

_SENTENCES = frozenset(
    (
        *("message", "messages", "refusal", "diagnostic", "warning", "warnings", "note", "notes", "fix", "fixes"),
        *("hint", "faults", "fault", "evidence", "sentence", "why"),
    )
)
_SEARCHES = frozenset(
    (
        *("startswith", "endswith", "replace", "partition", "rpartition", "split", "rsplit", "splitlines", "find"),
        *("rfind", "index", "rindex", "count", "removeprefix", "removesuffix", "translate"),
    )
)
_MATCHES = frozenset(("match", "search", "fullmatch", "findall", "finditer", "sub"))
# What a server of the Hub says of a token, how an error indents the lines of a fault, and notes compared as values.
_ALLOWED = {
    ("cost.py", "note in others"),
    ("cost.py", "note not in shared"),
    ("hub_requests.py", "'nvalid' in message"),
    ("errors.py", r"fault.replace('\n', '\n    ')"),
}


def name_of(node: ast.expr) -> str:
    """The attribute or variable that an expression is taken from, through `str` and the like."""
    while True:
        if isinstance(node, ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("str", "repr") and node.args:
            node = node.args[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.args:
            node = node.func.value
        else:
            break
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def reads_text(node: ast.AST) -> bool:
    """A search within a sentence, or a comparison of one."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in _SEARCHES:
            return name_of(node.func.value) in _SENTENCES
        return node.func.attr in _MATCHES and any(name_of(argument) in _SENTENCES for argument in node.args)
    if not isinstance(node, ast.Compare):
        return False
    sides = [node.left, *node.comparators]
    if any(isinstance(operator, ast.In | ast.NotIn) for operator in node.ops):
        return any(name_of(side) in _SENTENCES for side in sides)
    return any(isinstance(side, ast.Call) and ast.unparse(side.func) == "str" for side in sides) and any(
        name_of(side) in _SENTENCES for side in sides
    )


@pytest.mark.parametrize(
    "source",
    [
        "'x' in finding.message",
        "str(resolution.refusal).startswith('PEFT')",
        "error.faults[0].partition(' ')",
        "re.search(r'with (\\d+)', str(refusal))",
        "note in plan.notes",
        "str(refusal) == 'x'",
        "message.lower().count('x')",
    ],
)
def test_reading_a_sentence_is_seen(source: str) -> None:
    assert any(reads_text(node) for node in ast.walk(ast.parse(source)))


@pytest.mark.parametrize("source", ["code in CODES", "finding.diagnostic == refusal", "re.search('x', name)"])
def test_reading_a_value_is_no_fault(source: str) -> None:
    assert not any(reads_text(node) for node in ast.walk(ast.parse(source)))


def test_no_sentence_is_read() -> None:
    """Nothing in the package searches a message, a note, a hint or a fault."""
    paths = [*Path(lorascope.__file__).parent.rglob("*.py")]
    readings = {
        (path.name, ast.unparse(node))
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if reads_text(node)
    }
    assert len(paths) > 200
    assert readings == _ALLOWED
