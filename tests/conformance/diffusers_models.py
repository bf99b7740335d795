"""One model of diffusers: by its headers, by its class, through PEFT, and traced.

Run by a Python that has diffusers (`environment("others")`): `python tests/conformance/diffusers_models.py [NAME…]` prints a
row for each released configuration of `tests/data/diffusers/released.json`, as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src"), str(ROOT / "tools")]

import architectures  # noqa: E402
from build_diffusers_layouts import RELEASED, shallow  # noqa: E402

from lorascope.errors import LorascopeError  # noqa: E402
from lorascope.inspecting import inspect  # noqa: E402
from lorascope.model.types import ModelMap, Weight  # noqa: E402
from tests.conformance.verdicts import measure_plans  # noqa: E402
from tests.helpers.sparse_checkpoints import write_file  # noqa: E402

# Everything of a map that both sources know.
FIELDS = ("architecture", "root_parameters", "ties", "dimensions", "refusal", "input_embeddings")
# Names that people paste for models of diffusers.
PASTED = ("to_q", "to_k", "to_v", "to_out.0")


def measure(config: dict[str, Any]) -> dict[str, Any]:
    """What came of one configuration.

    Returns:
        `weights` of the map; which fields `differ` between the headers and the class; tensors that are `unexplained` and
        modules said to be missing; what PEFT made of each plan (`plans`) and of the pasted names; and of a copy with few
        layers, how many weights no call reached (`unexecuted`), and why a call ended.
    """
    module = _built(config)
    with tempfile.TemporaryDirectory(prefix="lorascope-") as name:
        headers = _by_headers(Path(name), module, config)
        built = inspect(_saved_config(Path(name) / "alone", config), read="config")
    given = inspect(module)
    row: dict[str, Any] = {
        "weights": len(given.weights),
        "differ": [
            *(field for field in FIELDS if getattr(headers, field) != getattr(given, field)),
            *(["weights"] if _by_name(headers.weights) != _by_name(given.weights) else []),
            *(["modules"] if _modules(headers) != _modules(given) else []),
        ],
        "config": [field for field in FIELDS if getattr(built, field) != getattr(given, field)],
        "unexplained": len(headers.unexplained),
        "plans": {},
    }
    rules = {"qv": ("qv",), "all": ("all",), "slice": ("attention.q,v[::2]=8",), "qv+ffn": ("qv+ffn",)}
    for outcome in measure_plans(module, given, rules=rules):
        row["plans"][outcome.what] = [outcome.verdict, outcome.weights or outcome.reason.splitlines()[0][:120]]
    row["pasted"] = _pasted(module, given)
    row |= _traced(shallow(config))
    return row


def _modules(model: ModelMap) -> dict[str, tuple[Any, ...]]:
    """Every module with parameters, as PEFT sees it; in any order.

    Which class an activation or a norm has is an option of the configuration, which the table of classes does not read.
    """
    return {
        module.name: (module.kind, sorted(module.parameters), module.groups, module.transposed)
        for module in model.modules
        if module.parameters
    }


def _by_name(weights: Sequence[Weight]) -> list[Weight]:
    return sorted(weights, key=lambda weight: weight.name)


def _class(config: dict[str, Any]) -> Any:
    import diffusers

    return getattr(diffusers, config["_class_name"])


def _built(config: dict[str, Any]) -> Any:
    import torch

    with torch.device("meta"):
        return _class(config).from_config({**config})


def _saved_config(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**config, "_diffusers_version": "0.42.1"}, default=str)
    (folder / "config.json").write_text(text, encoding="utf-8")
    return folder


def _by_headers(folder: Path, module: Any, config: dict[str, Any]) -> ModelMap:
    """The map of the files that the module would be saved to, as a part of a pipeline."""
    part = _saved_config(folder / "transformer", {**module.config, "_class_name": config["_class_name"]})
    shapes = {name: ("BF16", tuple(value.shape)) for name, value in module.state_dict().items()}
    write_file(part / "diffusion_pytorch_model.safetensors", shapes)
    index = {"_class_name": "SomePipeline", "transformer": ["diffusers", config["_class_name"]], "vae": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return inspect(folder)


def _pasted(module: Any, model: ModelMap) -> list[Any]:
    """Whether our rules say what PEFT does with the names that people paste."""
    from lorascope.peft_rules.resolve import resolve
    from lorascope.peft_rules.types import AdapterConfig
    from tests.helpers.oracle import peft_kwargs, peft_truth, restored

    config = AdapterConfig(target_modules=PASTED)
    ours = resolve(model, config)
    try:
        with restored(module):
            truth, trainable = peft_truth(module, {**peft_kwargs(config), "init_lora_weights": False})
    except Exception as error:  # PEFT raises what it likes
        return ["error" if ours.refusal is not None else f"{type(error).__name__}: {error}"[:200], 0]
    names = {one.name for one in ours.adapted}
    return ["exact" if names == {*truth} and ours.trainable == trainable else "different", len(names)]


def _traced(config: dict[str, Any]) -> dict[str, Any]:
    try:
        model = inspect(_built(config), trace=True)
    except LorascopeError as error:
        return {"untraced": str(error)[:300]}
    unexecuted = [trace.weight for trace in model.traces if trace.status == "unexecuted"]
    failures = [note[:200] for note in model.notes if "not traced to its end" in note]
    return {"unexecuted": len(unexecuted), "such as": unexecuted[:3], "failures": failures}


def main() -> None:
    """Print the rows of the named configurations, or of all."""
    warnings.simplefilter("ignore")
    architectures.mend_torchvision()
    import diffusers

    diffusers.logging.set_verbosity_error()
    configs = json.loads(RELEASED.read_text(encoding="utf-8"))
    wanted = sys.argv[1:] or list(configs)
    print(json.dumps({name: measure(configs[name]) for name in wanted}))


if __name__ == "__main__":
    main()
