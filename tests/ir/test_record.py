"""What ir/record.py makes is what dataclasses.dataclass makes."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import FrozenInstanceError, field, fields, replace
from typing import Any

import pytest

from ir import record

FORMS = [
    dict(frozen=frozen, eq=eq, slots=slots)
    for frozen in (False, True)
    for eq in (False, True)
    for slots in (False, True)
]


def classes(form: dict[str, bool]) -> list[Any]:
    """The same class made by the standard library and by ours."""
    made = []
    for decorate in (dataclasses.dataclass, record.dataclass):

        @decorate(**form)  # type: ignore[call-overload]
        class Point:
            """A point."""

            x: int
            y: float = 2.5
            tags: list[str] = field(default_factory=list, kw_only=True)
            seen: bool = field(default=False, kw_only=True)

            def __post_init__(self) -> None:
                assert self.x >= 0

            @property
            def double(self) -> int:
                return 2 * self.x

        made.append(Point)
    return made


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_record_is_what_the_standard_library_makes(form: dict[str, bool]) -> None:
    theirs, ours = classes(form)
    assert [str(p) for p in inspect.signature(ours).parameters.values()] == [
        str(p) for p in inspect.signature(theirs).parameters.values()
    ]
    assert ours.__match_args__ == theirs.__match_args__
    assert ours.__doc__ == theirs.__doc__
    assert [f.name for f in fields(ours)] == [f.name for f in fields(theirs)]
    for arguments in ((1,), (1, 3.0)):
        a, b = theirs(*arguments, seen=True), ours(*arguments, seen=True)
        assert repr(a) == repr(b)
        assert dataclasses.asdict(a) == dataclasses.asdict(b)
        assert b.double == 2
        assert (b == ours(*arguments, seen=True)) is form["eq"]
        assert b != a
        assert replace(b, y=7.0).y == 7.0
        assert hasattr(b, "__dict__") is not form["slots"]
    assert (ours.__hash__ is None) == (theirs.__hash__ is None)
    with pytest.raises(AssertionError):
        ours(-1)
    with pytest.raises(TypeError):
        ours()
    a, b = ours(1), ours(1)
    a.tags.append("a")
    assert b.tags == []
    if form["frozen"]:
        with pytest.raises(FrozenInstanceError, match="'x'"):
            a.x = 2
        with pytest.raises(FrozenInstanceError, match="'x'"):
            del a.x
        assert copy.copy(a).tags is a.tags
    else:
        a.x = 2
        assert a.x == 2


@record.dataclass(frozen=True, slots=True)
class Pair:
    left: int
    right: tuple[int, ...] = ()


@record.dataclass(frozen=True)
class Named(dict[str, int]):
    """Has a base and methods of its own."""

    name: str

    def __repr__(self) -> str:
        return "own"

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = object.__hash__


@record.dataclass(frozen=True)
class Longer(Named):
    more: int = 3


class Free(Longer):
    """No record: it may have attributes besides."""


def test_equal_records_have_equal_hashes_and_survive_pickling() -> None:
    pair = Pair(1, (2, 3))
    assert hash(pair) == hash(Pair(1, (2, 3)))
    assert {pair: 1}[Pair(1, (2, 3))] == 1
    assert pickle.loads(pickle.dumps(pair)) == pair
    assert copy.deepcopy(pair) == pair
    match pair:
        case Pair(left, right):
            assert (left, right) == (1, (2, 3))


def test_what_a_class_defines_itself_stays() -> None:
    named = Named("a")
    assert repr(named) == "own"
    assert named == 3
    assert hash(named) == object.__hash__(named)


def test_fields_are_inherited() -> None:
    assert [f.name for f in fields(Longer)] == ["name", "more"]
    longer = Longer("n")
    assert longer.more == 3
    with pytest.raises(FrozenInstanceError):
        longer.name = "m"  # type: ignore[misc]
    free = Free("n", 4)
    free.other = 5  # type: ignore[attr-defined]
    assert free.other == 5  # type: ignore[attr-defined]
    with pytest.raises(FrozenInstanceError):
        free.name = "m"  # type: ignore[misc]
