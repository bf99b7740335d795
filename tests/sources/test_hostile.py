"""Fuzzed headers, indexes and configurations: a clean error or what safetensors reads, in bounded time and memory.

`docs/hostile-files.md` publishes the counts; a test here compares them.
"""

from __future__ import annotations

import collections
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorascope.errors import LorascopeError
from lorascope.sources.checkpoint.safetensors import INDEX, WEIGHTS, open_checkpoint, read_headers
from lorascope.sources.files.safetensors_header import parse_header
from tests.helpers.hostile_files import REFUSED_BY_BOTH, STRICTER, Memory, accepts, blob_of, described
from tests.helpers.paths import ROOT
from tests.helpers.peak_memory import PEAK_MEMORY
from tests.helpers.sparse_checkpoints import BITS, frame, header

PAGE = ROOT / "docs" / "hostile-files.md"
# How many of each a quick run and a slow run try.
HEADERS, INDEXES, CONFIGS = (800, 12_000), (300, 4_000), (300, 4_000)


def fuzzed(strategy: st.SearchStrategy[Any], check: Callable[[Any], str], examples: int) -> collections.Counter[str]:
    """What the check answered, and how often. The same examples in every run."""
    answers: collections.Counter[str] = collections.Counter()

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck]
    )
    @given(strategy)
    def run(value: Any) -> None:
        answers[check(value)] += 1

    run()
    assert answers.total() >= examples
    return answers


def clean(error: LorascopeError) -> str:
    """The message, which is short and drives no terminal."""
    text = str(error)
    assert len(text) < 5_000
    assert all(line.isprintable() for line in text.split("\n")), ascii(text)
    return text


# What is put into valid files.

