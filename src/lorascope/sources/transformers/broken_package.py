"""Packages that transformers imports and that do not work here: no fault of a model or its files."""

from __future__ import annotations

from lorascope.errors import LorascopeError

_LONGEST_LINE = 400


def is_broken_package(error: BaseException) -> bool:
    """Tell whether transformers failed to import a package that is there.

    It imports its modules when they are first used, and raises `ImportError` from what a package raised, such as
    torchvision of another release than torch.
    """
    return isinstance(error, ImportError) and error.__cause__ is not None


def import_failure(error: BaseException, what: str) -> LorascopeError:
    """What to say of an import within transformers that failed.

    Args:
        error: What transformers raised.
        what: What it was to load.
    """
    import transformers

    while error.__cause__ is not None:
        error = error.__cause__
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return LorascopeError(
        f"transformers {transformers.__version__} cannot load {what}: {line[:_LONGEST_LINE]}",
        hint="Repair or remove the package that it names; torchvision must be of the same release as torch.",
    )
