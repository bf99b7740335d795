"""YAML as PyYAML reads it, and every way in which a file can be hostile or broken."""

from __future__ import annotations

import collections
import contextlib
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorascope.errors import LorascopeError
from lorascope.sources.files.yaml_text import MOST_BYTES, parse_yaml
from tests.helpers.samples import fails

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{letter}: &{letter} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, letter in zip("abcdefgh", "bcdefghi", strict=True)
)
BROKEN = {
    # what is wrong: (the text, parts of the message)
    "truncated": ("lora_target_modules: [q_proj, v_proj\n", ["is not YAML", "line 2"]),
    "a tab": ("a:\n\tb: 1\n", ["is not YAML", "line 2"]),
    "an unknown tag": ("a: !!python/object/apply:os.system [true]\n", ["python/object", "is not read"]),
    "a control character": ("a: \x00", ["is not YAML", "character 4"]),
    "two documents": ("a: 1\n---\nb: 2\n", ["is not YAML"]),
    "an alias to nothing": ("a: *b\n", ["is not YAML", "line 1"]),
    "an impossible date": ("a: 2026-13-45\n", ["is not YAML"]),
    "a list": ("- a\n- b\n", ["holds a list, not keys"]),
    "nothing": ("# only a comment\n", ["holds nothing"]),
    "a number as key": ("1: a\n", ["the key 1 is not a text"]),
    "no as key": ("no: a\n", ["the key False is not a text"]),
    "a key twice": ("a: 1\nb: 2\na: 3\n", ["the key 'a' is given twice (line 3)"]),
    "a key twice below": ("a:\n  b: 1\n  b: 2\n", ["the key 'b' is given twice (line 3)"]),
    "anchors that multiply": (LAUGHS, ["anchors repeat"]),
    "too deep": ("a: " + "[" * 200 + "]" * 200, ["nested more than 100 deep"]),
    "far too deep": ("a: " + "[" * 20_000, ["nested more than 100 deep"]),
    "a set": ("a: !!set {b}\n", ["the tag 'tag:yaml.org,2002:set' (line 1), which is not read"]),
    "ordered": ("a: !!omap [{b: 1}]\n", ["2002:omap"]),
    "pairs": ("a: !!pairs [{b: 1}]\n", ["2002:pairs"]),
    "binary": ("a: !!binary abc\n", ["2002:binary"]),
    "a tag of its own": ("a: [b, {c: !mine d}]\n", ["the tag '!mine' (line 1)"]),
    "a tagged key": ("!!binary YQ==: 1\n", ["2002:binary"]),
    "a number too long": (f"a: {'9' * 5000}\n", ["holds a number of 5000 characters (line 1)"]),
    "a hexadecimal number": (f"a: [0x{'f' * 5000}]\n", ["holds a number of 5002 characters"]),
    "a binary number": (f"a: 0b{'1' * 5000}\n", ["holds a number of 5002 characters"]),
    "an octal number": (f"a: 0{'7' * 5000}\n", ["holds a number of 5001 characters"]),
    "a number of base 60": (f"a: 1{':1' * 200_000}\n", ["holds a number of 400001 characters"]),
    "a float of base 60": (f"a: 1{':1' * 200_000}.5\n", ["holds a number of 400003 characters"]),
    "a number as a key": (f"{'9' * 900}: 1\n", ["holds a number of 900 characters"]),
    "no truth": ("a: !!bool abc\n", ["'abc' is no bool in line 1, column 4"]),
    "no truth within": ("a:\n  - {b: [!!bool abc]}\n", ["'abc' is no bool in line 2"]),
    "no truth as a key": ("!!bool abc: 1\n", ["'abc' is no bool in line 1"]),
    "an empty number": ("a: !!int ''\n", ["'' is no int in line 1"]),
    "no whole number": ("a: !!int 1.5\n", ["'1.5' is no int"]),
    "a sign alone": ("a: !!int '-'\n", ["'-' is no int"]),
    "no number": ("a: !!float x\n", ["'x' is no float"]),
    "an empty float": ("a: !!float ''\n", ["'' is no float"]),
    "no time": ("a: !!timestamp x\n", ["'x' is no timestamp"]),
    "a time of no zone": ("a: 2001-12-14 21:59:43+99:99\n", ["is no timestamp"]),
    "a list as a mapping": ("a: !!map [1]\n", ["expected a mapping"]),
    "a mapping as a text": ("a: !!str {b: 1}\n", ["expected a scalar"]),
    "a text as a list": ("a: !!seq b\n", ["expected a sequence"]),
    "a merge of a text": ("a:\n  <<: 5\n  b: 1\n", ["expected a mapping or list of mappings for merging"]),
    "a merge of texts": ("a:\n  <<: [b]\n", ["expected a mapping for merging"]),
    "a merge as a value": ("a: !!merge b\n", ["2002:merge"]),
    "a list as a key": ("a: {? [b] : 1}\n", ["unhashable key"]),
    "an equals sign": ("a: =\n", ["2002:value"]),
    "half of a pair": ('a: "\\ud800"\n', ["half of a surrogate pair (line 1)"]),
    "a release with digits": (f"%YAML {'9' * 5000}.1\n---\na: 1\n", ["is not YAML"]),
    "an escape beyond": ('a: "\\UFFFFFFFF"\n', ["is not YAML"]),
    "many directives": ("%A b\n" * 5000 + "---\na: 1\n", ["more than 100 lines that begin with %"]),
    "many values": ("a: [" + "b," * 60_000 + "]\n", ["more than the 50000 values"]),
    "a loop": ("a: &a [*a]\n", ["nested more than 100 deep"]),
    "too long": ("a: " + "x" * MOST_BYTES, ["has more than the"]),
}


