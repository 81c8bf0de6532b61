"""The command line: which words are there, and who answers them?"""

from mpicluster.cli.main import main, main_in_rank

__all__ = ["main", "main_in_rank"]