TOKENS = [
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"\\",
        b"0",
        b"-",
        b"-0",
        b"1",
        b"4",
        b"1e5",
        b"1.0",
        b".",
        b" ",
        b"\n",
    ),
    *(
        b"null",
        b"true",
        b"false",
        b"NaN",
        b"-Infinity",
        b"[[]]",
        b"{}",
        b'""',
        b'"a":',
        b"9" * 20,
        b"9" * 400,
        b"[" * 200,
    ),
    *(
        b"\\u0000",
        b"\\ud800",
        b"\\u0061",
        b"\\ud83d\\ude00",
        b"\x00",
        b"\x1b[2J",
        b"\x7f",
        b"\xc2\x9b",
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    *("\u202e".encode(), b"../", b"/etc/passwd", b"__metadata__", b"dtype", b"shape", b"data_offsets", b"weight_map"),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.sampled_from([2**31, 2**40, 2**63, 2**64, 10**400])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([*BITS, "F31", "../a.safetensors", "\x1b[2J", "a" * 600]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(["dtype", "shape", "data_offsets", "more"])


@st.composite
def damaged(draw: st.DrawFn, text: bytes) -> bytes:
    """The text with a few bytes gone, put in, or there twice."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(text)))
        end = min(len(text), place + draw(st.integers(0, 12)))
        how = draw(st.sampled_from(["out", "in", "over", "twice"]))
        new = draw(st.sampled_from(TOKENS)) if how in ("in", "over") else text[place:end] * 2 if how == "twice" else b""
        text = text[:place] + new + text[place if how == "in" else end :]
    return text


# Every dtype, none to five tensors, every number of dimensions from none to three, with and without metadata.
NAMES = ("a", "b.weight", "layers.0.true-0", "ä", "x" * 512)
DIMENSIONS = ([8], [2, 8], [0, 8], [1, 8, 2], [8, 0, 1])
BASES = [
    header(
        {name: (dtype, DIMENSIONS[(place + start) % 5]) for place, name in enumerate(NAMES[: start % 6])}
        | ({"scalar": (dtype, [])} if BITS[dtype] >= 8 else {}),
        ({"format": "pt"}, {"a": '"\\'}, None)[start % 3],
    )
    for start, dtype in enumerate(sorted(BITS))
]


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A file: a valid one in another order, with wrong entries, wrong text, or a wrong length or size."""
    base, size = draw(st.sampled_from(BASES))
    wrong = draw(st.sampled_from(["", "entries", "text", "size", "entries and text"]))
    entries: dict[str, Any] = {name: dict(fields) for name, fields in base.items()}
    if not wrong:
        entries["__metadata__"] = {"note": draw(st.text(max_size=9))}
    for _ in range(draw(st.integers(1, 2)) if "entries" in wrong else 0):
        name = draw(st.sampled_from([*entries, "c", "__metadata__"]))
        if isinstance(entries.get(name), dict):
            entries[name][draw(FIELDS)] = draw(VALUES)
        else:
            entries[name] = draw(VALUES)
    pairs = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in entries.items()]
    pairs = draw(st.sampled_from([pairs, pairs[::-1], pairs + pairs[:1] if wrong else pairs]))
    text = f"{{{','.join(pairs)}}}".encode()
    text = draw(damaged(text)) if "text" in wrong else text
    blob = frame(text) if draw(st.booleans()) else blob_of(text, 0)
    length = int.from_bytes(blob[:8], "little")
    if wrong == "size":
        size += draw(st.sampled_from([0, 0, 1, -1, 8]))
        length += draw(st.sampled_from([0, 1, -1, 8, 2**62]))
    return length.to_bytes(8, "little") + blob[8:] + bytes(max(0, size))


# What lorascope says of a file that safetensors reads: the reasons of `attacks.STRICTER`.
REASONS = re.compile(
    r"begins with|is described by|__metadata__ is None|twice in one object|2\^40 and more|has \d+ dimensions|has a name that"
)


def header_answer(blob: bytes) -> str:
    try:
        found = read_headers(Memory({WEIGHTS: blob}), [WEIGHTS])
    except LorascopeError as error:
        message = clean(error)
        if not accepts(blob):
            return "refused"
        assert REASONS.search(message), message
        return "stricter"
    assert accepts(blob)
    assert all(tensor.span.end <= len(blob) for tensor in found.values())
    return "read"


def answers_of_headers(examples: int) -> None:
    answers = fuzzed(headers(), header_answer, examples)
    assert answers.keys() == {"refused", "stricter", "read"}
    assert answers["refused"] > examples / 3 and answers["read"] > examples / 20 and answers["stricter"] > 2


def test_headers() -> None:
    answers_of_headers(HEADERS[0])


@pytest.mark.slow
def test_many_headers() -> None:
    answers_of_headers(HEADERS[1])


# The index.

SHAPES = {"a": ("F32", [2]), "b": ("F32", [1]), "c": ("BF16", [3, 1])}
PLACES = {"a": "x.safetensors", "b": "x.safetensors", "c": "y.safetensors"}


def shard(name: str) -> bytes:
    entries, size = header({tensor: SHAPES[tensor] for tensor, place in PLACES.items() if place == name})
    return frame(json.dumps(entries).encode()) + bytes(size)


SHARDS = {name: shard(name) for name in sorted(set(PLACES.values()))}


@st.composite
def indexes(draw: st.DrawFn) -> bytes:
    index: Any = {"metadata": {"total_size": 18}, "weight_map": dict(PLACES)}
    names = st.sampled_from([*PLACES, "d", "\x1b[2J", ""])
    places = st.sampled_from([*SHARDS, "z.safetensors", "../x.safetensors", "/etc/passwd", "config.json", INDEX])
    for _ in range(draw(st.integers(0, 2))):
        index["weight_map"][draw(names)] = draw(places | VALUES)
    if draw(st.integers(0, 9)) == 0:
        index[draw(st.sampled_from(["weight_map", "metadata"]))] = draw(VALUES)
    text = json.dumps(draw(VALUES) if draw(st.integers(0, 19)) == 0 else index).encode()
    return draw(damaged(text)) if draw(st.booleans()) else text


def tolerant(text: bytes) -> Any:
    """What Python's own reader makes of it; an empty object where it makes nothing."""
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError):
        return {}


STRICT_JSON = re.compile("twice in one object|holds NaN|nested deeper|half of a surrogate|number of [0-9]+ digits")


