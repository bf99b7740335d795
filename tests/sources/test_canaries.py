"""Every command over models, adapters and configurations that try to run code, ask, fetch, or write: nothing happens.

Each folder is one attack. A process of its own runs every command on it with Python's audit hook listening, a Hub on the
loopback interface that counts what it is asked, and a stdin that answers every question with `y`.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.hub_server import Repo, Server
from tests.helpers.paths import ROOT
from tests.helpers.samples import TINY_LLAMA
from tests.helpers.sparse_checkpoints import write_checkpoint, write_file

TOOLS = str(ROOT / "tools")
# What a canary leaves behind wherever it could sing.
CANARY = "from pathlib import Path\nPath({path!r}).touch()\nclass X: pass\n"
CODE = {"AutoConfig": "evil.X", "AutoModel": "evil.X", "AutoModelForCausalLM": "evil.X"}
Q = "model.layers.{0}.self_attn.q_proj.weight"
LLAMA_TENSORS = {
    "model.embed_tokens.weight": ("F32", [32, 16]),
    "lm_head.weight": ("F32", [32, 16]),
    "model.norm.weight": ("F32", [16]),
    **{
        f"model.layers.{layer}.{name}.weight": ("F32", shape)
        for layer in range(2)
        for name, shape in {
            "self_attn.q_proj": [16, 16],
            "self_attn.k_proj": [16, 16],
            "self_attn.v_proj": [16, 16],
            "self_attn.o_proj": [16, 16],
            "mlp.gate_proj": [24, 16],
            "mlp.up_proj": [24, 16],
            "mlp.down_proj": [16, 24],
            "input_layernorm": [16],
            "post_attention_layernorm": [16],
        }.items()
    },
}
TEXT = {key: value for key, value in TINY_LLAMA.items() if key != "architectures"}
DETR = {"model_type": "detr", "architectures": ["DetrForObjectDetection"], "use_timm_backbone": False}

# Attack: the model's config.json.
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": TINY_LLAMA,
    "code of its own": {**TINY_LLAMA, "model_type": "evil", "architectures": ["X"], "auto_map": CODE},
    "code beside a known type": {**TINY_LLAMA, "auto_map": CODE},
    "code in a repository": {**TINY_LLAMA, "auto_map": {key: f"evil/repo--{value}" for key, value in CODE.items()}},
    "code within": {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {**TEXT, "auto_map": CODE},
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "auto_map": CODE,
        },
    },
    "code within a type without a model": {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {"model_type": "shieldgemma2", "auto_map": CODE},
    },
    "code of an unknown type within": {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {"model_type": "evil", "auto_map": CODE},
    },
    "another file": {**TINY_LLAMA, "configuration_files": ["config.4.0.0.json"]},
    "a backbone on the Hub": {
        **DETR,
        "backbone": "evil/repo",
        "backbone_config": None,
        "use_pretrained_backbone": True,
    },
    "a backbone of timm on the Hub": {**DETR, "use_timm_backbone": True, "backbone": "hf-hub:evil/repo"},
    "a backbone in a folder": {**DETR, "use_timm_backbone": True, "backbone": "local-dir:/etc"},
    "kernels on the Hub": {**TINY_LLAMA, "attn_implementation": "evil/repo", "_attn_implementation": "evil/repo"},
    "experts on the Hub": {**TINY_LLAMA, "experts_implementation": "evil/repo"},
    "a name of another": {**TINY_LLAMA, "_name_or_path": "evil/repo", "name_or_path": "evil/repo"},
    "names turned around": {**TINY_LLAMA, "attribute_map": {"tie_word_embeddings": "auto_map"}, "auto_map": CODE},
    "quantized by code": {
        **TINY_LLAMA,
        "quantization_config": {"quant_method": "evil", "modules_to_not_convert": None},
    },
    "quantized by AWQ": {**TINY_LLAMA, "quantization_config": {"quant_method": "awq", "bits": 4}},
    "a type of tensors": {**TINY_LLAMA, "dtype": "__import__('os')", "torch_dtype": "evil"},
    "an activation": {**TINY_LLAMA, "hidden_act": "evil/repo"},
    "a class that is a line": {**TINY_LLAMA, "model_type": "evil", "architectures": ["X\ntouch {canary}\n#"]},
    "a class that is a call": {**TINY_LLAMA, "architectures": ["__import__('os').system('touch {canary}')"]},
    "a type that is a line": {**TINY_LLAMA, "model_type": "llama\ntouch {canary}\n#"},
    "rope by code": {**TINY_LLAMA, "rope_scaling": {"rope_type": "evil", "factor": 2.0, "auto_map": CODE}},
}

# Commands; `export` follows the plans that were made.
COMMANDS = [
    *(["inspect", "MODEL", *more] for more in ([], ["--by", "module"], ["--json"], ["--source", "headers"])),
    *(["inspect", "MODEL", *more] for more in (["--source", "config"], ["--trace"], ["--head", "causal-lm"])),
    ["inspect", "MODEL/config.json"],
    ["inspect", "MODEL", "-o", "OUT/map.json"],
    ["inspect", "OUT/map.json"],
    ["plan", "MODEL", "qv+ffn", "-o", "OUT/plan"],
    ["plan", "MODEL", "attention", "--source", "config", "-o", "OUT/plan2", "--serve", "vllm"],
    ["plan", "MODEL", "qv", "--prove"],
    ["plan", "MODEL", "--task", "instruction", "--memory"],
    ["recommend", "MODEL", "--task", "style"],
    ["compare", "MODEL", "qv", "all"],
    ["check", "MODEL", "q_proj", "v_proj"],
    ["check", "MODEL", "ADAPTER"],
    ["check", "MODEL", "ADAPTER", "--serve", "sglang"],
    ["check", "OUT/plan/plan.json", "ADAPTER"],
    *(["check", "MODEL", f"TRAINERS/{name}"] for name in ("a.yaml", "b.yaml", "c.py", "d.sh", "e.json")),
    *(
        ["export", plan, "--to", tool, "-o", f"{plan}-{tool}"]
        for plan in ("OUT/plan", "OUT/plan2")
        for tool in (
            *("peft", "peft-python", "axolotl", "llamafactory", "trl", "ms-swift", "unsloth", "mlx-lm", "torchtune"),
        )
    ),
]

# Runs the commands, and prints what was heard of those events that a canary would cause.
LISTEN = """
import json, os, sys
from pathlib import Path

