"""Exports of maps with anybody's texts: refused, or the same code, keys and words as with plain ones.

What is foreign: the model's name, class and type, the releases that built its map, names of modules and parameters, roles,
notes, and what the user says of base, data and output. A file that is written must hold them as values alone.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import dataclasses
import functools
import inspect
import io
import json
import os
import re
import shlex
import stat
import subprocess
import sys
import tokenize
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lorascope as ls
from lorascope.errors import LorascopeError
from lorascope.foreign_text import is_class_name
from lorascope.model.types import ModelMap
from lorascope.peft_rules.types import AdapterConfig
from lorascope.plans.files import plan_from_json, plan_to_json
from lorascope.plans.types import Plan
from lorascope.trainers import exports
from lorascope.trainers.exports import export
from lorascope.trainers.registry import TRAINERS
from tests.helpers.samples import sample

TOOLS = tuple(TRAINERS)
YAML_TOOLS = ("axolotl", "llamafactory", "trl", "mlx-lm", "torchtune")
PLAIN = "plain"
JOB = ("base", "data", "output")
BREAKS = ("\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")

HOSTILE = (
    *(f"X{end}touch CANARY{end}#" for end in BREAKS),
    *(f"X{end}trust_remote_code: true{end}" for end in BREAKS),
    *(f"X{end}import os; os.system('touch CANARY'){end}" for end in BREAKS),
    "$(touch CANARY)",
    "`touch CANARY`",
    "'; touch CANARY; '",
    '"; touch CANARY; "',
    "a' 'b\\",
    "\\",
    "a\\\n",
    "a # b",
    "a: b",
    "a: &x [*x]",
    "!!python/object/apply:os.system ['touch CANARY']",
    "--- a",
    "---\na: b\n...\n",
    "--trust_remote_code",
    "--trust_remote_code=true",
    "-x",
    "--",
    "-",
    "coding: utf-7",
    "coding=utf-7 +AAo-touch",
    "-*- coding: utf-16 -*-",
    "'''",
    '"""',
    "{0}",
    "%s",
    "$base",
    "${output_dir}",
    "${oc.env:HOME}",
    "{{ x }}",
    "class",
    "None",
    "__import__('os').system('touch CANARY')",
    "LlamaForCausalLM.from_pretrained('x'); import os  #",
    "os.system",
    "1e5",
    "1_000",
    "0x10",
    "no",
    "null",
    "~",
    "=",
    "<<",
    "",
    " ",
    "\t",
    "\x00",
    "\x1b[2J",
    "\x7f",
    "\u202eabc",
    "\ufeff",
    "\ud800",
    "\udcff",
    "\U0001f600",
    "ä",
    "a\xa0b",
    "x" * 3000,
)
TEXTS = st.sampled_from(HOSTILE) | st.text(max_size=12) | st.lists(st.sampled_from(HOSTILE), max_size=3).map("".join)
# Of characters that are more than letters somewhere.
TEXTS |= st.text(st.sampled_from("\n\r\x85\u2028'\"\\#$`(){}[]:;&|<>!-*?%@=, \tab0"), max_size=16)

FIELDS = ("architecture", "model_type", "model", "release", "library", "module", "leaf", "component", "part", "note")


@dataclasses.dataclass(frozen=True)
class Case:
    """An export: which texts are foreign, by what they are."""

    tool: str
    plan: str
    texts: Mapping[str, str]


def cases(tool: str) -> st.SearchStrategy[Case]:
    fields = st.dictionaries(st.sampled_from(FIELDS), TEXTS, max_size=2)
    job = st.dictionaries(st.sampled_from(JOB), TEXTS, max_size=2)
    made = st.tuples(fields, job).map(lambda pair: {**pair[0], **pair[1]})
    # torchtune builds models of certain sizes only.
    kinds = (
        ["llama whole"] if tool == "torchtune" else ["llama", "llama", "llama layers", "mixtral", "llava", "qwen3_moe"]
    )
    plans = st.sampled_from(kinds)
    return st.builds(Case, st.just(tool), plans, made)


