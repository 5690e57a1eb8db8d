"""Takes stores of live arrays, gives their laws: memory stays, views write through, errors name."""

from __future__ import annotations

import numpy as np
import pytest

from runtime.buffers import address
from runtime.state import ParameterView, State


def make():
    state = State({"hidden.weight": np.arange(6.0).reshape(2, 3), "t": np.int64(0)})
    names = {"hidden.weight": ("hidden.weight", ()), "a->b": ("hidden.weight", (1, 2))}
    return state, ParameterView(state, names)


def test_assignment_copies_into_the_same_memory():
    state, _ = make()
    array, where = state["hidden.weight"], address(state["hidden.weight"])
    assert where % 64 == 0
    state["hidden.weight"] = np.ones((2, 3), np.float32)
    assert state["hidden.weight"] is array
    assert address(array) == where
    assert (array == 1).all()
    state["t"] = 7
    assert state["t"] == 7


def test_initial_arrays_are_copied():
    source = np.zeros(3)
    state = State({"w": source})
    state["w"][:] = 1
    assert (source == 0).all()


def test_element_views_are_live_both_ways():
    state, view = make()
    assert view["a->b"].shape == ()
    view["a->b"] = 9
    assert state["hidden.weight"][1, 2] == 9
    state["hidden.weight"][1, 2] = 8
    assert view["a->b"] == 8
    element = view["a->b"]
    element[...] = 3
    assert view["hidden.weight"][1, 2] == 3
    assert list(view) == ["hidden.weight", "a->b"]
    view.update({"a->b": 1.5})
    assert view["a->b"] == 1.5


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("hidden.weight", np.ones(6), ValueError, r"'hidden.weight' has shape \(2, 3\).*\(6,\)"),
        ("hidden.weight", 1.0, ValueError, "shape"),
        ("hidden.weight", np.ones((2, 3)) + 1j, TypeError, "complex"),
        ("t", 0.5, TypeError, "cut to integers"),
        ("w", 1.0, KeyError, "no entry 'w'; there are hidden.weight, t"),
    ],
)
def test_wrong_values_are_named(name, value, error, message):
    state, _ = make()
    before = state.copy()
    with pytest.raises(error, match=message):
        state[name] = value
    for key, array in state.items():
        np.testing.assert_array_equal(array, before[key])


def test_entries_cannot_be_deleted_or_added_by_accident():
    state, view = make()
    for store in (state, view):
        with pytest.raises(TypeError):
            del store["hidden.weight"]
    with pytest.raises(KeyError):
        view["other"] = 1.0
    with pytest.raises(KeyError):
        ParameterView(state, {"x": ("nothing", ())})


def test_restore_undoes_writes():
    state, _ = make()
    before = state.copy()
    state["hidden.weight"][:] = 0
    state.restore(before)
    np.testing.assert_array_equal(state["hidden.weight"], np.arange(6.0).reshape(2, 3))
