"""How does `mpirun -n N python -m mpicluster script.py` begin?

The same as `mpicluster`, but a script as the first argument is run in this very process: the
launcher has already started all ranks.
"""

import sys

from mpicluster.cli import main_in_rank

if __name__ == "__main__":
    sys.exit(main_in_rank(sys.argv[1:]))
