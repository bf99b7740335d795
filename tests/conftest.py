"""Prepares every test run before transformers is imported."""

from __future__ import annotations

import architectures
import pytest

pytest.register_assert_rewrite("tests.helpers")
architectures.mend_torchvision()
