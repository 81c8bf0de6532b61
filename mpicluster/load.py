"""How much do the slots have to do?

Each time that a rank wakes up it takes their time, so ranks sleep the longer the more that is.
"""

from enum import Enum, auto


class Load(Enum):
    """What a rank knows of the slots' work."""

    NONE = auto()
    #: Some tasks run, and others may wait for their values.
    SOME = auto()
    #: More tasks are ready than there are slots.
    FULL = auto()
