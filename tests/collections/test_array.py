"""Arrays on a client give what numpy gives."""

import warnings

import dask
import dask.array as da
import numpy as np
import pytest

from mpicluster import futures_of


@pytest.fixture
def x():
    return np.arange(400.0).reshape(20, 20)


@pytest.fixture
def a(x, client):
    return da.from_array(x, chunks=(6, 7))


def test_reductions(a, x):
    assert a.sum().compute() == x.sum()
    assert a.mean(axis=0).compute().tolist() == x.mean(axis=0).tolist()
    np.testing.assert_allclose(a.std(axis=1).compute(), x.std(axis=1))
    assert a.argmax().compute() == x.argmax()
    found = dask.compute(a.min(), a.max(), a.any(), da.median(a, axis=0))
    assert found[:3] == (x.min(), x.max(), True)


def test_elementwise_fused_and_transposed(a, x):
    found = ((a + a.T) ** 2)[::2, 1:].compute()
    np.testing.assert_array_equal(found, ((x + x.T) ** 2)[::2, 1:])
    assert (a + a.T)[::2].mean().compute() == (x + x.T)[::2].mean()


def test_rechunk(a, x):
    moved = a.rechunk((20, 2))
    assert moved.chunks[1] == (2,) * 10
    np.testing.assert_array_equal(moved.compute(), x)


def test_slicing_and_setting(a, x):
    np.testing.assert_array_equal(a[3:15, ::-2].compute(), x[3:15, ::-2])
    np.testing.assert_array_equal(a[[1, 5, 17]].compute(), x[[1, 5, 17]])
    np.testing.assert_array_equal(a[a > 200].compute(), x[x > 200])
    b = a.copy()
    b[2:4] = -1
    assert (b.compute()[2:4] == -1).all()


def test_linear_algebra(a, x):
    np.testing.assert_allclose((a @ a.T).compute(), x @ x.T)
    tall = da.random.default_rng(0).normal(size=(60, 4), chunks=(15, 4))
    q, r = da.linalg.qr(tall)
    found = dask.compute(q, r, tall)
    np.testing.assert_allclose(found[0] @ found[1], found[2])
    u, s, v = dask.compute(*da.linalg.svd(tall))
    np.testing.assert_allclose((u * s) @ v, found[2])


def test_solving(client, x):
    pytest.importorskip("scipy", reason="scipy is not installed")
    square = da.from_array(x @ x.T + np.eye(20) * 1e4, chunks=10)
    np.testing.assert_allclose((da.linalg.inv(square) @ square).compute(), np.eye(20), atol=1e-9)


def test_from_delayed(client, x):
    parts = [
        da.from_delayed(dask.delayed(lambda n: x[n : n + 5])(n), (5, 20), x.dtype)
        for n in range(0, 20, 5)
    ]
    np.testing.assert_array_equal(da.concatenate(parts).compute(), x)


def test_from_delayed_with_a_future(client, x):
    future = client.submit(lambda: x)
    a = da.from_delayed(future, x.shape, x.dtype)
    assert (a + 1).sum().compute() == (x + 1).sum()
    np.testing.assert_array_equal(a.compute(), x)


def test_map_blocks_knows_its_block(a, x):
    def where(block, block_info=None):
        start = block_info[0]["array-location"][0][0]
        return np.full_like(block, start)

    found = a.map_blocks(where, dtype=a.dtype).compute()
    assert found[:, 0].tolist() == [n - n % 6 for n in range(20)]


def test_map_overlap(a, x):
    def smooth(block):
        return (np.roll(block, 1, axis=0) + np.roll(block, -1, axis=0)) / 2

    found = a.map_overlap(smooth, depth=1, boundary="periodic").compute()
    np.testing.assert_allclose(found, smooth(x))


class FileTarget:
    """Something to store into that means the same file in every process."""

    def __init__(self, path, shape):
        self.path, self.shape, self.dtype = path, shape, np.dtype("f8")
        np.lib.format.open_memmap(path, mode="w+", dtype="f8", shape=shape)

    def __setitem__(self, place, values):
        np.load(self.path, mmap_mode="r+")[place] = values


def test_store_into_a_file(a, x, tmp_path):
    da.store(a, FileTarget(tmp_path / "x.npy", x.shape), lock=False)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), x)


def test_to_npy_stack(a, x, tmp_path):
    da.to_npy_stack(str(tmp_path / "stack"), a.rechunk((5, 20)))
    np.testing.assert_array_equal(da.from_npy_stack(str(tmp_path / "stack")).compute(), x)


def test_to_zarr_and_back(a, x, tmp_path):
    pytest.importorskip("zarr", reason="zarr is not installed")
    regular = a.rechunk((5, 5))
    regular.to_zarr(str(tmp_path / "x.zarr"))
    np.testing.assert_array_equal(da.from_zarr(str(tmp_path / "x.zarr")).compute(), x)


def test_persist_and_reuse(a, x, client):
    persisted = (a * 2).persist()
    assert len(futures_of(persisted)) == 12
    assert persisted.sum().compute() == 2 * x.sum()
    np.testing.assert_array_equal(persisted[:3].compute(), 2 * x[:3])
    again = (a * 2).persist()
    assert {f.key for f in futures_of(again)} == {f.key for f in futures_of(persisted)}


def test_a_large_array_is_scattered_once(client):
    x = np.ones((100, 125_000))  # 100 MB
    a = da.from_array(x, chunks=(25, 125_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert a.sum().compute() == x.sum()
        assert a[:, ::5].sum().compute() == x[:, ::5].sum()


def test_random_numbers_do_not_depend_on_the_cluster(client):
    a = da.random.default_rng(7).normal(size=(50, 4), chunks=10)
    here = a.compute(scheduler="sync")
    np.testing.assert_array_equal(a.compute(), here)


def test_xarray(client, x):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed")
    data = xarray.Dataset({"t": (("time", "place"), x)}, coords={"time": np.arange(20)})
    chunked = data.chunk({"time": 5})
    assert float(chunked.t.mean().compute()) == x.mean()
    persisted = (chunked + 1).persist()
    assert len(futures_of(persisted)) == 4
    np.testing.assert_array_equal(persisted.t.sum("place").load().values, (x + 1).sum(axis=1))
