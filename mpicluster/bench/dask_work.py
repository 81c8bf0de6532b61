"""What do dask's collections cost on a client?

dask and xarray are imported inside, as they may be missing.
"""

import time
from importlib.util import find_spec
from typing import Any, Final

from mpicluster.bench.backends import COLLECTIONS, Backend
from mpicluster.bench.case import Case, LeftOut

#: Hours in a partition of the frames, and the seconds between their rows.
PARTITION: Final = "1h"
ROW_INTERVAL: Final = "1s"
#: Rows of the frames that are joined are rarer: each finds hundreds in the other frame.
JOIN_ROW_INTERVAL: Final = "10s"
#: Rows and columns of a chunk.
CHUNK: Final = 100
#: {chunks of the grid of 25 by 53 points: points that a chunk has each way}.
XARRAY_EDGES: Final = {3: 25, 55: 5}


def _timeseries(partitions: int, interval: str, seed: int) -> Any:
    import pandas as pd
    from dask.datasets import timeseries

    end = pd.Timestamp("2000-01-01") + pd.Timedelta(hours=partitions)
    return timeseries(
        start="2000-01-01", end=str(end), freq=interval, partition_freq=PARTITION, seed=seed
    )


def _seconds_of(collection: Any) -> float:
    start = time.perf_counter()
    collection.compute()
    return time.perf_counter() - start


def measure_groupby(_backend: Backend, size: int) -> float:
    """Seconds of a mean by name."""
    return _seconds_of(_timeseries(size, ROW_INTERVAL, 0).groupby("name")["x"].mean())


def measure_join(_backend: Backend, size: int) -> float:
    """Seconds of a join on a column, which moves all rows."""
    left = _timeseries(size, JOIN_ROW_INTERVAL, 0)[["id", "x"]]
    right = _timeseries(size, JOIN_ROW_INTERVAL, 1)[["id", "y"]]
    return _seconds_of(left.merge(right, on="id")["y"].sum())


def measure_array(_backend: Backend, size: int) -> float:
    """Seconds of `(a + a.T)[::2].mean()`; `size` is the number of chunks."""
    import dask.array as da

    edge = round(size**0.5) * CHUNK
    a = da.random.default_rng(0).random((edge, edge), chunks=(CHUNK, CHUNK))
    return _seconds_of((a + a.T)[::2].mean())


def measure_xarray(_backend: Backend, size: int) -> float:
    """Seconds of anomalies from a weekly mean; `size` is the number of chunks."""
    if find_spec("xarray") is None:
        raise LeftOut("xarray is not installed")
    import dask.array as da
    import pandas as pd
    import xarray as xr

    edge = XARRAY_EDGES[size]
    times = pd.date_range("2013-01-01", periods=2920, freq="6h")
    values = da.random.default_rng(0).random((2920, 25, 53), chunks=(2920, edge, edge))
    air = xr.DataArray(values, {"time": times}, ["time", "lat", "lon"])
    weeks = air.groupby(air.time.dt.isocalendar().week)
    return _seconds_of((weeks - weeks.mean()).sum())


_NEEDS = frozenset({COLLECTIONS})
CASES: Final = (
    Case("groupby", "dask.dataframe: groupby, mean", "s", measure_groupby,
         {"tiny": (3,), "quick": (240,), "all": (240,)}, "partitions", _NEEDS),
    Case("join", "dask.dataframe: join on a column", "s", measure_join,
         {"tiny": (2,), "all": (24,)}, "partitions", _NEEDS),
    Case("array", "dask.array: (a + a.T)[::2].mean()", "s", measure_array,
         {"tiny": (4,), "quick": (1600,), "all": (1600,)}, "chunks", _NEEDS),
    Case("xarray", "xarray: anomalies from a weekly mean", "s", measure_xarray,
         {"all": tuple(XARRAY_EDGES)}, "chunks", _NEEDS),
)  # fmt: skip
