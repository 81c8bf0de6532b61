"""Do dask's own tests pass on a client where they pass with threads?"""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "dask_suite"
SUITE_S = 900
#: All of the tests of groupby take five minutes: one by hand after what changes collections.
CHOICE = {
    "dataframe/tests/test_groupby.py":
        ["-k", "getitem or value_counts or multilevel"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(SUITE_S + 60)
@pytest.mark.parametrize("file", [
    "bag/tests/test_bag.py", "bag/tests/test_random.py", "bag/tests/test_text.py",
    "tests/test_delayed.py", "array/tests/test_reductions.py", "dataframe/tests/test_groupby.py",
])  # fmt: skip
def test_dasks_own_tests(file: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), file, *CHOICE.get(file, ())],
        capture_output=True, text=True, timeout=SUITE_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ", 0 for no known reason" in ended.stdout, ended.stdout