LATER = re.compile(r"\.layers\.([3-9]|\d\d+)\.")
RULES: Mapping[str, tuple[str, tuple[str, ...], Mapping[str, Any]]] = {
    "llama": ("llama", ("attention.q,v",), {}),
    "llama whole": ("llama", ("attention.q,v",), {}),
    "llama layers": ("llama", ("attention.q[-2:]=4/8",), {"rslora": True}),
    "mixtral": ("mixtral", ("attention.q,v", "ffn"), {"dropout": 0.0}),
    "llava": ("llava", ("text.attention.q",), {}),
    "qwen3_moe": ("qwen3_moe", ("attention.q=8", "attention.o=4"), {}),
}


@functools.cache
def plain_plan(kind: str) -> Plan:
    model_type, rules, options = RULES[kind]
    model = sample(model_type)
    if kind != "llama whole":
        # A few layers are as good as many, and quicker.
        model = dataclasses.replace(
            model,
            modules=tuple(module for module in model.modules if not LATER.search(f"{module.name}.")),
            weights=tuple(weight for weight in model.weights if not LATER.search(weight.name)),
        )
    return ls.plan(model, *rules, **options)


def renamed(model: ModelMap, old: str, new: str) -> ModelMap:
    """A map whose names have another word in place of one."""

    def name(text: str) -> str:
        return ".".join(new if word == old else word for word in text.split("."))

    modules = tuple(dataclasses.replace(module, name=name(module.name)) for module in model.modules)
    weights = tuple(dataclasses.replace(w, name=name(w.name), module=name(w.module)) for w in model.weights)
    return dataclasses.replace(model, modules=modules, weights=weights)


def foreign_plan(case: Case) -> Plan:
    """The plan of a map with the foreign texts in their places."""
    plan = plain_plan(case.plan)
    texts = {key: text for key, text in case.texts.items() if key in FIELDS}
    model = plan.model
    direct: dict[str, Any] = {key: texts[key] for key in ("architecture", "model_type", "model") if key in texts}
    versions = {texts.get("library", "transformers"): texts.get("release", "5.23.0"), "torch": "2"}
    model = dataclasses.replace(model, versions=versions, **direct)
    if "model" in texts:
        model = dataclasses.replace(model, source="config")
    for field, word in (("module", "self_attn"), ("leaf", "q_proj")):
        if field in texts:
            model = renamed(model, word, texts[field])
    for field in ("component", "part"):
        if field in texts:
            roles = (dataclasses.replace(weight.role, **{field: texts[field]}) for weight in model.weights)
            changed = zip(model.weights, roles, strict=True)
            kept = {"o": "o", "k": "k"}
            model = dataclasses.replace(
                model,
                weights=tuple(dataclasses.replace(w, role=role) if w.role.part in kept else w for w, role in changed),
            )
    if model != plan.model:
        _, rules, options = RULES[case.plan]
        plan = ls.plan(model, *rules, **options)
    return dataclasses.replace(plan, notes=(texts["note"],)) if "note" in texts else plan


def exported(case: Case, plan: Plan) -> str:
    job = {key: case.texts[key] for key in JOB if key in case.texts}
    return export(plan, case.tool, **job)


@functools.cache
def plain_export(tool: str, kind: str, base: str, data: str, output: str) -> str:
    job = {key: text for key, text in zip(JOB, (base, data, output), strict=True) if text}
    return export(plain_plan(kind), tool, **job)


def beside(case: Case) -> str | None:
    """The same export with plain texts, where there is one."""
    words = []
    for key in JOB:
        text = case.texts.get(key, "")
        ending = next((end for end in (".json", ".jsonl", ".csv", ".parquet") if text.endswith(end)), "")
        words.append(f"{PLAIN}{ending}" if text else "")
    if not words[0] and "model" in case.texts and case.texts["model"]:
        words[0] = PLAIN  # the plan's own model is the base
    try:
        return plain_export(case.tool, case.plan, *words)
    except LorascopeError:
        return None


