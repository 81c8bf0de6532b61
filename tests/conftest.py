"""What do all tests share?"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import ENVIRONMENTS, OTHER_PYTHONS, Runner, new_shared_files, shared_files
from sge_harness import why_no_grid_engine


@pytest.fixture(params=ENVIRONMENTS or [None], ids=lambda found: found.name if found else "none")
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    """Run programs under each MPI; afterwards nothing of them may be left."""
    if request.param is None:
        pytest.skip("no MPI: mpi4py finds no library")
    before = shared_files()
    found = Runner(request.param, tmp_path)
    yield found
    found.assert_nothing_left()
    assert new_shared_files(before) == set()


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a script and returns its path."""

    def write(text: str, name: str = "program.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run all tests also where a folder above them is called "mpi": pytest-mpi takes that name for
    its own mark, and skips what has it.
    """
    for item in items:
        if item.get_closest_marker("mpi") is None:
            item.own_markers[:] = [
                mark for mark in item.own_markers if "--with-mpi" not in str(mark.kwargs)
            ]


def pytest_report_header() -> list[str]:
    """Say which tiers run and why others do not."""
    names = [found.name for found in ENVIRONMENTS]
    lines = [f"MPI: {', '.join(names) or 'none'}"]
    lines += [
        f"skipped: tests under {name}: no Python in {OTHER_PYTHONS} has mpi4py on it"
        for name in ("openmpi", "mpich")
        if name not in names
    ]
    if shutil.which("slurmctld") is None:
        lines.append("skipped: tests on a real Slurm: slurmctld is not installed")
    if why_no_grid_engine():
        lines.append(f"skipped: tests on a real Grid Engine: {why_no_grid_engine()}")
    return lines
