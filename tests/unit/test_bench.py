"""Are the figures of the benchmark put together rightly, and is the work what it says?"""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mpicluster.bench import catalogue, graphs, patterns, plot, report, scale
from mpicluster.bench.backends import GRAPHS, Backend
from mpicluster.bench.case import LEVELS, Case, LeftOut, choose
from mpicluster.bench.graphs import Graph
from mpicluster.bench.measuring import make_plan, measure
from mpicluster.bench.program import Request, write
from mpicluster.bench.rows import Row
from mpicluster.cli.main import USAGE_STATUS, main
from mpicluster.errors import MpiclusterError

ABOUT = {
    "date": "2026-01-01 00:00 UTC", "mpicluster": "0.1", "commit": "abc", "machine": "a machine",
    "cores": 2, "memory_gb": 8, "system": "Linux", "load_before": 0.1, "python": "3.12",
    "packages": {"numpy": "2"}, "cluster": "2 workers", "absent": {"ray": "not installed"},
}  # fmt: skip
ROWS = [
    Row("mpicluster", "map", 1000, "µs/task", [9.0, 8.0, 14.0]),
    Row("mpicluster", "map", 100, "µs/task", [10.0]),
    Row("mpicluster", "fetch", 200_000_000, "ms", [20.0], size_unit="bytes"),
    Row("raw MPI", "fetch", 200_000_000, "ms", [16.0], size_unit="bytes"),
    Row("raw MPI", "fetch", 1000, "ms", [], "left out: no time", "bytes"),
]


class Direct(Backend):
    """Computes at once, in this process."""

    name = "direct"
    abilities = frozenset({GRAPHS})

    def map(self, function: Callable[..., Any], items: Sequence[Any]) -> Any:
        return [function(item) for item in items]

    def gather(self, futures: Any) -> list[Any]:
        return list(futures)

    def submit(self, function: Callable[..., Any], *args: Any, place: Any = None) -> Any:
        return function(*args)

    def result(self, future: Any) -> Any:
        return future

    def get(self, graph: Graph) -> Any:
        values: list[Any] = []
        for task in graph.tasks:
            inputs = [values[place] for place in task.dependencies]
            values.append(task.function(*task.literals, *inputs))
        return values[-1]


# --- rows and tables -------------------------------------------------------------------------


def test_a_row_has_median_and_range() -> None:
    found = ROWS[0].to_dict()
    assert (found["median"], found["low"], found["high"]) == (9.0, 8.0, 14.0)
    assert ROWS[4].median is None
    assert Row.from_dict(found) == ROWS[0]


def test_the_table_has_a_line_per_size_and_a_column_per_contender() -> None:
    header, lines = report.make_table(ROWS)
    assert header == ["case", "size", "unit", "mpicluster", "raw MPI"]
    assert lines == [
        ["map", "100 tasks", "µs/task", "10", "-"],
        ["map", "1 000 tasks", "µs/task", "9 (8 to 14)", "-"],
        ["fetch", "1 kB", "ms", "-", "-"],
        ["fetch", "200 MB", "ms", "20 (10 GB/s)", "16 (12.5 GB/s)"],
    ]


def test_reports_say_where_and_what_is_missing() -> None:
    page = report.markdown_report(ABOUT, ROWS, plot="a.svg")
    for text in (report.text_report(ABOUT, ROWS), page):
        for part in ("abc", "a machine", "2 workers", "ray: not installed", "left out: no time"):
            assert part in text
    assert "![Cost against size](a.svg)" in page


def test_json_keeps_every_run(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    report.write_json(path, ABOUT, ROWS)
    assert report.read_rows(path) == (ABOUT, ROWS)
    assert json.loads(path.read_text())["rows"][0]["values"] == [9.0, 8.0, 14.0]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["svg", "png"])
def test_plot(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plot.{ending}"
    assert plot.draw(path, ROWS, [scale.measure("map", 4, 50)])
    assert path.stat().st_size > 1000


# --- what is measured ------------------------------------------------------------------------


def test_a_wrong_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(MpiclusterError, match=r"no benchmark mop\..*known are .*map,"):
        choose(catalogue.CASES, "quick", ["mop"])


def test_the_command_refuses_a_wrong_name_before_it_starts_ranks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bench", "-n", "4", "--only", "mop"]) == USAGE_STATUS
    assert "There is no benchmark mop." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--json", "{}/none/x.json"], "--json was given .*/none/x.json, which cannot be written"),
        (["--markdown", "{}"], "--markdown was given .*, which cannot be written: Is a directory"),
        (["--scale", "--json", "{}/none/x.json"], "which cannot be written: No such file"),
        (["--plot", "{}/x.foo"], "--plot was given .*/x.foo, whose ending names no kind of pict"),
        (["--plot", "{}/x.svg", "--only", "latency"], "nothing would be in it for latency"),
        (["--plot", "{}/x.svg", "--tiny"], "nothing would be in it for the cases of --tiny"),
    ],
)
def test_files_that_cannot_be_written_are_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    filled = [word.format(tmp_path) for word in words]
    assert main(["bench", "-n", "4", "--dry-run", *filled]) == USAGE_STATUS
    assert re.search(sentence, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_files_are_looked_at_and_left_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "old.json").write_text("before")
    words = ["--json", f"{tmp_path}/old.json", "--plot", f"{tmp_path}/new.PDF"]
    assert main(["bench", "-n", "4", "--dry-run", *words]) == 0, capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "before"


