"""Does every message come out of the serializer as it went in?"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpicluster import messages as m
from mpicluster.codec import field_names
from mpicluster.errors import ProtocolError

INTEGERS = st.integers(-(1 << 63), (1 << 63) - 1)
PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
#: How to make up a field, by the words of its type.
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": INTEGERS,
    "float": st.floats(allow_nan=False),
    "str": st.text(),
    "bytes": st.binary(),
    "list[int]": st.lists(INTEGERS, max_size=4),
    "list[float]": st.lists(st.floats(allow_nan=False), max_size=4),
    "list[str]": st.lists(st.text(), max_size=4),
    "list[bytes]": st.lists(st.binary(), max_size=4),
    "list[list[int]]": st.lists(st.lists(INTEGERS, max_size=3), max_size=3),
    "dict[str, str]": st.dictionaries(st.text(), st.text(), max_size=3),
    "dict[str, Any]": st.dictionaries(st.text(), PLAIN, max_size=3),
    "list[dict[str, Any]]": st.lists(
        st.dictionaries(st.text(), PLAIN, max_size=3), max_size=3
    ),
    "list[Any]": st.lists(PLAIN, max_size=4),
    "list[list[Any]]": st.lists(st.lists(PLAIN, max_size=3), max_size=3),
    "Any": PLAIN,
}


def strategy_for(kind: Any) -> st.SearchStrategy[Any]:
    """Return how to make up a field of a type."""
    plain = isinstance(kind, type) and not hasattr(kind, "__args__")
    name = kind.__name__ if plain else str(kind).replace("typing.", "")
    if name.endswith(" | None"):
        return st.none() | BY_TYPE[name.removesuffix(" | None")]
    return BY_TYPE[name]


def messages_of(kind: type[m.Message]) -> st.SearchStrategy[m.Message]:
    """Return how to make up messages of a class, from its fields."""
    travelling = field_names(kind)
    parts = {f.name: strategy_for(f.type) for f in fields(kind) if f.name in travelling}
    build: Callable[..., m.Message] = kind
    return st.builds(build, **parts)


@pytest.mark.parametrize("kind", m.MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_round_trip(kind: type[m.Message], data: st.DataObject) -> None:
    sent = data.draw(st.lists(messages_of(kind), min_size=1, max_size=2))
    assert m.decode_bundle(m.encode_bundle(sent)) == sent


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_anything_else_is_a_protocol_error(content: bytes) -> None:
    try:
        found = m.decode_bundle(content)
    except ProtocolError:
        return
    assert all(isinstance(message, m.MESSAGES) for message in found)


@given(
    st.lists(st.integers(2, 9), max_size=3).map(tuple), st.booleans(),
    st.lists(st.tuples(st.text(max_size=3), st.floats(0, 9)), max_size=2).map(tuple),
    st.integers(0, 5), st.integers(-5, 5),
)  # fmt: skip
def test_options_round_trip(
    workers: tuple[int, ...], others: bool, resources: tuple[tuple[str, float], ...],
    retries: int, priority: int,
) -> None:  # fmt: skip
    options = m.TaskOptions(workers, others, resources, retries, priority)
    assert m.TaskOptions.from_columns(options.to_columns()) == options
