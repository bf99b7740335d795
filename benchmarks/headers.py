"""Header inspection of 291 and of 91,991 tensors, side by side with what else could tell the same, on a disk and on a Hub.

The checkpoints have the names, shapes and files of Llama-2-7B and of DeepSeek-V3, and no numbers: their files are sparse.
The Hub is a server of this process. Needs the extra `test`. Prints Markdown tables of medians of whole processes,
interleaved; the first line says whether the maps are those that transformers' own modules give.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "sources"))

from hub_server import Repo, Server
from writing import Shapes, write_checkpoint

import lorascope
from lorascope.records import ModelMap
from lorascope.sources.gallery import from_gallery

REPEATS = 7
HEAVY_REPEATS = 3  # of what imports torch
# meta-llama/Llama-2-7b-hf, config.json: what differs from the defaults of LlamaConfig, or says what it is.
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "torch_dtype": "float16",
    "vocab_size": 32000,
}
# deepseek-ai/DeepSeek-V3, config.json; its README_WEIGHTS.md describes the tensors.
DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_deepseek.DeepseekV3Config",
        "AutoModel": "modeling_deepseek.DeepseekV3Model",
        "AutoModelForCausalLM": "modeling_deepseek.DeepseekV3ForCausalLM",
    },
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "tie_word_embeddings": False,
    "topk_group": 4,
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 129280,
}

# torchvision, which neither model needs, is hidden: a build of it for another accelerator than torch's cannot be imported.
_HIDDEN = "import sys; sys.modules['torchvision'] = None\n"
# Exit code 1 is a finding, not a failure: tensors that could not be explained, which the first lines of the output tell.
_LORASCOPE = "import sys; from lorascope.cli import main; sys.exit(main(sys.argv[1:]) > 1)"
_IMPORTS = f"{_HIDDEN}import torch, transformers\n"
_FROM_CONFIG = (
    f"{_IMPORTS}config = transformers.AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=False)\n"
    "with torch.device('meta'):\n"
    "    transformers.AutoModelForCausalLM.from_config(config)\n"
)
_FROM_PRETRAINED = f"{_IMPORTS}transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], device_map='meta', trust_remote_code=False)"
_JSON = (
    "import json, pathlib, sys\n"
    "for path in pathlib.Path(sys.argv[1]).glob('*.safetensors'):\n"
    "    with path.open('rb') as file:\n"
    "        json.loads(file.read(int.from_bytes(file.read(8), 'little')))\n"
)
_HEADERS = (
    "import sys; from lorascope.sources.hub import open_repository; from lorascope.sources.safetensors import open_checkpoint\n"
    "open_checkpoint(open_repository(sys.argv[1]))"
)
_CLIENT = "import sys; from huggingface_hub import get_safetensors_metadata; get_safetensors_metadata(sys.argv[1])"


@dataclasses.dataclass(frozen=True)
class Process:
    """A Python process: its code, its arguments, and whether it is one that takes seconds."""

    code: str
    arguments: tuple[str, ...] = ()
    heavy: bool = False

    def run(self, environment: Mapping[str, str]) -> None:
        """Runs it once."""
        command = (sys.executable, "-c", self.code, *self.arguments)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command[1:])} failed:\n{done.stderr}")


@dataclasses.dataclass(frozen=True)
class Cost:
    """Seconds of a process: by the clock, and of the processors, which tells more where others use them too."""

    clock: float
    processor: float


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folders = {
            "llama": write_checkpoint(root / "llama", _llama(), 2, LLAMA),
            "deepseek_v3": write_checkpoint(root / "deepseek_v3", _deepseek(), 163, DEEPSEEK),
        }
        for model_type, folder in folders.items():
            print(_agreement(lorascope.inspect(folder), from_gallery(model_type, "causal-lm")))
        _on_disk(folders)
        _on_a_hub(folders, root)


def _linear(name: str, rows: int, columns: int, *, fp8: bool = False) -> dict[str, tuple[str, tuple[int, ...]]]:
    if not fp8:
        return {f"{name}.weight": ("BF16", (rows, columns))}
    scales = (math.ceil(rows / 128), math.ceil(columns / 128))
    return {f"{name}.weight": ("F8_E4M3", (rows, columns)), f"{name}.weight_scale_inv": ("F32", scales)}


def _llama() -> Shapes:
    """The 291 tensors of Llama-2-7B."""
    hidden, inner, vocabulary = 4096, 11008, 32000
    tensors = _linear("model.embed_tokens", vocabulary, hidden)
    for layer in range(32):
        at = f"model.layers.{layer}"
        for name in "qkvo":
            tensors |= _linear(f"{at}.self_attn.{name}_proj", hidden, hidden)
        tensors |= _mlp(f"{at}.mlp", inner, hidden)
        tensors |= {f"{at}.{name}_layernorm.weight": ("BF16", (hidden,)) for name in ("input", "post_attention")}
    return tensors | {"model.norm.weight": ("BF16", (hidden,))} | _linear("lm_head", vocabulary, hidden)


def _mlp(at: str, inner: int, hidden: int, *, fp8: bool = False) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        **_linear(f"{at}.gate_proj", inner, hidden, fp8=fp8),
        **_linear(f"{at}.up_proj", inner, hidden, fp8=fp8),
        **_linear(f"{at}.down_proj", hidden, inner, fp8=fp8),
    }


def _deepseek() -> Shapes:
    """The 91,991 tensors of DeepSeek-V3: 61 layers, and the one for predicting a token more, which is the 62nd."""
    hidden, heads, vocabulary = 7168, 128, 129280
    tensors = _linear("model.embed_tokens", vocabulary, hidden)
    for layer in range(62):
        at = f"model.layers.{layer}"
        attention = {
            **_linear("q_a_proj", 1536, hidden, fp8=True),
            "q_a_layernorm.weight": ("BF16", (1536,)),
            **_linear("q_b_proj", heads * (128 + 64), 1536, fp8=True),
            **_linear("kv_a_proj_with_mqa", 512 + 64, hidden, fp8=True),
            "kv_a_layernorm.weight": ("BF16", (512,)),
            **_linear("kv_b_proj", heads * (128 + 128), 512, fp8=True),
            **_linear("o_proj", hidden, heads * 128, fp8=True),
        }
        tensors |= {f"{at}.self_attn.{name}": tensor for name, tensor in attention.items()}
        tensors |= {f"{at}.{name}_layernorm.weight": ("BF16", (hidden,)) for name in ("input", "post_attention")}
        if layer < 3:
            tensors |= _mlp(f"{at}.mlp", 18432, hidden, fp8=True)
            continue
        tensors |= _linear(f"{at}.mlp.gate", 256, hidden)
        tensors[f"{at}.mlp.gate.e_score_correction_bias"] = ("F32", (256,))
        tensors |= _mlp(f"{at}.mlp.shared_experts", 2048, hidden, fp8=True)
        for expert in range(256):
            tensors |= _mlp(f"{at}.mlp.experts.{expert}", 2048, hidden, fp8=True)
    at = "model.layers.61"
    tensors |= {f"{at}.{name}.weight": ("BF16", (hidden,)) for name in ("enorm", "hnorm", "shared_head.norm")}
    tensors |= _linear(f"{at}.eh_proj", hidden, 2 * hidden)
    tensors |= _linear(f"{at}.embed_tokens", vocabulary, hidden) | _linear(f"{at}.shared_head.head", vocabulary, hidden)
    return tensors | {"model.norm.weight": ("BF16", (hidden,))} | _linear("lm_head", vocabulary, hidden)


def _agreement(found: ModelMap, recorded: ModelMap) -> str:
    """Whether two maps say the same of a model, apart from where they come from and how it is stored."""
    fields = {field.name for field in dataclasses.fields(ModelMap)} - {"model", "source", "versions", "notes"}
    differing = sorted(name for name in fields if _plain(found, name) != _plain(recorded, name))
    what = f"{found.architecture}, {len(found.modules)} modules and {len(found.weights)} weights"
    return f"{what}: DIFFERS from the gallery in {', '.join(differing)}" if differing else f"{what}: as in the gallery"


def _plain(model: ModelMap, name: str) -> Any:
    value = getattr(model, name)
    return [dataclasses.replace(one, quantisation="") for one in value] if name in ("modules", "weights") else value


def _on_disk(folders: Mapping[str, Path]) -> None:
    bare, imports = "bare Python", "import torch, transformers"
    processes = {bare: Process("pass"), imports: Process(_IMPORTS, heavy=True)}
    for name, folder in folders.items():
        path = str(folder)
        skeleton = ("inspect", path, "--source", "config")
        processes |= {
            f"{name}: json.loads of the headers": Process(_JSON, (path,)),
            f"{name}: inspect": Process(_LORASCOPE, ("inspect", path)),
            f"{name}: inspect --source config": Process(_HIDDEN + _LORASCOPE, skeleton, heavy=True),
            f"{name}: from_config on meta": Process(_FROM_CONFIG, (path,), heavy=True),
        }
    # Not of DeepSeek-V3: on the way to meta, transformers dequantises and merges all of it in memory, for many minutes.
    processes["llama: from_pretrained on meta"] = Process(_FROM_PRETRAINED, (str(folders["llama"]),), heavy=True)
    costs = _measured(processes, _environment)
    print("\n| process | seconds | bare Python = 1 | import torch, transformers = 1 | processor, bare Python = 1 |")
    print("|---|---|---|---|---|")
    for name, cost in costs.items():
        clock = f"{cost.clock:.3f} | {cost.clock / costs[bare].clock:.1f} | {cost.clock / costs[imports].clock:.3f}"
        print(f"| {name} | {clock} | {cost.processor / costs[bare].processor:.1f} |")


def _on_a_hub(folders: Mapping[str, Path], root: Path) -> None:
    client = "import huggingface_hub.HfApi"
    processes = {client: Process("from huggingface_hub import HfApi")}
    for name in folders:
        repository = f"someone/{name}"
        processes |= {
            f"{name}: inspect": Process(_LORASCOPE, ("inspect", repository)),
            f"{name}: open_checkpoint": Process(_HEADERS, (repository,)),
            f"{name}: get_safetensors_metadata": Process(_CLIENT, (repository,)),
        }
    traffic = {}
    with Server({f"someone/{name}": Repo.of_folder(folder) for name, folder in folders.items()}) as hub:
        homes = (str(root / f"home-{number}") for number in itertools.count())  # so that each run asks for everything

        def environment() -> dict[str, str]:
            return {**_environment(), "HF_ENDPOINT": hub.endpoint, "HF_HOME": next(homes)}

        for name, process in processes.items():
            before, sent = len(hub.requests), hub.sent
            process.run(environment())
            traffic[name] = (len(hub.requests) - before, hub.sent - sent)
        costs = _measured(processes, environment)
    weights = {name: sum(file.stat().st_size for file in path.glob("*.safetensors")) for name, path in folders.items()}
    print(f"\n| process | seconds | {client} = 1 | requests | megabytes | of the weights |\n|---|---|---|---|---|---|")
    for name, cost in costs.items():
        requests, sent = traffic[name]
        share = f"{sent / weights[model]:.4%}" if (model := name.partition(":")[0]) in weights else "–"
        ratio = cost.clock / costs[client].clock
        print(f"| {name} | {cost.clock:.3f} | {ratio:.2f} | {requests} | {sent / 1e6:.2f} | {share} |")


def _environment() -> dict[str, str]:
    """This process's, with byte code kept, as any installed package's is, and nothing asked of the Hub beside the files."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "HF_HUB_DISABLE_TELEMETRY": "1"}


def _measured(processes: Mapping[str, Process], environment: Callable[[], Mapping[str, str]]) -> dict[str, Cost]:
    """Medians, interleaved, after a first run of the light ones for byte code and the page cache."""
    costs: dict[str, list[Cost]] = {name: [] for name in processes}
    for turn in range(-1, REPEATS):
        for name, process in processes.items():
            if process.heavy and not 0 <= turn < HEAVY_REPEATS:
                continue
            clock, processor = time.perf_counter(), _processor()
            process.run(environment())
            if turn >= 0:
                costs[name].append(Cost(time.perf_counter() - clock, _processor() - processor))
    return {
        name: Cost(statistics.median(cost.clock for cost in mine), statistics.median(cost.processor for cost in mine))
        for name, mine in costs.items()
    }


def _processor() -> float:
    """What all finished processes of this one have had."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