heard, listening = [], []
attacks = json.loads(Path(sys.argv[1]).read_text())  # folder to commands

def hook(event, arguments):
    if not listening:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
        name = name.decode() if isinstance(name, bytes) else name
        if writes and name and name != os.devnull and not os.path.abspath(name).startswith(f"{listening[-1]}/out/"):
            heard.append(["writes", name])
        elif name and os.path.basename(name) in ("evil.py", "config.4.0.0.json", "canary"):
            heard.append(["reads", name])
    elif event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "builtins.input", "os.system", "pickle.find_class"):
        heard.append([event, repr(arguments[1:])])
    elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn"):
        words = list(map(str, arguments[1]))
        if "-I" not in words:  # the process that matches patterns
            heard.append([event, " ".join(words)])
    elif event in ("os.remove", "os.rename", "os.rmdir", "shutil.rmtree"):
        if not os.path.abspath(os.fspath(arguments[0])).startswith(f"{listening[-1]}/out/"):
            heard.append([event, repr(arguments)])

sys.addaudithook(hook)
from lorascope.cli.main import main
if sys.argv[2]:
    sys.path.append(sys.argv[2])
    from architectures import mend_torchvision
    mend_torchvision()
    import peft, torch, transformers  # what libraries do when they load is not what is listened for
    import torch._dynamo
codes = {}
for folder, commands in attacks.items():
    for words in commands:
        listening.append(folder)
        try:
            code = main(words)
        except SystemExit as left:
            code = left.code
        finally:
            listening.clear()
        codes.setdefault(folder, []).append(code)
