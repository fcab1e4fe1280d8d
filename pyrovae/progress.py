"""Bars of long work; where none is shown, a line now and then in the log.

The first line comes after half a minute. Another comes when half a minute has gone and a tenth of
the work is done since the last one, and every five minutes at least, if there is something new.
"""

__all__ = ["Bar", "duration"]

import logging
from time import monotonic

from tqdm import tqdm

SECONDS, SHARE = 30, 0.1  # between two lines, at least
MOST = 300  # seconds between two lines, if something is done meanwhile
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
        now, (last, told) = monotonic(), self._last
        much = self._last is self._begun or self._done - told >= SHARE * self._whole
        due = now - last >= (SECONDS if much else MOST)
        if self._logged and due and self._done < self._whole:
            log.info(self._line(now))
            self._last = now, self._done
        return super().update(n)

    def _line(self, now: float) -> str:
        """Returns how much is done and left at a time, in s, with what `set_postfix` was given."""
        begun, before = self._begun
        left = (now - begun) / (self._done - before) * (self._whole - self._done)
        text = f"{self._what}: {self._done / self._whole:.0%} done, about {duration(left)} left"
        values = getattr(self, "postfix", None)
        return f"{text} ({values})" if values else text


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
