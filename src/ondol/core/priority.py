"""This process's place behind the others: the processor only when nobody else wants it."""

from __future__ import annotations

import os


def give_way() -> bool:
    """Let every other process go first, in what this thread runs and starts from now on.

    Lower than any niceness: what spins at a barrier is not held up by it (SCHED_IDLE of sched(7)).
    False where the system knows no such class, or does not allow it.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        return False
    return True