def index_answer(text: bytes) -> str:
    loaded = tolerant(text)
    right = isinstance(loaded, dict) and loaded.get("weight_map") == PLACES
    try:
        found = open_checkpoint(Memory({"config.json": b"{}", INDEX: text, **SHARDS}))
    except LorascopeError as error:
        message = clean(error)
        assert not right or STRICT_JSON.search(message), message
        return "refused"
    assert right
    assert {name: (dtype, list(shape)) for name, (dtype, shape) in described(found.tensors).items()} == SHAPES
    return "read"


def answers_of_indexes(examples: int) -> None:
    answers = fuzzed(indexes(), index_answer, examples)
    assert answers["refused"] > examples / 4 and answers["read"] > examples / 20


def test_indexes() -> None:
    answers_of_indexes(INDEXES[0])


@pytest.mark.slow
def test_many_indexes() -> None:
    answers_of_indexes(INDEXES[1])


# The configuration.


@st.composite
def configs(draw: st.DrawFn) -> bytes:
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "rope": {"theta": 1e4}}
    key = st.sampled_from([*config, "transformers_weights", "auto_map", "quantization_config"])
    config |= draw(st.dictionaries(key, VALUES, max_size=2))
    text = json.dumps(draw(VALUES) if draw(st.integers(0, 9)) == 0 else config).encode()
    return draw(damaged(text)) if draw(st.booleans()) else text


def config_answer(text: bytes) -> str:
    loaded = tolerant(text)
    try:
        found = open_checkpoint(Memory({"config.json": text, WEIGHTS: SHARDS["x.safetensors"]}))
    except LorascopeError as error:
        message = clean(error)
        right = isinstance(loaded, dict) and loaded and loaded.get("transformers_weights") is None
        assert not right or STRICT_JSON.search(message), message
        return "refused"
    assert found.config == loaded
    assert found.tensors.keys() == {"a", "b"}
    return "read"


def answers_of_configs(examples: int) -> None:
    answers = fuzzed(configs(), config_answer, examples)
    assert answers["refused"] > examples / 4 and answers["read"] > examples / 10


def test_configs() -> None:
    answers_of_configs(CONFIGS[0])


@pytest.mark.slow
def test_many_configs() -> None:
    answers_of_configs(CONFIGS[1])


@pytest.mark.parametrize("attack", REFUSED_BY_BOTH | STRICTER)
def test_messages_drive_no_terminal(attack: str) -> None:
    blob, _ = (REFUSED_BY_BOTH | STRICTER)[attack]
    with pytest.raises(LorascopeError) as caught:
        read_headers(Memory({WEIGHTS: blob}), [WEIGHTS])
    assert len(clean(caught.value)) < 1_500


# Time and memory: the largest files that are read at all, filled with what costs most.


