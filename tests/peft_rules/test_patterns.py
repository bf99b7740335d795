"""Regular expressions of others: what `re` says, within a limit of time, from any thread, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import tomllib
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import lorascope as ls
from lorascope.peft_rules import name_patterns, regex_process
from lorascope.peft_rules.name_patterns import (
    BadPatternError,
    PatternLimitError,
    cheap_matches,
    compiled,
    in_matching_time,
    matching_time,
    processes_started,
)
from lorascope.peft_rules.rank_pattern import PatternTable
from lorascope.peft_rules.regex_costs import steps_of
from lorascope.peft_rules.resolve import resolve
from lorascope.peft_rules.types import AdapterConfig
from tests.helpers.paths import DATA, HELPERS
from tests.helpers.pattern_fuzz import random_pattern
from tests.helpers.samples import sample

ENDLESS = r"(([a-z_.0-9]+)+)+X"
# What people and trainers write; none of it may need the second process.
ORDINARY = (
    r"q_proj",
    r".*\.q_proj",
    r".*(q_proj|v_proj)$",
    r"(.*\.)?(q_proj)$",
    r"(^|.*\.)lm_head($|\..*)",
    r".*?\.[^.]*\.(?P<idx>\d+)\.",
    r"(?:^|.*?\.)layers\.(?P<idx>\d+)\.",
    r".*language_model\..*\.(q_proj|v_proj)",
    r"model\.layers\.(1[6-9]|2\d|3[01])\.self_attn\.(q|k|v|o)_proj",
    r"^(?!.*(visual|vision)).*(q_proj|k_proj|v_proj|o_proj).*$",
    r"(?!.*patch_embed).*(qkv|proj|fc1|fc2)",
    r"model\.(?:language_model\.)?layers\.\d+\.mlp\.experts\.\d+\.(gate|up|down)_proj",
    r"language_model.model.layers.[\d]+.(mlp|cross_attn|self_attn).(up|down|gate|q|k|v|o)_proj",
    r"^(language_model|vision_tower)(?!.*(lm_head|output)).*",
    r"(?i).*Q_PROJ",
    r"(?s:.*?(?:language|text).*?(?:self_attn|attention|attn).*?(?:q_proj|k_proj|v_proj|o_proj).*?)",
)


def names() -> list[str]:
    """Real names of modules, of every kind."""
    found = [module.name for kind in ("mistral", "qwen2_vl", "mixtral", "bert") for module in sample(kind).modules]
    return found[::5]


def outcome(pattern: Any, way: str, name: str) -> object:
    match = getattr(pattern, way)(name)
    return match and (match.group(), match.group(1) if pattern_groups(pattern) else None)


def pattern_groups(pattern: Any) -> int:
    text: str = pattern.pattern
    return re.compile(text).groups


def test_matches_are_those_of_re_here_and_in_the_second_process(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    real = names()
    counts: Counter[str] = Counter()
    expected: list[tuple[str, str, str, object]] = []
    while counts["patterns"] < 1500:
        text = random_pattern(rng)
        if steps_of(text).longest() < 100:
            continue
        try:
            ours = compiled(text)
        except BadPatternError:
            with pytest.raises(re.error):
                re.compile(text)
            counts["bad"] += 1
            continue
        counts["patterns"] += 1
        for name in rng.sample(real, 4):
            way = rng.choice(("match", "fullmatch", "search"))
            truth = outcome(re.compile(text), way, name)
            assert outcome(ours, way, name) == truth, (text, way, name)
            expected.append((text, way, name, truth))
            counts["found" if truth else "not found"] += 1
    assert counts["found"] > 500
    assert counts["not found"] > 500
    # The same in the second process: every pattern counts as one whose steps nobody knows.
    monkeypatch.setattr(name_patterns, "MOST_SECONDS", 60.0)
    with matching_time():
        for text, way, name, truth in expected[::3]:
            far = name_patterns.Pattern(text, "", next(name_patterns._NUMBERS), None, -1, -1)
            assert outcome(far, way, name) == truth, (text, way, name)
    assert processes_started() >= 1


@pytest.mark.slow
def test_bounded_patterns_are_quick_on_the_worst_names() -> None:
    run = subprocess.run(
        [sys.executable, str(HELPERS / "pattern_fuzz.py"), "11", "6000"], capture_output=True, timeout=600, check=True
    )
    found = json.loads(run.stdout)
    assert found["tried"] > 4000
    assert found["slowest"] < 1.0, found


@pytest.mark.parametrize(
    "text",
    [
        ENDLESS,
        "(.*)*",
        "(a|a)*",
        "(a|a)" * 30,
        "a?" * 40 + "a" * 40,
        "(?:x?){50}x{50}",
        r"(.*a){20}",
        r"(.+)\1",
        r"(?=(.*)*X)q",
        ".*" * 12,
        r"[a-z]{1,90}" * 8,
        "(?i)[Ā-\U0010ffff]",
        "(a)?(?(1)b|c)",
        "a*+",
        "(?>a*)",
        "(?x) a *",
        "[[a]",
        "(" * 100,
        r"\x41*",
        "(ab)+",
        "(ab){2,5}",
        "(?=a)*",
    ],
)
def test_nothing_is_known_of_these_or_they_are_too_many_steps(text: str) -> None:
    assert steps_of(text).longest() < 64


def test_ordinary_patterns_are_matched_in_this_process() -> None:
    before = processes_started()
    own: set[str] = set()
    mistakes = tomllib.loads((DATA / "mistakes.toml").read_text(encoding="utf-8"))["mistake"]
    for kind, rules in (("mistral", "qv+ffn"), ("ctrl", "all"), ("deepseek_v3", "qv+ffn"), ("bart", "all")):
        plan = ls.plan(sample(kind), rules)
        own.update(text for text in (plan.config.target_modules, plan.config.exclude_modules) if isinstance(text, str))
        own.update(rf"(.*\.)?({key})$" for key in (*plan.config.rank_pattern, *plan.config.alpha_pattern))
    for row in mistakes:
        config = json.loads(row["config"]) if "config" in row else {}
        texts = [config.get("target_modules"), config.get("exclude_modules"), *config.get("rank_pattern", ())]
        own.update(text for text in texts if isinstance(text, str))
    longest = max(len(module.name) for module in sample("qwen2_vl").modules)
    tried = 0
    for text in (*ORDINARY, *sorted(own)):
        with contextlib.suppress(BadPatternError):
            assert compiled(text).longest >= longest, text
            tried += 1
    assert tried > 30
    assert processes_started() == before


def test_a_verb_has_one_limit() -> None:
    model = sample("mistral")

    @in_matching_time
    def twice() -> None:
        for letter in "XYZ":
            resolve(model, AdapterConfig(target_modules=f"(([a-z_.0-9]+)+)+{letter}"))

    with pytest.raises(PatternLimitError) as caught:
        twice()
    assert "a pattern takes too long: '(([a-z_.0-9]+)+)+X'" in str(caught.value)
    assert "(limit 2 s)" in str(caught.value)
    assert caught.value.where == "target_modules"


def test_a_limit_is_no_refusal_of_pefts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_patterns, "MOST_SECONDS", 0.1)
    with pytest.raises(PatternLimitError):
        ls.verify(sample("mistral"), {"target_modules": ENDLESS})
    with pytest.raises(PatternLimitError):
        ls.check(sample("mistral"), {"target_modules": ["q_proj"], "rank_pattern": {ENDLESS: 4}})
    # What is no pattern for PEFT is never tried as one.
    told = ls.check(sample("mistral"), {"target_modules": ["q_proj", ENDLESS]})
    assert len(told.resolution.adapted) == 32


def test_a_pattern_that_repeats_itself_and_ends_is_taken() -> None:
    resolution = ls.verify(sample("mistral"), {"target_modules": r"(\w+\.)*q_proj"})
    assert len(resolution.adapted) == 32
    found = compiled(r"(?:(\w+)\.)*(?P<leaf>q_proj)").fullmatch("model.layers.0.q_proj")
    assert found is not None
    assert (found.group(), found.group(1), found.group("leaf")) == ("model.layers.0.q_proj", "0", "q_proj")
    with pytest.raises(IndexError):
        found.group("none")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(", "missing )"),
        ("(" * 100_000, "nested too deep"),
        ("x{99999999999999999999}", "repetition number is too large"),
        ("a**", "multiple repeat"),
        ("(?<=a*)b", "fixed-width"),
        (r"\777", "octal escape"),
        (r"\N{NO SUCH NAME}", "undefined character name"),
        ("(?P<a>x)(?P<a>y)", "redefinition"),
        ("[z-a]", "bad character range"),
        ("\\", "bad escape"),
        ("x(?i)", "global flags not at the start"),
    ],
)
def test_what_does_not_compile_says_why(text: str, reason: str) -> None:
    for _ in range(2):  # The second time from what was kept.
        with pytest.raises(BadPatternError) as caught:
            compiled(text)
        assert reason in str(caught.value)
        assert len(str(caught.value)) < 500
    resolution = resolve(sample("mistral"), AdapterConfig(target_modules=text))
    assert resolution.refused_as("bad-pattern")


def test_warnings_of_patterns_are_nobodys() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for text in ("[[a]", "[--b]", "[a&&b]", "[a||b]", "[a~~b]"):
            compiled(text)


def test_long_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_patterns, "MOST_SECONDS_HERE", 600)  # the letters end it, on a busy machine too
    with pytest.raises(PatternLimitError, match="1,000,001 letters"):
        compiled("a" * 1_000_001)
    assert compiled("a" * 1_000).fullmatch("a" * 1_000)
    with matching_time(), pytest.raises(PatternLimitError, match="letters together"):
        [compiled("a" * 19_000 + str(number)) for number in range(120)]


def test_only_findings_own_patterns_give_up_quietly() -> None:
    before = processes_started()
    assert cheap_matches(ENDLESS, ["a" * 40], "fullmatch") == []
    assert cheap_matches("(", ["a"], "match") == []
    assert cheap_matches("a+", ["aa", "b"], "fullmatch") == ["aa"]
    assert processes_started() == before


def test_a_key_is_compiled_when_peft_compiles_it() -> None:
    model = sample("mistral")
    late = {"rank_pattern": {"q_proj": 4, "(": 8}}
    # 0.21 tries every key in the end, to warn of those that match nothing; older releases stop at the first match.
    assert resolve(model, AdapterConfig(target_modules=("q_proj",), **late), "0.20.0").refusal is None
    assert resolve(model, AdapterConfig(target_modules=("q_proj",), **late), "0.21.2").refused_as("bad-pattern")
    assert resolve(model, AdapterConfig(target_modules=("v_proj",), **late), "0.20.0").refused_as("bad-pattern")
    table = PatternTable({"q_proj": 4, "(": 8, "k_proj": 2})
    assert table.key("model.q_proj") == "q_proj"
    with pytest.raises(BadPatternError):
        table.key("model.v_proj")
    assert table.unmatched(["model.q_proj"]) == ["k_proj"]
    assert [key for key, _ in table.bad()] == ["("]
    told = ls.check(model, {"target_modules": ["q_proj"], "rank_pattern": {"q_proj": 4, "(": 8}}, peft="0.20.0")
    assert [(one.severity, one.where) for one in told.findings if one.code == "bad-pattern"] == [
        ("warning", "rank_pattern")
    ]


def test_layers_pattern_and_saved_modules_are_compiled_late() -> None:
    model = sample("mistral")
    layers = AdapterConfig(target_modules=("q_proj",), layers_to_transform=(0,), layers_pattern=("layers", "("))
    assert len(resolve(model, layers).adapted) == 1
    bad = AdapterConfig(target_modules=("q_proj",), modules_to_save=("lm_head", "("))
    assert resolve(model, bad).refused_as("bad-pattern")


def test_tables_of_thousands_are_linear() -> None:
    real = names()
    keys = {f"model.layers.{number}.(self_attn|mlp).q_proj": number for number in range(3000)}
    with matching_time():
        table = PatternTable(keys)
        found = [table.key(name) for name in real]
        assert sum(key is not None for key in found) == sum(
            any(re.match(rf"(.*\.)?({key})$", name) for key in list(keys)[:40]) for name in real
        )
        assert len(table.unmatched(real)) > 2000


def test_from_a_thread_and_without_a_standard_input() -> None:
    code = (
        "import os, sys, threading\n"
        "for number in (0, 1, 2) if sys.argv[1] == 'closed' else ():\n"
        "    os.close(number)\n"
        "from lorascope.peft_rules.name_patterns import compiled, PatternLimitError\n"
        "from lorascope.peft_rules import name_patterns\n"
        "name_patterns.MOST_SECONDS = 0.2\n"
        "found = []\n"
        "def work():\n"
        "    found.append(compiled(r'(\\w+\\.)*q').fullmatch('a.b.q') is not None)\n"
        "    try:\n"
        "        compiled('(a+)+X').fullmatch('a' * 60)\n"
        "    except PatternLimitError:\n"
        "        found.append(True)\n"
        "threads = [threading.Thread(target=work) for _ in range(3)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]\n"
        "process = name_patterns._process()._process\n"
        "last = compiled(r'(\\w+\\.)+q').fullmatch('a.q') is not None\n"
        "open(sys.argv[2], 'w').write(f'{found} {last} {name_patterns._process()._process.pid}')\n"
    )
    for mode in ("open", "closed"):
        target = Path(os.environ.get("TMPDIR", "/tmp")) / f"lorascope-threads-{os.getpid()}-{mode}"
        try:
            run = subprocess.run(
                [sys.executable, "-c", code, mode, str(target)],
                capture_output=True,
                input=b"mine",
                timeout=120,
                check=True,
            )
            assert run.stdout == run.stderr == b""
            said = target.read_text().rsplit(" ", 2)
            assert said[:2] == [str([True] * 6), "True"]
            with pytest.raises(ProcessLookupError):
                os.kill(int(said[2]), 0)
        finally:
            target.unlink(missing_ok=True)


def test_after_a_fork_the_copy_starts_its_own() -> None:
    assert compiled(r"(\w+\.)+qq").fullmatch("a.qq")
    code = (
        "import os\n"
        "from lorascope.peft_rules.name_patterns import compiled, _process\n"
        "assert compiled(r'(\\w+\\.)+q').fullmatch('a.q')\n"
        "mine = _process()._process.pid\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert compiled(r'(\\w+\\.)+q').fullmatch('b.q')\n"
        "    assert _process()._process.pid != mine\n"
        "    _process().close()\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert compiled(r'(\\w+\\.)+q').fullmatch('c.q')\n"
        "assert _process()._process.pid == mine\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], timeout=120, check=True)


def test_whoever_interrupts_a_match_gets_no_answer_of_it_later(monkeypatch: pytest.MonkeyPatch) -> None:
    process = name_patterns._process()
    for turn in range(3):
        _interrupt_a_match(process, f"interrupted{turn}", monkeypatch)
    # The readers of the processes that ended end too: one is left, of the process that runs.
    for _ in range(100):
        readers = [thread for thread in threading.enumerate() if thread.name == regex_process._READER]
        if len(readers) == 1:
            break
        time.sleep(0.05)
    assert len(readers) == 1


def _interrupt_a_match(process: regex_process.RegexProcess, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = compiled(rf"(\w+\.)+{word}")
    assert pattern.fullmatch(f"a.{word}")
    answers = process._answers

    class Interrupted:
        def get(self, timeout: float) -> bytes:
            answers.get(timeout=timeout)
            raise KeyboardInterrupt

    monkeypatch.setattr(process, "_answers", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        pattern.fullmatch(f"b.{word}")
    monkeypatch.undo()
    assert pattern.fullmatch("c.other") is None
