"""How do figures become a table, as text, as Markdown and as JSON?"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from mpicluster.bench.catalogue import CASES, title_of
from mpicluster.bench.rows import Row, find, unique

#: What a cell shows where nothing was measured.
NOTHING: Final = "-"
#: Sizes from here on are also shown as a rate.
RATE_BYTES_MIN: Final = 1_000_000
_UNITS: Final = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB"))


def format_number(value: float) -> str:
    """Return a figure with three digits.

    >>> format_number(0.01234), format_number(9.876), format_number(1234.5)
    ('0.0123', '9.88', '1230')
    """
    if value == 0:
        return "0"
    digits = f"{value:.3g}"
    return f"{float(digits):.0f}" if "e" in digits and abs(value) >= 1 else digits


def format_size(size: int, unit: str) -> str:
    """Return what a size counts.

    >>> format_size(20000, "tasks"), format_size(200_000_000, "bytes")
    ('20 000 tasks', '200 MB')
    """
    if unit == "bytes":
        for factor, name in _UNITS:
            if size >= factor:
                return f"{size / factor:g} {name}"
        return f"{size} B"
    return f"{size:,} {unit}".replace(",", " ")


def format_cell(row: Row | None) -> str:
    """Return the median, the rate of large values, and the range of several runs."""
    if row is None or row.median is None:
        return NOTHING if row is None or not row.note.startswith("failed") else "failed"
    text = format_number(row.median)
    details = []
    if row.unit == "ms" and row.size_unit == "bytes" and row.size >= RATE_BYTES_MIN:
        details.append(f"{format_number(row.size / row.median / 1e6)} GB/s")
    if len(row.values) > 1:
        low, high = format_number(min(row.values)), format_number(max(row.values))
        details.append(f"{low} to {high}")
    return text + (f" ({'; '.join(details)})" if details else "")


def make_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the lines: one per case and size, one column per contender."""
    contenders = unique([row.contender for row in rows])
    order = {case.name: place for place, case in enumerate(CASES)}
    lines = []
    places = unique([(row.case, row.size, row.unit, row.size_unit) for row in rows])
    for case, size, unit, size_unit in sorted(
        places, key=lambda place: (order.get(place[0], len(order)), place[1])
    ):
        cells = [format_cell(find(rows, contender, case, size)) for contender in contenders]
        lines.append([case, format_size(size, size_unit), unit, *cells])
    return ["case", "size", "unit", *contenders], lines


def to_text(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table with aligned columns.

    >>> print(to_text(["case", "here"], [["map", "9.1"], ["latency", "150"]]))
    case     here
    map      9.1
    latency  150
    """
    table = [header, *lines]
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def to_markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    body = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in body)


def notes(rows: Sequence[Row]) -> list[str]:
    """Return one sentence for every row without a figure."""
    return [
        f"{row.contender}, {row.case}, {format_size(row.size, row.size_unit)}: {row.note}"
        for row in rows
        if row.note
    ]


def about_lines(about: dict[str, Any]) -> list[str]:
    """Return machine, ranks, versions, date and commit as sentences."""
    lines = [
        f"{about['date']}, mpicluster {about['mpicluster']}"
        + (f", commit {about['commit']}" if about.get("commit") else ""),
        f"{about['machine']}, {about['cores']} cores, {about['memory_gb']} GB, {about['system']}; "
        f"load before the run {about['load_before']}",
        f"Python {about['python']}"
        + "".join(f", {name} {version}" for name, version in about["packages"].items()),
    ]
    if about.get("cluster"):
        lines.append(about["cluster"])
    lines += [f"{name}: {text}" for name, text in about.get("absent", {}).items()]
    return lines


def text_report(about: dict[str, Any], rows: Sequence[Row], scale: Sequence[Any] = ()) -> str:
    """Return everything for a terminal."""
    return _report(about, rows, scale, to_text, "{}", "\n".join)


def markdown_report(
    about: dict[str, Any], rows: Sequence[Row], scale: Sequence[Any] = (), plot: str = ""
) -> str:
    """Return everything as a page; `plot` is the name of a picture beside it."""
    picture = f"![Cost against size]({plot})\n\n" if plot else ""
    head = (
        "# Measured figures\n\nWritten by `scripts/bench`. What is measured, and what limits it: "
        "[performance.md](../performance.md).\nMedians, and the lowest and highest of all runs.\n"
    )
    body = _report(
        about, rows, scale, to_markdown, "## {}\n",
        lambda lines: "\n".join(f"- {line}" for line in lines),
    )  # fmt: skip
    return f"{head}\n{picture}{body}\n"


def _report(
    about: dict[str, Any],
    rows: Sequence[Row],
    scale: Sequence[Any],
    table: Callable[[Sequence[str], Sequence[Sequence[str]]], str],
    heading: str,
    listing: Callable[[list[str]], str],
) -> str:
    parts = [heading.format("Where"), listing(about_lines(about))]
    if rows:
        names = unique([row.case for row in rows])
        parts += ["", heading.format("Figures"), table(*make_table(rows)), ""]
        parts += [heading.format("Cases"), listing([f"{n}: {title_of(n)}" for n in names])]
    if scale:
        header = list(scale[0].cells())
        lines = [list(found.cells().values()) for found in scale]
        parts += ["", heading.format("The scheduler alone, against simulated workers")]
        parts.append(table(header, lines))
    if notes(rows):
        parts += ["", heading.format("Not measured"), listing(notes(rows))]
    return "\n".join(parts)


def write_json(
    path: Path, about: dict[str, Any], rows: Sequence[Row], scale: Sequence[Any] = ()
) -> None:
    """Write everything that was measured, every run of it."""
    found = {
        "about": about,
        "rows": [row.to_dict() for row in rows],
        "scale": [row.to_dict() for row in scale],
    }
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def read_rows(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Return what `write_json` has written: about, and the rows."""
    found = json.loads(path.read_text())
    return found["about"], [Row.from_dict(row) for row in found["rows"]]
