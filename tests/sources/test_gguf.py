"""GGUF: headers against the gguf library, original names against transformers, and files that are wrong.

`tools/build_gguf_names.py` says what a converter writes for a checkpoint; `docs/gguf.md` says what that rests on.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import build_gguf_names as building
import gguf
import numpy as np
import pytest
import torch
import transformers
from hypothesis import strategies as st
from safetensors.torch import load_file

from lorascope.errors import LorascopeError
from lorascope.model.lexicon import BLOCK_NAMES
from lorascope.model.role_names import parse_role, role_of_name
from lorascope.names import template
from lorascope.sources.checkpoint.types import Span
from lorascope.sources.files.folder import open_folder
from lorascope.sources.files.gguf_header import TYPES, Gguf, read_gguf
from lorascope.sources.gguf import names
from lorascope.sources.gguf.names import GgufCheckpoint, gguf_role, original_checkpoint
from tests.helpers.hostile_files import Memory
from tests.helpers.paths import ROOT
from tests.helpers.samples import fails
from tests.sources.test_hostile import clean, fuzzed

PAGE = ROOT / "docs" / "gguf.md"

# Files written by hand: the oracle of what is wrong with them is the format's description.


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str | bytes, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def tensor(name: str | bytes = "a.weight", axes: Sequence[int] = (32, 2), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(axes)}QIQ", len(axes), *axes, kind, offset)


ARCHITECTURE = pair("general.architecture", 8, text("llama"))


def blob(
    pairs: Sequence[bytes] = (ARCHITECTURE,),
    tensors: Sequence[bytes] = (tensor(),),
    *,
    front: bytes = b"GGUF\x03\0\0\0",
    counts: tuple[int, int] | None = None,
    data: int = 256,
) -> bytes:
    head = front + struct.pack("<QQ", *(counts or (len(tensors), len(pairs)))) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


def parsed(content: bytes | Mapping[str, bytes], name: str = "m.gguf") -> Gguf:
    return read_gguf(Memory(content if isinstance(content, Mapping) else {"m.gguf": content}), name)


def array(kind: int, count: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + payload


HOSTILE = {
    "empty": (b"", "ends after 0 bytes"),
    "no magic": (b"PK\x03\x04" + bytes(60), "starts with b'PK"),
    "an older format": (b"tjgg" + bytes(60), "came before GGUF"),
    "version 1": (blob(front=b"GGUF\x01\0\0\0"), "version 1"),
    "version 4": (blob(front=b"GGUF\x04\0\0\0"), "version 4"),
    "big-endian": (blob(front=b"GGUF\0\0\0\x03"), "big-endian"),
    "many tensors": (blob(counts=(2**63, 1)), "claims 9223372036854775808 tensors"),
    "more tensors than fit": (blob(counts=(90, 1)), "more than fit into the file"),
    "many keys": (blob(counts=(1, 2**40)), "claims 1099511627776 metadata keys"),
    "more keys than there are": (blob(counts=(1, 3)), "a metadata key has"),
    "a long key": (blob([struct.pack("<Q", 2**62), ARCHITECTURE]), "has 4611686018427387904 bytes"),
    "a key past the end": (blob([struct.pack("<Q", 60_000), ARCHITECTURE]), "in the middle of its header"),
    "a key that is no text": (blob([pair(b"\xff\xfe", 4, bytes(4)), ARCHITECTURE]), "not UTF-8"),
    "a value that is no text": (blob([pair("general.architecture", 8, text(b"\xc3("))]), "not UTF-8"),
    "a key that drives a terminal": (
        blob([pair("\x1b[2J", 4, bytes(4)), ARCHITECTURE]),
        r"'\x1b[2J', not a name",
    ),
    "a key twice": (blob([ARCHITECTURE, ARCHITECTURE]), "occurs twice"),
    "an unknown value type": (blob([ARCHITECTURE, pair("x", 13, bytes(8))]), "value of type 13"),
    "a nested array": (blob([ARCHITECTURE, pair("x", 9, array(9, 1, array(4, 1, bytes(4))))]), "array of arrays"),
    "an array of an unknown type": (blob([ARCHITECTURE, pair("x", 9, array(77, 1))]), "array of values of type 77"),
    "an endless array": (blob([ARCHITECTURE, pair("x", 9, array(4, 2**61))]), "values in 'x'"),
    "an endless array of texts": (blob([ARCHITECTURE, pair("x", 9, array(8, 2**61))]), "texts in 'x'"),
    "a text in an array past the end": (
        blob([ARCHITECTURE, pair("x", 9, array(8, 1, struct.pack("<Q", 2**60)))]),
        "ends",
    ),
    "half true": (blob([ARCHITECTURE, pair("x", 7, b"\x02")]), "neither true nor false"),
    "no architecture": (blob([]), "general.architecture is None"),
    "an architecture that is a number": (blob([pair("general.architecture", 4, bytes(4))]), "is 0, not a name"),
    "an architecture that drives a terminal": (blob([pair("general.architecture", 8, text("\x1b[2J"))]), r"'\x1b[2J'"),
    "no tensors": (blob(tensors=[]), "holds no tensors"),
    "a name that drives a terminal": (blob(tensors=[tensor("\x1b]0;x\x07")]), r"'\x1b]0;x\x07', not a name"),
    "an empty name": (blob(tensors=[tensor("")]), ", not a name"),
    "a long name": (blob(tensors=[tensor("a" * 256)]), ", not a name"),
    "a name that is no text": (blob(tensors=[tensor(b"\x80")]), "not UTF-8"),
    "a tensor twice": (blob(tensors=[tensor(), tensor(offset=256)], data=512), "a.weight occurs twice"),
    "five axes": (blob(tensors=[tensor(axes=(1, 1, 1, 1, 1))]), "5 dimensions"),
    "a million axes": (blob(tensors=[text("a") + struct.pack("<I", 2**20)]), "1048576 dimensions"),
    "an unknown tensor type": (blob(tensors=[tensor(kind=4)]), "has type 4"),
    "a shape that overflows": (blob(tensors=[tensor(axes=(2**40, 2**40))]), "which nothing holds"),
    "a negative size": (blob(tensors=[tensor(axes=(2**64 - 1,))]), "which nothing holds"),
    "a row that no blocks fill": (blob(tensors=[tensor(axes=(48, 2), kind=12)]), "blocks of 256 (Q4_K) do not fill"),
    "a block without a row": (blob(tensors=[tensor(axes=(), kind=2)]), "blocks of 32 (Q4_0) do not fill"),
    "data past the end": (blob(data=255), "but the file has"),
    "an offset past the end": (blob(tensors=[tensor(offset=2**63)]), "but the file has"),
    "an odd offset": (blob(tensors=[tensor(offset=3)], data=300), "not a multiple of 32"),
    "data that overlap": (blob(tensors=[tensor(), tensor("b.weight", offset=32)], data=512), "overlap"),
    "an odd alignment": (blob([ARCHITECTURE, pair("general.alignment", 4, struct.pack("<I", 24))]), "power of two"),
    "an alignment of zero": (blob([ARCHITECTURE, pair("general.alignment", 4, bytes(4))]), "power of two"),
}


@pytest.mark.parametrize(("content", "part"), HOSTILE.values(), ids=HOSTILE)
def test_a_wrong_file_says_what_is_wrong(content: bytes, part: str) -> None:
    assert len(HOSTILE) == 45
    with fails(part, "memory/m.gguf") as caught:
        parsed(content)
    clean(caught.value)


def test_every_fault_of_the_tensors_is_told_at_once() -> None:
    wrong = [tensor(f"t{number}", kind=99) for number in range(30)]
    with fails("11 faults", "t9 has type 99", "and 20 more"):
        parsed(blob(tensors=wrong))


def test_a_file_cut_anywhere_is_refused() -> None:
    whole = blob([ARCHITECTURE, pair("llama.block_count", 4, struct.pack("<I", 3))])
    assert parsed(whole).tensors == {"a.weight": ((2, 32), "F32")}
    for end in range(len(whole)):
        with pytest.raises(LorascopeError) as caught:
            parsed(whole[:end])
        clean(caught.value)
    assert len(whole) == 416


def test_a_file_that_is_not_there() -> None:
    with fails("there is no such file"):
        parsed({"other.gguf": blob()})


def test_fuzzed_files_give_a_clean_error_or_shapes() -> None:
    whole = blob(
        [
            ARCHITECTURE,
            pair("llama.attention.head_count_kv", 9, array(5, 2, struct.pack("<ii", 0, 4))),
            pair("tokenizer.ggml.tokens", 9, array(8, 2, text("a") + text("b"))),
            pair("general.quantized", 7, b"\x01"),
        ],
        [tensor("blk.0.ffn_gate_exps.weight", (32, 2, 2)), tensor("token_embd.weight", (32, 2), 8, 512)],
        data=600,
    )
    edits = st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 4), st.binary(max_size=9))

    def check(changes: list[tuple[int, int, bytes]]) -> str:
        content = whole
        for place, cut, new in changes:
            content = content[:place] + new + content[place + cut :]
        try:
            found = original_checkpoint(parsed(content))
        except LorascopeError as error:
            clean(error)
            return "refused"
        assert all(type(size) is int and size >= 0 for stored in found.tensors.values() for size in stored.shape)
        return "read"

    answers = fuzzed(st.lists(edits, min_size=1, max_size=3), check, 2_000)
    assert answers["refused"] > 500
    assert answers["read"] > 50


class Endless(Memory):
    """A file that claims a terabyte, of which only what is asked for is made."""

    def size(self, name: str) -> int:
        return 2**40

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        self.asked.append(list(spans))
        (span,) = spans
        return [self.content[span.file][span.start : span.end].ljust(span.end - span.start, b"\0")]


@pytest.mark.parametrize(
    "value",
    [
        pair("x", 8, struct.pack("<Q", 2**36)),  # one text of 64 GB
        pair("x", 9, array(0, 99_999_999)) + pair("y", 9, array(0, 99_999_999)),
        pair("x", 9, array(8, 4_000_000, struct.pack("<Q", 2**30))),
    ],
    ids=["a text", "arrays", "texts"],
)
def test_no_more_than_a_header_is_read(value: bytes) -> None:
    files = Endless({"m.gguf": blob([ARCHITECTURE, value], counts=(1, 3))})
    with fails("longer than 100 MB"):
        read_gguf(files, "m.gguf")
    assert sum(span.end - span.start for spans in files.asked for span in spans) <= 100_000_000


def test_the_parts_of_a_split_model_share_the_bound() -> None:
    long = blob([ARCHITECTURE, pair("x", 9, array(0, 60_000_000, bytes(60_000_000)))])
    assert parsed(long).lengths == {"x": 60_000_000}
    with fails("m-00002-of-00002.gguf", "longer than 100 MB"):
        parsed({f"m-{number:05}-of-00002.gguf": long for number in (1, 2)}, "m-00001-of-00002.gguf")


def test_a_file_name_drives_no_terminal() -> None:
    for name in ("\x1b[2J-00001-of-00002.gguf", "\x1b[2J.gguf"):
        with pytest.raises(LorascopeError) as caught:
            parsed({name: b"GGML"}, name)
        clean(caught.value)


def test_a_large_vocabulary_is_read_once_and_skipped() -> None:
    tokens = b"".join(map(text, map(str, range(600_000))))
    whole = blob([ARCHITECTURE, pair("tokenizer.ggml.tokens", 9, array(8, 600_000, tokens))], data=50_000_000)
    files = Memory({"m.gguf": whole})
    found = read_gguf(files, "m.gguf")
    assert found.lengths == {"tokenizer.ggml.tokens": 600_000}
    spans = [span for asked in files.asked for span in asked]
    assert [span.start for span in spans] == [0, *(span.end for span in spans[:-1])]  # each byte once
    assert len(spans) == 5
    assert spans[-1].end == 16_000_000  # of 58 MB


# Files written by the gguf library.


def write(
    path: Path,
    architecture: str,
    tensors: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """A GGUF file of some arrays, or of zeros of some shapes."""
    writer = gguf.GGUFWriter(str(path), architecture, **options)
    for key, value in (settings or {}).items():
        full = key if key.startswith(("general.", "tokenizer.")) else f"{architecture}.{key}"
        match value:
            case bool():
                writer.add_bool(full, value)
            case int():
                writer.add_uint32(full, value)
            case float():
                writer.add_float32(full, value)
            case str():
                writer.add_string(full, value)
            case _:
                writer.add_array(full, value)
    for name, made in tensors.items():
        writer.add_tensor(name, np.zeros(made, dtype=np.float32) if isinstance(made, tuple) else made)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_folder(folder: Path, name: str = "m.gguf") -> Gguf:
    return read_gguf(open_folder(folder), name)


def test_types_are_those_of_the_library() -> None:
    theirs = {kind.value: (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    assert theirs == TYPES
    assert len(TYPES) == 34


def test_a_header_is_what_the_library_reads(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_block_count(2)
    writer.add_head_count_kv([0, 4])
    writer.add_bool("llama.some", True)
    writer.add_float32("llama.other", 0.5)
    writer.add_chat_template("x" * 5_000)
    writer.add_token_list(["a", "b", "ü"])
    writer.add_uint64("general.big", 2**40)
    writer.add_int8("general.small", -3)
    for kind, (name, _, width) in TYPES.items():
        writer.add_tensor(
            f"{name}.weight",
            np.zeros((3, 2, 2 * width), dtype=np.uint8),
            raw_dtype=gguf.GGMLQuantizationType(kind),
        )
    writer.add_tensor("scalar", np.zeros((), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_folder(tmp_path)
    theirs = gguf.GGUFReader(tmp_path / "m.gguf")
    assert {name: (shape, kind) for name, (shape, kind) in found.tensors.items()} == {
        one.name: (tuple(int(size) for size in reversed(one.shape)), one.tensor_type.name) for one in theirs.tensors
    }
    assert len(found.tensors) == len(TYPES) + 1
    assert {shape for shape, _ in found.tensors.values()} >= {(3, 2, 2), (3, 2, 64), (3, 2, 512), ()}
    for key, field in theirs.fields.items():
        if key.startswith("GGUF."):
            continue
        value = field.contents()
        expected = tuple(value) if isinstance(value, list) else value
        assert found.metadata.get(key, expected) == expected
        assert key in found.metadata or found.lengths[key] == len(value)
    assert found.lengths == {"tokenizer.chat_template": 5_000, "tokenizer.ggml.tokens": 3}
    assert found.setting("attention.head_count_kv") == (0, 4)


def test_a_split_model_is_read_whole(tmp_path: Path) -> None:
    tensors = {f"blk.{layer}.attn_q.weight": (4, 8) for layer in range(5)}
    write(tmp_path / "m.gguf", "llama", tensors, split_max_tensors=2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for name in names:  # whichever of them is given
        found = read_folder(tmp_path, name)
        assert {key: shape for key, (shape, _) in found.tensors.items()} == tensors
        assert found.names == tuple(names)
    second = tmp_path / names[1]
    (tmp_path / names[2]).write_bytes(second.read_bytes())
    with fails("says that it is part 1", "repeats 2 tensors", "split.tensors.count is 5"):
        read_folder(tmp_path, names[0])
    second.unlink()
    with fails("1 of the model's 3 files are missing: m-00002-of-00003.gguf", "Get them all."):
        read_folder(tmp_path, names[0])


# Original names: what a converter writes, back to what save_pretrained wrote.


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.enable_progress_bar()
    transformers.logging.set_verbosity_warning()


def settings_of(row: building.Row, config: Any) -> dict[str, Any]:
    """The metadata of a small model, as far as the table reads it."""
    known = config.to_dict()
    settings: dict[str, Any] = {}
    for key, name in (building.keys_of(config) | dict(row.keys)).items():
        value = known.get(name)
        value = value[0] if isinstance(value, list) else value
        if isinstance(value, int) and not isinstance(value, bool):
            settings[key] = value
    for key, value in row.where.items():
        settings.setdefault(key, 1 if value is None else value)
    return settings


def converted(folder: Path, row: building.Row, config: Any, tensors: Mapping[str, Any]) -> GgufCheckpoint:
    write(folder / "m.gguf", row.architecture, tensors, settings_of(row, config))
    return original_checkpoint(read_folder(folder))


def compare(folder: Path, row: building.Row, config: Any) -> GgufCheckpoint:
    originals = building.saved(row, config)
    written = building.written(row, originals, config)
    assert written.faults == []
    found = converted(folder, row, config, written.tensors)
    held = {name: shape for name, shape in originals.items() if building.template_of(name) not in written.absent}
    assert {name: stored.shape for name, stored in found.tensors.items()} == held
    assert found.unexplained == ()
    assert {source for stored in found.tensors.values() for source in stored.sources} == written.tensors.keys()
    assert (found.config["model_type"], found.config["architectures"]) == (row.model_type, [building.class_name(row)])
    assert set(written.absent) <= set(found.absent)
    known = config.to_dict()
    for key, value in found.config.items():
        if key not in ("model_type", "architectures"):
            theirs = known[key][0] if isinstance(known[key], list) else known[key]
            assert value == theirs, key
    return found


QUICK = ("llama", "mixtral", "gemma2", "gpt2", "deepseek_v3", "gpt_oss", "granitemoe", "mamba2", "qwen3_next", "bert")
ROWS = {f"{index}-{row.architecture}-{row.model_type}": row for index, row in enumerate(building.ROWS)}


@pytest.mark.parametrize("model_type", QUICK)
def test_original_names_and_shapes_come_back(tmp_path: Path, model_type: str) -> None:
    row = next(row for row in building.ROWS if row.model_type == model_type)
    compare(tmp_path, row, building.configurations(row)[0])


@pytest.mark.slow
def test_original_names_and_shapes_come_back_for_every_row(tmp_path: Path) -> None:
    tried = 0
    for name, row in ROWS.items():
        for number, config in enumerate(building.configurations(row)):
            folder = tmp_path / f"{name}-{number}"
            folder.mkdir()
            compare(folder, row, config)
            tried += 1
    assert (len(ROWS), tried) == (90, 134)
    assert len({row.architecture for row in building.ROWS}) == 75
    assert len({row.model_type for row in building.ROWS}) == 81


@pytest.mark.slow
def test_the_table_is_what_the_tool_makes() -> None:
    table, faults = building.build()
    assert faults == []
    assert building.table_text(table) == building.TABLE.read_text(encoding="utf-8")


# transformers reads GGUF files of some architectures itself. Each tensor is filled with a number of its own: what its
# loader puts where shows whether it takes the same tensors for the same weights.

# Rows that transformers 5.23 cannot load at all.
UNREADABLE = {"mixtral": "taken for a llama", "falcon_mamba": "unknown to its name map"}
# What it leaves as initialized: https://github.com/huggingface/transformers, modeling_gguf_pytorch_utils.py.
UNREAD = {"gpt_oss": r".*\.(mlp\.experts\..*|sinks)", "gemma4_text": r".*\.layer_scalar"}


def transformers_settings(row: building.Row, config: Any) -> dict[str, Any]:
    """What transformers needs beside, from the same configuration."""
    settings = settings_of(row, config) | {
        "tokenizer.ggml.tokens": [f"t{number}" for number in range(config.vocab_size)],
        "rope.freq_base": 10_000.0,
        "rope.dimension_count": 8,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "attention.layer_norm_epsilon": 1e-5,
    }
    if row.architecture.startswith("qwen35"):
        settings |= {
            "full_attention_interval": 4,
            "ssm.conv_kernel": config.linear_conv_kernel_dim,
            "ssm.state_size": config.linear_key_head_dim,
            "ssm.group_count": config.linear_num_key_heads,
            "ssm.time_step_rank": config.linear_num_value_heads,
            "ssm.inner_size": config.linear_num_value_heads * config.linear_value_head_dim,
            "rope.dimension_sections": [1, 1, 1, 0],
        }
    if row.architecture == "lfm2":
        heads = [0 if kind == "conv" else config.num_key_value_heads for kind in config.layer_types]
        settings |= {"attention.head_count_kv": heads, "shortconv.l_cache": config.conv_L_cache}
    return settings


def filling(name: str, number: int) -> float:
    """A number of its own; below zero where the converter writes -exp(A_log)."""
    return -float(number + 2) if name.endswith("ssm_a") else float(10 * number + 5)


def readings(value: float) -> set[float]:
    """What a filling may have become: itself, a norm's without the one that was added, the logarithm of a decay."""
    return {value, value - 1} | ({round(float(np.log(np.float32(-value))), 4)} if value < 0 else set())


