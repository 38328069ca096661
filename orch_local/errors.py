"""The error tree: every error of ours says what happened, where, and what to do next.

The command line prints an :class:`OrchError` as one message and leaves with its ``exit_code``; it never
shows a traceback for one. Errors of a single question are not raised at all: they are records
(``Analysis.outcome``), because one bad prompt must not cost the run.
"""

from __future__ import annotations


class OrchError(Exception):
    """Base of all errors that a user can act upon.

    Parameters
    ----------
    message:
        What went wrong, with the value that caused it.
    where:
        File, row or key to look at; empty where the message already says it.
    hint:
        The next thing to do.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class InputError(OrchError):
    """What the user gave cannot be used; nothing was run and nothing was lost."""

    exit_code = 2


class ConfigError(InputError):
    """A run file or a model config is not valid."""


class BenchmarkError(InputError):
    """A question file is missing, unreadable or has bad rows."""


class ModelError(InputError):
    """A model folder is missing, incomplete, unsafe or not supported."""


class PromptError(InputError):
    """A prompt template or a chat template cannot be used."""


class StoreError(OrchError):
    """The store or the run folder cannot be read or written."""

    exit_code = 2


class EngineError(OrchError):
    """An engine failed as a whole (not one question): load failure, dead or hanging worker."""
