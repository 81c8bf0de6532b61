"""Is what the documentation says true?

Pages that are written from the code are up to date, examples in docstrings, in the README and in
performance.md run, links lead somewhere, files that are named exist.
"""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import mpicluster
from mpicluster import Client, LocalCluster

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
#: The pages whose examples are whole scripts.
WITH_SCRIPTS = (README, ROOT / "docs" / "performance.md")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
#: Where a file that a page names may lie.
FOLDERS = (ROOT, ROOT / "mpicluster", ROOT / "tests", ROOT / "docs")
#: `scripts/demo`, `scheduler/core.py` and the like; not `analysis.py` or `/etc/mpicluster.toml`.
TOP = "|".join(re.escape(path.name) for path in ROOT.iterdir() if path.is_dir())
NAMED_FILE = re.compile(rf"`((?:{TOP})/[\w./-]+|[\w.-]+/[\w./-]+\.(?:py|md))`")
COMMAND_FILE = re.compile(rf"^ {{4}}((?:{TOP})/[\w./-]+)", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_generated_pages_are_up_to_date() -> None:
    words = [sys.executable, str(ROOT / "scripts" / "write_docs_tables.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_named_files_exist(page: Path) -> None:
    text = page.read_text()
    for name in {*NAMED_FILE.findall(text), *COMMAND_FILE.findall(text)}:
        found = any((folder / name).exists() for folder in (*FOLDERS, page.parent))
        assert found, f"{_name(page)} names {name}, which does not exist"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        target, _, heading = link.partition("#")
        if re.match(r"\w+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{_name(page)} links to {target}, which does not exist"
        if heading:
            assert heading in _headings(path), f"{_name(path)} has no heading #{heading}"


def _headings(page: Path) -> set[str]:
    """Return the anchors of a page, as forges make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(index.read_text())}
    pages = {page for page in PAGES if page.parent != ROOT and page != index}
    assert not {_name(page) for page in pages - linked}


# --- examples --------------------------------------------------------------------------------


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", [code for page in WITH_SCRIPTS for code in python_blocks(page)],
    ids=lambda code: code.split("\n")[0],
)  # fmt: skip
def test_examples_of_whole_scripts_run(code: str, tmp_path: Path) -> None:
    if "import dask" in code and find_spec("dask") is None:
        pytest.skip("dask is not installed")
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False,
        stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not done.stderr


def documented_modules() -> Iterator[Any]:
    """Yield the modules with examples in docstrings; those that start clusters are slow."""
    for package in ("jobqueue", "mpicluster"):
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text()
            if ">>>" not in text:
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__")
            starts = re.search(r">>> .*(from mpicluster import|\bclient\.)", text)
            yield pytest.param(name, id=name, marks=[pytest.mark.slow] if starts else [])


@pytest.fixture(scope="module")
def names_in_examples() -> Iterator[dict[str, Any]]:
    """Examples may use an open `client`."""
    with LocalCluster(n_workers=1, threads_per_worker=2) as cluster, Client(cluster) as client:
        yield {"client": client}


@pytest.mark.parametrize("name", list(documented_modules()))
def test_examples_in_docstrings(name: str, request: pytest.FixtureRequest) -> None:
    if ".integrations" in name:
        pytest.importorskip("dask")
    module = importlib.import_module(name)
    starts_cluster = request.node.get_closest_marker("slow") is not None
    names = request.getfixturevalue("names_in_examples") if starts_cluster else {}
    failed, tried = doctest.testmod(module, extraglobs=names)
    assert not failed
    assert tried


def test_examples_of_the_script_that_writes_pages() -> None:
    words = [sys.executable, "-m", "doctest", str(ROOT / "scripts" / "write_docs_tables.py")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", mpicluster.__all__)
def test_public_names_have_examples(name: str) -> None:
    """A docstring of an error is its default message, so it has no example."""
    found = getattr(mpicluster, name)
    if isinstance(found, str):
        return
    text = inspect.getdoc(found)
    assert text, f"{name} has no docstring"
    if not (isinstance(found, type) and issubclass(found, Exception)):
        assert ">>>" in text, f"the docstring of {name} has no example"
