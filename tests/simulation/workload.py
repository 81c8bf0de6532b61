"""What do simulated clients ask for, and what is the right answer?

The value of a key is a hash of the key and of the values it needs, so plain evaluation tells the
right answer, or the errors that are right.
"""

from dataclasses import dataclass, field
from hashlib import blake2b

from mpicluster.ids import ClientId, Key, NBytes
from mpicluster.messages import NO_OPTIONS, ErrorColumns, TaskOptions

#: What a task does: "value" returns, "raise" raises each time, "flaky" raises at first, "moody"
#: every other time, "kill" ends its slot each time; "scattered" is no task.
KINDS = ("value", "raise", "flaky", "moody", "kill", "scattered")


@dataclass(frozen=True, slots=True)
class Spec:
    """A task or a scattered value as it was asked for."""

    key: Key
    needs: tuple[Key, ...]
    kind: str
    nbytes: NBytes
    #: How long it says it took, and how many steps of its slot it really takes.
    duration_s: float
    steps: int
    #: How often a "flaky" or "moody" task raises.
    raises: int = 0
    options: TaskOptions = NO_OPTIONS
    #: No worker can ever run it.
    impossible: bool = False


@dataclass(slots=True)
class Outcome:
    """What may come of a key: its value, or one of some errors."""

    value: bytes
    #: Names of errors of which one must come; empty: the value must come.
    errors: frozenset[str] = frozenset()


@dataclass
class Plan:
    """Everything that was ever asked for."""

    specs: dict[Key, Spec] = field(default_factory=dict)
    outcomes: dict[Key, Outcome] = field(default_factory=dict)
    #: {key: all keys that it depends on, itself included}.
    closures: dict[Key, frozenset[Key]] = field(default_factory=dict)
    #: {key: client} that made it.
    owners: dict[Key, ClientId] = field(default_factory=dict)

    def add(self, spec: Spec, owner: ClientId) -> None:
        """Remember a task and evaluate it; what it needs must be known."""
        key = spec.key
        self.specs[key] = spec
        self.owners[key] = owner
        digest = blake2b(str(key).encode(), digest_size=8)
        errors = set(own_errors(spec))
        closure = {key}
        for needed in spec.needs:
            digest.update(self.outcomes[needed].value)
            errors |= self.outcomes[needed].errors
            closure |= self.closures[needed]
        self.outcomes[key] = Outcome(digest.digest(), frozenset(errors))
        self.closures[key] = frozenset(closure)


def own_errors(spec: Spec) -> list[str]:
    """Return the name of the error that a task itself makes, if it does."""
    if spec.impossible:
        return ["NoValidWorkerError"]
    if spec.kind == "kill":
        return ["KilledWorker"]
    return [raised_name(spec.key)] if spec.kind == "raise" else []


def raised_name(key: Key) -> str:
    """Return the name of the error that a task raises; each has its own."""
    return f"Error{key}"


def raised_error(key: Key, rank: int) -> ErrorColumns:
    """Return what travels of the exception that a task raises."""
    return [b"", raised_name(key), "raised by a simulated task", b"", "", rank, "host"]


def result_of(key: Key, values: list[bytes]) -> bytes:
    """Return what a simulated task makes of its inputs."""
    digest = blake2b(str(key).encode(), digest_size=8)
    for value in values:
        digest.update(value)
    return digest.digest()
