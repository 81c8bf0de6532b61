"""A collection whose futures were cancelled, or whose tasks failed, can be persisted again."""

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import pandas as pd
import pytest

from mpicluster import futures_of, wait


def fail_unless_there(value, path):
    if not path.exists():
        raise ValueError("not yet")
    return value


def collections():
    return {
        "DataFrame": dd.from_pandas(pd.DataFrame({"x": range(10)}), npartitions=2) + 1,
        "Array": da.ones(10, chunks=5) + 1,
        "Bag": db.from_sequence([1, 2, 3], npartitions=2).map(str),
        "Delayed": dask.delayed(sum)([1, 2]),
    }


@pytest.mark.parametrize("kind", collections())
def test_after_cancel(client, kind):
    collection = collections()[kind]
    first = collection.persist()
    wait(first)
    client.cancel(first)
    second = collection.persist()
    wait(second)
    assert {future.status for future in futures_of(second)} == {"finished"}
    expected = collection.compute(scheduler="sync")
    assert str(second.compute()) == str(expected)


@pytest.mark.parametrize("kind", ["DataFrame", "Array", "Bag", "Delayed"])
def test_after_a_failed_task(client, kind, tmp_path):
    path = tmp_path / "there"
    made = collections()[kind]
    collection = {
        "DataFrame": lambda: made.map_partitions(fail_unless_there, path, meta=made._meta),
        "Array": lambda: made.map_blocks(fail_unless_there, path, dtype=made.dtype),
        "Bag": lambda: made.map(fail_unless_there, path),
        "Delayed": lambda: dask.delayed(fail_unless_there)(made, path),
    }[kind]()
    first = collection.persist()
    wait(first)
    assert "error" in {future.status for future in futures_of(first)}
    path.touch()
    second = collection.persist()
    wait(second)
    assert {future.status for future in futures_of(second)} == {"finished"}
    del first, second
