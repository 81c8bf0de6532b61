"""Is the code as the style guide says, where ruff does not look?

Sizes of files and functions, the direction of imports, words that mean something else, and files
that nobody uses.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("mpicluster", "jobqueue")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LINES_MAX = 500
FUNCTION_LINES_MAX = 70

#: Files that decide and neither wait, measure time, draw lots nor talk to the system.
PURE = (
    "ids.py", "errors.py", "messages.py", "codec.py", "task_options.py", "ordering.py",
    "priority_queue.py", "scheduler/coordination.py", "worker/memory.py", "scheduler/records.py",
    "scheduler/lifecycle.py", "scheduler/placement.py", "scheduler/room.py",
    "scheduler/siblings.py", "scheduler/ahead.py", "scheduler/stealing.py",
    "scheduler/client_attempts.py",
    "scheduler/replication.py", "scheduler/answers.py", "scheduler/core.py",
    "scheduler/core_base.py", "scheduler/from_clients.py", "scheduler/sending.py",
    "scheduler/reasons.py", "scheduler/checks.py", "worker/records.py", "worker/core.py",
    "worker/fetching.py", "worker/events.py", "worker/checks.py", "client/core.py",
    "client/records.py", "doctor/facts.py", "doctor/findings.py", "doctor/network.py",
    "doctor/silence.py",
)  # fmt: skip
IMPURE_MODULES = {
    "time", "random", "threading", "asyncio", "socket", "os", "subprocess", "logging", "mpi4py",
    "select", "signal", "multiprocessing",
}  # fmt: skip
#: {package: packages of mpicluster that it must not import}.
FORBIDDEN = {
    "scheduler": {"worker", "client", "cluster", "cli", "integrations"},
    "worker": {"scheduler", "client", "cluster", "cli", "integrations"},
    "client": {"scheduler", "worker", "cli"},
    "transport": {"scheduler", "worker", "client", "cluster", "cli", "integrations"},
    "serialization": {"scheduler", "worker", "client", "cluster", "cli", "integrations"},
}


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _imports(path: Path, *, everywhere: bool = True) -> Iterator[str]:
    """Yield the modules that a file imports, for real and not for type checks."""
    tree = _tree(path)
    skipped = {
        id(found)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for found in ast.walk(node)
    }
    for node in ast.walk(tree) if everywhere else tree.body:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=_ids)
def test_sizes(path: Path) -> None:
    # The protocol is one text, however long it is.
    lines_max = 610 if _ids(path) == "mpicluster/messages.py" else LINES_MAX
    assert len(path.read_text().splitlines()) <= lines_max
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=_ids)
def test_a_file_opens_by_saying_what_it_answers(path: Path) -> None:
    assert ast.get_docstring(_tree(path)), "a file without a first docstring"


@pytest.mark.parametrize("name", PURE)
def test_pure_files_import_nothing_impure(name: str) -> None:
    path = ROOT / "mpicluster" / name
    found = {module.split(".")[0] for module in _imports(path)}
    assert not found & IMPURE_MODULES


@pytest.mark.parametrize("package", FORBIDDEN)
def test_direction_of_imports(package: str) -> None:
    for path in (ROOT / "mpicluster" / package).rglob("*.py"):
        for module in _imports(path):
            parts = module.split(".")
            if parts[0] == "mpicluster" and len(parts) > 1 and parts[1] in FORBIDDEN[package]:
                allowed = package == "client" and parts[1] in ("cluster", "integrations")
                assert allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_only_the_transport_imports_mpi() -> None:
    # The benchmark compares with mpi4py alone and with mpi4py.futures.
    compared = {"mpicluster/bench/raw_mpi.py", "mpicluster/bench/peers.py"}
    allowed = {"mpicluster/transport/mpi.py", "mpicluster/cluster/launch.py", *compared}
    for path in FILES:
        if any(module.split(".")[0] == "mpi4py" for module in _imports(path)):
            assert _ids(path) in allowed
        assert not any(
            module.split(".")[0] == "mpi4py" for module in _imports(path, everywhere=False)
        ), f"{_ids(path)} imports mpi4py when it is imported"


def test_the_packages_are_apart() -> None:
    for path in FILES:
        package = path.relative_to(ROOT).parts[0]
        for module in _imports(path):
            if package == "mpicluster":
                assert module.split(".")[0] != "jobqueue", _ids(path)
            elif path.name != "cluster.py":
                assert module.split(".")[0] != "mpicluster", _ids(path)


def test_importing_the_package_is_light() -> None:
    import subprocess
    import sys

    code = (
        "import sys, mpicluster\n"
        "heavy = {'mpi4py', 'numpy', 'pandas', 'dask', 'rich'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=_ids)
def test_no_file_is_dead(path: Path) -> None:
    """Every module is imported somewhere, or is an entry point."""
    if path.name in ("__init__.py", "__main__.py"):
        return
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    others = [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "scripts").rglob("*")]
    pattern = re.compile(rf"\b{re.escape(name)}\b|import[^\n]*\b{path.stem}\b")
    assert any(
        pattern.search(other.read_text()) for other in others if other != path and other.is_file()
    )


@pytest.mark.parametrize("path", FILES, ids=_ids)
def test_no_leftover_marks(path: Path) -> None:
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", path.read_text())