def supported() -> list[building.Row]:
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.integrations.gguf import GGUF_ARCHS

    known = {name.replace("_", "") for name in (*GGUF_CONFIG_MAPPING, *GGUF_ARCHS)} | {"t5encoder"}
    return [row for row in building.ROWS if row.architecture.replace("-", "").replace("_", "") in known]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_transformers_takes_the_same_tensors_for_the_same_weights(tmp_path: Path) -> None:
    compared = 0
    for index, row in enumerate(supported()):
        if row.model_type in UNREADABLE:
            continue
        folder = tmp_path / str(index)
        folder.mkdir()
        config = building.configurations(row)[0]
        shapes = building.written(row, building.saved(row, config), config).tensors
        fillings = {name: filling(name, number) for number, name in enumerate(shapes)}
        tensors = {name: np.full(shape, fillings[name], dtype=np.float32) for name, shape in shapes.items()}
        if row.model_type == "qwen2_moe":  # this loader expects the gate of shared experts as older converters wrote it
            tensors = {name: made[0] if made.shape == (1, 32) else made for name, made in tensors.items()}
        write(folder / "m.gguf", row.architecture, tensors, transformers_settings(row, config))
        found = original_checkpoint(read_folder(folder))
        kind = getattr(transformers, building.class_name(row))
        loaded = kind.from_pretrained(folder, gguf_file="m.gguf", config=config, dtype=torch.float32)
        fresh = kind(config)
        fresh.load_state_dict(loaded.state_dict())
        fresh.save_pretrained(folder / "again")
        theirs = load_file(folder / "again" / "model.safetensors")
        assert theirs.keys() == found.tensors.keys()
        for name, values in theirs.items():
            stored = found.tensors[name]
            assert stored.shape == tuple(values.shape)
            if row.model_type in UNREAD and re.fullmatch(UNREAD[row.model_type], name):
                continue
            have = {round(value, 4) for value in values.unique().tolist()}
            assert len(have) == len(stored.sources), name
            assert all(have & readings(fillings[source]) for source in stored.sources), (row.model_type, name, have)
            compared += 1
    assert len(supported()) == 29
    assert compared == 1_345
    assert f"{compared:,} weights of {len(supported()) - 2} small models" in PAGE.read_text(encoding="utf-8")


