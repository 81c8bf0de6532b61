"""What happens between a DataFrame and the workers that compute it?

A walk through Dask's architecture in eight steps, with mpicluster in the place of distributed:

    python scripts/walkthrough.py                                a cluster on this machine
    mpirun -n 5 python -m mpicluster scripts/walkthrough.py      the ranks of an MPI job

Ends with status 0 if the workers' aggregate is the one that pandas finds on one process.
"""

import sys
import time
from shutil import get_terminal_size
from typing import Any

import dask
import dask.datasets
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from mpicluster import Client, progress

#: Plain text that reads the same in a terminal and in a log, which has no width of its own.
console = Console(width=get_terminal_size((100, 24)).columns, highlight=False, color_system=None)
#: Relative difference that adding in another order may make.
TOLERANCE = 1e-9


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


def mib(nbytes: float) -> str:
    return f"{nbytes / 2**20:.1f} MiB"


def make_frame() -> Any:
    title("1. The data: a DataFrame of partitions")
    frame = dask.datasets.timeseries(partition_freq="6d", seed=2026)
    frame = frame.assign(x_squared=frame.x**2)
    say(
        "A month of random measurements, one per second. dask.dataframe cuts it into partitions "
        "of six days, each of which will be a pandas DataFrame. Nothing is computed yet: the "
        "frame is a graph of tasks, one per partition, each making its rows and squaring x."
    )
    console.print()
    print(frame)
    return frame


def show_cluster(client: Client) -> None:
    title("2. The cluster and the client")
    say(
        "The client, in this script, sends tasks to the scheduler; the scheduler decides which "
        "worker runs which; each worker runs as many tasks at a time as it has slots."
    )
    console.print()
    print(client.cluster)
    print(client)


def persist(client: Client, frame: Any) -> Any:
    title("3. persist: the workers compute, the script goes on")
    start = time.perf_counter()
    kept = frame.persist()
    returned_ms = (time.perf_counter() - start) * 1000
    say(
        f"persist returned after {returned_ms:.1f} ms with a frame whose partitions are futures. "
        "The workers have just begun."
    )
    show_processing(client, kept)
    progress(kept)
    say(f"All partitions were in the workers' memory after {time.perf_counter() - start:.1f} s.")
    return kept


def show_processing(client: Client, kept: Any) -> None:
    """Print who works on what, as soon as the scheduler has given the tasks out."""
    tasks: dict[int, list[Any]] = {}
    give_up = time.monotonic() + 10
    while not any(tasks.values()) and time.monotonic() < give_up:
        tasks = client.processing()
        if any(client.who_has(kept).values()):
            break
    say("client.processing() now: which worker has been given which tasks.")
    found = table("worker", "tasks")
    for rank in sorted(client.nthreads()):
        numbers = sorted(number for _, number in tasks.get(rank, []))
        found.add_row(f"rank {rank}", ", ".join(f"partition {n}" for n in numbers) or "none")
    console.print(found)
    say(
        "There are more partitions than slots. A worker may be given one more than it can run, so "
        "that it never waits for the scheduler; if it falls behind, the task goes to another."
    )


def show_values(client: Client, kept: Any) -> None:
    title("4. Which worker has which partition")
    say(
        "Values stay where they were computed; the scheduler knows where each one is. Tasks that "
        "use a partition will go to the worker that holds it."
    )
    who_has, nbytes = client.who_has(kept), client.nbytes(kept, summary=False)
    say("client.who_has(frame): which workers hold each partition.")
    found = table("partition", "workers", "size.")
    for key in sorted(who_has):
        ranks = ", ".join(f"rank {rank}" for rank in sorted(who_has[key]))
        found.add_row(str(key[1]), ranks, mib(nbytes[key]))
    console.print(found)
    say("client.has_what(): which partitions each worker holds.")
    found = table("worker", "partitions", "size.")
    for rank, keys in sorted(client.has_what().items()):
        held = [key for key in keys if key in nbytes]
        numbers = ", ".join(str(number) for _, number in sorted(held))
        found.add_row(f"rank {rank}", numbers or "none", mib(sum(nbytes[key] for key in held)))
    console.print(found)


def show_head(kept: Any) -> None:
    title("5. head: the first rows come to the script")
    start = time.perf_counter()
    rows = kept.head()
    elapsed_ms = (time.perf_counter() - start) * 1000
    say(f"Only five rows of the first partition travel, in {elapsed_ms:.1f} ms.")
    console.print()
    print(rows.to_string())


def aggregate(kept: Any) -> Any:
    title("6. An aggregate across the workers")
    start = time.perf_counter()
    result = summarize(kept).compute().sort_index()
    elapsed_s = time.perf_counter() - start
    say(
        "Each worker groups its own partitions; only these small tables move, to the worker that "
        f"adds them up. {int(result['count'].sum()):,} rows became {len(result)} in "
        f"{elapsed_s:.2f} s. The first five names:"
    )
    found = table("name", "rows.", "mean of x².", "standard deviation.")
    for name, row in result.head().iterrows():
        found.add_row(
            str(name), f"{int(row['count']):,}", f"{row['mean']:.6f}", f"{row['std']:.6f}"
        )
    console.print(found)
    return result


def summarize(frame: Any) -> Any:
    """Return count, mean and deviation of x squared by name; for dask and for pandas."""
    return frame.groupby("name").x_squared.agg(["count", "mean", "std"])


def check(frame: Any, result: Any) -> bool:
    title("7. The same with pandas alone")
    say("This process makes all partitions by itself, without the cluster, and compares.")
    expected = summarize(frame.compute(scheduler="synchronous")).sort_index()
    same = list(map(str, result.index)) == list(map(str, expected.index)) and np.allclose(
        result.to_numpy(), expected.to_numpy(), rtol=TOLERANCE, atol=0
    )
    say(
        f"All {len(expected)} names agree to {TOLERANCE:g}."
        if same
        else "The aggregates differ: the workers' result is not that of pandas."
    )
    return same


def show_versions(client: Client) -> None:
    title("8. The same packages everywhere")
    versions = client.get_versions(check=True)
    say("get_versions(check=True) raises an error if a worker runs other versions than the client.")
    found = table("package", "client", "scheduler", "workers")
    for package, version in versions["client"].items():
        others = sorted({worker[package] for worker in versions["workers"].values()})
        found.add_row(package, version, versions["scheduler"][package], ", ".join(others))
    console.print(found)


def main() -> int:
    """Take the walk; return the exit status."""
    start = time.perf_counter()
    frame = make_frame()
    # In an MPI job the client uses the job's workers; alone it starts three on this machine.
    with Client(n_workers=3) as client:
        show_cluster(client)
        kept = persist(client, frame)
        show_values(client, kept)
        show_head(kept)
        result = aggregate(kept)
        same = check(frame, result)
        show_versions(client)
    console.print()
    if not same:
        say("Walkthrough failed: the aggregates differ.")
        return 1
    say(f"All steps took {time.perf_counter() - start:.1f} s.")
    say("Walkthrough finished.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
