"""How far is the computation?

`progress` shows it for futures, `track` for a loop over `as_completed`: bars in a terminal, lines
at growing intervals where a batch system keeps the output in a file, a table in a notebook. They
count what the futures already know and ask nobody.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from mpicluster.client.collect import as_completed, futures_of
from mpicluster.client.future import Future
from mpicluster.client.records import CANCELLED, ERROR, FutureRecord
from mpicluster.client.timeouts import to_seconds

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Item = TypeVar("Item")

#: How often bars are drawn: often enough to look alive, too rarely to cost anything.
DRAW_INTERVAL: Final = "100ms"
#: The first line in a log comes after this time, so that short computations print only their end.
FIRST_LINE_S: Final = 2.0
#: Each pause between lines is longer than the last by this factor ...
LINE_PAUSE_FACTOR: Final = 1.5
#: ... up to this, so that a job of a day leaves hundreds of lines and not thousands.
LINE_PAUSE_S_MAX: Final = 300.0
#: Prefixes that one line of a log names.
PREFIXES_PER_LINE_MAX: Final = 6


@dataclass(slots=True)
class Group:
    """The tasks that share a line: those with the same prefix, or all."""

    name: str
    total: int = 0
    #: Those that will not change any more, including erred and cancelled ones.
    done: int = 0
    erred: int = 0
    cancelled: int = 0

    def trouble(self) -> str:
        """Return what went wrong, an empty text if nothing did."""
        counts = ((self.erred, "erred"), (self.cancelled, "cancelled"))
        return ", ".join(f"{count} {word}" for count, word in counts if count)

    def text(self) -> str:
        """Return the line's text.

        >>> Group("load", total=8, done=3, erred=1).text()
        'load 3 of 8 (1 erred)'
        """
        trouble = self.trouble()
        return f"{self.name} {self.done} of {self.total}" + (f" ({trouble})" if trouble else "")


class Tally:
    """Counts futures by prefix; their records keep it up to date."""

    def __init__(self, futures: Sequence[Future], multi: bool, complete: bool) -> None:
        self.groups: dict[str, Group] = {}
        self.left = 0
        for future in futures:
            record = future._record  # noqa: SLF001
            with future.client.lock:
                if record.done and not complete:
                    continue
                name = record.prefix if multi else "tasks"
                group = self.groups.setdefault(name, Group(name))
                group.total += 1
                self.left += 1
                if record.done:
                    self._count(group, record)
                else:
                    future.client.watch(record, partial(self._count, group))

    def _count(self, group: Group, record: FutureRecord) -> None:
        self.left -= 1
        group.done += 1
        group.erred += record.status is ERROR
        group.cancelled += record.status is CANCELLED


class Display(Protocol):
    """Something that shows groups."""

    def show(self, groups: Iterable[Group]) -> None:
        """Show the counts as they are now."""

    def close(self, groups: Iterable[Group]) -> None:
        """Show the counts for the last time."""


class TerminalBars:
    """One bar per group, drawn again in its place."""

    def __init__(self) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bars: Progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[trouble]}", style="red", markup=False),
        )  # fmt: skip
        self._numbers: dict[str, TaskID] = {}
        self._bars.start()

    def show(self, groups: Iterable[Group]) -> None:
        """Draw all bars."""
        for group in groups:
            if group.name not in self._numbers:
                self._numbers[group.name] = self._bars.add_task(group.name, trouble="")
            self._bars.update(
                self._numbers[group.name], completed=group.done, total=group.total,
                trouble=group.trouble(),
            )  # fmt: skip

    def close(self, groups: Iterable[Group]) -> None:
        """Draw all bars and leave them where they are."""
        self.show(groups)
        self._bars.stop()


class LogLines:
    """A line now and then, for output that somebody reads later."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._pause = FIRST_LINE_S
        self._next = self._start + self._pause

    def show(self, groups: Iterable[Group]) -> None:
        """Print a line if it is time."""
        now = time.monotonic()
        if now >= self._next:
            self._print(groups, now)
            self._pause = min(self._pause * LINE_PAUSE_FACTOR, LINE_PAUSE_S_MAX)
            self._next = now + self._pause

    def close(self, groups: Iterable[Group]) -> None:
        """Print the last line."""
        self._print(groups, time.monotonic())

    def _print(self, groups: Iterable[Group], now: float) -> None:
        every = sorted(groups, key=lambda group: group.done == group.total)
        texts = [group.text() for group in every[:PREFIXES_PER_LINE_MAX]]
        if len(every) > PREFIXES_PER_LINE_MAX:
            texts.append(f"and {len(every) - PREFIXES_PER_LINE_MAX} more prefixes")
        print(f"[{now - self._start:6.1f} s] {', '.join(texts)}", flush=True)