def test_a_plot_with_nothing_in_it_is_spoken_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    request = Request(plot=f"{tmp_path}/x.svg", markdown=f"{tmp_path}/x.md")
    write(request, ABOUT, ROWS[:1])
    assert "x.svg: a plot shows cases that are measured at several" in capsys.readouterr().err
    assert "x.svg" not in (tmp_path / "x.md").read_text()


def test_names_are_different_and_levels_known() -> None:
    names = [case.name for case in catalogue.CASES]
    assert len(set(names)) == len(names)
    assert all(set(case.sizes) <= set(LEVELS) for case in catalogue.CASES)


def test_what_cannot_be_measured_says_why_and_the_rest_goes_on() -> None:
    def left_out(_backend: Backend, _size: int) -> float:
        raise LeftOut("no reason")

    def failing(_backend: Backend, _size: int) -> float:
        raise ValueError("broken\nlong")

    sizes = {"quick": (1, 2)}
    cases = [
        Case("a", "", "s", lambda _backend, size: size, sizes, runs_max=2),
        Case("b", "", "s", left_out, sizes),
        Case("c", "", "s", failing, sizes),
        Case("d", "", "s", failing, sizes, needs=frozenset({"wings"})),
    ]
    shown: list[Row] = []
    rows = measure(Direct(), cases, make_plan("quick", 5), shown.append)
    assert rows == shown
    assert [(row.case, row.size, row.values, row.note) for row in rows] == [
        ("a", 1, [1, 1], ""),
        ("a", 2, [2, 2], ""),
        ("b", 1, [], "left out: no reason"),
        ("b", 2, [], "left out: no reason"),
        ("c", 1, [], "failed: ValueError: broken"),
    ]


def test_what_no_time_is_left_for_says_so() -> None:
    case = Case("a", "", "s", lambda _backend, size: size, {"all": (1, 2)})
    assert make_plan("all", None, 2).seconds == 120
    plan = replace(make_plan("all", 3, 1), seconds=0.0)
    rows = measure(Direct(), [case], plan, lambda _row: None)
    assert [row.note for row in rows] == ["left out: the time for the whole is over"] * 2


@pytest.mark.parametrize(
    ("unit", "sizes", "left_out"),
    [("tasks", (1, 1000), 1), ("bytes", (1, 1000), 0), ("bytes", (1000, 10**9), 1)],
)
def test_a_size_that_would_take_too_long_is_left_out(
    unit: str, sizes: tuple[int, ...], left_out: int
) -> None:
    def measure_size(_backend: Backend, size: int) -> float:
        time.sleep(0.01)
        return size

    case = Case("a", "", "s", measure_size, {"all": sizes}, unit)
    rows = measure(Direct(), [case], replace(make_plan("all", 1), run_s_max=1.0), lambda _row: None)
    assert [bool(row.note) for row in rows] == [False, bool(left_out)]


def test_the_work_gives_the_right_results() -> None:
    """Each case checks its result, so a case that ends has done its work."""
    cases = [case for case in catalogue.CASES if case.name in ("map", "latency", "merge", "tree")]
    rows = measure(Direct(), cases, make_plan("tiny", 1), lambda _row: None)
    assert [len(row.values) for row in rows] == [1, 1, 1, 1]


@pytest.mark.parametrize("name", patterns.PATTERNS)
@pytest.mark.parametrize("width", [1, 4, 7])
def test_a_pattern_gives_each_task_the_inputs_that_it_expects(name: str, width: int) -> None:
    graph = patterns.make_graph(patterns.PATTERNS[name], width, 10, 0.0)
    assert Direct().get(graph) == graph.expected


def test_metg_is_where_the_efficiency_crosses_one_half() -> None:
    assert patterns.interpolate_metg([(1.0, 0.2), (10.0, 0.8), (5.0, 0.4)]) == pytest.approx(6.25)
    assert patterns.interpolate_metg([(1.0, 0.2), (2.0, 0.4)]) is None


def test_graphs_as_dask_writes_them() -> None:
    plain, wanted = graphs.merge(3).to_dict("p")
    assert wanted == ("p", 3)
    assert plain[wanted][1:] == (("p", 0), ("p", 1), ("p", 2))
    assert graphs.tree(6).expected == 15
    assert Direct().get(graphs.tree(6)) == 15


@pytest.mark.parametrize("graph", ["map", "merge", "tree"])
def test_the_simulated_cluster_comes_to_its_end(graph: str) -> None:
    row = scale.measure(graph, 5, 5000)
    assert set(row.steps) == set(scale.STEPS)
    assert row.us_per_task > 0
    assert row.cells()["workers"] == "5"