# What the table does not settle.


def small(row_type: str) -> tuple[building.Row, Any, dict[str, tuple[int, ...]]]:
    row = next(row for row in building.ROWS if row.model_type == row_type)
    config = building.configurations(row)[0]
    return row, config, building.written(row, building.saved(row, config), config).tensors


def test_experts_of_older_files_are_tensors_of_their_own(tmp_path: Path) -> None:
    row, config, tensors = small("mixtral")
    originals = building.saved(row, config)
    apart: dict[str, tuple[int, ...]] = {}
    for name, shape in tensors.items():
        if "_exps" in name:
            apart |= {name.replace("_exps.", f".{expert}."): shape[1:] for expert in range(shape[0])}
        else:
            apart[name] = shape
    found = converted(tmp_path, row, config, apart)
    assert {name: stored.shape for name, stored in found.tensors.items()} == originals
    assert found.unexplained == ()


def test_a_latent_that_is_not_split_is_the_original(tmp_path: Path) -> None:
    row, config, tensors = small("deepseek_v3")
    originals = building.saved(row, config)
    whole = {
        name: shape for name, shape in tensors.items() if not name.endswith(("attn_k_b.weight", "attn_v_b.weight"))
    }
    whole |= {f"blk.{layer}.attn_kv_b.weight": (4 * (6 + 10), 16) for layer in range(3)}
    found = converted(tmp_path, row, config, whole)
    assert {name: stored.shape for name, stored in found.tensors.items()} == originals


