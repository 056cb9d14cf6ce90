"""Interrupts of processes that a shell starts in its background."""

import signal


def enable_interrupts() -> None:
    """Restore the default SIGINT handler of this process and its children.

    A shell's background processes ignore SIGINT, and Dagster then ignores SIGTERM too.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
