"""What of a plan can be started now: all that it waits for was made, and no pool that it needs is full."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping

import dagster as dg

from .plan import Run, with_inseparable
from .upkeep import Upkeep


class Schedule:
    """What is left to make, in the order of the plan.

    Parameters
    ----------
    defs : dagster.Definitions
    planned : mapping of Run to collection of Run
        The runs, each with those that it waits for.
    upkeep : Upkeep or None
        Tells what is to be made again; without it, everything is made.
    say : callable
        Gets a line for each asset that is made again: why it is.
    """

    def __init__(
        self,
        defs: dg.Definitions,
        planned: Mapping[Run, Collection[Run]],
        upkeep: Upkeep | None,
        say: Callable[[str], None],
    ) -> None:
        self.defs, self.planned, self.upkeep, self.say = defs, planned, upkeep, say
        self.left = {run: run.keys for run in planned}
        self.started: dict[Run, Run] = {}
        self.graph = defs.resolve_asset_graph()
        self.n_after: dict[Run, int] = {}
        for run in reversed(list(planned)):
            after = [self.n_after[one] for one, waits_for in planned.items() if run in waits_for]
            self.n_after[run] = len(run.keys) + max(after, default=0)

    def is_done(self) -> bool:
        """Tell whether nothing is left to make."""
        return not self.left

    def most_at_a_time(self, first: Collection[Run]) -> int:
        """Return how many runs may go side by side, of those begun and all that follows from them.

        These wait for equally long chains of others.

        Parameters
        ----------
        first : collection of Run
            As `start` returned them.
        """
        begun = {self.started[one] for one in first}
        depth: dict[Run, int] = {}
        for run, waits_for in self.planned.items():
            before = [depth[one] for one in waits_for if one in depth]
            if run in begun or before:
                depth[run] = 1 + max(before, default=0)
        return max(Counter(depth.values()).values(), default=0)

    def pools(self) -> set[str]:
        """Return the pools in which something is left to make."""
        return {pool for run in self.left for pool in self._pools(run)}

    def start(self, n: int, is_full: Callable[[str], bool]) -> list[Run]:
        """Return what is to be run next: what is left of runs that wait for nothing.

        Parameters
        ----------
        n : int
            At most so many.
        is_full : callable
            Tells whether a pool has no place left.
        """
        starting: list[Run] = []
        ready = self._ready()
        while ready and len(starting) < n:
            run = ready.pop(0)
            if any(is_full(pool) for pool in self._pools(run)):
                continue
            if needed := self._needed(run):
                starting.append(Run(needed, run.partition))
                self.started[starting[-1]] = run
            else:
                del self.left[run]
                ready = self._ready()
        return starting

    def finish(self, part: Run) -> None:
        """Note that what was started came to its end.

        Parameters
        ----------
        part : Run
        """
        run = self.started.pop(part)
        self.left[run] -= part.keys
        if not self.left[run]:
            del self.left[run]
        if self.upkeep:
            self.upkeep.forget(part.keys, part.partition)

    def _ready(self) -> list[Run]:
        """Return what has not begun and waits for nothing that is left; first what most is made after."""
        begun = self.started.values()
        ready = [
            run
            for run in self.left
            if run not in begun and not any(one in self.left for one in self.planned[run])
        ]
        return sorted(ready, key=lambda run: -self.n_after[run])

    def _needed(self, run: Run) -> frozenset[dg.AssetKey]:
        """Return what of a run is to be made, and say why."""
        if self.upkeep is None:
            return self.left[run]
        reasons = {key: self.upkeep.reason(key, run.partition) for key in sorted(self.left[run])}
        needed = {key: reason for key, reason in reasons.items() if reason}
        for reason in needed.values():
            self.say(reason)
        return with_inseparable(self.defs, needed)

    def _pools(self, run: Run) -> set[str]:
        return {pool for key in self.left[run] for pool in self.graph.get(key).pools or ()}
