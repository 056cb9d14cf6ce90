"""Processes that are started to be ended again."""

import signal


def hear_interrupts() -> None:
    """Let a process that is started from a shell's background end when it is told to.

    It would ignore interrupts, and Dagster treats a SIGTERM as it does these.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