print("\\n" + json.dumps({"codes": codes, "heard": heard}))
"""


def filled(value: Any, canary: str) -> Any:
    return json.loads(json.dumps(value).replace("{canary}", canary))


def attack(folder: Path, config: dict[str, Any], canary: Path) -> None:
    """A model's folder with an attack in its configuration, code and pickles, an adapter, and trainers' files."""
    model, adapter, trainers = folder / "model", folder / "adapter", folder / "trainers"
    for path in (model, adapter, trainers, folder / "out"):
        path.mkdir(parents=True)
    code = CANARY.format(path=str(canary))
    write_checkpoint(model, LLAMA_TENSORS, config=filled(config, str(canary)))
    shutil.copy(model / "config.json", model / "config.4.0.0.json")
    for name in ("evil.py", "modeling_llama.py", "configuration_llama.py", "torch.py", "peft.py", "sitecustomize.py"):
        (model / name).write_text(code, encoding="utf-8")

    class Pickled:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {canary}",)

    for path in (model / "pytorch_model.bin", adapter / "training_args.bin"):
        path.write_bytes(pickle.dumps(Pickled()))
    name = "base_model.model." + Q.format(0).removesuffix(".weight")
    write_file(
        adapter / "adapter_model.safetensors",
        {f"{name}.lora_A.weight": ("F32", [8, 16]), f"{name}.lora_B.weight": ("F32", [16, 8])},
    )
    settings = {
        "peft_type": "LORA",
        "auto_mapping": {"base_model_class": "X", "parent_library": "evil"},
        "base_model_name_or_path": f"evil/repo; touch {canary}",
        "target_modules": ["q_proj"],
        "r": 8,
        "corda_config": {"cache_file": "evil.bin"},
        "eva_config": {"x": "evil"},
    }
    (adapter / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (trainers / "a.yaml").write_text(
        f"base_model: evil/repo\nadapter: lora\nlora_r: !!python/object/apply:os.system ['touch {canary}']\n",
        encoding="utf-8",
    )
    (trainers / "b.yaml").write_text(
        f"model_name_or_path: evil/repo\nuse_peft: true\nlora_target_modules: ['$(touch {canary})', q_proj]\n"
        "plugins: [evil]\n",
        encoding="utf-8",
    )
    (trainers / "c.py").write_text(
        f"import os\nos.system('touch {canary}')\nfrom peft import LoraConfig\n"
        "config = LoraConfig(r=8, target_modules=['q_proj'])\n",
        encoding="utf-8",
    )
    (trainers / "d.sh").write_text(
        f"touch {canary}\nswift sft --model evil/repo --tuner_type lora --target_modules $(touch {canary}) q_proj\n",
        encoding="utf-8",
    )
    (trainers / "e.json").write_text(json.dumps({**settings, "target_modules": "all-linear"}), encoding="utf-8")


def placed(folder: Path, commands: list[list[str]]) -> list[list[str]]:
    """The commands with the folders of an attack in the place of MODEL and the like."""
    names = {"MODEL": "model", "ADAPTER": "adapter", "TRAINERS": "trainers", "OUT": "out"}
    return [
        [f"{folder}/{names[head]}{slash}{rest}" if head in names else word for word, head, slash, rest in parts]
        for parts in ([(word, *word.partition("/")) for word in words] for words in commands)
    ]


def run(attacks: dict[Path, list[list[str]]], home: Path, endpoint: str, *, torch: bool = False) -> dict[str, Any]:
    """Runs the commands of each attack's folder, in one process."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS"))},
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": "hf_secret",
        "HF_HOME": str(home),
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    home.mkdir(exist_ok=True)
    commands = home / "commands.json"
    commands.write_text(json.dumps({str(folder): placed(folder, words) for folder, words in attacks.items()}))
    done = subprocess.run(
        [sys.executable, "-P", "-c", LISTEN, str(commands), TOOLS if torch else ""],
        input="y\n" * 10_000,
        capture_output=True,
        text=True,
        env=environment,
        cwd=next(iter(attacks)) / "model",  # whose scripts the installed command does not see
        timeout=500,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr[-4_000:]
    assert done.returncode == 0, done.stderr[-4_000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def silent(commands: list[list[str]], tmp_path: Path, *, torch: bool) -> dict[str, list[int]]:
    """Runs commands on every attack, none of which makes a sound; their exit codes."""
    work, canary = tmp_path / "work", tmp_path / "canary"
    folders = {name: work / name.replace(" ", "-") for name in CONFIGS}
    for name, folder in folders.items():
        attack(folder, CONFIGS[name], canary)
    before = contents(work)
    evil = Repo({"config.json": json.dumps(TINY_LLAMA).encode(), "evil.py": b"raise SystemExit"})
    with Server({"evil/repo": evil}) as hub:
        found = run(dict.fromkeys(folders.values(), commands), tmp_path / "home", hub.endpoint, torch=torch)
        assert hub.requests == []
    assert found["heard"] == []
    assert not canary.exists()
    after = contents(work)
    assert {path: after.get(path) for path in before} == before
    assert {path for path in after.keys() - before.keys() if "out" not in path.relative_to(work).parts} == set()
    codes = {name: found["codes"][str(folder)] for name, folder in folders.items()}
    assert all(len(of) == len(commands) and set(of) <= {0, 1, 2} for of in codes.values())
    return codes


HEAVY = [words for words in COMMANDS if {"config", "--trace", "--prove", "causal-lm", "MODEL/config.json"} & set(words)]
LIGHT = [words for words in COMMANDS if words not in HEAVY]


def test_commands_without_torch(tmp_path: Path) -> None:
    codes = silent(LIGHT, tmp_path, torch=False)
    assert codes["plain"].count(0) >= 15  # the commands are such as do something


@pytest.mark.slow
def test_commands_that_build_models(tmp_path: Path) -> None:
    codes = silent(HEAVY, tmp_path, torch=True)
    assert codes["plain"].count(0) == len(HEAVY)


def test_a_hub_model_is_asked_for_itself_alone(tmp_path: Path) -> None:
    """The same from the Hub: requests go to the repository that was named, and nothing is written but a cache."""
    words = [["inspect", "some/model"], ["plan", "some/model", "-o", "OUT/plan"], ["check", "some/model", "ADAPTER"]]
    for name in ("code beside a known type", "a backbone on the Hub", "another file"):
        folder, canary = tmp_path / name.replace(" ", "-"), tmp_path / "canary"
        attack(folder, CONFIGS[name], canary)
        repo = Repo.of_folder(folder / "model")
        with Server({"some/model": repo, "evil/repo": Repo({"config.json": b"{}"})}) as hub:
            run({folder: words}, folder / "home", hub.endpoint)
            assert hub.requests != []
            # huggingface_hub asks its endpoint for names of agents, whatever repository is read.
            strays = {request.path for request in hub.requests if "some/model" not in request.path}
            assert strays <= {"/api/agent-harnesses"}
        assert not canary.exists()


def test_the_attacks_are_counted() -> None:
    assert (len(CONFIGS), len(COMMANDS), len(LIGHT)) == (23, 43, 37)
