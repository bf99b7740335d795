"""Prepares every test run before torch and transformers are imported."""

from __future__ import annotations

import os

import pytest

# Matrices as small as the tests' are slower on several threads, and the other workers need the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
pytest.register_assert_rewrite("tests.helpers")

import architectures  # noqa: E402

architectures.mend_torchvision()
