"""Records what vLLM's own code does with adapters on a CPU, without weights: run by hand for a new release.

It imports an unpacked vLLM without its kernels, builds the built-in models on the meta device as vLLM builds them,
lets vLLM's LoRA manager wrap them, and writes down which modules took an adapter. With `--loads` it saves adapters with
PEFT and lets vLLM load them instead, and writes down what became of every tensor.

    python tests/data/record_vllm.py UNPACKED_VLLM --modules src/lorascope/data/servers/vllm_modules.json
    python tests/data/record_vllm.py UNPACKED_VLLM --loads tests/data/vllm_loads.json
    python tests/data/record_vllm.py UNPACKED_VLLM --all-linear tests/data/vllm_all_linear.json

The environment needs torch, the transformers that the release asks for, peft, and the pure Python packages that vLLM
imports. What has no CPU build (kernels, xgrammar, llguidance …) is replaced by empty modules: none of it has a say in
how adapters are loaded.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.abc
import importlib.machinery
import json
import os
import re
import signal
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
GALLERY = ROOT / "src/lorascope/data/builtin"
EMPTY = [
    "xgrammar",
    "llguidance",
    "lmformatenforcer",
    "outlines_core",
    "flashinfer",
    "tilelang",
    "mcp",
    "anthropic",
    "numpydoc",
    "model_hosting_container_standards",
    "quack",
    "cutlass",
    "PyNvVideoCodec",
    "prometheus_fastapi_instrumentator",
    "uvloop",
]


class _EmptyModule(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        body = {
            "__class_getitem__": classmethod(lambda cls, item: cls),
            "__get_pydantic_core_schema__": classmethod(
                lambda cls, source, handler: __import__("pydantic_core").core_schema.any_schema()
            ),
        }
        setattr(self, name, type(name, (), body))
        return self.__dict__[name]


class _EmptyModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname.partition(".")[0] in EMPTY or fullname == "vllm._C":
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _EmptyModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _AnyOperator:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def start(folder: Path) -> None:
    """Make the unpacked vLLM importable, and believe itself on a CPU."""
    import torch

    # torchvision's compiled operators may be for another torch than the one that is here.
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    start.operators = operators  # type: ignore[attr-defined]
    sys.path.insert(0, str(folder))
    os.environ.update(VLLM_TARGET_DEVICE="cpu", VLLM_LOGGING_LEVEL="CRITICAL", INKLING_MULTIMEM_AR="0")
    sys.meta_path.append(_EmptyModules())
    import vllm.platforms
    from vllm.platforms.cpu import CpuPlatform

    vllm.platforms._current_platform = CpuPlatform()
    import vllm._custom_ops
    import vllm.lora.model_manager
    import vllm.model_executor.layers.activation
    import vllm.model_executor.layers.fused_moe
    import vllm.model_executor.models.registry as registry

    registry._run_in_subprocess = lambda function: function()
    for space in ("_C", "_moe_C", "_C_cache_ops"):
        setattr(torch.ops, space, _AnyOperator())

    import vllm.lora.layers.fused_moe as experts

    class Kernel:
        """The kernel that multiplies experts has no say in which adapters are loaded, and there is none for a CPU."""

        impl = fused_experts = experts.FusedMoEKernelModularImpl.__new__(experts.FusedMoEKernelModularImpl)
        is_monolithic = False

        def supports_lora(self) -> bool:
            return True

    class Budget:
        """What a vision tower gets to see has no say in which of its modules are wrapped."""

        mm_max_items_per_prompt = {"image": 1}  # noqa: RUF012
        mm_max_toks_per_item = {"image": 64}  # noqa: RUF012

        def __init__(self, *args: Any) -> None: ...

        def get_encoder_budget(self) -> int:
            return 64

    vllm.lora.model_manager.MultiModalBudget = Budget
    ready = experts.FusedMoEWithLoRA.__init__

    def with_kernel(self: Any, base_layer: Any) -> None:
        method = base_layer.routed_experts.quant_method
        type(method).supports_internal_mk = True
        method.moe_kernel = Kernel()
        ready(self, base_layer)

    experts.FusedMoEWithLoRA.__init__ = with_kernel
    experts.FusedMoEModularMethod = lambda method, kernel: method
    experts.FusedMoEWithLoRA.set_mapping = experts.BaseLayerWithLoRA.set_mapping


def configuration(model_type: str, architecture: str, layers: int | None) -> Any:
    """transformers' default configuration of a model type, with fewer layers if so asked."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[model_type]()
    config.architectures = [architecture]
    if layers is not None:
        for one in (config, *(v for v in vars(config).values() if hasattr(v, "to_dict"))):
            for name in ("num_hidden_layers", "n_layer", "num_layers", "depth"):
                with contextlib.suppress(AttributeError):  # another name of the same number
                    if isinstance(getattr(one, name, None), int):
                        setattr(one, name, layers)
            for name in ("layer_types", "mlp_layer_types", "no_rope_layers", "attn_type_list"):
                with contextlib.suppress(AttributeError):
                    if isinstance(getattr(one, name, None), list):
                        setattr(one, name, getattr(one, name)[:layers])
            if isinstance(getattr(one, "first_k_dense_replace", None), int):
                one.first_k_dense_replace = min(1, one.first_k_dense_replace)
    return config


