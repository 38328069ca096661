"""Errors of the hub's library as errors of ours: what happened, and what to do about it.

None of the words of the hub are shown: they are foreign, and meant for other programs.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from orch_local.deploy.fetch.wanted import Wanted
from orch_local.errors import InputError, OrchError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

AGAIN = "run the same command again: what has come is kept"


class FetchError(OrchError):
    """The hub, or the way to it, failed; nothing that had come is lost."""


class FailedRequest(NamedTuple):
    """What was requested when an error occurred."""

    one: Wanted
    revision: str
    endpoint: str
    """Address of the hub."""
    with_token: bool


@contextmanager
def explained(asked: FailedRequest) -> Iterator[None]:
    """Make an error of ours of whatever the library raises in the block.

    Raises
    ------
    InputError
        If there is no such thing, or this user may not have it.
    FetchError
        If the hub cannot be reached, or fails.
    OSError
        As it was, where it is of this machine.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repo = asked.one.repo
    try:
        yield
    except OrchError:
        raise
    except HfHubHTTPError as error:
        raise _refused(error, asked) from None
    except HFValidationError:
        hint = "write OWNER/NAME, as its page has it"
        raise InputError("is no repository of the hub", where=repo, hint=hint) from None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        message = f"its answer cannot be understood: {type(error).__name__}"
        hint = "is it a hub, and has its form changed? See HF_ENDPOINT"
        raise FetchError(message, where=asked.endpoint, hint=hint) from None
    except OSError as error:
        if error.errno is not None:  # of this machine, e.g. a full disk
            raise
        raise FetchError("the connection broke off", where=repo, hint=AGAIN) from None
    except Exception as error:
        if not _is_transport(error):
            raise
        hint = f"check the network, HTTPS_PROXY and HF_ENDPOINT, then {AGAIN}"
        message = f"cannot be reached: {type(error).__name__}"
        raise FetchError(message, where=asked.endpoint, hint=hint) from None


def _refused(error: HfHubHTTPError, asked: FailedRequest) -> OrchError:
    from huggingface_hub import errors

    status, repo = error.response.status_code, asked.one.repo
    if isinstance(error, errors.RevisionNotFoundError):
        hint = "see its page for the branches, tags and commits there are; --update takes the newest"
        return InputError(f"has no revision {asked.revision or 'main'!r}", where=repo, hint=hint)
    if isinstance(error, errors.DisabledRepoError):
        return InputError("has been disabled on the hub", where=repo, hint="see its page")
    if isinstance(error, errors.GatedRepoError) or status == 403:
        return _gated(asked)
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return _unknown(asked, status)
    if status == 429:
        hint = (
            f"wait {_seconds(error.response.headers)}, then {AGAIN}; a token in HF_TOKEN has a higher limit"
        )
        return FetchError("the hub takes no more requests for now (429)", where=repo, hint=hint)
    return FetchError(f"the hub fails ({status})", where=repo, hint=f"later, {AGAIN}")


def _gated(asked: FailedRequest) -> InputError:
    prefix = "datasets/" if asked.one.kind == "benchmark" else ""
    page = f"{asked.endpoint}/{prefix}{asked.one.repo}"
    hint = f"accept its terms at {page}, then set HF_TOKEN to a token of that account (read access will do)"
    if asked.with_token:
        hint = f"the account of HF_TOKEN has no access yet: accept the terms at {page}, or wait"
    return InputError("is given only to those who have accepted its terms", where=asked.one.repo, hint=hint)


def _unknown(asked: FailedRequest, status: int) -> InputError:
    hint = "check the name; a private repository, or one with terms to accept, needs a token in HF_TOKEN"
    if asked.with_token:
        hint = "check the name, and whether the token in HF_TOKEN is valid and may read it"
    noun = "data set" if asked.one.kind == "benchmark" else "model"
    return InputError(f"the hub shows no such {noun} ({status})", where=asked.one.repo, hint=hint)


def _seconds(headers: Any) -> str:
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    limit = parse_ratelimit_headers(headers)
    after = str(limit.reset_in_seconds) if limit else str(headers.get("Retry-After", ""))
    return f"{int(after):,} seconds" if after.isdecimal() and len(after) < 8 else "some minutes"


def _is_transport(error: Exception) -> bool:
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    return isinstance(error, HTTPError)


def is_full(error: OSError) -> bool:
    """Whether the disk, or what this user may have of it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
