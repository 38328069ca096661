"""What signals do to a run: the first Ctrl-C lets it finish what is in flight, all else stops it at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from orch_local.run.context import StopRequest

# SIGUSR1 is what a batch system is asked to send some time before the time limit.
_AT_ONCE = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stopped(KeyboardInterrupt):
    """The run is to stop at once; ``signum`` says by which signal."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


@contextmanager
def stopping_by_signals(say: Callable[[str], None]) -> Iterator[StopRequest]:
    """Turn signals into a stop of the run inside the block; from the main thread only.

    The first SIGINT asks to finish what is in flight, and says so by ``say``. A second one, SIGTERM, SIGHUP
    and SIGUSR1 raise :class:`Stopped`. Signals that the parent process told us to ignore stay ignored.
    """
    request = StopRequest()

    def handle(signum: int, _frame: FrameType | None) -> None:
        if signum != signal.SIGINT or request.asked or not request.covers_work:
            raise Stopped(signum)
        request.finish()
        say("Finishing the questions that are in flight; press Ctrl-C again to stop at once.")

    wanted = [one for one in (signal.SIGINT, *_AT_ONCE) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, handle) for one in wanted}
    try:
        yield request
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
