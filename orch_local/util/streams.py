"""Standard input, output and error as commands need them, whatever they were started with."""

from __future__ import annotations

import io
import os
import sys


def ready() -> None:
    """Have all three streams open, also where a caller closed one (``2>&-``), and able to show anything.

    A closed one becomes the null device, for child processes, too: else the next file that is opened would be
    taken for it. A terminal that cannot show a character gets its number, not an error at the end of a run.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def lose_output() -> None:
    """Whoever read our output, such as ``head``, has seen enough: what is still to come goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
