"""Where a running sweep is, and how long it will take: the news of all its cells as one `Progress`.

Remaining seconds are those of the cost model over what is left, by rates that every finished piece of a cell corrects,
divided by the processes at work. They follow the clock in between, and corrections come in smoothly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from kick_core.records import Progress
from kick_core.sweeps.cells import Cell, CellId, Step
from kick_core.sweeps.cost import CellCost, Rates, cost
from kick_core.sweeps.sweep_keys import SweepKeys

_SAVE = 10.0
"""Seconds between two notes of the measured rates."""
_SMOOTH = 0.05
"""Part of the time that has passed, or is left if that is less, over which a correction comes in: the first forecast is
made with nothing measured, and must not outlast the first measurements."""


class Tracker:
    """The state of all cells of one sweep.

    Args:
        left: The cells with something left.
        keys: The sweep's.
        rates: What cells take; it is corrected and saved.
        processes: How many work at once.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        left: Sequence[Cell],
        keys: SweepKeys,
        rates: Rates,
        processes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._costs: dict[CellId, CellCost] = {cell.id: cost(cell, keys) for cell in left}
        self._shares: dict[CellId, float] = {}
        self._news: dict[CellId, float] = {}
        self._rates, self._processes, self._clock = rates, max(1, processes), clock
        self._began = self._saved = self._shown_at = clock()
        self._share, self._shown = 0.0, math.nan

    def seconds(self, cell: Cell) -> float:
        """What is left of a cell takes so long, by what is known now."""
        cost = self._costs.get(cell.id)
        return 0.0 if cost is None else self._rates.seconds(cost)

    def take(self, step: Step) -> Progress:
        """Take in news of a cell."""
        before, now = self._shares.get(step.cell, 0.0), self._clock()
        if step.cell in self._costs and not self._costs[step.cell].cell.cached:
            self._rates.note(self._costs[step.cell], step.share - before, step.seconds)
        self._shares[step.cell], self._news[step.cell] = max(before, step.share), now
        if now - self._saved > _SAVE:
            self._saved = now
            self._rates.save()
        text = self._costs[step.cell].cell.text if step.cell in self._costs else step.cell[0]
        return self.at(text, step.message, step.block, step.blocks, step.loss)

    def at(
        self,
        cell: str = "",
        message: str = "",
        block: int | None = None,
        blocks: int | None = None,
        loss: float | None = None,
    ) -> Progress:
        """The sweep as it stands; `done` never goes back, whatever is learnt about what is left."""
        expected = {name: self._rates.seconds(one) for name, one in self._costs.items()}
        done = sum(seconds * self._shares.get(name, 0.0) for name, seconds in expected.items())
        total = sum(expected.values())
        self._share = max(self._share, min(done / total, 1.0) if total > 0 else 1.0)
        if not self._rates.measured:
            message = ", ".join(word for word in (message, "time estimated from the device's specification") if word)
        return Progress(cell, self._share, 1.0, message, block, blocks, loss, remaining=self._smooth(expected))

    def _smooth(self, expected: dict[CellId, float]) -> float:
        now = self._clock()
        if self._share >= 1:
            return 0.0
        remaining, passed = self._remaining(expected, now), now - self._shown_at
        if math.isnan(self._shown):
            self._shown = remaining
        self._shown = max(0.0, self._shown - passed)
        window = max(1.0, _SMOOTH * min(remaining, now - self._began))
        self._shown += (remaining - self._shown) * (1 - math.exp(-passed / window))
        self._shown_at = now
        return self._shown

    def _remaining(self, expected: dict[CellId, float], now: float) -> float:
        """Seconds to go: all work shared by the processes, but no less than the longest cell in the making."""
        total = longest = 0.0
        for name, seconds in expected.items():
            share = self._shares.get(name)
            if share is None:
                total += seconds
            elif share < 1:
                # since the last news some of the rest is done; how much is seen only when it is through
                rest = max(seconds * (1 - share) - (now - self._news[name]), 0.05 * seconds * (1 - share))
                total, longest = total + rest, max(longest, rest)
        return max(total / self._processes, longest)

    def finish(self, message: str = "done") -> Progress:
        """The last word; what was measured is kept."""
        self._rates.save()
        return Progress("", 1.0, 1.0, message, remaining=0.0)
