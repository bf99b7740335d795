"""Whole processes side by side: the gallery against bare Python and against importing torch and transformers.

Needs the extra `torch`. Prints a Markdown table of medians of five, interleaved, as ratios.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 5
_SKELETON = "import sys; from lorascope.cli import main; sys.exit(main(['inspect', sys.argv[1]]))"
_BARE_BUILD = (
    "import sys, torch, transformers\n"
    "config = transformers.AutoConfig.from_pretrained(sys.argv[1])\n"
    "with torch.device('meta'):\n"
    "    transformers.AutoModelForCausalLM.from_config(config)\n"
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        cli = "import sys; from lorascope.cli import main; sys.exit(main(sys.argv[1:]))"
        commands = {
            "bare Python": [sys.executable, "-c", "pass"],
            "inspect mistral (gallery)": [sys.executable, "-c", cli, "inspect", "mistral"],
            "plan mistral (gallery)": [sys.executable, "-c", cli, "plan", "mistral"],
            "import torch, transformers": [sys.executable, "-c", "import torch, transformers"],
            "from_config of mistral on meta": [sys.executable, "-c", _BARE_BUILD, folder],
            "inspect a config.json of mistral": [sys.executable, "-c", _SKELETON, folder],
        }
        for command in commands.values():  # byte code and page cache
            subprocess.run(command, check=True, capture_output=True)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(REPEATS):
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    bare, imports = medians["bare Python"], medians["import torch, transformers"]
    print("| process | seconds | bare Python = 1 | import torch, transformers = 1 |\n|---|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.3f} | {median / bare:.1f} | {median / imports:.3f} |")
    ratio = medians["inspect a config.json of mistral"] / medians["from_config of mistral on meta"]
    print(f"\ninspect a config.json / bare from_config: {ratio:.2f}")


if __name__ == "__main__":
    main()
