"""A trainer's options as a table, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lorascope import light_dataclasses as dataclasses
from lorascope.foreign_text import quoted
from lorascope.peft_rules.types import AdapterConfig
from lorascope.trainers.number_limits import number_faults


@dataclasses.dataclass(frozen=True, slots=True)
class ValueType:
    """A type of value, with its conversion.

    Attributes:
        name: What messages call it, with an article: `a whole number`.
        convert: Gives the value that the trainer gets, or raises ValueError.
        many: On a command line it takes several words.
        flag: On a command line it takes no word or one, and no word means true.
    """

    name: str
    convert: Callable[[Any], Any]
    many: bool = False
    flag: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One option of a trainer.

    Attributes:
        name: The trainer's key, argument or command-line option, without dashes.
        type: What its value must be, and what becomes of it.
        default: What the trainer takes where the option is not given; None if that is nothing.
        peft: The argument of `peft.LoraConfig` that it sets; empty if none directly.
        nullable: It may be null (None), which is kept.
        choices: The only values; any if empty.
    """

    name: str
    type: ValueType
    default: Any = None
    peft: str = ""
    nullable: bool = False
    choices: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        """What its value must be, for messages."""
        return f"one of {', '.join(self.choices)}" if self.choices else self.type.name

    def convert(self, value: Any) -> Any:
        """The value that the trainer gets.

        Raises:
            ValueError: It is none that the trainer takes.
        """
        if value is None and self.nullable:
            return None
        converted = self.type.convert(value)
        if self.choices and converted not in self.choices:
            raise ValueError
        return converted


class Schema:
    """The options of a trainer.

    >>> from lorascope.trainers.values import yaml_values
    >>> schema = Schema(Option("lora_rank", yaml_values.WHOLE, default=8, peft="r"))
    >>> schema.read({"lora_rank": "eight"})
    ({}, ["lora_rank is 'eight', not a whole number"])
    """

    def __init__(self, *options: Option) -> None:
        self.options: Mapping[str, Option] = {option.name: option for option in options}
        self.defaults: Mapping[str, Any] = {option.name: option.default for option in options}

    @property
    def keys(self) -> dict[str, str]:
        """Arguments of `peft.LoraConfig`, with the trainer's keys for them."""
        return {option.peft: option.name for option in self.options.values() if option.peft}

    def read(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The options among the values, converted, and faults."""
        settings: dict[str, Any] = {}
        faults: list[str] = []
        for name in (name for name in self.options if name in values):
            try:
                settings[name] = self.options[name].convert(values[name])
            except ValueError:
                faults.append(f"{name} is {quoted(values[name])}, not {self.options[name].wanted}")
        return settings, [*faults, *number_faults(settings)]

    def read_words(self, words: Mapping[str, Sequence[str]]) -> tuple[dict[str, Any], list[str]]:
        """The options of a command line, converted, and faults."""
        settings: dict[str, Any] = {}
        faults: list[str] = []
        for name in (name for name in self.options if name in words):
            option, given = self.options[name], words[name]
            if option.type.many and given:
                settings[name] = tuple(given)
            elif option.type.flag and not given:
                settings[name] = True
            elif not given:
                faults.append(f"--{name} has no value")
            elif len(given) > 1:
                faults.append(f"--{name} has {len(given)} values ({quoted(' '.join(given))}), not one")
            else:
                try:
                    settings[name] = option.convert(given[0])
                except ValueError:
                    faults.append(f"--{name} is {quoted(given[0])}, not {option.wanted}")
        return settings, [*faults, *number_faults(settings)]

    def peft_arguments(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `peft.LoraConfig` for the settings that are not None."""
        given = {
            option.peft: settings[option.name]
            for option in self.options.values()
            if option.peft and settings.get(option.name) is not None
        }
        return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}

    def settings_of(self, config: AdapterConfig) -> dict[str, Any]:
        """A PEFT configuration under the trainer's names."""
        return {
            option.name: getattr(config, option.peft)
            for option in self.options.values()
            if option.peft and hasattr(config, option.peft)
        }
