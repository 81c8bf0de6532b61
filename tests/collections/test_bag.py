"""Bags on a client give what lists give."""

import operator
import warnings

import dask.bag as db
import pytest

from mpicluster import futures_of


def is_even(number):
    return number % 2 == 0


@pytest.fixture
def bag(client):
    return db.from_sequence(range(30), npartitions=5)


def test_map_filter_and_take(bag):
    assert bag.map(lambda n: n * n).filter(is_even).compute() == [n * n for n in range(0, 30, 2)]
    assert bag.take(4) == (0, 1, 2, 3)


def test_fold_and_reductions(bag):
    assert bag.fold(operator.add).compute() == 435
    assert bag.sum().compute() == 435
    assert bag.foldby(is_even, operator.add, 0, operator.add, 0).compute() == [
        (True, 210),
        (False, 225),
    ]
    assert bag.topk(2).compute() == [29, 28]


def test_groupby(bag):
    found = {name: sorted(group) for name, group in bag.groupby(is_even).compute()}
    assert found == {True: list(range(0, 30, 2)), False: list(range(1, 30, 2))}


def test_product(bag):
    small = db.from_sequence([1, 2], npartitions=2)
    assert sorted(small.product(small).compute()) == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_frequencies_distinct_and_join(bag):
    letters = db.from_sequence("abcab", npartitions=2)
    assert dict(letters.frequencies().compute()) == {"a": 2, "b": 2, "c": 1}
    assert sorted(letters.distinct().compute()) == ["a", "b", "c"]
    assert sorted(bag.join([1, 2], lambda n: n % 3, lambda n: n).compute())[:2] == [(1, 1), (1, 4)]


def test_read_and_write_text(client, tmp_path):
    db.from_sequence(["a", "b", "c"], npartitions=3).to_textfiles(str(tmp_path / "*.txt"))
    assert db.read_text(str(tmp_path / "*.txt")).str.strip().compute() == ["a", "b", "c"]


def test_to_dataframe(bag):
    frame = bag.map(lambda n: {"n": n, "even": is_even(n)}).to_dataframe()
    assert frame[frame.even].n.sum().compute() == 210


def test_from_delayed_with_futures(client):
    futures = client.map(lambda n: [n] * 2, [1, 2, 3])
    assert db.from_delayed(futures).sum().compute() == 12


def test_persist_and_reuse(bag):
    squares = bag.map(lambda n: n * n).persist()
    assert len(futures_of(squares)) == 5
    assert squares.max().compute() == 29 * 29
    assert squares.count().compute() == 30


def test_a_large_literal_is_scattered(small_limit):
    """Or the graph would hold it, and the client warn of that."""
    texts = ["x" * 100_000 + str(n) for n in range(30)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        lengths = db.from_sequence(texts, npartitions=2).map(len)
        assert lengths.sum().compute() == sum(map(len, texts))