def filled(front: bytes, unit: bytes, back: bytes, size: int) -> bytes:
    return front + unit * ((size - len(front) - len(back)) // len(unit)) + back


def entries_of(count: int, text: str) -> bytes:
    return b"{" + b",".join((text % number).encode() for number in range(count)) + b"}"


MEGABYTES, INDEX_MEGABYTES = 24_999_990, 64 * 2**20 - 1
RIGHT = b'":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
HEADER_BOMBS: dict[str, Callable[[], bytes]] = {
    "lists": lambda: filled(b'{"a":[', b"[],", b"0]}", MEGABYTES),
    "objects": lambda: filled(b'{"a":[', b"{},", b"0]}", MEGABYTES),
    "nested lists": lambda: filled(b'{"a":', b"[", b"", MEGABYTES),
    "nested objects": lambda: filled(b"", b'{"a":', b"", MEGABYTES),
    "numbers": lambda: filled(b'{"a":[', b"1000,", b"0]}", MEGABYTES),
    "texts": lambda: filled(b'{"a":[', b'"ab",', b"0]}", MEGABYTES),
    "digits": lambda: filled(b'{"a":', b"1", b"}", MEGABYTES),
    "dimensions": lambda: filled(b'{"a":{"dtype":"U8","data_offsets":[0,4],"shape":[', b"1,", b"4]}}", MEGABYTES),
    "keys": lambda: entries_of(2_200_000, '"%x":0'),
    "a million keys": lambda: entries_of(1_000_000, '"%x":0'),
    "one key": lambda: filled(b"{", b'"ab":0,', b'"a":0}', MEGABYTES),
    "long name": lambda: filled(b'{"', b"a", RIGHT, MEGABYTES),
    "escaped name": lambda: filled(b'{"', b"\\u0041", RIGHT, MEGABYTES),
    "wide name": lambda: filled(b'{"', "\U00010000".encode(), RIGHT, MEGABYTES),
    "spaces": lambda: filled(b"{", b" ", b"}", MEGABYTES),
    "tensors": lambda: entries_of(410_000, '"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'),
    "wrong tensors": lambda: entries_of(410_000, '"%x":{"dtype":"U8","shape":[0],"data_offsets":[1,0]}'),
    "escaped tensors": lambda: entries_of(360_000, '"\\u0041%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'),
}
INDEX_BOMBS: dict[str, Callable[[], bytes]] = {
    "lists": lambda: filled(b'{"a":[', b"[],", b"0]}", INDEX_MEGABYTES),
    "some lists": lambda: filled(b'{"a":[', b"[],", b"0]}", 2_900_000),
    "texts": lambda: b'{"a":[' + b",".join(b'"%028x"' % number for number in range(1_990_000)) + b"]}",
    "files": lambda: b'{"weight_map":' + entries_of(1_700_000, '"%x":"%%s.safetensors"') + b"}",
    "nested": lambda: b'{"a":' + b"[" * 1_900_000 + b"]" * 1_900_000 + b"}",
    "digits": lambda: filled(b'{"a":', b"1", b"}", INDEX_MEGABYTES),
    "one text": lambda: filled(b'{"weight_map":"', "\U00010000".encode(), b'"}', INDEX_MEGABYTES),
}
QUICK_BOMBS = ("lists", "nested lists", "digits", "long name")
_MOST_MEMORY = 2**30
_MOST_SECONDS = 30

MEASURE = (
    PEAK_MEMORY
    + """
import resource, sys, time
from pathlib import Path
from lorascope.errors import LorascopeError
from lorascope.sources.files.folder import open_folder
from lorascope.sources.checkpoint.safetensors import open_checkpoint

resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
begun = time.process_time()
try:
    open_checkpoint(open_folder(Path(sys.argv[1])))
    said = "read"
except LorascopeError as error:
    said = error.faults[0][:200]
print(peak_memory(), time.process_time() - begun, said.encode())
"""
)


def stays_small(folder: Path, name: str, content: bytes) -> None:
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / name).write_bytes(content)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(folder)], capture_output=True, text=True, timeout=300)
    (folder / name).unlink()
    assert done.returncode == 0, done.stderr[-500:]
    memory, seconds, said = done.stdout.split(maxsplit=2)
    assert said.strip() != "b'read'"
    assert int(memory) < _MOST_MEMORY
    assert float(seconds) < _MOST_SECONDS


@pytest.mark.parametrize("bomb", QUICK_BOMBS)
def test_a_large_header_stays_small(bomb: str, tmp_path: Path) -> None:
    stays_small(tmp_path, WEIGHTS, blob_of(HEADER_BOMBS[bomb](), 5))


@pytest.mark.slow
@pytest.mark.parametrize("bomb", sorted(HEADER_BOMBS.keys() - QUICK_BOMBS))
def test_any_large_header_stays_small(bomb: str, tmp_path: Path) -> None:
    stays_small(tmp_path, WEIGHTS, blob_of(HEADER_BOMBS[bomb](), 5))


@pytest.mark.slow
@pytest.mark.parametrize("bomb", INDEX_BOMBS)
def test_any_large_index_stays_small(bomb: str, tmp_path: Path) -> None:
    content = INDEX_BOMBS[bomb]()
    assert len(content) <= INDEX_MEGABYTES
    stays_small(tmp_path, INDEX, content)


