"""Where and with what was measured?"""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import psutil

from mpicluster import __version__
from mpicluster.cluster.hosts import available_cores

#: Packages whose versions may explain a figure.
PACKAGES: Final = (
    "mpi4py", "numpy", "pandas", "dask", "distributed", "dask-mpi", "ray", "parsl", "xarray",
)  # fmt: skip


def describe() -> dict[str, Any]:
    """Return what a reader must know of this host and this Python."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": _processor(),
        "cores": available_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "mpicluster": __version__,
        "commit": commit(),
        "packages": _versions(),
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit of the checkout that this package is run from, "" outside of one.

    A plus sign says that files of the package differ from it.
    """
    package = Path(__file__).parent.parent
    if not (package.parent / ".git").exists():
        return ""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *words], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + (
            "+" if git("status", "--porcelain", "--", ".") else ""
        )
    except OSError:
        return ""
