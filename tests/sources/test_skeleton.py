"""The skeleton costs names and shapes, not weights; and a configuration comes from a Hub without anything else."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join(str(ROOT / folder) for folder in ("src", "tools"))
PREPARE = "import architectures; architectures.mend_torchvision(); from lorascope.cli import main; import sys; "

pytestmark = pytest.mark.slow


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PREPARE + code, *arguments],
        env={**os.environ, "PYTHONPATH": PATHS, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_deepseek_v3_inspects_within_two_gigabytes(tmp_path: Path) -> None:
    config = {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    code = (
        "import resource; code = main(['inspect', sys.argv[1]]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    done = run(code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "parameters 671.03B" in done.stdout
    kibibytes = int(done.stderr.splitlines()[-1])
    assert kibibytes < 2 * 2**20


class Hub(http.server.BaseHTTPRequestHandler):
    """One repository with a configuration, and nothing else."""

    requested: list[str]
    CONFIG = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 3}).encode()

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        type(self).requested.append(self.path)
        found = self.path == "/someone/small/resolve/main/config.json"
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(self.CONFIG)) if found else "0")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"1"')
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound" if "/someone/small/" in self.path else "RepoNotFound")
        self.end_headers()
        if found and body:
            self.wfile.write(self.CONFIG)

    def log_message(self, *arguments: object) -> None:
        """Silent."""


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.requested = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_hub_id_needs_its_configuration_only(hub: str, tmp_path: Path) -> None:
    done = run("sys.exit(main(sys.argv[1:]))", "inspect", "someone/small", HF_ENDPOINT=hub, HF_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "model someone/small: LlamaForCausalLM (causal-lm; config" in done.stdout
    assert "layers 3" in done.stdout
    assert not [path for path in Hub.requested if "safetensors" in path or path.endswith(".bin")]


def test_a_repository_that_is_not_there(hub: str, tmp_path: Path) -> None:
    done = run("sys.exit(main(sys.argv[1:]))", "plan", "someone/else", HF_ENDPOINT=hub, HF_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "someone/else: the configuration cannot be read" in done.stderr
    assert "Check the name" in done.stderr
