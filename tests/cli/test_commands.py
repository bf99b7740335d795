"""The command line: what it prints where, and that no mistake of a user ends in a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

import lorascope as ls
from lorascope.cli.main import main
from lorascope.foreign_text import one_line, shown
from lorascope.model.json import map_to_json
from lorascope.number_text import count_text, percent
from lorascope.plans.files import save_map
from lorascope.reports.tables import table
from tests.helpers.samples import sample


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command; argparse leaves by an exception."""
    try:
        code = main(arguments)
    except SystemExit as left:
        assert isinstance(left.code, int)
        code = left.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# What works.


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["inspect", "llama"],
            ["model llama: LlamaForCausalLM (causal-lm; built-in, transformers", "attention.self.q"],
        ),
        (["inspect", "llama", "--by", "role"], ["model.layers.{0-31}.self_attn.q_proj"]),
        (["inspect", "llama", "--by", "layer"], ["text         0-31        7     3.00 %  attention.self.q"]),
        (["inspect", "llama", "--by", "module"], ["model.layers.17.mlp.up_proj"]),
        (["inspect", "llava", "--component", "vision"], ["vision.attention.self.q"]),
        (
            ["inspect", "bert", "--head", "sequence-classification"],
            ["BertForSequenceClassification", "head.classifier"],
        ),
        (["inspect", "falcon_mamba"], ["PEFT refuses every module called out_proj or conv1d on falcon_mamba"]),
        (["inspect", "mixtral"], ["experts 8 · active experts 2", "8 × 28672 × 4096", "parameter"]),
        (["inspect", "--list"], ["model type", "llama", "image-text-to-text"]),
        (["plan", "llama"], ["rules: attention.q,v=8", "4,194,304 trainable parameters, 0.0622 % of 6.74B"]),
        (["plan", "llama", "qv+ffn"], ["rank_pattern = {'down_proj': 4, 'gate_proj': 4, 'up_proj': 4}"]),
        (["plan", "llama", "ffn[-8:]=4/16"], ["rules: ffn[-8:]=4/16", "model.layers.{24-31}.mlp.down_proj"]),
        (
            ["plan", "llama", "--rank", "16", "--alpha", "32"],
            ["attention.q,v=16", "alpha = 32 for all modules (scale = alpha / r)"],
        ),
        (
            ["plan", "llama", "--scale", "2", "--rslora"],
            ["scale = 2 for all modules (scale = alpha / sqrt(r), rsLoRA)"],
        ),
        (["plan", "llama", "--dropout", "0", "--bias", "all", "--dora"], ["dropout 0 · bias all · DoRA"]),
        (["plan", "llama", "--layers", "-1", "--exclude", "q"], ["model.layers.31.self_attn.v_proj"]),
        (["plan", "llama", "--layers", "-8:"], ["rules: attention.q,v=8", "model.layers.{24-31}.self_attn.v_proj"]),
        (["plan", "llama", "--layers", "-1,-3"], ["model.layers.{29,31}.self_attn.v_proj"]),
        (["plan", "mixtral", "ffn"], ["4 each", "Experts take 100 % of the trainable parameters"]),
        (["plan", "gpt2"], ["Also adapts k: attention.self.qkv is one fused matrix"]),
        (["--help"], ["{inspect,plan,recommend,compare,check,export}"]),
        (["plan", "--help"], ["examples:", "SELECTOR[LAYERS]=RANK/ALPHA"]),
        (["--version"], [f"lorascope {ls.__version__}"]),
        ([], ["usage: lorascope"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_commands(arguments: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, "")
    squeezed = " ".join(out.split())
    for line in lines:
        assert line in out or " ".join(line.split()) in squeezed, line


def test_by_role_the_shares_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "inspect", "llama")
    shares = [float(share) for share in re.findall(r"([\d.]+) %", out)]
    assert len(shares) == 9
    assert sum(shares) == pytest.approx(100, abs=0.5)


def test_a_component_shows_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    for by in ("role", "layer", "module"):
        _, out, _ = run(capsys, "inspect", "llava", "--component", "connector", "--by", by)
        assert "connector" in out
        assert "vision" not in out
        assert "language_model" not in out


@pytest.mark.parametrize(
    "arguments", [["inspect", "llava"], ["plan", "mixtral", "all"], ["inspect", "--list"]], ids=" ".join
)
def test_json_is_json_and_nothing_else(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    value = json.loads(out)
    assert isinstance(value, dict)
    assert out == json.dumps(value) + "\n"


def test_the_built_in_models_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = json.loads(run(capsys, "inspect", "--list", "--json")[1])
    assert len(value) == 339
    assert value["llama"] == ["causal-lm", "sequence-classification"]


def test_output_is_written_and_told_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "inspect", "gpt2", "-o", str(tmp_path / "map.json"))
    assert (code, err) == (0, f"wrote {tmp_path / 'map.json'}\n")
    assert out.startswith("model gpt2")
    code, out, err = run(capsys, "plan", str(tmp_path / "map.json"), "qv", "-o", str(tmp_path / "plan"))
    assert err == f"wrote {tmp_path / 'plan' / 'adapter_config.json'}\nwrote {tmp_path / 'plan' / 'plan.json'}\n"
    assert code == 0
    again = run(capsys, "plan", str(tmp_path / "plan" / "plan.json"), "qv")
    assert again == (0, out, "")


# Mistakes.

HINT = "  → "
BAD: list[tuple[list[str], list[str]]] = [
    (["inspect"], ["no source is given", "lorascope inspect mistral"]),
    (["inspect", "lama"], ['"lama" is not a built-in model', 'Did you mean "llama"']),
    (["plan", "lama"], ['"lama" is not a built-in model', 'Did you mean "llama"']),
    (["inspect", ""], ["cannot inspect ''", "mistral"]),
    (["inspect", "empty"], ["empty: the folder has no config.json; it has nothing", "mistral"]),
    (["inspect", "note.txt"], ["note.txt: is not JSON", "config.json"]),
    (["plan", "list.json"], ["list.json: not a config.json, saved map or saved plan", "lorascope inspect … -o FILE"]),
    (["inspect", "llama", "--head", "foot"], ["unknown head 'foot'", "causal-lm"]),
    (["inspect", "llama", "--head", "masked-lm"], ['not with the head "masked-lm"', "--head"]),
    (["inspect", "llama", "--component", "vision"], ["no component 'vision' in this model", "It has text."]),
    (["inspect", "llama", "-o", "empty"], ["empty: cannot be written", "-o"]),
    (["plan", "llama", "-o", "note.txt"], ["note.txt/adapter_config.json: cannot be written", "-o"]),
    (["plan", "llama", "-o", "note.txt/deeper"], ["cannot be written", "-o"]),
    (["plan", "llama", "qvv"], ["'qvv' is neither a recipe nor a rule", 'Did you mean "qv"']),
    (["plan", "llama", "qv=4"], ["qv is a recipe", "--rank"]),
    (["plan", "llama", "attenton=4"], ["unknown word 'attenton' in a selector", 'Did you mean "attention"']),
    (["plan", "llama", "mixer"], ["rule 'mixer': selects nothing in llama", "attention.self.k,o,q,v"]),
    (["plan", "llama", "vision"], ["rule 'vision': selects nothing in llama", "attention.self"]),
    (["plan", "llama", "ffn[32]"], ["there is no layer 32: text has 32 layers, 0 to 31", "[-1] is the last"]),
    (["plan", "llama", "ffn[40:]"], ["none of its weights lies in layers 40:", "They lie in layers 0-31"]),
    (["plan", "llama", "ffn[x]"], ["layers 'x' is neither a number nor a slice", "SELECTOR[LAYERS]"]),
    (["plan", "llama", "--layers", "99"], ["there is no layer 99", "[-1]"]),
    (["plan", "llama", "--rank", "0"], ["rank 0 is not a whole number from 1", "rank 8"]),
    (["plan", "llama", "--rank", "-8"], ["rank -8 is not a whole number from 1", "rank 8"]),
    (["plan", "llama", "--rank", "2.5"], ["rank 2.5 is not a whole number from 1", "rank 8"]),
    (["plan", "llama", "--rank", "eight"], ["rank 'eight' is not a whole number from 1", "rank 8"]),
    (["plan", "llama", "--rank", "nan"], ["rank nan is not a whole number", "rank 8"]),
    (["plan", "llama", "--alpha", "0"], ["alpha 0 is not a number above 0", "alpha 16"]),
    (["plan", "llama", "--alpha", "nan"], ["alpha nan is not a number above 0", "alpha 16"]),
    (["plan", "llama", "--alpha", "-inf"], ["alpha -inf is not a number above 0", "alpha 16"]),
    (["plan", "llama", "--alpha", "a lot"], ["alpha 'a lot' is not a number above 0", "alpha 16"]),
    (["plan", "llama", "--alpha", "16", "--scale", "2"], ["alpha and scale are both given", "leave one out"]),
    (["plan", "llama", "--dropout", "1"], ["dropout 1 is not a number from 0", "dropout 0.05"]),
    (["plan", "llama", "--bias", "some"], ["bias 'some' is not one of none, all, lora_only", "bias none"]),
    (["plan", "llama", "--exclude", "attention"], ["the exclusions leave nothing to adapt", "Exclude less"]),
    (["plan", "mixtral", "ffn", "--dropout", "0.1"], ["dropout 0.1 is not possible", "--dropout 0"]),
    (["plan", "mixtral", "ffn", "--dora"], ["DoRA is not possible", "Leave out --dora"]),
    (["plan", "falcon_mamba", "mixer.out"], ["PEFT cannot adapt what the rules select", "lorascope inspect"]),
    (
        ["plan", "llama", "foo", "ffn=0", "--rank", "x", "--bias", "y", "--exclude", "q=1"],
        ["4 faults", "'foo'", "rank '0'", "rank 'x'", "bias 'y'", "an exclusion has no rank", "Write q alone"],
    ),
]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("hello", encoding="utf-8")
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("arguments", "said"), BAD, ids=lambda value: " ".join(value)[:50])
def test_mistakes(arguments: list[str], said: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(workplace.rglob("*"))
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"lorascope {arguments[0]}: ")
    assert "Traceback" not in err
    assert HINT in err
    for part in said:
        assert part in err
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspekt"], "invalid choice: 'inspekt' (choose from"),
        (["plan"], "the following arguments are required: source"),
        (["inspect", "llama", "--by", "color"], "argument --by: invalid choice: 'color'"),
        (["plan", "llama", "--rnk", "4"], "unrecognized arguments: --rnk"),
        (["plan", "llama", "--rank"], "argument --rank: expected one argument"),
        (["inspect", "llama", "--galery"], "unrecognized arguments: --galery"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_usage_errors(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "usage: lorascope" in err


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"model_type": "mine", "auto_map": {"AutoConfig": "a.B"}},
            ["needs code that comes with the model", "--trust-remote"],
        ),
        ({"model_type": "lama"}, ['model_type "lama" is none that transformers', 'Did you mean "llama"']),
        ({"model_type": None}, ["model_type is None, not a text", "config.json?"]),
        ({"model_type": "llama", "num_hidden_layers": 10**9}, ["num_hidden_layers is 1000000000", "released model"]),
        ({"model_type": "llama", "num_hidden_layers": -3}, ["num_hidden_layers is -3", "released model"]),
        ({"model_type": "llama", "hidden_size": "wide"}, ["hidden_size", "'wide'", "Correct it there"]),
        (
            {"model_type": "llama", "hidden_size": 10**18},
            ["hidden_size is 1000000000000000000, more than", "released model"],
        ),
        ({"model_type": "\x1b[31mred"}, ["\\x1b[31mred", "not a text such as llama"]),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else None,
)
def test_hostile_configurations(
    fields: dict[str, Any], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    for command in ("inspect", "plan"):
        code, out, err = run(capsys, command, str(tmp_path))
        assert (code, out) == (2, "")
        assert err.startswith(f"lorascope {command}: ")
        assert HINT in err
        assert "\x1b" not in err
        for part in said:
            assert part in err


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("urllib.request.getproxies", dict)
    code, out, err = run(capsys, "plan", "someone/none")
    assert (code, out) == (2, "")
    assert "someone/none: 127.0.0.1:9 cannot be reached" in err
    assert "Check the network" in err
    code, out, err = run(capsys, "plan", "someone/none", "--source", "config")
    assert (code, out) == (2, "")
    assert "someone/none: 127.0.0.1:9 cannot be reached" in err
    assert "Check the network" in err


# What is printed comes from files that anyone may have written.


def test_nothing_drives_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202e\x9b31m"
    data = map_to_json(sample("gpt2")) | {"model": f"m{evil}", "notes": [f"n{evil}"]}
    file = tmp_path / "map.json"
    commands = (
        ["inspect"],
        ["inspect", "--by", "layer"],
        ["plan"],
        ["plan", "--layers", "99"],
        ["inspect", "--json"],
    )

    def printed(command: list[str]) -> str:
        _, out, err = run(capsys, command[0], str(file), *command[1:])
        assert not set(out + err) & set("\x1b\x07\r\u202e\x9b")
        return out if "99" not in command else err

    file.write_text(json.dumps(data), encoding="utf-8")
    for command in commands:
        assert "99" in command or "x1b" in printed(command) or "u001b" in printed(command)
    first = printed(["inspect"]).splitlines()[0]
    assert first.startswith("model m\\x1b]0;owned") and "\\n" in first  # one line stays one line
    # What is a name of code may not be anything else.
    for key, value in (
        ("architecture", f"a{evil}"),
        ("source", f"s{evil}"),
        ("versions", {"transformers": f"v{evil}"}),
    ):
        file.write_text(json.dumps(data | {key: value}), encoding="utf-8")
        for command in commands:
            assert printed(command) == "" or "99" in command
            assert run(capsys, command[0], str(file))[0] == 2


def test_an_evil_argument_is_shown_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["inspect", "\x1b[31mred"],
        ["plan", "llama", "\x1b[31mred=4"],
        ["plan", "llama", "--bias", "\x1b"],
    ):
        assert "\x1b" not in run(capsys, *arguments)[2]


