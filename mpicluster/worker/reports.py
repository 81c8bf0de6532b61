"""What does a worker tell the scheduler after a turn?

What has happened is gathered in columns, so that a turn makes one message of each kind.
"""

from typing import Final

from mpicluster import messages as m
from mpicluster.config import Config
from mpicluster.ids import CLIENT_ATTEMPT, Key, NBytes
from mpicluster.worker.records import LocalTask, WorkerState

#: The end of a longer task is worth a message of its own: nobody waits then for a client whose
#: script leaves its threads no time.
CLIENT_TELLS_S_MAX: Final = 0.005


def client_tells(task: LocalTask, nbytes: NBytes, duration_s: float, config: Config) -> bool:
    """Return whether not this worker but the client tells the scheduler that a task has ended.

    It does so for those that it has sent itself, with whose value it hears of the end.
    """
    return (
        task.attempt == CLIENT_ATTEMPT and nbytes <= config.push_bytes_max
        and duration_s <= CLIENT_TELLS_S_MAX
    )  # fmt: skip


class Reports:
    """What has happened since the last turn."""

    def __init__(self, places: int) -> None:
        self.finished = m.TasksFinished([], [], [], [])
        self.added = m.ValuesAdded([], [])
        self.arrived = m.ValuesArrived([], [])
        #: Copies that could not be made.
        self.missed: list[Key] = []
        #: Slots may be lent or abandoned that were not, or the other way round.
        self.slots_change = False
        self._places = places
        self._slots_known = m.SlotsChanged(0)

    def take(self, state: WorkerState) -> list[m.Message]:
        """Return the messages, and begin anew."""
        messages: list[m.Message] = []
        if self.arrived.keys:
            messages.append(self.arrived)
            self.arrived = m.ValuesArrived([], [])
        if self.finished.keys:
            self.finished.frees_seen = state.frees_seen
            messages.append(self.finished)
            self.finished = m.TasksFinished([], [], [], [])
        if self.added.keys:
            self.added.frees_seen = state.frees_seen
            messages.append(self.added)
            self.added = m.ValuesAdded([], [])
        if self.missed:
            messages.append(m.CopiesMissed(self.missed))
            self.missed = []
        if self.slots_change:
            self.slots_change = False
            change = self._look_at_slots(state)
            if change != self._slots_known:
                self._slots_known = change
                messages.append(change)
        return messages

    def _look_at_slots(self, state: WorkerState) -> m.SlotsChanged:
        """Return how many slots wait with a task that is wanted, and how many places are taken by
        what is not. Slots that were started for waiting tasks stay: there may be more than places.
        """
        lent = abandoned = wanted = 0
        for slot in state.slots:
            if slot.is_abandoned():
                abandoned += not slot.lent
            elif slot.lent:
                lent += 1
            elif slot.tasks:
                wanted += 1
        return m.SlotsChanged(lent, min(abandoned, max(0, self._places - wanted)))
