"""Every check of the project, in the order of their cost; stops at none and fails if any does.

python tools/check.py            all: what CI runs
python tools/check.py --quick    without what is marked slow: the developer's run
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="leave out the tests that are marked slow")
    quick = parser.parse_args().quick
    checks = (
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("pytest", "-n", "auto", "--dist", "worksteal", *(("-m", "not slow") if quick else ())),
    )
    # The trainers' environments are made while the rest is checked; a test that needs one sooner waits for it.
    environments = None if quick else subprocess.Popen([sys.executable, "-m", "tests.helpers.venvs"], cwd=ROOT)
    failed = []
    for check in checks:
        print(f"+ {' '.join(check)}", flush=True)
        if subprocess.run([sys.executable, "-m", *check], cwd=ROOT, check=False).returncode:
            failed.append(" ".join(check))
    if environments and environments.wait():
        failed.append("tests.helpers.venvs")
    if failed:
        print(f"failed: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
