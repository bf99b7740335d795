"""The commands by name. Each is a file of this folder: its options, its examples, and what it runs."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Protocol

    class Command(Protocol):
        """One command.

        Attributes:
            EXAMPLES: Shown below its help.
            SEVERAL: Its argument that takes several words; empty if none does.
        """

        EXAMPLES: str
        SEVERAL: str

        def add_arguments(self, parser: argparse.ArgumentParser) -> None:
            """Declare the command's arguments."""
            ...

        def run(self, options: argparse.Namespace) -> int:
            """Run the command; its exit code.

            Raises:
                LorascopeError: Bad input.
            """
            ...


# Name to purpose, in the order of the help.
PURPOSES = {
    "inspect": "list a model's modules by role, without loading its weights",
    "plan": "choose target modules, ranks and alphas, and get the exact PEFT configuration",
    "recommend": "show which recipe the evidence supports for a task",
    "compare": "compare recipes and rules: what they adapt and what they cost",
    "check": "check what an adapter, target modules or a trainer's config really do on a model",
    "export": "write a plan as a trainer's configuration",
}


def command(name: str) -> Command:
    """The command of a name, loaded when it is called for."""
    module: Command = importlib.import_module(f"lorascope.cli.{name}")
    return module
