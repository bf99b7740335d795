"""The rooms of the package: who may import whom, what loads what, and that every public name is there."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.metadata
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lorascope

SOURCE = Path(lorascope.__file__).parent

# A module may import what stands in an earlier row; those of one row know nothing of each other, save within a folder.
ROOMS = (
    ("foreign_text",),
    ("errors",),
    ("folding",),
    ("records",),
    ("shapes",),
    ("roles.lexicon", "peft_rules.versioning", "tracing.graph"),
    ("roles.classifying", "peft_rules.*"),
    ("selecting", "serializing"),
    ("sources.*", "sources.conversions.*", "sources.quantisation.*", "recipes", "compiling"),
    ("tracing.*",),
    ("inspecting", "remarking", "verifying"),
    ("planning", "proving", "trainers.*", "serving.*", "findings.*"),
    ("subjects", "exporting", "costing.*"),
    ("checking", "advising.*", "outputs"),
    ("saving", "tutorial", "reporting.tables"),
    ("reporting.traces",),
    ("reporting.terminal", "reporting.contract"),
    ("reporting.checks", "reporting.advice", "reporting.costs"),
    ("cli",),
    ("__main__",),
)
# Rooms of one folder may import each other.
FOLDERS = ("peft_rules", "sources", "tracing", "trainers", "serving", "findings", "costing", "advising")
HEAVY = ("torch", "transformers", "peft", "numpy", "huggingface_hub", "safetensors")


@functools.cache
def modules() -> dict[str, Path]:
    """Every module with something in it, by its name within the package."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if path.name != "__init__.py":
            found[name] = path
    return found


@functools.cache
def imported(path: Path) -> set[str]:
    """The modules of the package that a file imports when it is loaded: not within functions, not for types alone."""
    found = set()
    waiting: list[ast.stmt] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lorascope."):
            base = (node.module or "").removeprefix("lorascope.")
            inner = {f"{base}.{alias.name}" for alias in node.names} & modules().keys()
            found |= inner or {base}
        elif isinstance(node, ast.ImportFrom) and node.module == "lorascope":
            found |= {alias.name for alias in node.names} & modules().keys()
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        elif isinstance(node, ast.If | ast.Try | ast.With):
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return found


def row(name: str) -> int:
    for index, names in enumerate(ROOMS):
        if name in names:
            return index
    folder = f"{name.rpartition('.')[0]}.*"
    return next(index for index, names in enumerate(ROOMS) if folder in names)


def test_every_module_has_its_row() -> None:
    named = {name for names in ROOMS for name in names if not name.endswith(".*")}
    assert named <= modules().keys()
    for name in modules():
        assert row(name) < len(ROOMS), name


@pytest.mark.parametrize("name", modules())
def test_a_room_imports_lower_ones_only(name: str) -> None:
    for other in imported(modules()[name]):
        same_folder = name.partition(".")[0] == other.partition(".")[0] in FOLDERS
        assert row(other) < row(name) or same_folder, f"{name} imports {other}"


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {name: imported(path) for name, path in modules().items()}
    assert sum(len(others) for others in graph.values()) > 50  # something is read
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    assert done >= graph.keys()


def test_no_module_shares_a_public_functions_name() -> None:
    owners: dict[str, list[str]] = {}
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                owners.setdefault(node.name, []).append(name)
    assert len(owners) > 60
    assert {function: names for function, names in owners.items() if len(names) > 1} == {}


def loaded(code: str) -> set[str]:
    """The top-level modules that a fresh Python has after some code."""
    code += "\nimport sys; print('\\n' + ' '.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import lorascope",
        "from lorascope import inspect, plan, verify, load_plan, save_plan, gallery, list_trainable_modules",
        "from lorascope.cli import main; assert main(['plan', 'llama']) == 0",
        "from lorascope.cli import main; assert main(['plan', 'mixtral', 'all', '--json']) == 0",
        "from lorascope.cli import main; assert main(['inspect', 'llava', '--by', 'layer']) == 0",
        "from lorascope.cli import main; assert main(['inspect', '--gallery']) == 0",
        "from lorascope.cli import main; assert main(['plan', 'lama']) == 2",
        "import lorascope as ls; m = ls.inspect('llama'); assert ls.verify(m, {'target_modules': ['q_proj']}).adapted",
    ],
    ids=["import", "names", "plan", "json", "inspect", "gallery", "mistake", "verify"],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    found = loaded(code)
    assert "lorascope" in found
    assert not found & set(HEAVY)


def test_import_alone_loads_no_room() -> None:
    code = "import sys, lorascope; print([name for name in sys.modules if name.startswith('lorascope.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", lorascope.__all__)
def test_public_names_are_there_and_say_what_they_are(name: str) -> None:
    value = getattr(lorascope, name)
    assert value.__name__ == name
    assert (inspect.getdoc(value) or "").strip()
    assert name in dir(lorascope)
    assert value.__module__.startswith("lorascope.")


def test_public_names_are_sorted_and_complete() -> None:
    assert lorascope.__all__ == sorted(lorascope.__all__)
    assert set(lorascope.__all__) == set(lorascope._ROOM_OF)
    with pytest.raises(AttributeError, match=r"module 'lorascope' has no attribute 'nothing'"):
        lorascope.nothing  # noqa: B018


@pytest.mark.parametrize("name", modules())
def test_every_room_says_its_job(name: str) -> None:
    module = importlib.import_module(f"lorascope.{name}")
    assert (module.__doc__ or "").strip().endswith((".", "`"))


def test_the_version_is_the_distributions() -> None:
    assert importlib.metadata.version("lorascope") == lorascope.__version__