def engine(folder: Path, towers: bool = False, rank: int = 64) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(
        model=str(folder),
        tokenizer=str(folder),
        skip_tokenizer_init=True,
        enable_lora=True,
        max_lora_rank=rank,
        enable_tower_connector_lora=towers,
        load_format="dummy",
        enforce_eager=True,
        dtype="float32",
    ).create_engine_config()


def saved(config: Any) -> Path:
    folder = Path(tempfile.mkdtemp())
    config.save_pretrained(folder)
    return folder


def distribute() -> None:
    """One process, with every group that a model may ask for (those of experts need a model that has some)."""
    from vllm.config import set_current_vllm_config
    from vllm.distributed.parallel_state import init_distributed_environment, initialize_model_parallel

    with set_current_vllm_config(engine(saved(configuration("mixtral", "MixtralForCausalLM", 2)))):
        init_distributed_environment(1, 0, f"file://{tempfile.mkdtemp()}/store", 0, "gloo")
        initialize_model_parallel(1, 1)


def managed(settings: Any) -> Any:
    """vLLM's LoRA worker manager around its own model, on the meta device."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
    from vllm.model_executor.model_loader.utils import initialize_model

    with set_current_vllm_config(settings):
        with torch.device("meta"):
            model = initialize_model(vllm_config=settings)
        worker = LRUCacheWorkerLoRAManager(settings, torch.device("cpu"), getattr(model, "embedding_modules", {}))
        worker.create_lora_manager(model, settings)
    return worker


def folded(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def row_of(settings: Any, towers: Any) -> dict[str, Any]:
    """What a manager says of its model; `towers` is the same one's configuration with adapters on towers."""
    manager = managed(settings)._adapter_manager
    model = manager.model
    row: dict[str, Any] = {"class": type(model).__name__}
    row["modules"] = {folded(name): type(module).__name__ for name, module in manager.modules.items()}
    row["supported"] = sorted(manager.supported_lora_modules)
    packed = {name: list(dict.fromkeys(map(folded, parts))) for name, parts in manager.packed_modules_mapping.items()}
    row["packed"] = packed
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    if mapper is not None:
        kept = {key: value for key, value in vars(mapper.get_rename_mapper()).items() if value}
        row["mapper"] = {
            key: {str(getattr(k, "pattern", k)): v for k, v in value.items()} if isinstance(value, dict) else str(value)
            for key, value in kept.items()
        }
    row["three_d"] = bool(getattr(model, "is_3d_moe_weight", False)) and manager._is_moe
    row["moe"] = manager._is_moe
    row["skip"] = list(getattr(model, "lora_skip_prefixes", None) or [])
    if manager.supports_mm:
        mapping = model.get_mm_mapping()
        row["language"] = mapping.language_model
        if getattr(model, "supports_tower_connector_lora", False):
            row["towers"] = {}
            try:
                other = managed(towers)._adapter_manager
                found = {folded(name): type(module).__name__ for name, module in other.modules.items()}
                row["towers"] = {k: v for k, v in found.items() if k not in row["modules"]}
            except Exception as error:
                row["towers_error"] = f"{type(error).__name__}: {str(error)[:200]}"
    return row


class LateError(Exception):
    """A model that took too long."""


def _alarm(*_: Any) -> None:
    raise LateError("took more than 90 seconds")


