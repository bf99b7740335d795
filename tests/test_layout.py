"""The rooms of the package: who may import whom, what loads what, and that every public name is there."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lorascope

SOURCE = Path(lorascope.__file__).parent

# A room is a package or a module of its own. It may import rooms of earlier rows only, within functions too.
ROOMS = (
    ("_version", "foreign_text", "light_dataclasses", "number_text", "packaged", "texts"),
    ("errors", "gc_paused"),
    ("names", "sandbox"),
    ("model",),
    ("peft_rules",),
    ("findings", "sources"),
    ("tracing",),
    ("inspecting", "outputs"),
    ("plans",),
    ("servers", "costs"),
    ("plan_api",),
    ("advice", "trainers"),
    ("checks",),
    ("reports", "tutorial"),
    ("cli",),
    ("__main__",),
)
PUBLIC_VERBS = ("inspect", "plan", "verify", "prove", "check", "serve", "export", "recommend", "compare")
HEAVY = ("dataclasses", "inspect", "torch", "transformers", "peft", "numpy", "huggingface_hub", "safetensors")


@functools.cache
def modules() -> dict[str, Path]:
    """Every module with something in it, by its name within the package."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if path.name != "__init__.py":
            found[name] = path
    return found


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node of a file but those that only type checkers see."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from statements(child)


@functools.cache
def imported(name: str) -> frozenset[str]:
    """The modules of the package that a module imports, when it is loaded or within a function."""
    imports = set()
    for node in statements(ast.parse(modules()[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "lorascope":
            base = (node.module or "").removeprefix("lorascope").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                imports.add(inner if inner in modules() else base)
    return frozenset(imports)


def row(name: str) -> int:
    room = name.partition(".")[0]
    return next(index for index, rooms in enumerate(ROOMS) if room in rooms)


def test_every_room_has_its_row() -> None:
    listed = [room for rooms in ROOMS for room in rooms]
    assert sorted(listed) == sorted({name.partition(".")[0] for name in modules()})


@pytest.mark.parametrize("name", modules())
def test_a_room_imports_lower_ones_only(name: str) -> None:
    for other in imported(name):
        assert other in modules(), f"{name} imports {other} from its package, not from the module that defines it"
        same_room = name.partition(".")[0] == other.partition(".")[0]
        assert same_room or row(other) < row(name), f"{name} imports {other}"


def test_no_import_cycle_even_within_functions() -> None:
    graph = {name: imported(name) for name in modules()}
    assert sum(map(len, graph.values())) > 500  # the imports were read
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, with the cycle


def test_modules_are_called_by_their_subject() -> None:
    words = {word for name in modules() for word in name.split(".") if word.endswith("ing")}
    assert words == {"inspecting", "tracing"}


def test_no_package_shares_its_name_with_a_public_verb() -> None:
    packages = {path.name for path in SOURCE.rglob("*") if (path / "__init__.py").exists()}
    assert len(packages) > 15
    assert packages.isdisjoint(PUBLIC_VERBS)


def test_no_module_shares_a_public_functions_name() -> None:
    owners: dict[str, set[str]] = {}  # a function with overloads is one
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if name.startswith("cli.") and getattr(node, "name", "") in ("add_arguments", "run"):
                continue  # every command has these two
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                owners.setdefault(node.name, set()).add(name)
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
        "from lorascope import inspect, plan, verify, load_plan, save_plan, builtin_models, list_trainable_modules",
        "from lorascope.cli.main import main; assert main(['plan', 'llama']) == 0",
        "from lorascope.cli.main import main; assert main(['plan', 'mixtral', 'all', '--json']) == 0",
        "from lorascope.cli.main import main; assert main(['inspect', 'llava', '--by', 'layer']) == 0",
        "from lorascope.cli.main import main; assert main(['inspect', '--list']) == 0",
        "from lorascope.cli.main import main; assert main(['plan', 'lama']) == 2",
        "import lorascope as ls; m = ls.inspect('llama'); assert ls.verify(m, {'target_modules': ['q_proj']}).adapted",
    ],
    ids=["import", "names", "plan", "json", "inspect", "list", "mistake", "verify"],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    found = loaded(code)
    assert "lorascope" in found
    assert not found & set(HEAVY)


def test_import_alone_loads_no_room() -> None:
    code = "import sys, lorascope; print(sorted(name for name in sys.modules if name.startswith('lorascope.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['lorascope._version', 'lorascope.texts']\n"


@pytest.mark.parametrize("name", lorascope.__all__)
def test_public_names_are_there_and_say_what_they_are(name: str) -> None:
    value = getattr(lorascope, name)
    assert value.__name__ == name
    assert (inspect.getdoc(value) or "").strip()
    assert name in dir(lorascope)
    assert value.__module__.startswith("lorascope.")


def test_types_that_public_functions_return_are_public() -> None:
    tried = 0
    for name in lorascope.__all__:
        value = getattr(lorascope, name)
        if not isinstance(value, type):
            words = re.findall(r"[A-Z]\w+", str(value.__annotations__["return"]))
            assert set(words) - {"None", "Any", "Path", "Mapping"} <= set(lorascope.__all__), name
            tried += 1
    assert tried == 15


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
