"""Do ranks of MPICH start that srun starts, whatever lies in their memory?"""


import pytest
from batch_harness import MPICH, Script
from harness import Environment
from slurm_harness import run_job

pytestmark = [
    pytest.mark.real_slurm,
    pytest.mark.slow,
    pytest.mark.skipif(not MPICH, reason="no Python here has mpi4py on MPICH, which speaks PMI"),
    pytest.mark.parametrize("environment", MPICH, indirect=True, ids=lambda found: found.name),
]

#: Leaves the heap full of free blocks without a zero, as a program may that has worked before.
#: MPICH tells what lies behind its address too, and writes zeros in a shorter way than other bytes.
USED_MEMORY = """
import ctypes

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]

def use_memory():
    blocks = []
    for size in (600, 1500, 5000) * 3000:
        blocks.append(libc.malloc(size))
        ctypes.memset(blocks[-1], 0xA5, size)
        libc.malloc(24)  # keeps the free blocks apart
    for block in blocks:
        libc.free(block)

use_memory()
"""

#: What MPICH does in MPI_Init, with the longest keys and values that it may.
LONGEST_VALUE = """
import os, re, socket
from mpicluster.config import Config
from mpicluster.transport.pmi import shorter_values

rank = int(os.environ["PMI_RANK"])
key = "k" * 63

def ask(words):
    pmi.sendall(words.encode() + b"\\n")
    answer = b""
    while not answer.endswith(b"\\n"):
        answer += pmi.recv(1 << 16)
    return answer.decode().strip()

with shorter_values(os.environ, Config.load().pmi_value_max):
    pmi = socket.socket(fileno=os.dup(int(os.environ["PMI_FD"])))
    ask("cmd=init pmi_version=1 pmi_subversion=1")
    length = int(re.search(r"vallen_max=(\\d+)", ask("cmd=get_maxes"))[1]) - 1
    name = re.search(r"kvsname=(\\S+)", ask("cmd=get_my_kvsname"))[1]
    if rank == 0:
        ask(f"cmd=put kvsname={name} key={key} value={'A5' * (length // 2)}")
    ask("cmd=barrier_in")
    answer = ask(f"cmd=get kvsname={name} key={key}")
    pmi.close()
pmi = socket.socket(fileno=int(os.environ["PMI_FD"]))
print("arrived", answer.endswith("value=" + "A5" * (length // 2)), ask("cmd=finalize")[:16])
"""


def test_the_longest_value_that_is_announced_arrives(
    environment: Environment, script: Script
) -> None:
    command = f"exec srun -n 3 --mpi=pmi2 python {script(LONGEST_VALUE)}"
    ended = run_job("--nodes=3", "--ntasks-per-node=2", f"--wrap={command}")
    assert ended.status == 0, ended
    assert ended.log.count("arrived True cmd=finalize_ack") == 3, ended
    assert "mpi/pmi2" not in ended.log, ended


def test_mpich_starts_with_memory_that_was_used(environment: Environment, script: Script) -> None:
    """`value not properly terminated in client request`, said Slurm, and the ranks hung."""
    text = USED_MEMORY + """
from mpicluster import Client, initialize

initialize(slots=1)
with Client() as client:
    print("workers", len(client.scheduler_info()["workers"]), client.submit(sum, [1, 2]).result())
"""
    command = f"exec srun -n 5 --mpi=pmi2 python {script(text)}"
    ended = run_job("--nodes=3", "--ntasks-per-node=2", f"--wrap={command}")
    assert ended.status == 0, ended
    assert "workers 3 3" in ended.log, ended
    assert "mpi/pmi2" not in ended.log, ended
