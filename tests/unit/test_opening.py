"""Does a job's log open with what was started, in a few lines however many hosts there are?"""

from mpicluster.cluster.allocation import expand_hostlist, fold_hostlist
from mpicluster.cluster.opening import HOST_LINES_MAX, describe_world, library_name

VERSIONS = {"mpicluster": "0.1.0", "python": "3.13.5"}
GIB = 2**30


def describe(hosts: list[str], slots: list[int], memory: list[int] | None = None) -> list[str]:
    """Return the lines for ranks on `hosts`; `slots` and `memory` are those of the workers."""
    infos = [{"host": host, "versions": VERSIONS} for host in hosts]
    memory = memory or [8 * GIB] * len(slots)
    text = describe_world(
        infos, dict(enumerate(slots, 2)), dict(enumerate(memory, 2)), "Open MPI v5.0.11, package: x"
    )
    return text.splitlines()


def test_one_host() -> None:
    assert describe(["a"] * 5, [1, 1, 1]) == [
        "mpicluster: 5 ranks on 1 host: 1 scheduler, 1 client, 3 workers with 3 slots",
        "  a: scheduler, client, 3 workers with 1 slot and 8.00 GiB memory each",
        "  mpicluster 0.1.0, Python 3.13.5, Open MPI 5.0.11",
    ]


def test_workers_of_a_host_may_differ() -> None:
    assert describe(["a"] * 5, [3, 3, 2])[1] == (
        "  a: scheduler, client, 2 workers with 3 slots and 8.00 GiB memory each, "
        "1 worker with 2 slots and 8.00 GiB memory"
    )


def test_hosts_that_are_alike_share_a_line() -> None:
    assert describe(["n1", "n1", "n1", "n2", "n3", "gpu"], [2, 4, 4, 8]) == [
        "mpicluster: 6 ranks on 4 hosts: 1 scheduler, 1 client, 4 workers with 18 slots",
        "  n1: scheduler, client, 1 worker with 2 slots and 8.00 GiB memory",
        "  each of n[2-3]: 1 worker with 4 slots and 8.00 GiB memory",
        "  gpu: 1 worker with 8 slots and 8.00 GiB memory",
        "  mpicluster 0.1.0, Python 3.13.5, Open MPI 5.0.11",
    ]


def test_a_thousand_hosts_need_no_more_than_two() -> None:
    hosts = [f"n{number:04d}" for number in range(1, 1001)]
    lines = describe([hosts[0], hosts[0], *hosts], [126] + [128] * 999)
    assert len(lines) == 4
    assert lines[2] == "  each of n[0002-1000]: 1 worker with 128 slots and 8.00 GiB memory"
    odd = [f"{number:x}-{'node' * 4}" for number in range(5000, 6000)]
    lines = describe([odd[0], odd[0], *odd], [126] + [128] * 999)
    assert lines[2].startswith("  each of 999 hosts, 1389-nodenodenodenode to 176f-node")
    assert max(map(len, lines)) < 115


def test_many_kinds_of_hosts_are_cut_short() -> None:
    hosts = [f"n{number}" for number in range(100)]
    lines = describe(["n0", "n0", *hosts], list(range(1, 101)))
    assert len(lines) == HOST_LINES_MAX + 2
    assert lines[-2] == f"  and {100 - HOST_LINES_MAX + 1} hosts with other numbers"


def test_host_lists_fold_and_unfold() -> None:
    assert fold_hostlist(["n9", "n10", "n11"]) == "n[9-11]"
    assert fold_hostlist(["n08", "n09", "n10"]) == "n[08-10]"
    assert fold_hostlist(["n1-ib", "n2-ib", "x4"]) == "n[1-2]-ib,x4"
    for hosts in (["n1"], ["n1", "n3"], ["a", "b"], ["n09", "n010"], ["r1n1", "r1n2", "r2n1"]):
        assert expand_hostlist(fold_hostlist(hosts)) == hosts


def test_names_of_libraries() -> None:
    assert library_name("MPICH Version:      5.0.2") == "MPICH 5.0.2"
    intel = "Intel(R) MPI Library 2021.9 for Linux* OS"
    assert library_name(intel) == intel