@pytest.mark.parametrize("bomb", QUICK_BOMBS)
def test_large_headers_are_within_the_bound(bomb: str) -> None:
    text = HEADER_BOMBS[bomb]()
    assert 24_900_000 < len(text) <= 25_000_000
    assert parse_header(text, WEIGHTS, len(text) + 8)[1]


# What is opened: a hook in a fresh Python sees every file and connection.

WATCH = """
import sys
from pathlib import Path
import lorascope.sources.files.json_text
from lorascope.errors import LorascopeError
from lorascope.sources.files.folder import open_folder
from lorascope.sources.checkpoint.safetensors import open_checkpoint

seen = []
watching = ("open", "os.listdir", "os.scandir", "os.exec", "os.system", "subprocess.Popen", "import", "exec")
def hear(event, args):
    # A constructor of our own values is compiled when it is first called.
    if event.startswith(("socket.", *watching)) and 'file "<light_dataclasses>"' not in str(args[0]):
        seen.append((event, str(args[0])))
sys.addaudithook(hear)
for folder in sorted(Path(sys.argv[1]).iterdir()):
    begun = len(seen)
    try:
        open_checkpoint(open_folder(folder))
        said = "read"
    except LorascopeError:
        said = "refused"
    print(folder.name, said, seen[begun:])
"""


def test_nothing_outside_the_folder_is_opened(tmp_path: Path) -> None:
    (tmp_path / "secret.safetensors").write_bytes(SHARDS["x.safetensors"])
    folders = tmp_path / "folders"
    paths = [
        "../../secret.safetensors",
        str(tmp_path / "secret.safetensors"),
        "../good/model.safetensors",
        "/etc/passwd",
    ]
    attacks: dict[str, tuple[dict[str, Any], Any]] = {"good": ({"auto_map": {"AutoConfig": "code.Mine"}}, None)}
    for number, path in enumerate(paths):
        attacks[f"index{number}"] = ({}, {"weight_map": {"a": path}})
        attacks[f"config{number}"] = ({"transformers_weights": path}, None)
    for name, (config, index) in attacks.items():
        (folders / name).mkdir(parents=True)
        (folders / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
        (folders / name / "code.py").write_text("raise SystemExit('it ran')", encoding="utf-8")
        if index:
            (folders / name / INDEX).write_text(json.dumps(index), encoding="utf-8")
        else:
            (folders / name / WEIGHTS).write_bytes(SHARDS["x.safetensors"])
    for number, path in enumerate(paths):
        (folders / f"link{number}").mkdir()
        (folders / f"link{number}" / "config.json").write_text("{}", encoding="utf-8")
        (folders / f"link{number}" / WEIGHTS).symlink_to(path)
    done = subprocess.run([sys.executable, "-c", WATCH, str(folders)], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 13
    for line in lines:
        name, said, events = line.split(" ", 2)
        seen = eval(events)
        assert said == ("read" if name == "good" else "refused")
        opened = [path for event, path in seen if event == "open" and not path.isdigit()]  # by path, not by number
        assert all(path.startswith(f"{folders / name}/") for path in opened), seen
        assert {event for event, _ in seen} <= {"open", "os.listdir", "os.scandir"}, seen
        if name == "good":
            assert {Path(path).name for path in opened} == {"config.json", WEIGHTS}


# The page.


def test_the_page_has_the_counts() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \| ([\d,]+) \| ([\d,]+) \|", page, re.MULTILINE)
    published = {name: (int(quick.replace(",", "")), int(slow.replace(",", ""))) for name, quick, slow in rows}
    assert published == {
        "fuzzed headers": HEADERS,
        "fuzzed indexes": INDEXES,
        "fuzzed configurations": CONFIGS,
        "large headers": (len(QUICK_BOMBS), len(HEADER_BOMBS)),
        "large indexes": (0, len(INDEX_BOMBS)),
        "folders watched": (13, 13),
    }
    assert f"{len(REFUSED_BY_BOTH)} files that safetensors refuses" in page
    assert f"{len(STRICTER)} files that it takes" in page
    for attack in STRICTER:
        assert f"- {attack}: " in page
    assert page.count("\n- ") == len(STRICTER)