# What a text of each form is made of, values left out.


FIELDS_OF_PEFT = frozenset(field.name for field in dataclasses.fields(AdapterConfig))


class Blank(ast.NodeTransformer):
    """Literals as one sign, and no fields of PEFT, whose choice goes by the names."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Call):
            node.keywords = [one for one in node.keywords if one.arg not in FIELDS_OF_PEFT]
        if isinstance(node, ast.expr):
            try:
                ast.literal_eval(node)
            except (ValueError, TypeError):
                pass
            else:
                return ast.Constant(value="…")
        return super().generic_visit(node)


def python_shape(text: str) -> str:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(text.encode()).readline)
    assert encoding == "utf-8"
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for keyword in getattr(node, "keywords", ()):
            if keyword.arg in FIELDS_OF_PEFT:
                ast.literal_eval(keyword.value)
    return ast.dump(Blank().visit(tree))


# Keys of tools whose presence goes by the names of modules.
BY_NAMES = re.compile(r"(lora_)?target_|lora_rank_pattern|lora_alpha_pattern|peft_layers|num_layers")


def yaml_shape(text: str) -> list[str]:
    found: list[str] = []
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        assert not isinstance(event, yaml.AliasEvent)
        assert not getattr(event, "anchor", None) and not getattr(event, "tag", None)
    documents = [*yaml.safe_load_all(text)]
    assert len(documents) == 1

    def walk(value: Any, path: str) -> Iterator[str]:
        yield path
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, f"{path}/{key}")

    for key, value in documents[0].items():
        if not BY_NAMES.match(key):
            found += walk(value, key)
    return found


def shell_shape(text: str) -> list[str]:
    done = subprocess.run(["bash", "-n"], input=text.encode(), capture_output=True, check=False)
    assert done.returncode == 0 and not done.stderr
    body = text[text.index("swift sft") :]
    assert all(line.startswith("#") for line in text[: -len(body)].splitlines())
    words = shlex.split(body.replace("\\\n", ""))
    assert words[:2] == ["swift", "sft"]
    return [w.partition("=")[0] for w in words if w.startswith("--") and not BY_NAMES.match(w[2:])]


def json_shape(text: str) -> list[str]:
    return [key for key in json.loads(text) if key not in FIELDS_OF_PEFT]


def shape(tool: str, text: str) -> Any:
    form = TRAINERS[tool].form
    read: Callable[[str], Any] = {
        "json": json_shape,
        "yaml": yaml_shape,
        "command": shell_shape,
        "python": python_shape,
    }[form]
    return read(text)


def comments(text: str) -> list[str]:
    return [line.lstrip() for line in text.split("\n") if line.lstrip().startswith("#")]


def assert_values(case: Case, plan: Plan, text: str) -> None:
    """The foreign values come back as they were."""
    tool, texts = case.tool, case.texts
    if tool in YAML_TOOLS:
        data = yaml.safe_load(text)
        base = {"axolotl": "base_model", "mlx-lm": "model", "torchtune": ""}.get(tool, "model_name_or_path")
        output = "adapter_path" if tool == "mlx-lm" else "output_dir"
        if texts.get("base"):
            assert (data[base] if base else data["checkpointer"]["checkpoint_dir"]) == texts["base"]
        if "output" in texts:
            assert data[output] == texts["output"]
        if texts.get("data"):
            assert texts["data"] in list(all_texts(data))
    elif tool == "ms-swift":
        words = shlex.split(text[text.index("swift sft") :].replace("\\\n", ""))
        for option, key in (("--model", "base"), ("--dataset", "data"), ("--output_dir", "output")):
            if texts.get(key):
                joined = f"{option}={texts[key]}"
                assert joined in words or words[words.index(option) + 1] == texts[key]
    elif tool == "peft":
        assert json.loads(text)["base_model_name_or_path"] == (texts.get("base") or texts.get("model") or None)
    else:
        constants = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
        wanted = ("base",) if tool == "peft-python" else JOB
        assert all(texts[key] in constants for key in wanted if texts.get(key))


def all_texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        for inner in value:
            yield from all_texts(inner)
    elif isinstance(value, str):
        yield value


def assert_lines(tool: str, text: str) -> None:
    """Nothing in the file breaks a line, drives a terminal or turns the writing, and comments tell Python no encoding."""
    lines = text.split("\n")
    assert lines.pop() == ""
    for line in lines:
        if tool == "ms-swift":
            assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in line), ascii(line)
            assert not re.search("[\u202a-\u202e\u2066-\u2069]", line)
        else:
            assert line.isprintable(), ascii(line)


def checked(case: Case, made: Callable[[Case], Plan] = foreign_plan) -> str:
    """What came of an export: refused, or written as with plain texts."""
    try:
        plan = made(case)
        text = exported(case, plan)
    except LorascopeError as error:
        assert len(str(error)) < 20_000
        assert all(line.isprintable() for line in str(error).split("\n"))
        return "refused"
    assert_lines(case.tool, text)
    found = shape(case.tool, text)
    assert_values(case, plan, text)
    said = case.texts
    for line in comments(text):
        # Only names that are checked stand in comments.
        assert not any(word in line for word in ("CANARY", "trust_remote_code:", "coding:", "coding="))
    plain = beside(case)
    if plain is None:
        return "written alone"
    if "architecture" in said and case.tool == "peft-python":
        assert is_class_name(said["architecture"])
        found = found.replace(f"attr='{said['architecture']}'", "attr='LlamaForCausalLM'")
        return "written"
    if not {"architecture", "model_type", "component", "part", "module", "leaf"} & said.keys():
        assert len(comments(text)) == len(comments(plain))
        assert found == shape(case.tool, plain)
        return "written alike"
    if case.tool in YAML_TOOLS:
        assert {key.partition("/")[0] for key in found} <= {
            key.partition("/")[0] for key in shape(case.tool, plain)
        } | {
            "freeze_vision_tower",
            "freeze_multi_modal_projector",
            "freeze_language_model",
        }
    return "written"


@contextlib.contextmanager
def no_advice() -> Iterator[None]:
    """Refusals without the search for a plan that could be written, which takes most of the time and writes nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exports, "nearest_plan", lambda plan, trainer: None)
        yield


