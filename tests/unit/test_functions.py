"""Does a call see what its function refers to now?"""

import functools
import operator
import sys
from types import ModuleType

import numpy as np
import pytest

from mpicluster.client.functions import references_of

SCRIPT = """
scale, table, name = 1, [1], "a"

def plain(x):
    return scale * x

def reads_a_list(x):
    return table[0]

def calls(x):
    return plain(x)

def closed_over(value):
    return lambda x: value

def default(x, factor=3):
    return factor
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a module whose functions are pickled by value, as those of a script."""
    module = ModuleType("__main__")
    exec(SCRIPT, vars(module))
    monkeypatch.setitem(sys.modules, "a_script", module)
    return module


def same(function: object, before: list[object] | None) -> bool:
    """Return whether a function would not be pickled again."""
    now = references_of(function)
    assert before is not None
    return now is not None and list(map(id, now)) == list(map(id, before))


def test_a_changed_global_is_seen(script: ModuleType) -> None:
    for function in (script.plain, script.calls):
        before = references_of(function)
        assert same(function, before)
        script.scale += 1000
        assert not same(function, before)


def test_changed_defaults_and_code_are_seen(script: ModuleType) -> None:
    before = references_of(script.default)
    assert same(script.default, before)
    script.default.__defaults__ = (4000,)
    assert not same(script.default, before)
    before = references_of(script.default)
    script.default.__code__ = script.plain.__code__
    assert not same(script.default, before)


def test_what_may_change_in_place_is_pickled_for_each_call(script: ModuleType) -> None:
    assert references_of(script.reads_a_list) is None
    assert references_of(script.closed_over([1])) is None
    assert references_of(functools.partial(script.plain, 1)) is None
    assert references_of([].append) is None
    assert references_of(script.closed_over(5)) is not None


def test_importable_functions_are_remembered() -> None:
    for function in (operator.add, np.full, functools.reduce, dict, len):
        assert references_of(function) == [function]
