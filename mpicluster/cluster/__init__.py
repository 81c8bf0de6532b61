"""Clusters: the ranks of a job, or threads and slots of this process."""

from typing import Any

from mpicluster.cluster.base import Cluster, current_job


def find_cluster(address: Any, options: dict[str, Any]) -> tuple[Cluster, bool]:
    """Return the cluster that a client means, and whether the client owns it."""
    from mpicluster.cluster.local import LocalCluster

    if isinstance(address, Cluster):
        if options:
            raise TypeError(f"A client of a cluster that runs takes no options, but got {options}.")
        return address, False
    if address is not None:
        raise ValueError(
            f"Client was given the address {address!r}. mpicluster has no addresses: give it a "
            "LocalCluster, or nothing, which means the ranks of the job or a new LocalCluster."
        )
    job = current_job()
    if job is not None:
        return job, False
    return LocalCluster(**options), True
