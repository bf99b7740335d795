"""Prepares every test run before torch and transformers are imported."""

from __future__ import annotations

import os

import pytest

# Matrices as small as the tests' are slower on several threads, and the other workers need the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
pytest.register_assert_rewrite("tests.helpers")

import architectures  # noqa: E402

architectures.mend_torchvision()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put slow tests first in either half, so that each of two workers ends with quick ones that another can take."""
    slow: tuple[list[pytest.Item], list[pytest.Item]] = ([], [])
    quick: tuple[list[pytest.Item], list[pytest.Item]] = ([], [])
    files = {path: number for number, path in enumerate(dict.fromkeys(item.path for item in items))}
    for item in items:
        (slow if item.get_closest_marker("slow") else quick)[files[item.path] % 2].append(item)
    items[:] = [*slow[0], *quick[0], *slow[1], *quick[1]]