def test_a_delta_net_that_is_not_split_is_the_original(tmp_path: Path) -> None:
    row, config, tensors = small("qwen3_next")
    originals = building.saved(row, config)
    whole = {name: shape for name, shape in tensors.items() if not re.search(r"attn_(qkv|gate)\.", name)}
    whole |= {f"blk.{layer}.ssm_in.weight": (12 + 12 + 40 + 40, 32) for layer in range(3)}
    whole |= {name: shape[1:] for name, shape in tensors.items() if "ffn_gate_inp_shexp" in name}  # a row as a vector
    found = converted(tmp_path, row, config, whole)
    assert {name: stored.shape for name, stored in found.tensors.items()} == originals
    assert found.unexplained == ()


@pytest.mark.parametrize("model_type", ["qwen3_next", "qwen3_5_moe_text"])
def test_gates_and_ups_may_be_kept_together(tmp_path: Path, model_type: str) -> None:
    row, config, tensors = small(model_type)
    originals = building.saved(row, config)
    fused = {
        name: shape for name, shape in tensors.items() if "ffn_gate_exps" not in name and "ffn_up_exps" not in name
    }
    fused |= {f"blk.{layer}.ffn_gate_up_exps.weight": (6, 48, 32) for layer in range(4)}
    found = converted(tmp_path, row, config, fused)
    assert {name: stored.shape for name, stored in found.tensors.items()} == originals
    assert found.unexplained == ()


