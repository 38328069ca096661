"""The hub, asked through ``huggingface_hub``: the only file that connects to anything.

Nothing is sent to the hub but what the questions need: no telemetry, and no token that the user has not put
into HF_TOKEN. What the hub says is foreign: its words are not shown, its numbers are checked.

Files are downloaded over HTTP with ranges, through the library's own ``http_get``: ``hf_hub_download`` of
version 2.4 throws a file away that was not finished, so a broken 5 GB shard would begin anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from orch_local import __version__
from orch_local.deploy.fetch.choosing import Listed
from orch_local.deploy.fetch.explaining import FailedRequest, FetchError, explained
from orch_local.deploy.fetch.record import UNKNOWN
from orch_local.deploy.fetch.wanted import Wanted
from orch_local.errors import InputError
from orch_local.util.paths import is_sha256

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TIMEOUT_S = 20.0
_CHUNK = 2**20
"""So much is lost where a connection breaks off; the library's own 10 MB are much on a slow one."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LIBRARY: dict[str, Any] = {"library_name": "orch-local", "library_version": __version__}
_TYPES = {"model": "model", "benchmark": "dataset"}
_MAX_SIZE = 2**50


@dataclass(frozen=True, slots=True)
class Commit:
    """What the hub says about a revision."""

    sha: str
    licence: str
    gated: bool


class Hub:
    """The hub that HF_ENDPOINT names, or huggingface.co.

    Raises
    ------
    InputError
        If HF_ENDPOINT is no address, HF_TOKEN no token, or it would be sent in the clear.
    """

    def __init__(self) -> None:
        from huggingface_hub import constants

        # The library reads them from the environment when it is imported, whoever imported it first.
        constants.HF_HUB_OFFLINE = False
        constants.HF_HUB_DISABLE_TELEMETRY = True
        constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True
        constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
        self.endpoint = str(constants.ENDPOINT)
        self._largest = int(constants.MAX_HTTP_DOWNLOAD_SIZE)
        _check_address(self.endpoint)
        self._token = _token(self.endpoint)
        _silence()

    @cached_property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self._token or False, **_LIBRARY)

    def commit(self, one: Wanted, revision: str) -> Commit:
        """The commit that ``revision`` is at this moment; empty stands for the default branch.

        Raises
        ------
        InputError
            If there is no such repository or revision, or this user may not have it.
        FetchError
            If the hub cannot be reached, or fails.
        """
        with explained(FailedRequest(one, revision, self.endpoint, bool(self._token))):
            kind, asked = _TYPES[one.kind], revision or None
            info: Any = self._api.repo_info(one.repo, repo_type=kind, revision=asked, timeout=_TIMEOUT_S)
            if _COMMIT.fullmatch(info.sha) is None:
                raise ValueError("a commit hash that is none")
            return Commit(info.sha, _licence(info.card_data), bool(info.gated))

    def listing(self, one: Wanted, sha: str) -> list[Listed]:
        """All files of a commit; of a model those at the top alone.

        Raises
        ------
        InputError, FetchError
            As :meth:`commit`.
        """
        deep = one.kind == "benchmark"
        with explained(FailedRequest(one, sha, self.endpoint, bool(self._token))):
            entries = self._api.list_repo_tree(
                one.repo, repo_type=_TYPES[one.kind], revision=sha, recursive=deep
            )
            return [_listed(entry) for entry in entries if hasattr(entry, "blob_id")]

    def check_sizes(self, one: Wanted, files: Iterable[Listed]) -> None:
        """Refuse what the hub does not give over HTTP.

        Raises
        ------
        InputError
            Naming the first such file.
        """
        for file in files:
            if file.size > self._largest:
                message = f"{file.path} has {file.size:,} bytes; over HTTP the hub gives {self._largest:,}"
                raise InputError(message, where=one.repo, hint="take a repository with its weights in parts")

    def download(
        self, one: Wanted, sha: str, file: Listed, into: BinaryIO, on_bytes: Callable[[int], None]
    ) -> None:
        """Write the rest of a file behind what ``into`` has of it; ``on_bytes`` gets the number of new bytes.

        Raises
        ------
        InputError, FetchError
            As :meth:`commit`, and where the hub sends more or less than it lists.
        """
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        have = into.tell()
        url = hf_hub_url(
            one.repo, file.path, repo_type=_TYPES[one.kind], revision=sha, endpoint=self.endpoint
        )
        headers = build_hf_headers(token=self._token or False, **_LIBRARY)
        headers["Accept-Encoding"] = "identity"  # a range of compressed bytes would be of no use
        meter: Any = partial(_Meter, file.size, have, on_bytes)
        with explained(FailedRequest(one, sha, self.endpoint, bool(self._token))):
            http_get(url, into, resume_size=have, headers=headers, expected_size=file.size, tqdm_class=meter)


class _Meter:
    """What ``http_get`` takes for a progress bar; it stops at more bytes than are listed."""

    def __init__(
        self, size: int, have: int, on_bytes: Callable[[int], None], initial: int, **_unused: object
    ) -> None:
        self._left = size - initial
        self._on_bytes = on_bytes
        if initial != have:  # the hub gives no ranges, and the library begins the file anew
            on_bytes(initial - have)

    def __enter__(self) -> _Meter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, count: int) -> None:
        """Take ``count`` more bytes; fewer than none where the library begins a file anew."""
        self._left -= count
        if self._left < 0:
            raise FetchError("the hub sends more than it lists", hint="check HF_ENDPOINT, or tell the owner")
        self._on_bytes(count)


def _check_address(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise InputError("HF_ENDPOINT is no address", where=endpoint, hint="write https://HOST, or unset it")


def _token(endpoint: str) -> str:
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        return ""
    if re.fullmatch(r"[!-~]{1,512}", token) is None:
        raise InputError("HF_TOKEN holds no token", hint="copy it again, or unset it")
    if urlsplit(endpoint).scheme != "https" and urlsplit(endpoint).hostname not in (
        "localhost",
        "127.0.0.1",
        "::1",
    ):
        hint = "use an https:// address in HF_ENDPOINT, or unset HF_TOKEN"
        raise InputError("the token of HF_TOKEN would be sent in the clear", where=endpoint, hint=hint)
    return token


def _silence() -> None:
    """The library logs words of the hub as they are, terminal escapes included, and a line for each retry."""
    import logging

    from huggingface_hub.utils import logging as library

    library.set_verbosity(logging.CRITICAL + 1)


def _licence(card: Any) -> str:
    """As the card names it; Gemma's and Llama's have names of their own behind `other`."""
    names = [getattr(card, name, None) for name in ("license_name", "license")]
    licence = names[0] if names[1] in (None, "other") and names[0] else names[1]
    words = licence if isinstance(licence, list) else [licence]
    texts = [word for word in words if isinstance(word, str) and word.strip() and word.isprintable()]
    return ", ".join(texts)[:200] or UNKNOWN


def _listed(entry: Any) -> Listed:
    large = entry.lfs
    size = large.size if large else entry.size
    sha256 = str(large.sha256).removeprefix("sha256:") if large else ""
    if type(size) is not int or not 0 <= size < _MAX_SIZE or not isinstance(entry.path, str):
        raise ValueError("a size or path that is none")
    if _COMMIT.fullmatch(entry.blob_id) is None or (large and not is_sha256(sha256)):
        raise ValueError("a digest that is none")
    return Listed(entry.path, size, entry.blob_id, sha256)
