"""Whose files in /dev/shm lose their names?"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mpicluster.transport import shared_files as module
from mpicluster.transport.shared_files import (
    files_of_hosts,
    files_of_mpi,
    note_others,
    remove_names,
    remove_shared_files,
    shared_files,
)


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_others", set())


class Mapped:
    """A file that this process has mapped."""

    def __init__(self, name: str) -> None:
        self.path = f"/dev/shm/mpicluster-test-{os.getpid()}-{name}"
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        os.truncate(fd, mmap.PAGESIZE)
        self.memory = mmap.mmap(fd, mmap.PAGESIZE)
        os.close(fd)

    @property
    def named(self) -> bool:
        return Path(self.path).exists()


@pytest.fixture
def users_and_mpis(others: None) -> Iterator[tuple[Mapped, Mapped]]:
    users = Mapped("a name with spaces")
    note_others()
    found = users, Mapped("mpi")
    yield found
    for file in found:
        file.memory.close()
        Path(file.path).unlink(missing_ok=True)


def test_what_was_mapped_before_mpi_is_not_its_own(users_and_mpis: tuple[Mapped, Mapped]) -> None:
    users, mpis = users_and_mpis
    assert {users.path, mpis.path} <= shared_files()
    assert users.path not in files_of_mpi()
    assert mpis.path in files_of_mpi()
    remove_shared_files()
    assert (users.named, mpis.named) == (True, False)
    assert mpis.path not in shared_files()
    mpis.memory[:5] = b"still"


def test_a_name_goes_when_all_ranks_have_mapped_the_file(
    users_and_mpis: tuple[Mapped, Mapped],
) -> None:
    _, mpis = users_and_mpis
    some = files_of_hosts(["a", "a", "b"], [{mpis.path}, {mpis.path}, {"/dev/shm/of-another"}])
    assert some == {"a": {mpis.path}, "b": {"/dev/shm/of-another"}}
    remove_names(some["a"])
    assert not mpis.named
    remove_names(some["a"])  # another rank of the host has done it already


@pytest.mark.parametrize(
    ("hosts", "files", "found"),
    [
        ("aab", [{"x", "y"}, {"y", "z"}, set()], {"a": {"y"}, "b": set()}),
        ("aa", [{"x"}, set()], None),
        ("aabb", [{"x"}, {"x"}, {"y"}, {"z"}], None),
        ("aa", [set(), set()], {"a": set()}),
    ],
)
def test_only_mpi_knows_who_shares_memory_where_a_host_has_no_file_in_common(
    hosts: str, files: list[set[str]], found: dict[str, set[str]] | None
) -> None:
    """Hydra may take one machine for two hosts: files stayed in /dev/shm, or went too early."""
    assert files_of_hosts(hosts, files) == found