def test_what_the_original_does_not_hold_is_dropped_with_a_reason(tmp_path: Path) -> None:
    tensors = {
        "token_embd.weight": (72, 32),
        "rope_freqs.weight": (4,),
        "blk.0.attn_q.weight": (32, 32),
        "blk.0.attn_rot_embd.weight": (4,),
        "blk.1.attn_q.weight": (32, 32),
        "blk.1.nextn.eh_proj.weight": (32, 64),
    }
    write(tmp_path / "m.gguf", "qwen2", tensors, {"block_count": 2, "nextn_predict_layers": 1})
    found = original_checkpoint(read_folder(tmp_path))
    assert sorted(found.tensors) == ["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"]
    assert found.config["num_hidden_layers"] == 1
    assert found.unexplained == ()
    assert {name: reason.split(",")[0] for name, reason in found.dropped.items()} == {
        "rope_freqs.weight": "rotary frequencies",
        "blk.0.attn_rot_embd.weight": "rotary frequencies",
        "blk.1.attn_q.weight": "part of a layer that predicts further tokens",
        "blk.1.nextn.eh_proj.weight": "part of a layer that predicts further tokens",
    }


def test_a_tensor_without_an_original_is_unexplained(tmp_path: Path) -> None:
    row, config, tensors = small("mixtral")
    name = "blk.0.ffn_gate_exps.weight"
    found = converted(tmp_path, row, config, tensors | {"blk.0.mystery.weight": (3, 3), name: (2**14 + 1, 1, 1)})
    assert found.unexplained == (name, "blk.0.mystery.weight")  # a stack of more experts than any model has
    assert "blk.0.mystery.weight" not in found.tensors


