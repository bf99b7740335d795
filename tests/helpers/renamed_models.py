"""transformers' own models under words that mean nothing, so that only what they compute can tell what they are."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from typing import Any, cast

from torch import nn

from lorascope.sources.transformers.meta_model import module_kind

# What hands a model its inputs may read its configuration: that is no knowledge of what a weight does.
_MAY_READ = tuple(f"lorascope.tracing.calls.{room}" for room in ("inputs", "types", "images", "audio"))
_VOWELS, _CONSONANTS = "aiou", "bdfgjlmnrtvz"


def renamed(module: nn.Module, seed: int) -> tuple[nn.Module, dict[str, str]]:
    """Gives every class, submodule and parameter of a model a random word instead of its name, in place.

    A class gets one word wherever it stands, and so does each of its attributes. Numbers of lists stay, as do the
    names that belong to PyTorch's layers (`weight` of a linear layer), which are found by their class. The modeling
    code goes on to say `self.q_proj` and `self.config`; lorascope finds neither.

    Args:
        module: Any model, on the meta device or with numbers. Code keeps running on it.
        seed: Chooses the words.

    Returns:
        The same object, and new name to old of every module (also where it stands a second time) and every parameter.
    """
    before = list(_names(module))
    vocabulary = _Vocabulary(seed)
    for part in list(module.modules()):
        vocabulary.rename(part)
    return module, dict(zip(_names(module), before, strict=True))


def _names(module: nn.Module) -> Iterator[str]:
    for name, part in module.named_modules(remove_duplicate=False):
        if name:
            yield name
        for parameter, value in part._parameters.items():
            if value is not None:
                yield f"{name}.{parameter}".removeprefix(".")


class _Vocabulary:
    """Words, each given once, and the classes that answer to old and new ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._used: set[str] = set()
        self._classes: dict[type, type] = {}

    def rename(self, module: nn.Module) -> None:
        cls = type(module)
        native = cls.__module__.startswith("torch.")
        if native and not isinstance(module, nn.Sequential | nn.ModuleDict):
            return
        old_names: Iterable[str] = [name for name in module._modules if not name.isdecimal()]
        if not native and module_kind(module) == "other":
            old_names = [*old_names, *(name for name in module._parameters if not name.isdecimal())]
        if native and not old_names:
            return
        if cls not in self._classes:
            self._classes[cls] = self._anonymous(cls)
        anonymous = self._classes[cls]
        words = cast(Any, anonymous)._words
        for name in old_names:
            if name not in words:
                words[name] = self._word(anonymous)
        for registry in (module._modules, module._parameters):
            entries = [(words.get(name, name), value) for name, value in registry.items()]
            registry.clear()  # the object stays, as others may hold it
            cast(dict[str, Any], registry).update(entries)
        if "config" in module.__dict__:
            module.__dict__[words.setdefault("config", self._word(anonymous))] = module.__dict__.pop("config")
        module.__class__ = anonymous
        if hasattr(module, "can_record_outputs"):
            from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

            _CAN_RECORD_REGISTRY[cast(Any, module)] = cast(Any, module)._can_record_outputs

    def _word(self, cls: type) -> str:
        while True:
            word = "".join(self._random.choice(_CONSONANTS) + self._random.choice(_VOWELS) for _ in range(4))
            if word not in self._used and not hasattr(cls, word):
                self._used.add(word)
                return word

    def _anonymous(self, cls: type) -> type:
        words: dict[str, str] = {}
        anonymous: Any = None

        # Attributes that the object does not have itself.
        def get(self: Any, name: str) -> Any:
            new = words.get(name)
            if name == "config" and new is not None and not _may_read(sys._getframe(1).f_globals.get("__name__", "")):
                raise AttributeError("there is no configuration")
            for registry in (self.__dict__, *(self.__dict__.get(kept, {}) for kept in ("_parameters", "_modules"))):
                if new is not None and new in registry:
                    return registry[new]
            return super(anonymous, self).__getattr__(name)

        body: dict[str, Any] = {
            "__module__": __name__,
            "_words": words,
            "__getattr__": get,
            "__setattr__": lambda self, name, value: super(anonymous, self).__setattr__(words.get(name, name), value),
            "__delattr__": lambda self, name: super(anonymous, self).__delattr__(words.get(name, name)),
        }
        if issubclass(cls, nn.ModuleDict):

            def items(self: Any) -> dict[str, nn.Module]:
                old = {new: name for name, new in words.items()}
                return {old.get(key, key): module for key, module in self._modules.items()}

            body |= {
                "__getitem__": lambda self, key: items(self)[key],
                "__contains__": lambda self, key: key in items(self),
                "__iter__": lambda self: iter(items(self)),
                "keys": lambda self: items(self).keys(),
                "items": lambda self: items(self).items(),
            }
        anonymous = type(self._word(cls).capitalize(), (cls,), body)
        return cast(type, anonymous)


def _may_read(reader: str) -> bool:
    return not reader.startswith("lorascope.") or reader in _MAY_READ
