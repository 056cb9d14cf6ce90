"""Processes that are started to be ended again."""

import signal


def hear_interrupts() -> None:
    """Let this process, and those that it starts, be interrupted.

    What a shell starts in its background ignores interrupts, and Dagster then a SIGTERM too.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