def test_shapes_that_the_table_does_not_expect_are_unexplained(tmp_path: Path) -> None:
    row, config, tensors = small("deepseek_v3")
    wrong = {"blk.0.attn_k_b.weight": (4, 15, 6), "blk.1.ffn_up_exps.weight": (24,), "blk.2.ffn_up_exps.weight": ()}
    assert converted(tmp_path, row, config, tensors | wrong).unexplained == (
        "blk.0.attn_k_b.weight",
        "blk.0.attn_v_b.weight",
        "blk.1.ffn_up_exps.weight",
        "blk.2.ffn_up_exps.weight",
    )


def test_how_a_weight_is_stored_is_told(tmp_path: Path) -> None:
    row, config, tensors = small("granitemoe")
    made: dict[str, Any] = dict(tensors)
    made["token_embd.weight"] = np.zeros((72, 32), dtype=np.float16)
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), row.architecture)
    for name, shape in tensors.items():
        packed = {"ffn_gate_exps": 8, "ffn_up_exps": 2}.get(name.split(".")[-2])
        if packed is None:
            writer.add_tensor(name, np.zeros(shape, dtype=np.float32))
        else:
            width = shape[-1] // 32 * TYPES[packed][2]
            zeros = np.zeros((*shape[:-1], width), dtype=np.uint8)
            writer.add_tensor(name, zeros, raw_dtype=gguf.GGMLQuantizationType(packed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = original_checkpoint(read_folder(tmp_path)).tensors
    joined = found["model.layers.0.block_sparse_moe.input_linear.weight"]
    assert joined.shape == (6, 96, 32)
    assert joined.quantization == "gguf Q8_0, Q4_0"
    assert joined.sources == ("blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight")
    assert found["model.embed_tokens.weight"].quantization == ""
    assert config.num_local_experts == 6


def test_an_architecture_of_several_models_is_told_by_what_the_file_has(tmp_path: Path) -> None:
    plain = {"token_embd.weight": (72, 32), "blk.0.ffn_gate.weight": (48, 32), "blk.0.ffn_up.weight": (48, 32)}
    for number, (settings, expected) in enumerate(
        [
            ({}, "granite"),
            ({"ssm.conv_kernel": 4}, "granitemoehybrid"),
            ({"ssm.conv_kernel": 4, "x": 1}, "granitemoehybrid"),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number) / "m.gguf", "granite", plain, settings)
        found = original_checkpoint(read_folder(tmp_path / str(number)))
        assert found.config["model_type"] == expected
        assert found.unexplained == ()


def test_names_that_several_models_share_are_told(tmp_path: Path) -> None:
    row, config, tensors = small("llama")
    notes = " ".join(converted(tmp_path, row, config, tensors).notes)
    assert "files of mistral, internlm3, iquestcoder have the same names" in notes
    assert f"gguf {names._table()['versions']['gguf']}" in notes


# Architectures without a row.


def test_an_unknown_architecture_is_listed_by_its_own_names(tmp_path: Path) -> None:
    tensors = {"token_embd.weight": (72, 32), "blk.0.attn_q.weight": (16, 32), "blk.0.ffn_up_exps.weight": (6, 24, 32)}
    write(tmp_path / "m.gguf", "plamo9", tensors, {"block_count": 1, "attention.head_count": 4, "embedding_length": 32})
    found = original_checkpoint(read_folder(tmp_path))
    assert found.names_only
    assert {name: stored.shape for name, stored in found.tensors.items()} == tensors
    assert found.config == {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 72}
    assert "no plan can be made" in found.notes[0]
    assert '"plamo9"' in found.notes[0]


@pytest.mark.parametrize(
    ("architecture", "settings", "part"),
    [("bert", {"tokenizer.ggml.model": "t5"}, "none that lorascope knows"), ("clip", {}, "only the towers")],
)
def test_why_names_are_not_known(tmp_path: Path, architecture: str, settings: dict[str, Any], part: str) -> None:
    write(tmp_path / "m.gguf", architecture, {"token_embd.weight": (72, 32)}, settings)
    found = original_checkpoint(read_folder(tmp_path))
    assert found.names_only
    assert part in found.notes[0]


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", "llama", {"blk.0.attn_q.weight.lora_a": (8, 32)}, {"general.type": "adapter"})
    with fails("it holds an adapter, not a model", "Give the model"):
        original_checkpoint(read_folder(tmp_path))


# Roles by the file's own vocabulary, against the lexicon's reading of the originals' names.

# The part that a role has in the file, and in the original: the converter takes fused matrices apart, or does not.
OTHERWISE = {
    ("ffn.gate", "ffn.gate_up"),
    ("ffn.up", "ffn.gate_up"),
    ("ffn.gate_up", "ffn.gate"),
    ("ffn.gate_up", "ffn.up"),
    ("attention.gate", "attention.qkv_gate"),
    ("attention.qkv", "attention.qkv_gate"),
    ("mixer.out", "attention.o"),  # the delta net's
    ("mixer.in", "attention.qkv_gate"),  # of older files
    ("ffn.gate", "other."),  # nomic_bert's fc11 and fc12, which the lexicon does not know
    ("ffn.up", "other."),
}


def test_roles_by_the_files_vocabulary_are_those_of_the_originals_names() -> None:
    alike = 0
    different = set()
    for family in names._table()["families"]:
        for name, _, *sources in names._rules(family):
            for source in sources:
                text_of_role = gguf_role(source.replace("{b}", "0").replace("{e}", "1"))
                if not text_of_role:
                    continue
                stem = name.replace("{b}", "0").replace("{e}", "1").removesuffix(".weight")
                bare = not name.endswith(".weight")
                kind = "embedding" if "embd" in source or source == "token_types.weight" else "linear"
                theirs, _ = role_of_name(template(stem), "parameter" if bare else kind, family["model_type"])
                ours = parse_role(text_of_role)
                pair_of_parts = (f"{ours.block}.{ours.part}", f"{theirs.block}.{theirs.part}")
                if pair_of_parts[0] == pair_of_parts[1]:
                    alike += 1
                else:
                    different.add(pair_of_parts)
    assert different <= OTHERWISE
    assert len(different) == len(OTHERWISE)
    assert alike == 938


def test_every_part_with_a_role_is_one_of_llama_cpps() -> None:
    from gguf.constants import TENSOR_NAMES

    known = {re.sub(r"^((v|a|enc|dec)\.)?(blk\.\{bid\}\.)?", "", name) for name in TENSOR_NAMES.values()}
    assert names._TEXT_ROLES.keys() <= known
    assert names._TOWER_ROLES.keys() <= known
    for role in (*names._TEXT_ROLES.values(), *names._TOWER_ROLES.values()):
        assert role.split(".")[0] in BLOCK_NAMES


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("blk.3.attn_q.weight", "text.attention.self.q"),
        ("blk.3.attn_q.bias", ""),
        ("blk.3.attn_norm.weight", ""),
        ("dec.blk.0.cross_attn_v.weight", "text.decoder.attention.cross.v"),
        ("enc.blk.0.attn_o.weight", "text.encoder.attention.self.o"),
        ("v.blk.0.ffn_up.weight", "vision.ffn.dense.up"),
        ("v.patch_embd.weight", "vision.embedding.patch"),
        ("a.blk.1.attn_out.weight", "audio.attention.self.o"),
        ("mm.0.weight", "connector.other"),
        ("output.weight", "text.head.lm"),
        ("weight", ""),
        ("blk.0.weight", ""),
    ],
)
def test_roles_of_some_names(name: str, role: str) -> None:
    assert gguf_role(name) == role


def test_the_page_says_what_the_table_has() -> None:
    page = PAGE.read_text(encoding="utf-8")
    families = json.loads(building.TABLE.read_text(encoding="utf-8"))["families"]
    assert f"{len({family['model_type'] for family in families})} model types, {len(families)} rows" in page
    assert f"The {len({family['architecture'] for family in families})} architectures" in page
    for family in families:
        assert f"`{family['architecture']}`" in page, family["architecture"]
        assert family["model_type"] in page
