"""A small hub on 127.0.0.1 that answers what `huggingface_hub` asks, as the real one does, and can misbehave.

Like the real one it has two hosts: the hub itself, and the one that it sends the client to for large files
(another port, so that a token sent there would be seen).
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE = (".safetensors", ".parquet", ".bin", "tokenizer.json")
"""Ends of the names of files that are not in git but in the large file storage."""
Files = Mapping[str, bytes]


def blob_of(content: bytes) -> str:
    """Git's name of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Seen(NamedTuple):
    """A request, and what was sent for it."""

    host: str
    """``hub`` or ``storage``."""
    method: str
    path: str
    token: str
    range: str
    agent: str
    status: int
    sent: int


@dataclass
class Repo:
    """A repository; ``listed`` changes what the hub says of a file, ``served`` what it sends."""

    name: str
    kind: str = "model"
    licence: str | None = "apache-2.0"
    gated: str | bool = False
    allowed: str = ""
    """Token that opens a gated repository."""
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    extra: list[dict[str, Any]] = field(default_factory=list)
    served: dict[str, bytes] = field(default_factory=dict)

    def commit(self, files: Files, branch: str = "main") -> str:
        """Add a commit at the end of a branch; returns its hash."""
        sha = hashlib.sha1(repr((self.name, len(self.commits))).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[branch] = sha
        return sha

    def at(self, revision: str) -> str | None:
        """The commit hash of a branch, tag or hash."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)


class Hub:
    """State of the server, and what it saw."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.seen: list[Seen] = []
        self.cut: dict[str, list[int]] = {}
        """By end of a file's path: after so many bytes is each of the next answers cut off."""
        self.stuck: dict[str, int] = {}
        """By end of a file's path: behind so many of its bytes nothing comes, until this is cleared."""
        self.failing: dict[str, tuple[int, dict[str, str]]] = {}
        """By a part of the path: status and headers of the answer."""
        self.page = 1000
        self.ranges = True
        self.url = self.storage = ""

    def add(self, name: str, files: Files, kind: str = "model", **more: Any) -> Repo:
        """A repository with one commit."""
        repo = self.repos[kind, name] = Repo(name, kind, **more)
        repo.commit(files)
        return repo

    def bytes_of(self, end: str) -> int:
        """Bytes sent of files whose path ends so."""
        return sum(one.sent for one in self.seen if one.path.endswith(end))

    def content(self, sha256: str) -> tuple[str, bytes] | None:
        """A large file by its digest: its path, and what is sent."""
        for repo in self.repos.values():
            for files in repo.commits.values():
                for path, content in files.items():
                    if sha256_of(content) == sha256:
                        return path, repo.served.get(path, content)
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, address = self.server.hub, urlsplit(self.path)
        path = unquote(address.path)
        for part, (status, headers) in hub.failing.items():
            if part in path:
                return self._send(status, b'{"error": "\\u001b[31mfailing"}', headers)
        if self.server.host == "storage":
            return self._stored(path)
        if path.startswith("/api/resolve-cache/"):
            return self._cached(path.removeprefix("/api/resolve-cache/"))
        if path.startswith("/api/"):
            return self._api(address.path.removeprefix("/api/"), parse_qs(address.query))
        return self._resolve(address.path.lstrip("/"))

    def _api(self, path: str, query: dict[str, list[str]]) -> None:
        kind, *parts = path.split("/")
        kind = kind.removesuffix("s")
        name, rest = "/".join(parts[:2]), [unquote(part) for part in parts[2:]]
        repo = self._repo(kind, name)
        if repo is None:
            return None
        sha = repo.at(rest[1] if rest else "main")
        if sha is None:
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        if rest and rest[0] == "tree":
            return self._tree(repo, sha, query)
        card = {"license": repo.licence} if repo.licence else None
        info = {"_id": "1", "id": name, "sha": sha, "gated": repo.gated, "private": False, "cardData": card}
        siblings = [{"rfilename": path} for path in repo.commits[sha]]
        return self._json({**info, "siblings": siblings, "lastModified": "2026-01-01T00:00:00.000Z"})

    def _tree(self, repo: Repo, sha: str, query: dict[str, list[str]]) -> None:
        deep = query.get("recursive") == ["true"]
        entries = []
        for path, content in sorted(repo.commits[sha].items()):
            if not deep and "/" in path:
                entries.append({"type": "directory", "oid": "0" * 40, "size": 0, "path": path.split("/")[0]})
            else:
                entries.append(entry(path, content))
        entries = list({one["path"]: one for one in entries}.values()) + repo.extra
        start = int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + self.server.hub.page < len(entries):
            query_text = f"recursive={str(deep).lower()}&cursor={start + self.server.hub.page}"
            following = f"{urlsplit(self.path).path}?{query_text}"
            headers["Link"] = f'<{self.server.hub.url}{following}>; rel="next"'
        self._json(entries[start : start + self.server.hub.page], headers)

    def _resolve(self, path: str) -> None:
        """A file by its path: a small one is moved to a cache of the hub, a large one to the storage."""
        kind = "dataset" if path.startswith("datasets/") else "model"
        name, _, rest = path.removeprefix("datasets/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        repo = self._repo(kind, name)
        if repo is None:
            return None
        sha, file = repo.at(unquote(revision)), unquote(file)
        if sha is None:
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        if repo.gated and self._token != (repo.allowed or None):
            message = f"Access to model {name} is restricted. Visit it to ask for access."
            return self._refuse(403 if self._token else 401, "GatedRepo", message)
        content = repo.commits[sha].get(file)
        if content is None:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        if not file.endswith(LARGE):
            target = f"/api/resolve-cache/{kind}s/{quote(name)}/{sha}/{quote(file)}"
            return self._send(307, b"", {"Location": target, "X-Repo-Commit": sha})
        sha256 = sha256_of(content)
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256}"', "X-Xet-Hash": sha256}
        target = f"{self.server.hub.storage}/{sha256}?signature=secret"
        return self._send(302, b"", {"Location": target, "X-Repo-Commit": sha, **linked})

    def _cached(self, path: str) -> None:
        kind, owner, name, sha, file = path.split("/", 4)
        repo = self.server.hub.repos[kind.removesuffix("s"), f"{owner}/{name}"]
        content = repo.commits[sha][file]
        headers = {"ETag": f'"{blob_of(content)}"', "X-Repo-Commit": sha}
        self._content(file, repo.served.get(file, content), headers)

    def _stored(self, path: str) -> None:
        found = self.server.hub.content(path.strip("/"))
        if found is None:
            return self._refuse(404, "", "gone")
        return self._content(*found, {"ETag": f'"{path.strip("/")}"'})

    def _content(self, file: str, content: bytes, headers: dict[str, str]) -> None:
        start, status = 0, 200
        asked = self.headers.get("Range")
        if asked and self.server.hub.ranges:
            start, status = int(asked.removeprefix("bytes=").split("-")[0]), 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(status, content[start:], headers, file, start)

    def _repo(self, kind: str, name: str) -> Repo | None:
        repo = self.server.hub.repos.get((kind, name))
        if repo is None and self._token:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif repo is None:
            self._refuse(401, "", "Invalid username or password.")
        return repo

    @property
    def _token(self) -> str | None:
        value = self.headers.get("Authorization")
        return value.removeprefix("Bearer ") if value else None

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._send(status, json.dumps({"error": message}).encode(), headers)

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str], file: str = "", start: int = 0
    ) -> None:
        hub = self.server.hub
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0
        if self.command != "HEAD":
            sent = self._body(body, file, start)
        names = ("Authorization", "Range", "User-Agent")
        token, asked, agent = (self.headers.get(name, "") for name in names)
        path = file or urlsplit(self.path).path
        hub.seen.append(Seen(self.server.host, self.command, path, token, asked, agent, status, sent))

    def _body(self, body: bytes, file: str, start: int) -> int:
        """Send a body that begins at a byte of its file; returns how much of it was sent."""
        hub = self.server.hub
        limits = next((left for end, left in hub.cut.items() if file and file.endswith(end)), [])
        limit = limits.pop(0) if limits else len(body)
        sent = 0
        try:
            while sent < min(limit, len(body)):
                while self._is_stuck(file, start + sent):
                    time.sleep(0.05)
                block = body[sent : min(sent + 65536, limit)]
                self.wfile.write(block)
                sent += len(block)
        except OSError:
            self.close_connection = True
        if limit < len(body):
            self.wfile.flush()
            self.close_connection = True
        return sent

    def _is_stuck(self, file: str, place: int) -> bool:
        """Whether nothing comes from this place on, to a client that connects again neither."""
        return any(
            file and file.endswith(end) and place >= most for end, most in self.server.hub.stuck.items()
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: Hub, host: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub, self.host = hub, host

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that was killed


def entry(path: str, content: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
    known: dict[str, Any] = {"type": "file", "oid": blob_of(content), "size": len(content), "path": path}
    if path.endswith(LARGE):
        sha256 = sha256_of(content)
        pointer = (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
        )
        known["oid"] = blob_of(pointer)
        known["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
        known["xetHash"] = sha256
    return known


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    hub = Hub()
    servers = [_Server(hub, "hub"), _Server(hub, "storage")]
    hub.url, hub.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
