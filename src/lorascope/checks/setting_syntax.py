"""Settings as the checked tool writes them, to be pasted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from lorascope import light_dataclasses as dataclasses
from lorascope.checks.phrases import some_in_quotes
from lorascope.foreign_text import literal, shell_word

_WORDS = {
    "python": {True: "True", False: "False", None: "None"},
    "yaml": {True: "true", False: "false", None: "null"},
    "command": {True: "true", False: "false", None: "null"},
}
_MOST_WORDS = 10


@dataclasses.dataclass(frozen=True, slots=True)
class SettingSyntax:
    """How a tool writes PEFT's settings; by default as keyword arguments of `LoraConfig`.

    >>> axolotl = SettingSyntax("axolotl", "yaml", {"target_modules": "lora_target_modules"})
    >>> axolotl.write("target_modules", ["q_proj"]), SettingSyntax().write("target_modules", ["q_proj"])
    ('lora_target_modules: ["q_proj"]', 'target_modules=["q_proj"]')

    Attributes:
        title: The tool as it calls itself.
        form: What its configuration is written in.
        keys: PEFT's arguments, with the tool's own keys for them; None for PEFT itself.
    """

    title: str = "PEFT"
    form: Literal["python", "yaml", "command"] = "python"
    keys: Mapping[str, str] | None = None

    def has(self, key: str) -> bool:
        """The tool has a key for an argument of PEFT."""
        return self.keys is None or key in self.keys

    def name(self, key: str) -> str:
        """The tool's key for an argument of PEFT, or PEFT's own."""
        return (self.keys or {}).get(key, key)

    def write(self, key: str, value: Any) -> str:
        """A setting in the tool's own form; in PEFT's where the tool has no key for it."""
        if not self.has(key):
            return f"{key}={_written(value, 'python')} (in PEFT; {self.title} has no key for it)"
        name = self.name(key)
        if self.form == "command":
            return f"--{name} {_written(value, 'command')}"
        return f"{name}{': ' if self.form == 'yaml' else '='}{_written(value, self.form)}"


def _written(value: Any, form: str) -> str:
    if value is None or isinstance(value, bool):
        return _WORDS[form][value]
    if isinstance(value, str):
        return shell_word(value) if form == "command" else literal(value)
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, Mapping):
        pairs = (f"{literal(str(name))}: {_written(part, 'python')}" for name, part in value.items())
        text = f"{{{', '.join(pairs)}}}"
        return shell_word(text) if form == "command" else text
    items = list(value)
    if form == "command":
        return " ".join(shell_word(str(item)) for item in items[:_MOST_WORDS]) + (" …" if items[_MOST_WORDS:] else "")
    if all(isinstance(item, str) for item in items):
        return f"[{some_in_quotes(items)}]"
    return f"[{', '.join(map(str, items))}]"