def fuzzed(tool: str, examples: int) -> collections.Counter[str]:
    answers: collections.Counter[str] = collections.Counter()

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck]
    )
    @given(cases(tool))
    def run(case: Case) -> None:
        answers[checked(case)] += 1

    with no_advice():
        run()
    return answers


@pytest.mark.parametrize("tool", TOOLS)
def test_foreign_texts_are_values(tool: str) -> None:
    answers = fuzzed(tool, 60)
    assert answers.total() >= 60
    assert answers["written alike"] + answers["written"] > 15, answers


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_foreign_texts_are_values_at_length(tool: str) -> None:
    answers = fuzzed(tool, 800)
    assert answers.total() >= 800
    assert answers["written alike"] + answers["written"] > 160, answers


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_every_hostile_text_in_every_place(tool: str) -> None:
    answers: collections.Counter[str] = collections.Counter()
    with no_advice():
        for text in HOSTILE:
            for field in (*FIELDS, *JOB):
                answers[checked(Case(tool, "llama whole" if tool == "torchtune" else "llama", {field: text}))] += 1
    assert answers.total() == len(HOSTILE) * (len(FIELDS) + len(JOB))
    assert answers["written alike"] + answers["written"] > 200, answers


def tampered_plan(case: Case) -> Plan:
    """The plan of a saved one in which somebody wrote the foreign texts."""
    data = json.loads(json.dumps(plan_to_json(plain_plan(case.plan))))
    texts = case.texts
    data["map"] |= {key: texts[key] for key in ("architecture", "model_type", "model") if key in texts}
    data["map"]["versions"] = {texts.get("library", "transformers"): texts.get("release", "5.23.0")}
    if "model" in texts:
        data["map"]["source"] = "config"
    if "note" in texts:
        data["map"]["notes"] = [texts["note"]]
    return plan_from_json(json.loads(json.dumps(data)))


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
def test_tampered_plans_are_values_too(tool: str) -> None:
    answers: collections.Counter[str] = collections.Counter()
    with no_advice():
        for text in HOSTILE:
            for field in ("architecture", "model_type", "model", "release", "library", "note"):
                kind = "llama whole" if tool == "torchtune" else "llama"
                answers[checked(Case(tool, kind, {field: text}), tampered_plan)] += 1
    assert answers.total() == 6 * len(HOSTILE)
    assert answers["written alike"] + answers["written"] > 50, answers