def record_modules(target: Path, shard: int, shards: int) -> None:
    """Write the table of modules of every built-in model that the release knows by name."""
    from vllm.model_executor.models import ModelRegistry

    signal.signal(signal.SIGALRM, _alarm)
    known = set(ModelRegistry.get_supported_archs())
    found: dict[str, Any] = {}
    for number, file in enumerate(sorted(GALLERY.glob("*/*.json"))):
        data = json.loads(file.read_text(encoding="utf-8"))
        architecture = data["architecture"]
        if number % shards != shard or architecture not in known or "modules" in found.get(architecture, {}):
            continue
        signal.alarm(90)
        try:
            config = configuration(data["model_type"], architecture, None)
            folder = saved(config)
            found[architecture] = row_of(engine(folder), engine(folder, towers=True))
        except Exception as error:
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:240]}"
            found[architecture] = {"unsupported" if "LoRA is not supported" in text else "error": text}
        finally:
            signal.alarm(0)
        found[architecture]["model_type"] = data["model_type"]
        print(architecture, "ok" if "modules" in found[architecture] else str(found[architecture])[:160], flush=True)
        # Unsorted: a mapper's tables are applied in their order.
        target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def all_linear() -> dict[str, tuple[str, dict[str, Any], dict[str, Any], bool]]:
    """An adapter on all linear layers of a model of every architecture whose modules are recorded."""
    rows = json.loads((ROOT / "src/lorascope/data/servers/vllm_modules.json").read_text(encoding="utf-8"))["models"]
    cases = {}
    for file in sorted(GALLERY.glob("*/*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        row = rows.get(data["architecture"], {})
        if "modules" in row and row["model_type"] == data["model_type"]:
            key = f"{file.parent.name}/{file.stem}"
            cases[key] = (key, {"target_modules": "all-linear", "r": 8, "lora_alpha": 16}, {}, "towers" in row)
    return cases


def record_loads(target: Path, cases: dict[str, tuple[str, dict[str, Any], dict[str, Any], bool]]) -> None:
    """Write what became of every tensor of some adapters."""
    found = {}
    for name, (key, keywords, extras, towers) in cases.items():
        data = json.loads((GALLERY / f"{key}.json").read_text(encoding="utf-8"))
        try:
            found[name] = load(data["model_type"], data["architecture"], keywords, extras, towers)
        except Exception as error:
            text = re.sub(r" \(/\S+\)", "", " ".join(str(error).split()))  # without the temporary folder
            found[name] = {"skipped": f"{type(error).__name__}: {text[:200]}"}
        print(name, str(found[name])[:230], flush=True)
    target.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load(model_type: str, architecture: str, keywords: Any, extras: Any, towers: bool) -> dict[str, Any]:
    """Save an adapter with PEFT, load it with vLLM, and say which tensors were taken, dropped or refused."""
    import torch
    from safetensors.torch import save_file
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.request import LoRARequest

    config = configuration(model_type, architecture, 2)
    with torch.device("meta"):
        import transformers
        from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

        model = getattr(transformers, architecture)(config)
        wrapped = get_peft_model(model, LoraConfig(**keywords))
        state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    adapter = Path(tempfile.mkdtemp())
    settings = wrapped.peft_config["default"]
    settings.save_pretrained(adapter)
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **extras}), encoding="utf-8")
    save_file({k: torch.zeros(v.shape) for k, v in state.items()}, adapter / "adapter_model.safetensors")
    tensors = sorted({folded(re.sub(r"\.lora_(embedding_)?[AB](\.weight)?$", "", name)) for name in state})
    row: dict[str, Any] = {"tensors": tensors}
    worker = managed(engine(saved(config), towers, rank=512))
    asked: set[str] = set()
    original: set[str] = set()
    get_lora, add = LoRAModel.get_lora, worker._adapter_manager._add_adapter

    def watched(self: Any, name: str) -> Any:
        weights = get_lora(self, name)
        if weights is not None:
            asked.add(name)
        return weights

    def adding(lora: Any) -> Any:
        original.update(lora.loras)
        return add(lora)

    LoRAModel.get_lora, worker._adapter_manager._add_adapter = watched, adding
    try:
        worker.add_adapter(LoRARequest("adapter", 1, str(adapter)))
        row["dropped"] = sorted({folded(name) for name in original - asked})
        row["taken"] = sorted({folded(name) for name in original & asked})
    except Exception as error:
        row["refused"] = f"{type(error).__name__}: {' '.join(str(error).replace(str(adapter), '').split())[:400]}"
    finally:
        LoRAModel.get_lora = get_lora
    return row


def main() -> None:
    """Read the arguments, start vLLM and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--modules", type=Path)
    parser.add_argument("--loads", type=Path)
    parser.add_argument("--all-linear", type=Path)
    parser.add_argument("--shard", type=int, nargs=2, default=(0, 1))
    arguments = parser.parse_args()
    start(arguments.folder)
    distribute()
    if arguments.modules:
        record_modules(arguments.modules, *arguments.shard)
    if arguments.loads:
        sys.path.append(str(ROOT))
        from tests.helpers import serving_cases

        record_loads(arguments.loads, serving_cases.LOADS)
    if arguments.all_linear:
        record_loads(arguments.all_linear, all_linear())


if __name__ == "__main__":
    main()
