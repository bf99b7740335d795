"""The stated range of versions is true: a sample of architectures with other releases of PEFT and transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).with_name("sample.py")
# (what to install beside the installed torch, with its dependencies or not, architectures that this release has)
OTHERS = {
    "peft 0.19.1": (["peft==0.19.1"], False, 50),
    "peft 0.20.0": (["peft==0.20.0"], False, 50),
    "transformers 5.0.0": (["transformers==5.0.0"], True, 46),  # it cannot build four of its own defaults
    "transformers 5.23.0": (["transformers==5.23.0"], False, 50),
}


@pytest.mark.parametrize("name", OTHERS)
def test_sample_is_exact(name: str, tmp_path: Path) -> None:
    requirements, with_dependencies, count = OTHERS[name]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(tmp_path)]
    install += requirements
    subprocess.run(install if with_dependencies else [*install, "--no-deps"], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, str(SAMPLE)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    library, version = name.split()
    assert result[library] == version
    assert len(result["verdicts"]) == count
    wrong = {
        f"{entry} {rule}": reason
        for entry, rules in result["verdicts"].items()
        for rule, (verdict, reason) in rules.items()
        if verdict == "different"
    }
    assert not wrong


_METHODS = """
import json, peft, transformers
config = transformers.LlamaConfig(
    vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2
)
lora = peft.LoraConfig(target_modules=["q_proj"])
told = {"transformers": transformers.__version__}
for name in ("get_peft_model", "add_adapter"):
    model = transformers.LlamaForCausalLM(config)
    try:
        peft.get_peft_model(model, lora) if name == "get_peft_model" else model.add_adapter(lora)
        told[name] = ""
    except Exception as error:
        told[name] = str(error)
print(json.dumps(told))
"""


def test_transformers_asks_for_a_newer_peft() -> None:
    """What the finding `newer-peft-asked` says, in the installed release."""
    tools = Path(__file__).parents[2] / "tools"
    script = "import architectures; architectures.mend_torchvision()\n" + _METHODS
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "PYTHONPATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["transformers"].startswith("5.24.")
    assert told["get_peft_model"] == ""
    assert "please use a version >= 0.22.0" in told["add_adapter"]
