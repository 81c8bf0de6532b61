"""Do the tests run wherever the project was cloned to?"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_folder_called_mpi_skips_no_test(tmp_path: Path) -> None:
    """All tests of a clone in such a folder were once skipped, with status 0."""
    folder = tmp_path / "mpi"
    folder.mkdir()
    (folder / "conftest.py").write_text(
        "from tests.conftest import pytest_collection_modifyitems\n"
    )
    (folder / "test_one.py").write_text(
        "import pytest\n\ndef test_one(): pass\n\n@pytest.mark.mpi\ndef test_two(): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", folder],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 passed, 1 skipped" in done.stdout, done.stdout
