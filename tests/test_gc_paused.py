"""The search for cycles is put off, and comes back as it was."""

from __future__ import annotations

import gc

import pytest

from lorascope.gc_paused import no_collection


@pytest.mark.parametrize("before", [True, False])
def test_it_comes_back_as_it_was(before: bool) -> None:
    enabled = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with no_collection(), no_collection():
            assert not gc.isenabled()
        assert gc.isenabled() is before
        with pytest.raises(KeyError), no_collection():
            raise KeyError
        assert gc.isenabled() is before
    finally:
        (gc.enable if enabled else gc.disable)()
