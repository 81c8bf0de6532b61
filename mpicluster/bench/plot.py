"""How do the figures look as pictures? Cost against size, one line per contender."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpicluster.bench.catalogue import title_of
from mpicluster.bench.outputs import BARS, PANELS
from mpicluster.bench.rows import Row, unique

WIDTH, HEIGHT = 5.0, 3.6


def draw(path: Path, rows: Sequence[Row], scale: Sequence[Any] = ()) -> bool:
    """Write a picture if there is anything to draw; the name's ending says in which format."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [name for name in PANELS if len(_sizes(rows, name)) > 1]
    points = [row for row in scale if row.steps]
    bars = [row for row in rows if row.case.startswith(BARS) and row.values]
    count = len(panels) + bool(points) + bool(bars)
    if not count:
        return False
    columns = min(2, count)
    lines = -(-count // columns)
    # Equal figures give an equal file.
    with mpl.rc_context({"svg.hashsalt": "mpicluster", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(WIDTH * columns, HEIGHT * lines), layout="constrained")
        FigureCanvasAgg(figure)
        axes = [figure.add_subplot(lines, columns, number + 1) for number in range(count)]
        for name in panels:
            _draw_case(axes.pop(0), name, rows)
        if bars:
            _draw_metg(axes.pop(0), bars)
        if points:
            _draw_scale(axes.pop(0), points)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        figure.savefig(path, metadata=metadata)
    return True


def _sizes(rows: Sequence[Row], case: str) -> list[int]:
    return unique([row.size for row in rows if row.case == case and row.values])


def _draw_case(axis: Any, name: str, rows: Sequence[Row]) -> None:
    found = [row for row in rows if row.case == name and row.values]
    for contender in unique([row.contender for row in found]):
        own = sorted((row for row in found if row.contender == contender), key=lambda r: r.size)
        medians = [row.median for row in own]
        below = [row.median - min(row.values) for row in own if row.median is not None]
        above = [max(row.values) - row.median for row in own if row.median is not None]
        axis.errorbar(
            [row.size for row in own], medians, [below, above], label=contender, marker="o",
            markersize=3, linewidth=1, capsize=2,
        )  # fmt: skip
    axis.set(
        title=title_of(name), xlabel=found[0].size_unit, ylabel=found[0].unit, xscale="log",
        yscale="log",
    )  # fmt: skip
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


def _draw_metg(axis: Any, rows: Sequence[Row]) -> None:
    names = unique([row.case for row in rows])
    contenders = unique([row.contender for row in rows])
    height = 0.8 / len(contenders)
    for place, contender in enumerate(contenders):
        own = [row for row in rows if row.contender == contender]
        at = [names.index(row.case) + place * height for row in own]
        axis.barh(at, [row.median for row in own], height, label=contender)
    axis.set_yticks(range(len(names)), [name.removeprefix(BARS) for name in names])
    axis.invert_yaxis()
    axis.set(title="METG(50 %) by pattern", xlabel="µs", xscale="log")
    axis.legend(fontsize=7)


def _draw_scale(axis: Any, rows: Sequence[Any]) -> None:
    for graph in unique([row.graph for row in rows]):
        own = [row for row in rows if row.graph == graph]
        tasks = max(own, key=lambda row: sum(r.tasks == row.tasks for r in own)).tasks
        line = sorted((row for row in own if row.tasks == tasks), key=lambda row: row.workers)
        axis.plot(
            [row.workers for row in line], [row.us_per_task for row in line], marker="o",
            markersize=3, label=graph,
        )  # fmt: skip
    axis.set(
        title="scheduler alone", xlabel="simulated workers", ylabel="µs/task", xscale="log",
        ylim=(0, None),
    )  # fmt: skip
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
