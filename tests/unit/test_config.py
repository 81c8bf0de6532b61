"""Which settings are refused, and in which words?"""

from dataclasses import fields
from typing import Any

import pytest

from mpicluster import Client, LocalCluster
from mpicluster.cli.main import make_parser
from mpicluster.cli.run import job_options
from mpicluster.cluster import local
from mpicluster.cluster.hosts import available_memory, parse_memory_limit
from mpicluster.cluster.job import JobOptions, _memory_limits
from mpicluster.cluster.roles import memory_shares
from mpicluster.config import _BOUNDS, _TYPES, Config, warn_of_unknown_variables
from mpicluster.errors import ConfigError


def test_every_number_has_bounds_and_a_default_within_them() -> None:
    numbers = [field.name for field in fields(Config) if _TYPES[field.name] in (int, float)]
    assert set(_BOUNDS) == set(numbers)
    Config().update({name: getattr(Config(), name) for name in numbers}, "a test")
    Config.load({name: getattr(Config(), name) for name in numbers})


@pytest.mark.parametrize(("name", "value"), [
    ("submit_credits", "0"), ("memory_target", "60"), ("spin_s", "-5"), ("allowed_failures", 0),
    ("prefetch_s", "nan"), ("start_timeout_s", "inf"), ("memory_pause", 0), ("fetches_max", -1),
    ("slot_queue_max", 2.5),
])  # fmt: skip
def test_a_number_out_of_bounds_is_refused_with_a_sentence(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Config().update({name: value}, "a test")
    text = str(caught.value)
    assert name in text
    assert repr(value) in text
    assert "must be" in text
    assert text.endswith(".")


def test_variables_are_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPICLUSTER_SUBMIT_CREDITS", "0")
    with pytest.raises(ConfigError, match="from the environment is '0'"):
        Config.load()


def test_what_is_pushed_must_fit_into_a_message() -> None:
    """Each result between the two limits ended its worker."""
    with pytest.raises(ConfigError, match="'push_bytes_max' must be at most 'inline_bytes_max'"):
        Config.load(overrides={"push_bytes_max": 1_000_000})
    assert Config.load(overrides={"push_bytes_max": 1 << 16}).push_bytes_max == 1 << 16


def test_marks_of_the_memory_must_be_in_order() -> None:
    with pytest.raises(ConfigError, match="'memory_target' must be less than 'memory_pause'"):
        Config.load({"memory_target": 0.9})
    marks = {"memory_target": 0.9, "memory_pause": 0.93}
    assert Config.load(marks).memory_target == marks["memory_target"]


def test_an_unknown_variable_is_named_with_the_nearest_setting(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("SUBMIT_CREDIT", "ZZZ", "TEST_MARK", "BENCH_WORKERS", "SPIN_S"):
        monkeypatch.setenv(f"MPICLUSTER_{name}", "1")
    warn_of_unknown_variables()
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "MPICLUSTER_SUBMIT_CREDIT " in lines[0]
    assert "Did you mean MPICLUSTER_SUBMIT_CREDITS?" in lines[0]
    assert "MPICLUSTER_ZZZ " in lines[1]
    assert "Did you mean" not in lines[1]


def test_a_memory_limit_below_what_the_processes_need_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 150MB, or fewer slots"):
        parse_memory_limit("100MB", slots=1)
    with pytest.raises(ConfigError, match="with 4 slots needs"):
        LocalCluster(1, 4, memory_limit="200MB")
    with pytest.raises(ConfigError, match="'100MB' is less than a worker"):
        JobOptions(memory_limit="100MB").load_config()
    assert parse_memory_limit("500MB", slots=4) == 500_000_000


@pytest.mark.parametrize("limit", ["auto", "AUTO", 0, "0", "0GB", 0.0, None])
def test_no_limit_auto_and_0_mean_all_memory(limit: Any) -> None:
    with LocalCluster(2, 1, memory_limit=limit) as cluster, Client(cluster) as client:
        workers = client.scheduler_info()["workers"].values()
    assert {worker["memory_limit"] for worker in workers} == {available_memory() // 2}
    words = ["-n", "4", "--dry-run"] + (["--memory-limit", str(limit)] if limit is not None else [])
    arguments = make_parser().parse_args(["run", *words, "script.py"])
    options = job_options(arguments)
    options.load_config()
    infos = [{"host": "node", "memory": 6 << 30}] * 4
    assert set(_memory_limits(infos, options).values()) == set(memory_shares(
        ["node"] * 4, [6 << 30] * 4
    ).values())


@pytest.mark.parametrize("limit", [0.5, 1.0, 1, "0.25"])
def test_a_share_of_the_memory_is_refused_as_a_limit(limit: Any) -> None:
    with pytest.raises(ConfigError, match="is a share, as distributed takes them"):
        LocalCluster(1, 1, memory_limit=limit)
    with pytest.raises(ConfigError, match=r"Write it like 4GB, or leave it out"):
        JobOptions(memory_limit=limit).load_config()


@pytest.mark.parametrize("limit", ["much", "", "4XB", "1e999", float("nan"), float("inf")])
def test_a_memory_limit_that_is_no_size_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigError, match=r"is not understood; write it like 4GB"):
        LocalCluster(1, 1, memory_limit=limit)


@pytest.mark.parametrize("numbers", [
    {"n_workers": -1}, {"n_workers": 0}, {"threads_per_worker": 0}, {"threads_per_worker": 1.5},
])  # fmt: skip
def test_numbers_that_make_no_cluster_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"must be a whole number of at least 1\."):
        LocalCluster(**numbers)


def test_a_cluster_that_is_starting_shows_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "DISPLAY_WAIT_S", 60.0)  # the display waits for them, but not long
    with LocalCluster(2, 1) as cluster:
        assert "2 workers with 2 slots" in repr(cluster)
