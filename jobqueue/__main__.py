"""How are jobs submitted and watched where the program `mpicluster` is not installed? By `python -m
jobqueue`.
"""

import sys

from jobqueue.cli import main

if __name__ == "__main__":
    sys.exit(main())
