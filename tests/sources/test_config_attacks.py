"""Configurations that would have code run, files read or written, requests made or questions asked: none of it happens."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers

import lorascope as ls
from lorascope.errors import LorascopeError
from lorascope.sandbox import build_limits
from lorascope.sandbox.build_limits import limited_build
from lorascope.sandbox.memory_bound import MemoryBound
from lorascope.sandbox.seal import sealed
from lorascope.sandbox.watchdog import OverrunError, Watchdog
from lorascope.sources.transformers.config import configuration
from lorascope.sources.transformers.foreign_config import build_faults, buildable
from lorascope.sources.transformers.meta_model import build
from tests.helpers.hub_server import Hostile, answer, sends
from tests.helpers.paths import ROOT
from tests.helpers.samples import TINY_LLAMA, fails

CODE = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoModelForCausalLM": "evil.Model"}
ELSEWHERE = {name: f"someone/evil--{place}" for name, place in CODE.items()}
TINY_VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
LLAVA = {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}
TEXT = {key: value for key, value in TINY_LLAMA.items() if key != "architectures"}
CLIP = TINY_VISION | {"model_type": "clip_vision_model"}
SHIELD = {"model_type": "shieldgemma2", "architectures": ["ShieldGemma2ForImageClassification"]}
DETR = {"model_type": "detr", "architectures": ["DetrForObjectDetection"], "num_queries": 3, "encoder_layers": 1}
TIMM = {
    "model_type": "timm_wrapper",
    "architectures": ["TimmWrapperForImageClassification"],
    "label_names": ["a", "b"],
    "num_classes": 2,
}


def llava(text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return LLAVA | {"text_config": TEXT | (text or {}), "vision_config": CLIP | (vision or {})} | more


def gemma3n(**vision: Any) -> dict[str, Any]:
    return {"model_type": "gemma3n", "architectures": ["Gemma3nForConditionalGeneration"], "vision_config": vision}


NATIVE = "LlamaForCausalLM"
LLAVA_CLASS = LLAVA["architectures"][0]
# What a folder's config.json says, and the class that is built or a word of the refusal.
ATTACKS: dict[str, tuple[dict[str, Any], str]] = {
    "auto_map": (TINY_LLAMA | {"auto_map": CODE}, NATIVE),
    "auto_map elsewhere": (TINY_LLAMA | {"auto_map": ELSEWHERE}, NATIVE),
    "auto_map of another kind": (TINY_LLAMA | {"auto_map": 5}, NATIVE),
    "auto_map of a list": (TINY_LLAMA | {"auto_map": [["evil", "Model"]]}, NATIVE),
    "auto_map of an unknown type": ({"model_type": "mine", "auto_map": CODE}, "needs code that comes with the model"),
    "auto_map in a text_config": (llava({"auto_map": CODE}), LLAVA_CLASS),
    "auto_map in a vision_config": (llava(None, {"auto_map": ELSEWHERE}), LLAVA_CLASS),
    "auto_map in a part of a type without a model": (
        llava({"model_type": "shieldgemma2", "auto_map": CODE, "_name_or_path": "{folder}"}),
        "cannot build",
    ),
    "auto_map in a part of an unknown type": (llava({"model_type": "mine", "auto_map": CODE}), "cannot be read"),
    "auto_map in shieldgemma2": (
        SHIELD | {"text_config": {"auto_map": CODE, "_name_or_path": "{folder}"}, "_name_or_path": "{folder}"},
        "",
    ),
    "auto_map in a list": (TINY_LLAMA | {"parts": [{"auto_map": CODE, "model_type": "llama"}]}, NATIVE),
    "auto_map three deep": (llava({"more": {"more": {"auto_map": CODE}}}), LLAVA_CLASS),
    "auto_map by another name": (
        llava({"model_type": "shieldgemma2", "attribute_map": {"auto_map": "innocent"}, "innocent": CODE}),
        "cannot build",
    ),
    "auto_map by another name, at the top": (
        TINY_LLAMA | {"attribute_map": {"auto_map": "innocent"}, "innocent": CODE},
        NATIVE,
    ),
    "configuration_files": (TINY_LLAMA | {"configuration_files": ["config.9.0.0.json", "config.4.0.0.json"]}, NATIVE),
    "name_or_path": (TINY_LLAMA | {"_name_or_path": "someone/evil", "name_or_path": "{folder}/evil"}, NATIVE),
    "attention of a repository": (TINY_LLAMA | {"attn_implementation": "someone/evil"}, NATIVE),
    "attention of a repository, underscored": (TINY_LLAMA | {"_attn_implementation": "someone/evil:run"}, NATIVE),
    "attention of a repository, internal": (TINY_LLAMA | {"_attn_implementation_internal": "someone/evil"}, NATIVE),
    "attention of a repository, a part's": (llava({"_attn_implementation": "kernels-community/evil"}), LLAVA_CLASS),
    "attention by parts": (llava(attn_implementation={"text_config": "someone/evil"}), LLAVA_CLASS),
    "attention that is not installed": (TINY_LLAMA | {"_attn_implementation": "flash_attention_2"}, NATIVE),
    "experts of a repository": (TINY_LLAMA | {"experts_implementation": "someone/evil"}, NATIVE),
    "experts of a repository, underscored": (TINY_LLAMA | {"_experts_implementation": "someone/evil"}, NATIVE),
    "dtype of no name": (TINY_LLAMA | {"dtype": "load"}, "refused"),
    "dtype of a module": (TINY_LLAMA | {"torch_dtype": "hub"}, "refused"),
    "dtype of a repository": (TINY_LLAMA | {"dtype": "someone/evil"}, "refused"),
    "quantization of a library": (TINY_LLAMA | {"quantization_config": {"quant_method": "hqq"}}, NATIVE),
    "quantization with a path": (
        TINY_LLAMA | {"quantization_config": {"quant_method": "gptq", "tokenizer": "someone/evil", "dataset": "c4"}},
        NATIVE,
    ),
    "custom pipelines": (TINY_LLAMA | {"custom_pipelines": {"x": {"impl": "evil.Pipe", "pt": ["A"]}}}, NATIVE),
    "tokenizer": (TINY_LLAMA | {"tokenizer_class": "evil.Tokenizer", "processor_class": "evil"}, NATIVE),
    "weights": (TINY_LLAMA | {"transformers_weights": "../evil.safetensors"}, NATIVE),
    "adapters": (TINY_LLAMA | {"_adapter_model_path": "someone/evil", "adapter_kwargs": {"token": "x"}}, NATIVE),
    "private keys": (TINY_LLAMA | {"__class__": "evil", "__dict__": {}, "_auto_class": "evil"}, NATIVE),
    "methods": (TINY_LLAMA | {"get_text_config": "evil", "to_dict": 5}, "refused"),
    "parts' classes": (TINY_LLAMA | {"sub_configs": {"evil": "evil"}, "sub_configs_defaults": {"a": 1}}, NATIVE),
    "activation": (TINY_LLAMA | {"hidden_act": "evil"}, "refused"),
    "rope": (TINY_LLAMA | {"rope_scaling": {"rope_type": "evil", "factor": 2}}, "refused"),
    "classes of Python": (TINY_LLAMA | {"architectures": ["os.system"]}, "not a list of class names"),
    "classes of transformers": (TINY_LLAMA | {"architectures": ["Trainer"]}, "has no model class"),
    "a backbone of the Hub": (DETR | {"backbone": "someone/evil", "use_timm_backbone": False}, "backbone_config"),
    "a backbone of the Hub, pretrained": (
        DETR | {"backbone": "someone/evil", "use_timm_backbone": False, "use_pretrained_backbone": True},
        "backbone_config",
    ),
    "a backbone of timm's Hub": (DETR | {"backbone": "hf-hub:someone/evil"}, "not the name of a model"),
    "a backbone of a folder": (DETR | {"backbone": "local-dir:{folder}"}, "not the name of a model"),
    "a backbone's configuration of a folder": (
        DETR | {"backbone_config": {"model_type": "timm_backbone", "backbone": "local-dir:{folder}"}},
        "not the name of a model",
    ),
    "a checkpoint of timm": (
        TIMM | {"architecture": "resnet18", "model_args": {"checkpoint_path": "{folder}/evil.pth"}},
        "by which timm would read something else",
    ),
    "weights of timm": (TIMM | {"architecture": "resnet18", "model_args": {"pretrained": True}}, "by which timm would"),
    "weights of timm, elsewhere": (
        TIMM | {"architecture": "resnet18", "model_args": {"pretrained_cfg": {"file": "{folder}/evil.pth"}}},
        "by which timm would",
    ),
    "a cache of timm": (TIMM | {"architecture": "resnet18", "model_args": {"cache_dir": "{folder}"}}, "by which timm"),
    "a device of timm": (TIMM | {"architecture": "resnet18", "model_args": {"device": "cpu"}}, "by which timm"),
    "a model of timm's folder": (TIMM | {"architecture": "local-dir:{folder}"}, "not the name of a model"),
    "a model of timm's Hub": (TIMM | {"architecture": "hf_hub:someone/evil"}, "not the name of a model"),
    "a model of timm as a path": (TIMM | {"architecture": "someone/evil"}, "refused"),
    "a checkpoint of a tower": (
        gemma3n(architecture="mobilenetv5_300m_enc", model_args={"checkpoint_path": "{folder}/evil.pth"}),
        "by which timm would read something else",
    ),
    "encoder and decoder by name": (
        {
            "model_type": "encoder-decoder",
            "architectures": ["EncoderDecoderModel"],
            "encoder": "someone/evil",
            "decoder": "{folder}",
        },
        "refused",
    ),
    "encoder and decoder with code": (
        {
            "model_type": "encoder-decoder",
            "architectures": ["EncoderDecoderModel"],
            "encoder": {"model_type": "mine", "auto_map": CODE},
            "decoder": {"model_type": "mine", "auto_map": ELSEWHERE},
        },
        "refused",
    ),
    "indexes": (
        {
            "model_type": "rag",
            "architectures": ["RagTokenForGeneration"],
            "question_encoder": {"model_type": "dpr", "auto_map": CODE},
            "generator": {"model_type": "bart", "auto_map": CODE},
            "index_path": "{folder}/evil.pth",
            "dataset": "someone/evil",
        },
        "",
    ),
}


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.path), "w")


def write_folder(folder: Path, config: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    text = json.dumps(config).replace("{folder}", str(folder))
    (folder / "config.json").write_text(text, encoding="utf-8")
    canary = folder.parent.parent / "ran"
    for name in ("evil.py", "configuration_evil.py", "modeling_evil.py", "__init__.py"):
        (folder / name).write_text(f"open({str(canary)!r}, 'w')\nclass Config: pass\nclass Model: pass\n")
    for name in ("config.9.0.0.json", "config.4.0.0.json"):
        (folder / name).write_text(json.dumps({"model_type": "bert", "architectures": ["BertForMaskedLM"]}))
    (folder / "evil.pth").write_bytes(pickle.dumps(Canary(canary)))


@pytest.mark.slow
def test_nothing_happens(tmp_path: Path) -> None:
    folders = {name: tmp_path / "models" / name.replace(" ", "_") for name in ATTACKS}
    for name, folder in folders.items():
        write_folder(folder, ATTACKS[name][0])
    report = tmp_path / "report.json"
    home = tmp_path / "home"
    home.mkdir()
    with Hostile({"": sends(answer(b"{}"))}) as hub:
        paths = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "tools"), os.environ.get("PYTHONPATH"))))
        prepare = "import architectures; architectures.mend_torchvision(); from tests.helpers.watched_inspection import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", prepare, str(report), *map(str, folders.values())],
            env={
                **os.environ,
                "PYTHONPATH": paths,
                "HF_ENDPOINT": hub.endpoint,
                "HF_HOME": str(home),
                "HF_TOKEN": "hf_mine",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            input="y\n" * 1000,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert hub.asked == []
    assert done.returncode == 0, done.stderr
    assert "[y/N]" not in done.stdout + done.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert len(found) == len(ATTACKS) == 57
    for name, folder in folders.items():
        outcome, events = found[folder.name]
        assert events == [], (name, events)
        assert ATTACKS[name][1] in outcome, (name, outcome)
        assert outcome.startswith("refused: ") or outcome.isidentifier(), (name, outcome)
    assert not (tmp_path / "ran").exists()
    assert list(home.iterdir()) == []


@pytest.mark.slow
def test_the_hooks_see_what_they_should(tmp_path: Path) -> None:
    """The same folder where code is trusted: the code runs, and is seen."""
    folder = tmp_path / "models" / "trusted"
    write_folder(folder, {"model_type": "mine", "auto_map": CODE})
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.helpers import watched_inspection as watched\n"
        "from lorascope import inspect\n"
        "import torch, transformers\n"
        "sys.addaudithook(watched.note); watched.folder = sys.argv[1]; watched.recording = True\n"
        "try: inspect(Path(sys.argv[1]), read='config', trust_remote_code=True)\n"
        "except Exception as error: pass\n"
        "print(watched.events)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert (tmp_path / "ran").exists()
    assert "writes" in done.stdout
    assert "evil" in done.stdout


# What is read of a folder.


def folder_of(path: Path, config: dict[str, Any] | None = None) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config or TINY_LLAMA), encoding="utf-8")
    return path


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    there = folder_of(tmp_path / "there")
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").symlink_to(there / "config.json")
    for source in (made, made / "config.json"):
        with fails("'config.json' is a link that leads out of the folder"):
            configuration(str(source))
    (made / "config.json").unlink()
    (made / "mine.json").write_text(json.dumps(TINY_LLAMA), encoding="utf-8")
    (made / "config.json").symlink_to("mine.json")
    assert configuration(str(made)).model_type == "llama"


def test_weights_that_lie_elsewhere_are_no_fault_of_the_configuration(tmp_path: Path) -> None:
    made = folder_of(tmp_path / "made")
    (made / "model.safetensors").symlink_to("/dev/zero")
    assert configuration(str(made)).model_type == "llama"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_pipes_are_not_opened(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    os.mkfifo(made / "config.json")
    with fails("'config.json' is a named pipe, which is not opened"):
        configuration(str(made))


def test_what_was_checked_is_what_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = folder_of(tmp_path / "made")
    real = transformers.models.llama.LlamaConfig.from_dict
    seen: list[dict[str, Any]] = []

    def spy(config: dict[str, Any], **more: Any) -> Any:
        (made / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")  # swapped meanwhile
        seen.append(dict(config))
        return real(config, **more)

    monkeypatch.setattr(transformers.models.llama.LlamaConfig, "from_dict", spy)
    assert configuration(str(made)).hidden_size == TINY_LLAMA["hidden_size"]
    assert seen == [TINY_LLAMA]


def test_as_transformers_reads_it(tmp_path: Path) -> None:
    special = {"time_step_limit": [0.0, {"__float__": "Infinity"}]}
    configs: list[dict[str, Any]] = [
        TINY_LLAMA,
        {"model_type": "mamba2", **special},
        {"model_type": "mistral", "num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]},
        llava(),
        {"model_type": "gpt2", "n_layer": 2, "id2label": {"0": "a", "1": "b", "2": "c"}},
    ]
    for number, config in enumerate(configs):
        made = folder_of(tmp_path / str(number), config)
        theirs = transformers.AutoConfig.from_pretrained(made)
        ours = configuration(str(made))
        assert type(ours) is type(theirs)
        assert ours.to_dict() == theirs.to_dict() | {"_name_or_path": ours.to_dict().get("_name_or_path")} or (
            {**ours.to_dict(), "_name_or_path": ""} == {**theirs.to_dict(), "_name_or_path": ""}
        )


def test_a_mamba_with_infinity(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "mamba2", "time_step_limit": [0.0, Infinity]}', encoding="utf-8")
    assert configuration(str(made)).time_step_limit[1] == float("inf")


# Numbers and sizes.


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_size": 10**12}, "hidden_size is 1000000000000, more than 4,000,000"),
        ({"a": [{"b": {"num_things": -(10**9)}}]}, "a.b.num_things is -1000000000"),
        ({"max_position_embeddings": 10**12}, "more than 2,147,483,648"),
        ({"a": [0] * 600_000}, "holds more than 500,000 values"),
        ({"a": {str(n): 0 for n in range(600_000)}}, "holds more than 500,000 values"),
    ],
    ids=["size", "nested", "positions", "list", "object"],
)
def test_values_without_end(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    (fault,) = build_faults(config)
    assert said in fault
    with fails("→"):
        configuration(str(folder_of(tmp_path / "made", TINY_LLAMA | config)))


def test_released_figures_pass() -> None:
    config = {
        "max_position_embeddings": 10_485_760,
        "rope_theta": 10**9,
        "rotary_emb_base": 10**6,
        "model_max_length": 10**30,
        "tokenizer_model_max_length": 10**30,
        "attention_invalid_logits_value": -(10**9),
        "gradient_clipping": 1e10,
        "vocab_size": 262_144,
        "pad_token_id": -1,
        "time_step_limit": [0.0, float("inf")],
    }
    assert list(build_faults(config)) == []
    assert buildable(config) == config


# Limits on building.


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_limits, "MOST_SECONDS", 0.3)


def spin() -> None:
    while True:
        pass


def spin_catching() -> None:
    while True:
        with contextlib.suppress(Exception):
            spin()


def spin_in_torch() -> None:
    while True:
        torch.empty(3, device="meta")


def spin_catching_all() -> None:
    """Swallows it once."""
    try:
        spin()
    except BaseException:
        spin()


@pytest.mark.parametrize("thread", [False, True])
@pytest.mark.parametrize("loop", [spin, spin_catching, spin_in_torch, spin_catching_all])
def test_loops_end(loop: Callable[[], None], thread: bool, short: None) -> None:
    found: list[BaseException] = []

    def run() -> None:
        try:
            with limited_build("It"):
                loop()
        except BaseException as error:
            found.append(error)

    if thread:
        running = threading.Thread(target=run)
        running.start()
        running.join(20)
    else:
        run()
    assert [type(error) for error in found] == [LorascopeError]
    assert "It is not built: it takes more than 0.3 seconds" in str(found[0])
    assert "--source headers" in str(found[0])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory is used and free")
@pytest.mark.parametrize("make", [lambda: bytearray(2**31), lambda: torch.empty(2**31, dtype=torch.uint8)])
def test_one_call_that_takes_too_much_memory_ends(monkeypatch: pytest.MonkeyPatch, make: Callable[[], object]) -> None:
    import resource

    monkeypatch.setattr(build_limits, "MOST_MEMORY", 200 * 2**20)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with fails("It is not built: it takes more than 0.2 GiB of memory", "--source headers"), limited_build("It"):
        make()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    make()  # which is the user's own now


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory is used and free")
def test_the_memory_of_several_builds_at_once_is_bounded_by_the_widest() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    narrow, wide = MemoryBound(2**28), MemoryBound(2**30)
    narrow.start()
    first = resource.getrlimit(resource.RLIMIT_DATA)[0]
    wide.start()
    second = resource.getrlimit(resource.RLIMIT_DATA)[0]
    assert 0 < first < second
    narrow.stop()
    narrow.stop()
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == second
    wide.stop()
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory is used and free")
@pytest.mark.parametrize(
    ("model_type", "name"),
    [("d_fine", "DFineForObjectDetection"), ("rt_detr", "RTDetrForObjectDetection")],
)
def test_a_configuration_that_asks_for_huge_tensors_off_the_meta_device(
    tmp_path: Path, model_type: str, name: str
) -> None:
    config = {
        "model_type": model_type,
        "architectures": [name],
        "anchor_image_size": [40000, 40000],
        "feat_strides": [1, 16, 32],
    }
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with fails(f"{name} is not built: it takes more than", "GiB of memory"):
        ls.inspect(tmp_path, read="config")


def test_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_limits, "MOST_MEMORY", 200 * 2**20)
    kept = []
    with fails("it takes more than 0.2 GiB of memory"), limited_build("It"):
        while True:
            kept.append(bytearray(2**18))


def test_tensors_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_limits, "MOST_TENSORS", 10)
    config = transformers.LlamaConfig(**{key: value for key, value in TINY_LLAMA.items() if key != "architectures"})
    with fails("LlamaForCausalLM is not built: it makes more than 10 tensors", "--source headers"):
        build(config, architecture="LlamaForCausalLM")


def test_operations_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_limits, "MOST_CALLS", 10)
    with fails("it takes more than 10 operations"):
        build(transformers.LlamaConfig(num_hidden_layers=1), architecture="LlamaForCausalLM")


def test_a_watchdog_that_comes_late_is_not_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watchdog, "_EVERY", 0.01)
    ended = 0
    for number in range(60):
        begun = time.monotonic()
        watchdog = Watchdog(lambda begun=begun: "late" if time.monotonic() - begun > 0.01 else "")  # type: ignore[misc]
        try:
            with watchdog:
                while time.monotonic() - begun < 0.01 + number * 0.0002:
                    pass
        except OverrunError:
            watchdog.stop()
            ended += 1
        begun = time.monotonic()
        while time.monotonic() - begun < 0.002:  # where a late one would arrive
            pass
    time.sleep(0.05)
    assert 0 <= ended <= 60
    assert not [thread for thread in threading.enumerate() if thread.name == "lorascope watchdog"]


# The seal.


def test_the_seal_is_one_threads_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import dynamic_module_utils as code

    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    inside, outside = [], []
    entered, looked = threading.Event(), threading.Event()

    def other() -> None:
        entered.wait(10)
        outside.append((bool(constants.is_offline_mode()), code.TIME_OUT_REMOTE_CODE > 0))
        looked.set()

    thread = threading.Thread(target=other)
    thread.start()
    with sealed():
        with sealed():
            inside.append((bool(constants.is_offline_mode()), code.TIME_OUT_REMOTE_CODE > 0))
        inside.append((bool(constants.is_offline_mode()), code.TIME_OUT_REMOTE_CODE > 0))
        entered.set()
        looked.wait(10)
    thread.join(10)
    assert inside == [(True, False)] * 2
    assert outside == [(False, True)]
    assert constants.HF_HUB_OFFLINE is False
    assert code.TIME_OUT_REMOTE_CODE == 15
    assert type(code.TIME_OUT_REMOTE_CODE) is int


def test_a_sealed_thread_makes_no_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with Hostile({"": sends(answer(b"{}"))}) as hub, sealed():
        with pytest.raises(Exception, match="ffline"):
            huggingface_hub.HfApi(endpoint=hub.endpoint).repo_exists("someone/evil")
        with pytest.raises(Exception, match="a"):
            huggingface_hub.hf_hub_download("someone/evil", "a", endpoint=hub.endpoint, cache_dir=tmp_path)
        assert hub.asked == []


def test_what_was_set_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with sealed():
        constants.HF_HUB_OFFLINE = True
    assert constants.HF_HUB_OFFLINE is True
