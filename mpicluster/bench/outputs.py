"""Can the figures be written where they are to go? Looked at before anything is measured."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mpicluster.bench.case import Case, sizes_of
from mpicluster.errors import MpiclusterError

if TYPE_CHECKING:
    from mpicluster.bench.program import Request

#: How the name of a picture ends.
ENDINGS: Final = (".svg", ".png", ".pdf")
#: The cases with a panel of their own, if they were measured at two sizes at least.
PANELS: Final = ("map", "payload", "fetch", "neighbour", "scatter", "gather", "broadcast", "launch")
#: How the names of the cases begin that share a panel.
BARS: Final = "metg-"
#: What to do where nothing of what is measured can be drawn.
UNDRAWN: Final = (
    "a plot shows cases that are measured at several sizes, and those whose names begin with "
    f"{BARS}. Leave --plot out, or measure more: --all, or --only with some of "
    f"{', '.join(PANELS[:-1])}"
)


def check_files(request: "Request") -> None:
    """Raise `MpiclusterError` for a file that cannot be written, or a plot that cannot be drawn."""
    for option in ("json", "markdown", "plot"):
        name = getattr(request, option)
        if name:
            _check_file(option, Path(name))
    if not request.plot:
        return
    if Path(request.plot).suffix.lower() not in ENDINGS:
        raise MpiclusterError(
            f"--plot was given {request.plot}, whose ending names no kind of picture. Take a name "
            f"that ends with {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}."
        )
    if find_spec("matplotlib") is None:
        raise MpiclusterError(
            "--plot was given, but matplotlib, which draws, is not installed. Install it "
            "(pip install 'mpicluster[bench]') or leave --plot out."
        )


def check_drawn(request: "Request", cases: Sequence[Case]) -> None:
    """Raise `MpiclusterError` if a plot is wanted and none of the cases can be in it."""
    if request.plot and not any(_is_drawn(case, request.level) for case in cases):
        names = ", ".join(request.only) or f"the cases of --{request.level}"
        raise MpiclusterError(f"--plot was given, but nothing would be in it for {names}: "
                              f"{UNDRAWN}.")  # fmt: skip


def _is_drawn(case: Case, level: str) -> bool:
    if case.name.startswith(BARS):
        return True
    return case.name in PANELS and len(sizes_of(case, level)) > 1


def _check_file(option: str, path: Path) -> None:
    """Open a file for writing, as only that tells whether it is possible; leave it as it was."""
    try:
        is_new = not path.exists()
        with path.open("a"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise MpiclusterError(
            f"--{option} was given {path}, which cannot be written: {error.strerror}. Name a file "
            "in a folder that exists and that you may write to."
        ) from None
