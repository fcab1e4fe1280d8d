"""Bars of long work; where none is shown, a line now and then in the log.

A line comes when half a minute has gone and a tenth of the work is done since the last one.
"""

__all__ = ["Bar", "duration"]

import logging
from time import monotonic

from tqdm import tqdm

SECONDS, SHARE = 30, 0.1  # between two lines, at least
log = logging.getLogger(__name__)


class Bar(tqdm):  # pyright: ignore[reportMissingTypeArgument]
    """A bar on a terminal; elsewhere lines of the log, which a short run has none of.

    Args:
        what: Is done.
        total: How much of it there is.
        done: How much of that is done already.
        unit: Of it.
        progress: `True` shows the bar anywhere, `False` neither bar nor lines.
    """

    def __init__(self, what: str, total: int, done: int, unit: str, progress: bool | None) -> None:
        shown = None if progress is None else not progress
        super().__init__(desc=what, total=total, initial=done, unit=unit, disable=shown)
        self._logged = bool(self.disable) and progress is None
        self._what, self._whole, self._begun = what, total, (monotonic(), done)
        self._done, self._last = done, self._begun

    def update(self, n: float | None = 1) -> bool | None:
        """Takes down that so much more is done, and says how much is left where it is time to.

        Returns:
            Whether the bar was drawn anew.
        """
        self._done += int(n or 0)
        now, (begun, before), (last, told) = monotonic(), self._begun, self._last
        rare = now - last >= SECONDS and self._done - told >= SHARE * self._whole
        if self._logged and rare and self._done < self._whole:
            left = (now - begun) / (self._done - before) * (self._whole - self._done)
            share = self._done / self._whole
            log.info(f"{self._what}: {share:.0%} done, about {duration(left)} left")
            self._last = now, self._done
        return super().update(n)


def duration(seconds: float) -> str:
    """Returns seconds in the unit that suits them.

    Example:
        >>> duration(5.04), duration(150), duration(9000)
        ('5.0 s', '2.5 min', '2.5 h')
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
