"""Takes a class with annotated fields, gives a dataclass: the standard library's, made in a fifth
of the time.

`dataclasses.dataclass` writes and compiles six functions for a frozen class, about .3 ms; for all
of ours that was half of what importing them took. Here one is compiled, __init__; the others are
made from the fields' names. Whatever the standard library offers for its own (fields, replace,
is_dataclass, match) serves these as well; they cannot be bases of its frozen ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    import dataclasses
    import inspect
    from dataclasses import MISSING, FrozenInstanceError
    from operator import attrgetter

    class _Factory:
        """The default of a field that has a factory."""

        def __repr__(self):
            return "<factory>"

    _FACTORY = _Factory()

    def dataclass(cls=None, /, *, frozen=False, eq=True, slots=False, kw_only=False):
        """`dataclasses.dataclass` with those of its options that are used here."""
        if cls is None:
            return lambda cls: _made(cls, frozen, eq, slots, kw_only)
        return _made(cls, frozen, eq, slots, kw_only)

    def _made(cls, frozen: bool, eq: bool, slots: bool, kw_only: bool) -> Any:
        own = set(cls.__dict__)
        if cls.__doc__ is None:
            cls.__doc__ = f"{cls.__name__}({', '.join(inspect.get_annotations(cls))})"
        found = dataclasses.dataclass(
            cls, init=False, repr=False, eq=False, slots=slots, kw_only=kw_only
        )
        fields = dataclasses.fields(found)
        names = [f.name for f in fields]
        parts = {"__init__": _init(found, fields, frozen)}
        if "__repr__" not in own:
            parts["__repr__"] = _repr(names)
        if eq and "__eq__" not in own:
            parts |= _equality(_values(names), frozen)
            if "__hash__" in own:
                del parts["__hash__"]
        if frozen:
            parts |= _freezing(found, frozenset(names))
            if slots:
                parts |= {"__getstate__": _state, "__setstate__": _restore}
        for name, value in parts.items():
            setattr(found, name, value)
        return found

    def _init(cls, fields, frozen: bool):
        """__init__, from its text."""
        first, keyword, body = [], [], []
        names: dict[str, Any] = {"_set": object.__setattr__, "_factory": _FACTORY}
        for f in fields:
            value = f.name
            default = ""
            if f.default is not MISSING:
                names[f"_default_{f.name}"] = f.default
                default = f" = _default_{f.name}"
            elif f.default_factory is not MISSING:
                names[f"_make_{f.name}"] = f.default_factory
                default = " = _factory"
                value = f"_make_{f.name}() if {f.name} is _factory else {f.name}"
            (keyword if f.kw_only else first).append(f.name + default)
            if frozen:
                body.append(f"_set(self, {f.name!r}, {value})")
            else:
                body.append(f"self.{f.name} = {value}")
        if hasattr(cls, "__post_init__"):
            body.append("self.__post_init__()")
        given = ", ".join(["self", *first, *(["*", *keyword] if keyword else [])])
        lines = "\n  ".join(body or ["pass"])
        made: dict[str, Any] = {}
        exec(
            f"def make({', '.join(names)}):\n def __init__({given}):\n  {lines}\n return __init__",
            {},
            made,
        )
        init = made["make"](**names)
        init.__annotations__ = {**{f.name: f.type for f in fields}, "return": None}
        init.__module__ = cls.__module__
        return init

    def _values(names):
        """The fields of an object, quickly."""
        return attrgetter(*names) if names else lambda self: ()

    def _repr(names):
        def text(self):
            shown = ", ".join([f"{name}={getattr(self, name)!r}" for name in names])
            return f"{type(self).__qualname__}({shown})"

        return text

    def _equality(values, frozen: bool):
        """Equal ones have equal hashes, or none where they may change."""

        def equals(self, other):
            if other.__class__ is self.__class__:
                return values(self) == values(other)
            return NotImplemented

        def digest(self):
            return hash(values(self))

        return {"__eq__": equals, "__hash__": digest if frozen else None}

    def _freezing(cls, names):
        """Fields cannot be assigned to; what a subclass has besides them can."""

        def assign(self, name, value):
            if type(self) is cls or name in names:
                raise FrozenInstanceError(f"cannot assign to field {name!r}")
            super(cls, self).__setattr__(name, value)

        def delete(self, name):
            if type(self) is cls or name in names:
                raise FrozenInstanceError(f"cannot delete field {name!r}")
            super(cls, self).__delattr__(name)

        return {"__setattr__": assign, "__delattr__": delete}

    def _state(self):
        return [getattr(self, f.name) for f in dataclasses.fields(self)]

    def _restore(self, state):
        for f, value in zip(dataclasses.fields(self), state, strict=True):
            object.__setattr__(self, f.name, value)
