"""TRL's own parser, `get_peft_config` and training script, run by a Python that has TRL, by its tests.

`parse FILE` takes a JSON file with `files` (YAML texts) and `commands` (lists of words) and prints what each becomes as one
JSON object; `train FILE …` trains from each configuration file in turn.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[3] / folder) for folder in ("src", "tools", ".")]

import architectures  # noqa: E402

_COMPARED = (
    "target_modules",
    "target_parameters",
    "r",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "use_rslora",
    "use_dora",
    "modules_to_save",
    "task_type",
    "rank_pattern",
    "alpha_pattern",
    "exclude_modules",
    "layers_to_transform",
)


def main() -> None:
    """Does what the first argument says."""
    architectures.mend_torchvision()
    from trl.scripts import sft

    what, *files = sys.argv[1:]
    if what == "train":
        for file in files:
            sft.main(*sft.make_parser().parse_args_and_config(["--config", file], fail_with_unknown_args=False))
        return
    asked = json.loads(Path(files[0]).read_text(encoding="utf-8"))
    found: dict[str, list[Any]] = {"files": [], "commands": [parsed(words) for words in asked["commands"]]}
    with tempfile.TemporaryDirectory() as folder:
        for text in asked["files"]:
            file = Path(folder) / "file.yaml"
            file.write_text(text, encoding="utf-8")
            found["files"].append(parsed(["--config", str(file)]))
    print(json.dumps(found))


def parsed(words: list[str]) -> dict[str, Any]:
    """What TRL makes of a command line: no adapter, the fields of the LoraConfig, or the type of the error."""
    from trl.scripts import sft
    from trl.trainer.utils import get_peft_config

    try:
        _, _, model_args, _ = sft.make_parser().parse_args_and_config([*words], fail_with_unknown_args=False)
        config = get_peft_config(model_args)
    except (Exception, SystemExit) as error:
        return {"refused": f"{type(error).__name__}: {error}"[:200]}
    if config is None:
        return {"adapter": False}
    return {"base": model_args.model_name_or_path, **{key: plain(getattr(config, key)) for key in _COMPARED}}


def plain(value: Any) -> Any:
    """Sets as sorted lists, task types as their names."""
    if isinstance(value, set | list | tuple):
        return sorted(value)
    return getattr(value, "value", value)


if __name__ == "__main__":
    main()
