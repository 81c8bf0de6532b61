"""Which small types name the things that every part speaks of?

On the wire everything is an integer. Names that people read (`"inc-5f3a"`) stay with the client
that made them. A key, a function number and a request number belong to the client that chose
them; the client's own number in the upper bits keeps those of several clients apart.
"""

from typing import Final, TypeAlias

#: The address of a process in the communicator.
Rank: TypeAlias = int
#: The address of a client: its rank, or, for a client inside a task, a number above `SLOT_CLIENTS`.
ClientId: TypeAlias = int
#: The number of a value and of the task that makes it; never used again for another one.
Key: TypeAlias = int
#: The number of a function that a client has defined.
FunctionId: TypeAlias = int
#: How often a task has been assigned; every report about it repeats the number.
Attempt: TypeAlias = int
#: The attempt of a task that its client has sent to a worker itself; the scheduler's begin at 1.
CLIENT_ATTEMPT: Final[Attempt] = 0
#: A size in bytes.
NBytes: TypeAlias = int

SCHEDULER_RANK: Final[Rank] = 0
CLIENT_RANK: Final[Rank] = 1
FIRST_WORKER_RANK: Final[Rank] = 2

#: A client makes at most 2^36 keys, functions and requests in its life. With client numbers below
#: 2^28 everything fits into the unsigned 64 bits of msgpack.
CLIENT_SHIFT: Final = 36
#: Of these numbers, each of up to 256 connections of a process has 2^28.
CONNECTION_SHIFT: Final = 28
CONNECTIONS_MAX: Final = 1 << (CLIENT_SHIFT - CONNECTION_SHIFT)
#: Client numbers from here on belong to clients inside tasks (`get_client()`).
SLOT_CLIENTS: Final = 1 << 27
#: A worker starts fewer than this many slots that make a client, restarted ones included.
SLOT_CLIENTS_PER_RANK: Final = 1 << 12


def slot_client(rank: Rank, serial: int) -> ClientId:
    """Return the address of the client of the `serial`-th slot that a worker has started."""
    return SLOT_CLIENTS + rank * SLOT_CLIENTS_PER_RANK + serial % SLOT_CLIENTS_PER_RANK


def address_of(rank: Rank) -> str:
    """Return what stands where `distributed` has the address of a worker or the scheduler.

    >>> address_of(3)
    'mpi://3'
    """
    return f"mpi://{rank}"


def rank_of_client(client: ClientId) -> Rank:
    """Return the rank to which messages for a client go."""
    if client < SLOT_CLIENTS:
        return client
    return (client - SLOT_CLIENTS) // SLOT_CLIENTS_PER_RANK


def first_number(client: ClientId) -> int:
    """Return the first key, function or request number that `client` may use."""
    return client << CLIENT_SHIFT
