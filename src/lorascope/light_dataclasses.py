"""Dataclasses that cost little to define: `from lorascope import light_dataclasses as dataclasses`.

The standard module takes three times the start of bare Python, half of what `lorascope inspect` did: it loads `inspect`,
`ast`, `dis` and `tokenize`, and compiles six functions for each class. Here a class compiles its constructor when it is
first called, and shares the rest. Type checkers see the standard module; `dataclasses.replace`, `asdict` and `fields` of
the standard module work on these classes too. Not covered: inheritance, `InitVar`, `kw_only`, `order`.
"""

from __future__ import annotations

import operator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import MISSING as MISSING
    from dataclasses import asdict as asdict
    from dataclasses import astuple as astuple
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import fields as fields
    from dataclasses import is_dataclass as is_dataclass
    from dataclasses import replace as replace
else:

    class _Missing:
        def __repr__(self):
            return "MISSING"

    MISSING = _Missing()

    class Field:
        """One field: its default, and whether `repr` and `hash` use it."""

        __slots__ = ("default", "default_factory", "hash", "name", "repr", "type")

        def __init__(self, *, default=MISSING, default_factory=MISSING, repr=True, hash=True):  # noqa: A002
            self.name, self.type = "", None
            self.default, self.default_factory, self.repr, self.hash = default, default_factory, repr, hash

    field = Field

    class _Lazy:
        """A class attribute that is made when it is first asked for, and then stands in its own place."""

        def __init__(self, name, make):
            self._name, self._make = name, make

        def __get__(self, instance, owner):
            value = self._make(owner)
            setattr(owner, self._name, value)
            return value.__get__(instance, owner) if callable(value) else value

    def dataclass(*, frozen=False, slots=False, eq=True):
        """The decorator, for classes without bases."""

        def decorate(cls):
            if cls.__bases__ != (object,):
                raise TypeError(f"{cls.__name__} has bases")
            members = []
            for name, annotation in cls.__annotations__.items():
                default = cls.__dict__.get(name, MISSING)
                member = default if isinstance(default, Field) else Field(default=default)
                member.name, member.type = name, annotation
                members.append(member)
            names = tuple(member.name for member in members)
            attributes = dict(cls.__dict__)
            for member in members:
                attributes.pop(member.name, None)
                if not slots and member.default is not MISSING:
                    attributes[member.name] = member.default
            if slots:
                attributes["__slots__"] = names
            attributes.pop("__dict__", None)
            attributes.pop("__weakref__", None)
            attributes.update(
                __match_args__=names,
                __light_fields__=tuple(members),
                __light_frozen__=frozen,
                __init__=_Lazy("__init__", _constructor),
                __dataclass_fields__=_Lazy("__dataclass_fields__", _standard_fields),
                __reduce__=_reduce,
                __replace__=replace,
            )
            attributes.setdefault("__repr__", _repr)
            if frozen:
                attributes.update(__setattr__=_refuse, __delattr__=_refuse)
            if eq:
                attributes.setdefault("__eq__", _equal(names))
                attributes["__hash__"] = _hash([m.name for m in members if m.hash]) if frozen else None
            made = type(cls.__name__, (), attributes)
            made.__qualname__ = cls.__qualname__
            return made

        return decorate

    def _constructor(cls):
        """The `__init__` of a class, compiled from the names of its fields."""
        scope = {"MISSING": MISSING, "_set": object.__setattr__}
        parameters, lines = [], []
        for member in cls.__light_fields__:
            name = value = member.name
            parameter = name
            if member.default is not MISSING:
                scope[f"_default_{name}"] = member.default
                parameter = f"{name}=_default_{name}"
            elif member.default_factory is not MISSING:
                scope[f"_make_{name}"] = member.default_factory
                parameter, value = f"{name}=MISSING", f"_make_{name}() if {name} is MISSING else {name}"
            parameters.append(parameter)
            lines.append(f"_set(self, {name!r}, {value})" if cls.__light_frozen__ else f"self.{name} = {value}")
        if hasattr(cls, "__post_init__"):
            lines.append("self.__post_init__()")
        text = f"def __init__({', '.join(['self', *parameters])}):\n  " + "\n  ".join(lines or ["pass"])
        exec(compile(text, "<light_dataclasses>", "exec"), scope)  # names of our own fields, nothing else
        constructor = scope["__init__"]
        constructor.__qualname__ = f"{cls.__qualname__}.__init__"
        constructor.__annotations__ = {member.name: member.type for member in cls.__light_fields__}
        return constructor

    def _standard_fields(cls):
        """The fields as the standard module keeps them, for its functions."""
        import dataclasses

        twins = []
        for member in cls.__light_fields__:
            known = {"default": member.default, "default_factory": member.default_factory}
            given = {key: value for key, value in known.items() if value is not MISSING}
            twins.append((member.name, member.type, dataclasses.field(**given, repr=member.repr)))
        return dataclasses.make_dataclass(cls.__name__, twins).__dataclass_fields__

    def _repr(self):
        shown = (f"{m.name}={getattr(self, m.name)!r}" for m in self.__light_fields__ if m.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def _equal(names):
        if not names:
            return lambda self, other: True if other.__class__ is self.__class__ else NotImplemented
        values = operator.attrgetter(*names)

        def __eq__(self, other):  # noqa: N807
            if other.__class__ is not self.__class__:
                return NotImplemented
            return values(self) == values(other)

        return __eq__

    def _hash(names):
        if not names:
            return lambda self: hash(())
        values = operator.attrgetter(*names)
        return lambda self: hash(values(self))

    def _refuse(self, name, *_):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to or delete field {name!r}")

    def _reduce(self):
        return type(self), tuple(getattr(self, m.name) for m in self.__light_fields__)

    def fields(value):
        """The fields of a class or instance, in order; also of a standard dataclass."""
        members = getattr(value, "__light_fields__", None)
        if members is None:
            import dataclasses

            return dataclasses.fields(value)
        return members

    def replace(value, /, **changes):
        """A copy of a value with some fields changed."""
        members = getattr(type(value), "__light_fields__", None)
        if members is None:
            import dataclasses

            return dataclasses.replace(value, **changes)
        for member in members:
            if member.name not in changes:
                changes[member.name] = getattr(value, member.name)
        return type(value)(**changes)

    def __getattr__(name):
        if name not in ("asdict", "astuple", "is_dataclass"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import dataclasses

        return getattr(dataclasses, name)
