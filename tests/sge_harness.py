"""How do tests find a Grid Engine to start, and ask it what jobqueue does not ask?"""

import os
import socket
import subprocess
from pathlib import Path

TESTCLUSTER = Path(__file__).resolve().parent / "sge" / "testcluster"
PACKAGES = "gridengine-master gridengine-exec gridengine-client"
#: Where the packages keep the programs.
PROGRAMS = Path("/usr/lib/gridengine")
#: How many slots the host claims to have.
SLOTS = 8


def why_no_grid_engine() -> str:
    """Return why no Grid Engine can be started here, nothing if one can."""
    missing = [
        name
        for name in ("sge_qmaster", "sge_execd", "qconf", "spooldefaults")
        if not (PROGRAMS / name).exists()
    ]
    if missing:
        return f"{', '.join(missing)} not installed: apt-get install {PACKAGES}"
    if os.geteuid() != 0:
        return "only root can start Grid Engine's daemons"
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        return "Grid Engine needs an address for this host's name, and there is none"
    return ""


def cluster_variables(folder: Path) -> dict[str, str]:
    """Return what makes commands talk to the cluster in a folder."""
    lines = (folder / "env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def said(*words: str) -> str:
    """Return what a command of Grid Engine printed."""
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stdout