class NotebookTable:
    """A table of bars that a notebook shows in the place of the last one."""

    def __init__(self) -> None:
        from IPython.display import HTML, display  # type: ignore[import-not-found]

        self._html = HTML
        self._handle = display(HTML(""), display_id=True)

    def show(self, groups: Iterable[Group]) -> None:
        """Replace the table."""
        rows = "".join(
            f"<tr><td>{escape(group.name)}</td>"
            f'<td><progress value="{group.done}" max="{group.total}"></progress></td>'
            f"<td>{group.done} of {group.total}</td><td>{group.trouble()}</td></tr>"
            for group in groups
        )
        self._handle.update(self._html(f"<table>{rows}</table>"))

    close = show


def make_display() -> Display:
    """Return bars for a terminal, lines for everything else."""
    return TerminalBars() if in_terminal() else LogLines()


def in_terminal() -> bool:
    """Return whether somebody sees the output now.

    Open MPI gives each rank a terminal of its own; it has no size unless the launcher has one.
    """
    try:
        return sys.stdout.isatty() and os.get_terminal_size(sys.stdout.fileno()).columns > 0
    except (OSError, ValueError):
        return False


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def progress(
    *futures: Any,
    notebook: bool | None = None,
    multi: bool = True,
    complete: bool = True,
    interval: float | str = DRAW_INTERVAL,
) -> None:
    """Show how many futures are done until all are; in a notebook return at once.

    Takes futures, lists of them and persisted collections. With `multi` each task prefix has a
    bar of its own; with `complete=False` futures that are done already are left out. Raises
    nothing for tasks that erred: they are counted, and their futures tell why.

    >>> from mpicluster import progress
    >>> progress(client.map(abs, range(3)), notebook=False)  # doctest: +ELLIPSIS
    [...] abs 3 of 3
    """
    found = futures_of(list(futures))
    tally = Tally(found, multi, complete)
    if not tally.groups:
        return
    groups = tally.groups.values()
    pause_s = to_seconds(interval) or 0.1
    if notebook if notebook is not None else in_notebook():
        table = NotebookTable()
        threading.Thread(
            target=_show_until_done, args=(table, tally, pause_s), name="mpicluster-progress",
            daemon=True,
        ).start()  # fmt: skip
        return
    client = found[0].client
    display = make_display()
    try:
        while not client.wait_until(lambda: tally.left <= 0, pause_s):
            display.show(groups)
    finally:
        display.close(groups)


def _show_until_done(table: NotebookTable, tally: Tally, pause_s: float) -> None:
    while tally.left > 0:
        table.show(tally.groups.values())
        time.sleep(pause_s)
    table.close(tally.groups.values())


def track(
    items: Iterable[Item],
    name: str = "tasks",
    total: int | None = None,
    interval: float | str = DRAW_INTERVAL,
) -> Iterator[Item]:
    """Yield the items of `as_completed`, or of any loop, and show how many have come.

    The total of an `as_completed` may grow while it is iterated; other iterables that have no
    length need `total`.

    >>> from mpicluster import as_completed
    >>> futures = as_completed(client.map(abs, range(3)))
    >>> sum(future.result() for future in track(futures, "abs"))  # doctest: +ELLIPSIS
    [...] abs 3 of 3
    3
    """
    group = Group(name, _total(items, 0) if total is None else total)
    pause_s = to_seconds(interval) or 0.1
    display = make_display()
    display.show([group])
    due = time.monotonic() + pause_s
    try:
        for item in items:
            yield item
            group.done += 1
            future = item[0] if isinstance(item, tuple) and item else item
            group.erred += isinstance(future, Future) and future.status is ERROR
            now = time.monotonic()
            if now >= due:
                due = now + pause_s
                group.total = _total(items, group.done) if total is None else total
                display.show([group])
    finally:
        group.total = _total(items, group.done) if total is None else total
        display.close([group])


def _total(items: Iterable[Any], done: int) -> int:
    """Return how many items there are, those included that have been yielded."""
    if isinstance(items, as_completed):
        return done + items.count()
    return max(done, len(items)) if isinstance(items, Sized) else done