RECORDER = """#!/bin/bash
printf '%s\\0' "$@" > "$RECORD"
"""


@pytest.mark.slow
def test_bash_runs_the_command_and_nothing_else(tmp_path: Path) -> None:
    """Scripts with every hostile text are run, with a stand-in for swift that writes down what it is given."""
    programs, record, inside = tmp_path / "bin", tmp_path / "record", tmp_path / "inside"
    programs.mkdir()
    (programs / "swift").write_text(RECORDER, encoding="utf-8")
    (programs / "swift").chmod(stat.S_IRWXU)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "RECORD": str(record), "HOME": str(inside)}
    answers: collections.Counter[str] = collections.Counter()
    with no_advice():
        for text in HOSTILE:
            for field in (*FIELDS, *JOB):
                inside.mkdir()
                case = Case("ms-swift", "llama", {field: text})
                try:
                    script = exported(case, foreign_plan(case))
                except LorascopeError:
                    answers["refused"] += 1
                    inside.rmdir()
                    continue
                done = subprocess.run(
                    ["bash"], input=script.encode(), cwd=inside, env=environment, capture_output=True, check=False
                )
                assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), script
                given = record.read_bytes().decode().split("\0")[:-1]
                assert given == shlex.split(script[script.index("swift sft") :].replace("\\\n", ""))[1:]
                options = [word for word in given if word.startswith("-")]
                assert all(re.match(r"--[a-z_]+(=|$)", word) for word in options), given
                assert len({word.partition("=")[0] for word in options}) == len(options)
                if text and field in JOB:
                    assert text in given or any(word.endswith(f"={text}") for word in given)
                inside.rmdir()  # nothing was made in it
                record.unlink()
                answers["run"] += 1
    assert answers.total() == len(HOSTILE) * (len(FIELDS) + len(JOB))
    assert answers["run"] > 300, answers


@pytest.mark.parametrize("tool", TOOLS)
def test_writers_hand_over_to_a_builder(tool: str) -> None:
    """What `write` gives back is what one of the builders made, and code comes from constants alone."""
    function = TRAINERS[tool].write
    tree = ast.parse(inspect.getsource(sys.modules[function.__module__]))
    (write,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function.__name__)
    returned = [node.value for node in ast.walk(write) if isinstance(node, ast.Return)]
    assert len(returned) == 1 and isinstance(returned[0], ast.Call)
    builder = ast.unparse(returned[0].func)
    assert builder in ("commented_yaml", "shell_command", "json_file", "script.text")
    templates = [
        node.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "code"
    ]
    assert bool(templates) == (TRAINERS[tool].form == "python" or tool == "peft")
    for template in templates:
        constant = isinstance(template, ast.Constant) and isinstance(template.value, str)
        assert constant or (isinstance(template, ast.Name) and template.id.isupper()), ast.unparse(template)
