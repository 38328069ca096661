"""Progress, log and signals around the work of a command."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orch_local.cli.options import console_of
from orch_local.errors import OrchError

if TYPE_CHECKING:
    import logging

    from orch_local.run.context import Display, StopRequest
    from orch_local.store.store import RunFolder


class InterruptedRunError(OrchError):
    """The user, or the batch system, stopped the run by a signal."""

    def __init__(self, signum: int, again: str) -> None:
        super().__init__("stopped; finished rows are kept", hint=again)
        self.exit_code = 128 + signum


@contextmanager
def held(*signals: signal.Signals) -> Iterator[Callable[[], object]]:
    """Let these signals wait until the block ends, or calls what it is given."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def watched(
    folder: RunFolder,
    *,
    quiet: bool,
    again: str = "run the same command again to continue",
    log: bool = True,
) -> Iterator[tuple[Display, StopRequest]]:
    """Show progress, write the log (or standard error), and turn signals into an orderly end."""
    import logging

    from orch_local.report.progress import display_for
    from orch_local.run.interrupts import stopping_by_signals

    # Progress is no part of the result: `orch-local run ... > result.txt` holds the result alone.
    aside = console_of(stderr=True)
    _log_to(folder.log if log else None)

    def say(text: str) -> None:
        aside.print(text, markup=False, soft_wrap=True)

    try:
        with display_for(aside, quiet=quiet) as display, stopping_by_signals(say) as stop:
            yield display, stop
    except KeyboardInterrupt as interrupt:
        signum = getattr(interrupt, "signum", signal.SIGINT)
        if log:  # a shard says by itself what stopped it, and why
            logging.getLogger(__name__).warning("stopped by %s", signal.Signals(signum).name)
        raise InterruptedRunError(signum, again) from None


def _log_to(file: Path | None) -> None:
    import logging

    try:
        handler: logging.Handler = (
            logging.FileHandler(file, encoding="utf-8") if file else logging.StreamHandler()
        )
    except OSError:
        handler = logging.NullHandler()  # the folder of an archived run may be read-only
    handler.setFormatter(inert_formatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


def inert_formatter() -> logging.Formatter:
    """A message is one line, whatever it quotes: it cannot pose as another, nor do anything to a terminal."""
    import logging

    from orch_local.report.safe import visible

    class Inert(logging.Formatter):
        def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its name in `logging`
            record.message = visible(record.message)
            return super().formatMessage(record)

        def format(self, record: logging.LogRecord) -> str:
            return visible(super().format(record), newlines=True)  # a traceback has lines

    return Inert("%(asctime)s %(levelname)s %(message)s")
