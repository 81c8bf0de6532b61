"""DataFrames on a client give what pandas gives."""

import warnings

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from mpicluster import futures_of


@pytest.fixture
def pdf():
    numbers = np.arange(120)
    return pd.DataFrame({
        "key": np.array(["a", "b", "c"])[numbers % 3],
        "x": numbers * 0.5,
        "y": (numbers * 7) % 11,
    })  # fmt: skip


@pytest.fixture
def ddf(pdf, client):
    return dd.from_pandas(pdf, npartitions=6)


def same(found, expected):
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), expected.reset_index(drop=True), check_dtype=False
    )


def sorted_rows(frame):
    return frame.sort_values(list(frame.columns)).reset_index(drop=True)


def test_assign_and_arithmetic(ddf, pdf):
    same(ddf.assign(z=ddf.x**2 + ddf.y).compute(), pdf.assign(z=pdf.x**2 + pdf.y))


def test_groupby_agg(ddf, pdf):
    found = ddf.groupby("key").agg({"x": ["mean", "std"], "y": "max"}).compute()
    pd.testing.assert_frame_equal(
        found.sort_index(), pdf.groupby("key").agg({"x": ["mean", "std"], "y": "max"}),
        check_dtype=False, check_index_type=False,
    )  # fmt: skip


def test_groupby_apply_shuffles(ddf, pdf):
    def spread(group):
        return group.x.max() - group.x.min()

    found = ddf.groupby("key").apply(spread, meta=("x", "f8")).compute()
    expected = pdf.groupby("key").apply(spread)
    assert found.sort_index().tolist() == expected.sort_index().tolist()


def test_merge(ddf, pdf, client):
    right = pd.DataFrame({"y": np.arange(11), "name": [f"n{i}" for i in range(11)]})
    merged = ddf.merge(dd.from_pandas(right, npartitions=3), on="y", how="inner").compute()
    same(sorted_rows(merged), sorted_rows(pdf.merge(right, on="y")))


def test_merge_with_pandas(ddf, pdf):
    right = pd.DataFrame({"key": ["a", "b"], "weight": [1.0, 2.0]})
    merged = ddf.merge(right, on="key", how="left").compute()
    same(sorted_rows(merged), sorted_rows(pdf.merge(right, on="key", how="left")))


def test_shuffle_brings_equal_keys_together(ddf, pdf):
    shuffled = ddf.shuffle("y")
    parts = dask.compute(*shuffled.to_delayed())
    assert sum(len(part) for part in parts) == len(pdf)
    places = [set(part.y) for part in parts]
    assert sum(len(place) for place in places) == pdf.y.nunique()


def test_shuffle_uses_tasks(ddf):
    assert dask.config.get("dataframe.shuffle.method") == "tasks"


def test_set_index(ddf, pdf):
    found = ddf.set_index("x").compute()
    pd.testing.assert_frame_equal(found, pdf.set_index("x"), check_dtype=False)
    assert ddf.set_index("y").compute().index.tolist() == sorted(pdf.y)


def test_sort_values(ddf, pdf):
    same(ddf.sort_values("y").compute()[["y"]], pdf.sort_values("y")[["y"]])


def test_read_csv(client, pdf, tmp_path):
    for number in range(3):
        pdf[number * 40 : (number + 1) * 40].to_csv(tmp_path / f"part{number}.csv", index=False)
    ddf = dd.read_csv(str(tmp_path / "part*.csv"), blocksize=100)
    assert ddf.npartitions > 3
    same(ddf.compute(), pdf)


def test_to_parquet_and_back(ddf, pdf, tmp_path):
    ddf.to_parquet(str(tmp_path / "data"))
    assert len(list((tmp_path / "data").glob("*.parquet"))) == 6
    back = dd.read_parquet(str(tmp_path / "data"))
    same(back.compute(), pdf)
    same(back[back.y > 5][["x"]].compute(), pdf[pdf.y > 5][["x"]])


def test_from_delayed(client, pdf):
    parts = [dask.delayed(lambda part: part)(pdf[n : n + 30]) for n in range(0, 120, 30)]
    same(dd.from_delayed(parts, meta=pdf[:0]).compute(), pdf)