def python(*arguments: str, **environment: str) -> list[str]:
    return [sys.executable, "-m", "lorascope", *arguments]


@pytest.mark.skipif(os.name != "posix", reason="a shell's pipe")
def test_a_reader_that_had_enough() -> None:
    command = f"{sys.executable} -m lorascope inspect deepseek_v3 --by module | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[1:] == ["0"]


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="a full device")
def test_a_full_device() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(python("inspect", "llama"), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_terminal(encoding: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for arguments, code in ((["inspect", "llama"], 0), (["plan", "llama"], 0), (["plan", "lama"], 2)):
        done = subprocess.run(python(*arguments), env=environment, capture_output=True, check=False)
        assert done.returncode == code, done.stderr
        assert b"Traceback" not in done.stderr
        (done.stdout + done.stderr).decode(encoding)


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """File names are bytes; what is not UTF-8 among them must not break the printing."""
    file = save_map(sample("gpt2"), tmp_path / "map.json")
    named = os.path.join(os.fsencode(tmp_path), b"m\xff.json")  # noqa: PTH118
    try:
        os.rename(file, named)  # noqa: PTH104
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    done = subprocess.run([*python("inspect"), named, "-o", named + b"2"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"wrote " in done.stderr


# The pieces of the tables.


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0K"), (20_000_000, "20.0M"), (7_241_732_096, "7.24B"), (10**12, "1.00T")],
)
def test_short(count: int, text: str) -> None:
    assert count_text(count) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        *(
            (0, 0, "0 %"),
            (0, 5, "0 %"),
            (1, 2, "50.0 %"),
            (1, 100, "1.00 %"),
            (1, 172, "0.581 %"),
            (1, 10**4, "0.0100 %"),
        ),
        *((1, 10_001, "<0.01 %"), (9_995, 10_000, ">99.9 %"), (5, 5, "100 %"), (25, 2, "1,250 %")),
    ],
)
def test_percent(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == text


def test_table() -> None:
    assert table(("a", "n"), [("xx", "1"), ("y\n", "22")], right=(1,)) == "a     n\nxx    1\ny\\n  22"


def test_shown() -> None:
    assert shown("a\tb\n\x1b\x9b\u2066é×") == "a\tb\n\\x1b\\x9b\\u2066é×"
    assert one_line("a\tb\n") == "a\\tb\\n"
