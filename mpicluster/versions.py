"""Which versions run here, and where do they differ?"""

import platform
from collections.abc import Iterable, Mapping
from importlib import metadata

#: Packages whose pickles or messages travel between ranks.
PACKAGES = ("mpicluster", "msgpack", "cloudpickle", "numpy", "pandas", "dask")


def local_versions() -> dict[str, str]:
    """Return the versions of Python and of `PACKAGES`; "" for what is not installed."""
    return {"python": platform.python_version()} | installed_versions(PACKAGES)


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return {package: version}; "" for what is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = ""
    return found


def differences(
    ours: Mapping[str, str], workers: Mapping[int, Mapping[str, str]], hosts: Mapping[int, str]
) -> list[str]:
    """Return one sentence per package whose version differs somewhere, with the hosts.

    >>> differences({"numpy": "2.1"}, {2: {"numpy": "1.26"}}, {2: "node7"})
    ['numpy is 2.1 for the client, but 1.26 on node7 (rank 2). Use one environment on all hosts.']
    """
    sentences = []
    for package, version in ours.items():
        elsewhere: dict[str, list[str]] = {}
        for rank, versions in workers.items():
            other = versions.get(package, "")
            if other != version:
                place = f"{hosts.get(rank, '?')} (rank {rank})"
                elsewhere.setdefault(other or "missing", []).append(place)
        if elsewhere:
            places = "; ".join(
                f"{other} on {', '.join(found[:8])}{' and more' if len(found) > 8 else ''}"
                for other, found in elsewhere.items()
            )
            sentences.append(
                f"{package} is {version or 'missing'} for the client, but {places}. "
                "Use one environment on all hosts."
            )
    return sentences
