"""What is a cluster to the client?"""

from abc import ABC, abstractmethod
from html import escape
from typing import TYPE_CHECKING, Any

from mpicluster.absent import OF_CLUSTERS, refuse_attribute
from mpicluster.client.inspection import format_bytes, totals
from mpicluster.client.loop import ClientLoop

if TYPE_CHECKING:
    from mpicluster.client.client import Client


class Cluster(ABC):
    """Something that a client can connect to."""

    #: What people call it.
    kind: str
    #: The versions of the packages that the scheduler runs.
    versions: dict[str, str]

    #: Tasks of `fire_and_forget` run to their end before the cluster's; not after an exception.
    finishes_forgotten = True
    #: There is none; scripts print it.
    dashboard_link = None

    def get_client(self) -> "Client":
        """Return a new client of this cluster."""
        from mpicluster.client.client import Client

        return Client(self)

    def __getattr__(self, name: str) -> Any:
        refuse_attribute(self, name, OF_CLUSTERS)

    @abstractmethod
    def connect(self) -> ClientLoop:
        """Return the connection; clients of one process share it."""

    @abstractmethod
    def close(self) -> None:
        """End the cluster."""

    def _rows(self) -> list[list[str]]:
        """Return what is shown: role, rank, host, slots, memory."""
        loop = self.connect()
        workers = loop.core.workers or []
        here = self.client_host()
        rows = [["scheduler", "0", self.scheduler_host(), "", ""], ["client", "1", here, "", ""]]
        return rows + [
            ["worker", str(w["rank"]), str(w["host"]), str(w["slots"]),
             format_bytes(w["memory_limit"])]
            for w in workers
        ]  # fmt: skip

    def scheduler_host(self) -> str:
        """Return the host of rank 0."""
        return self.client_host()

    def client_host(self) -> str:
        """Return the host of this process."""
        import platform

        return platform.node()

    def _title(self) -> str:
        workers = self.connect().core.workers or []
        count, slots, memory = totals(workers)
        hosts = len({worker["host"] for worker in workers})
        return (
            f"{self.kind}: {count} workers with {slots} slots and {format_bytes(memory)} memory "
            f"on {hosts} {'host' if hosts == 1 else 'hosts'}"
        )

    def __repr__(self) -> str:
        header = ["role", "rank", "host", "slots", "memory"]
        rows = [header, *self._rows()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([self._title(), *(f"  {line}" for line in lines)])

    def _repr_html_(self) -> str:
        header = "".join(f"<th>{name}</th>" for name in ("role", "rank", "host", "slots", "memory"))
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._rows()
        )
        return f"<p>{escape(self._title())}</p><table><tr>{header}</tr>{body}</table>"

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.finishes_forgotten = False
        self.close()


_job: Cluster | None = None


def current_job() -> Cluster | None:
    """Return the job whose rank 1 this process is, None outside of one."""
    return _job


def set_current_job(job: Cluster | None) -> None:
    """Make a job the one that `Client()` uses."""
    global _job
    _job = job