@pytest.mark.parametrize(("text", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_files_are_told(text: str, says: list[str]) -> None:
    start = time.process_time()
    with fails("a.yaml", *says):
        parse_yaml(text, "a.yaml")
    assert time.process_time() - start < 10  # a hang, not a speed


@pytest.mark.parametrize(
    "text",
    [
        "lora_r: 16\nlora_target_modules:\n  - q_proj\n  - v_proj\n",
        "learning_rate: 1e-4\n",  # YAML 1.1: a text
        "learning_rate: 1.0e-4\n",
        "a: yes\nb: off\nc: ~\nd: 0x10\ne: 1_000\n",
        "defaults: &d {r: 8}\nown:\n  <<: *d\n  alpha: 16\n",
        "a: 'it''s'\nb: |\n  two\n  lines\n",
        "\ufeffa: 1\n",
    ],
)
def test_values_are_pyyamls(text: str) -> None:
    assert parse_yaml(text, "a.yaml") == yaml.safe_load(text)


def test_all_faults_at_once() -> None:
    with fails("2 faults", "'a' is given twice", "'b' is given twice"):
        parse_yaml("a: 1\na: 2\nb: 1\nb: 2\n", "a.yaml")


def test_numbers_of_every_base_are_floats_too() -> None:
    longest = {"9": 256, "0x" + "f" * 254: 1, "0b" + "1" * 254: 1, "0" + "7" * 255: 1, "1" + ":59" * 85: 1}
    for digits, times in longest.items():
        text = digits * times
        value = parse_yaml(f"a: {text}\n", "a.yaml")["a"]
        assert value == yaml.safe_load(text)
        assert float(value) > 1e70 and str(value)
    assert len(longest) == 5


# Of each byte the most work that was found: what a single value, a line, a mark or a document can be made of.
COSTLY = {
    "flow lists": "a: [" + "a," * MOST_BYTES,
    "block lists": "a:\n" + "- a\n" * MOST_BYTES,
    "mappings": "".join(f"k{i}: v\n" for i in range(MOST_BYTES // 8)),
    "words": "a: " + "x " * MOST_BYTES,
    "lines": "a: " + "x\n  " * MOST_BYTES,
    "comments": "#\n" * MOST_BYTES,
    "blank lines": "\n" * MOST_BYTES,
    "escapes": 'a: "' + "\\n" * MOST_BYTES,
    "quoted lines": 'a: "' + "x\n " * MOST_BYTES,
    "quotes": "a: '" + "x''" * MOST_BYTES,
    "literal lines": "a: |\n" + " x\n" * MOST_BYTES,
    "anchors": "a: [" + "&a a," * MOST_BYTES,
    "brackets": "a: " + "[" * MOST_BYTES,
    "braces": "a: " + "{" * MOST_BYTES,
    "dashes": "- " * MOST_BYTES,
    "marks": "? " * MOST_BYTES,
    "tags": "a: [" + "!!str a," * MOST_BYTES,
    "documents": "--- a\n" * MOST_BYTES,
    "directives": "%A b\n" * MOST_BYTES,
    "base 60": "a: 1" + ":1" * MOST_BYTES,
    "repeated": "x: &x [" + "a," * 1000 + "]\ny: [" + "*x," * MOST_BYTES,
}


QUICK = ("words", "mappings", "brackets", "repeated")


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, id=name, marks=[] if name in QUICK else [pytest.mark.slow]) for name, text in COSTLY.items()],
)
def test_a_megabyte_takes_seconds_at_most(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(LorascopeError):
        parse_yaml(text[: MOST_BYTES - 1], "a.yaml")
    assert time.process_time() - start < 15  # a hang, not a speed


VALUES = st.sampled_from(
    [
        *(
            "a",
            "''",
            "'",
            '"',
            "1",
            "-1",
            "0x",
            "0x1f",
            "0b1",
            "1:2",
            "1:2.5",
            ".inf",
            ".nan",
            "1e5",
            "~",
            "no",
            "=",
            "<<",
        ),
        *(
            "2026-01-01",
            "2026-99-99",
            "9" * 400,
            "0x" + "f" * 400,
            "1" + ":9" * 300,
            "\u2028",
            "\x85",
            '"\\ud800"',
            "|",
            ">",
        ),
    ]
)
NAMES = (
    "int",
    "bool",
    "float",
    "str",
    "null",
    "timestamp",
    "binary",
    "set",
    "omap",
    "pairs",
    "seq",
    "map",
    "merge",
    "value",
)
TAGS = st.sampled_from([*[""] * 20, "!", "!a", "!!python/none", *(f"!!{name}" for name in NAMES)])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Tags, anchors and values in any place, most of them where they do not belong."""

    def node(depth: int) -> str:
        mark = draw(st.sampled_from(["", "", "", "&x ", "&y "]))
        start = f"{mark}{draw(TAGS)} "
        kind = draw(st.sampled_from(["scalar", "scalar", "scalar", "list", "map", "alias"])) if depth < 4 else "scalar"
        if kind == "alias":
            return draw(st.sampled_from(["*x", "*y"]))
        if kind == "list":
            return start + "[" + ", ".join(node(depth + 1) for _ in range(draw(st.integers(0, 3)))) + "]"
        if kind == "map":
            pairs = (f"{node(depth + 2)} : {node(depth + 1)}" for _ in range(draw(st.integers(0, 3))))
            return start + "{" + ", ".join(pairs) + "}"
        return start + draw(VALUES)

    keys = draw(st.lists(st.sampled_from(["a", "b", "c", "<<", "!!bool x", "? [a]\n"]), max_size=4, unique=True))
    return "".join(f"{key}: {node(0)}\n" for key in keys)


def fuzzed(examples: int) -> collections.Counter[str]:
    answers: collections.Counter[str] = collections.Counter()

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck]
    )
    @given(documents())
    def run(text: str) -> None:
        try:
            value = parse_yaml(text, "a.yaml")
        except LorascopeError as error:
            assert len(str(error)) < 5_000
            answers["refused"] += 1
        else:
            assert repr(value) == repr(yaml.safe_load(text))
            answers["read"] += 1

    run()
    return answers


def test_tags_in_any_place() -> None:
    answers = fuzzed(300)
    assert answers.total() >= 300
    assert answers["read"] > 8 and answers["refused"] > 150, answers


@pytest.mark.slow
def test_tags_in_any_place_at_length() -> None:
    assert fuzzed(3_000).total() >= 3_000