def test_from_delayed_with_futures(client, pdf):
    futures = client.map(lambda n: pdf[n : n + 30], range(0, 120, 30))
    ddf = dd.from_delayed(futures, meta=pdf[:0])
    assert ddf.x.sum().compute() == pdf.x.sum()
    same(ddf.compute(), pdf)


def test_persist_returns_partitions_on_workers_and_is_reused(ddf, pdf, client):
    persisted = ddf.assign(z=ddf.x + 1).persist()
    futures = futures_of(persisted)
    assert len(futures) == 6
    assert persisted.z.sum().compute() == (pdf.x + 1).sum()
    holders = client.who_has(futures)
    assert len(holders) == 6
    assert {rank for ranks in holders.values() for rank in ranks} <= {2, 3}
    done = client.scheduler_info()["prefixes"]
    assert persisted.z.max().compute() == (pdf.x + 1).max()
    same(persisted.head(5), pdf.assign(z=pdf.x + 1)[:5])
    again = client.scheduler_info()["prefixes"]
    made = [prefix for prefix in done if "assign" in prefix]
    assert sum(done[prefix]["finished"] for prefix in made) >= 6
    assert all(again[prefix]["finished"] == done[prefix]["finished"] for prefix in made)


def test_persist_twice_shares_keys(ddf, client):
    first = ddf.assign(z=ddf.x + 1).persist()
    second = ddf.assign(z=ddf.x + 1).persist()
    assert {f.key for f in futures_of(first)} == {f.key for f in futures_of(second)}
    assert len(futures_of(first)) == 6
    del first
    assert len(second) == 120


def test_persist_of_persisted(ddf, pdf):
    twice = ddf.persist().persist()
    assert len(futures_of(twice)) == 6
    assert twice.x.sum().compute() == pdf.x.sum()


def test_head_tail_and_len(ddf, pdf):
    same(ddf.head(7), pdf.head(7))
    same(ddf.tail(7), pdf.tail(7))
    assert len(ddf) == 120


def test_map_partitions(ddf, pdf):
    found = ddf.map_partitions(lambda part: part.assign(n=len(part))).compute()
    assert found.n.tolist() == [20] * 120


def test_nunique_and_value_counts(ddf, pdf):
    assert ddf.y.nunique().compute() == 11
    found = ddf.key.value_counts().compute()
    assert {str(k): v for k, v in found.items()} == {"a": 40, "b": 40, "c": 40}


def test_rolling(ddf, pdf):
    found = ddf.x.rolling(5).mean().compute()
    pd.testing.assert_series_equal(found, pdf.x.rolling(5).mean())


def test_categorical(ddf, pdf):
    found = ddf.categorize("key")
    assert sorted(found.key.cat.categories) == ["a", "b", "c"]
    sums = found.groupby("key", observed=False).y.sum().compute()
    assert sums.sort_index().tolist() == pdf.groupby("key").y.sum().tolist()


def test_describe_quantile_and_cumsum(ddf, pdf):
    assert ddf.x.describe().compute()["max"] == pdf.x.max()
    assert ddf.x.cumsum().compute().tolist() == pdf.x.cumsum().tolist()


def test_concat_join_and_repartition(ddf, pdf):
    same(dd.concat([ddf, ddf]).compute(), pd.concat([pdf, pdf]))
    assert ddf.repartition(npartitions=2).map_partitions(len).compute().tolist() == [60, 60]


@pytest.mark.filterwarnings("ignore:'d' is deprecated")
def test_timeseries(client):
    ddf = dask.datasets.timeseries(
        start="2000-01-01", end="2000-01-11", freq="1h", partition_freq="2d"
    )
    ddf = ddf.assign(x2=ddf.x**2).persist()
    assert ddf.npartitions == 5
    assert ddf.groupby("name").x2.mean().compute().between(0, 1).all()


def test_a_large_partition_is_scattered(small_limit):
    """Or the graph would hold it, and the client warn of that."""
    frame = pd.DataFrame({"x": np.arange(800_000.0)})
    ddf = dd.from_pandas(frame, npartitions=2)  # over 3 MB each
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert ddf.x.sum().compute() == frame.x.sum()


def test_a_class_may_be_a_literal_in_the_graph(ddf, pdf, client):
    assert abs(ddf.y.quantile(0.5).compute() - pdf.y.quantile(0.5)) <= 1
