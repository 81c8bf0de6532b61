"""How are findings shown?

As a table in a terminal, as the same lines without colours elsewhere, or as JSON.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

from mpicluster.client.progress import in_terminal
from mpicluster.doctor.findings import Finding, Level, count

#: The order in which people would look.
TOPICS: Final = (
    "settings", "MPI", "launcher", "ranks", "threads", "versions", "binding", "cores", "memory",
    "slots", "shared memory", "huge pages", "scratch", "limits", "latency", "network", "clocks",
)  # fmt: skip
_COLOURS: Final = {Level.GOOD: "green", Level.NOTE: "yellow", Level.PROBLEM: "bold red"}
#: Where no terminal says how wide it is.
_PLAIN_WIDTH: Final = 100


def merge(own: Sequence[Finding], of_ranks: Sequence[Finding]) -> list[Finding]:
    """Return all findings; what ranks say of a topic replaces what this process has said."""
    told = {finding.topic for finding in of_ranks}
    return in_order([*(finding for finding in own if finding.topic not in told), *of_ranks])


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings in the order of their topics."""
    return sorted(findings, key=lambda finding: TOPICS.index(finding.topic))


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 1 if something would fail."""
    return int(any(finding.level is Level.PROBLEM for finding in findings))


def summary(findings: Sequence[Finding]) -> str:
    """Return the last line of a report.

    >>> summary([])
    'Nothing was found that would fail.'
    """
    problems = sum(1 for finding in findings if finding.level is Level.PROBLEM)
    notes = sum(1 for finding in findings if finding.level is Level.NOTE)
    if problems:
        return f"{count(problems, 'problem')}: a cluster, or tasks in it, would fail here."
    noted = f"; {count(notes, 'note')}" if notes else ""
    return f"Nothing was found that would fail{noted}."


def show(findings: Sequence[Finding]) -> None:
    """Print the report on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    seen = in_terminal()
    console = Console(
        width=None if seen else _PLAIN_WIDTH, force_terminal=seen, highlight=False, soft_wrap=False
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        # Texts, not markup: a host or a folder may be called "[red]".
        text = Text(finding.found)
        if finding.advice:
            text.append(f"\n-> {finding.advice}", style="bold")
        table.add_row(Text(finding.level.value, style=_COLOURS[finding.level]), finding.topic, text)
    console.print(table)
    console.print(Text(summary(findings), style="bold"))


def show_json(findings: Sequence[Finding]) -> None:
    """Print the report as JSON on standard output, for programs."""
    rows = [
        {
            "topic": finding.topic, "level": finding.level.value, "found": finding.found,
            "advice": finding.advice,
        }
        for finding in findings
    ]  # fmt: skip
    # In one piece: other ranks may print as well.
    sys.stdout.write(json.dumps({"findings": rows}, indent=2) + "\n")
    sys.stdout.flush()


def from_json(content: dict[str, Any]) -> list[Finding]:
    """Return the findings of a report in JSON."""
    return [
        Finding(row["topic"], Level(row["level"]), row["found"], row["advice"])
        for row in content["findings"]
    ]
