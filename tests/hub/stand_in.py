"""A stand-in for the model hub on loopback, for the real clients, with the faults of a real hub.

Repositories are made from folders or from bytes. A commit never changes. Faults are set while the server runs: it can
be down, slow or busy (429, 503), truncate downloads and flip a bit.
"""

import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".parquet", ".arrow", ".gguf", ".model")
"""Suffixes of files that a hub identifies by SHA-256 (git LFS); others have git's SHA-1."""


def is_large(path):
    return path.endswith(LARGE)


def etag_of(path, content):
    if is_large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


@dataclass
class Repository:
    """One repository: its commits, each a mapping of paths to bytes, with branches and tags."""

    commits: dict = field(default_factory=dict)
    refs: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files, branch="main"):
        """Add a commit on a branch and return its 40 digits."""
        content = sorted((path, hashlib.sha256(data).hexdigest()) for path, data in files.items())
        sha = hashlib.sha1(json.dumps([len(self.commits), content]).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[branch] = sha
        return sha

    def sha(self, revision):
        return self.refs.get(revision) or self.tags.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Faults:
    """Current faults of the server; `clear` removes all."""

    status: int | None = None
    """Status of every answer."""
    statuses: int = -1
    """Number of answers with this status; -1 for all."""
    only: str = ""
    """Faults apply only to requests with this in their path."""
    silent_seconds: float = 0
    """Delay before every answer."""
    cut_after: int | None = None
    """Close the connection of a download after this many bytes."""
    cuts: int = -1
    """Number of truncated downloads; -1 for all."""
    flip: bool = False
    """Flip the lowest bit of the middle byte of a large file."""
    bytes_a_second: float | None = None

    def clear(self):
        self.__init__()


class Hub:
    """The server and its repositories, by kind (`models`, `datasets`) and name."""

    def __init__(self, token=None):
        self.repositories = {"models": {}, "datasets": {}}
        self.faults, self.token, self.requests = Faults(), token, []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def push(self, kind, name, files, **options):
        """Commit files (a folder, or bytes by path) to a new or existing repository; return the commit."""
        repository = self.repositories[kind].setdefault(name, Repository())
        return repository.commit(_bytes_of(files), **options)

    def repository(self, kind, name):
        return self.repositories[kind][name]

    @contextmanager
    def broken(self, **faults):
        """Apply these faults within the `with` block."""
        for name, value in faults.items():
            assert hasattr(self.faults, name)
            setattr(self.faults, name, value)
        try:
            yield
        finally:
            self.faults.clear()

    def downloads(self, name=""):
        """Return the paths of the sent files, complete or not."""
        return [path for method, path in self.requests if method == "GET" and "/resolve/" in path and name in path]

    def look_ups(self):
        return [
            path for _, path in self.requests if re.search(r"^/api/(models|datasets)/", path) and "/tree/" not in path
        ]


def _bytes_of(files):
    if isinstance(files, (str, Path)):
        folder = Path(files)
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: data if isinstance(data, bytes) else data.encode() for path, data in files.items()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        self._posted = parse_qs(self.rfile.read(length).decode()) if length else {}
        self._answer(body=True)

    def log_message(self, *_):
        pass

    def _answer(self, body):
        parts = urlsplit(self.path)
        self._query, path = parse_qs(parts.query), unquote(parts.path)
        with self.hub.lock:
            self.hub.requests.append((self.command, path))
        faults = self.hub.faults
        struck = faults.only in path
        if struck and faults.silent_seconds:
            time.sleep(faults.silent_seconds)
        if struck and faults.status is not None and faults.statuses != 0:
            faults.statuses -= 1
            return self._error(faults.status, "", "the stand-in is set to fail")
        for pattern, answer in (
            (r"/api/(models|datasets)/([^/]+/[^/]+|[^/]+)/tree/(.+)", self._tree),
            (r"/api/(models|datasets)/([^/]+/[^/]+|[^/]+)/paths-info/(.+)", self._paths_info),
            (r"/api/(models|datasets)/([^/]+/[^/]+|[^/]+)/refs", self._refs),
            (r"/api/(models|datasets)/([^/]+/[^/]+|[^/]+)/revision/(.+)", self._info),
            (r"/api/(models|datasets)/([^/]+/[^/]+)", self._info),
            (r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._file),
        ):
            found = re.fullmatch(pattern, path)
            if found:
                return answer(*found.groups(), **({"body": body} if answer == self._file else {}))
        return self._error(404, "", "no such page")

    def _repository(self, kind, name, revision):
        """Return a repository and its commit, or send an error."""
        repository = self.hub.repositories[kind].get(name)
        allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}" and self.hub.token
        if repository is None or (repository.private and not allowed):
            return self._error(401 if not allowed else 404, "RepoNotFound", "Repository not found")
        if revision is None:
            revision = "main"
        sha = repository.sha(revision)
        if sha is None:
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, sha, bool(allowed)

    def _info(self, kind, name, revision=None):
        found = self._repository(kind, name, revision)
        if found:
            repository, sha, _ = found
            siblings = [{"rfilename": path} for path in repository.commits[sha]]
            gated = "manual" if repository.gated else False
            about = {"private": repository.private, "gated": gated, "tags": [], "downloads": 0}
            when = "2026-11-20T10:00:00.000Z"
            self._json({"_id": "0", "id": name, "sha": sha, "siblings": siblings, "lastModified": when, **about})

    def _refs(self, kind, name):
        found = self._repository(kind, name, None)
        if found:
            branches, tags = (
                [{"name": ref, "ref": f"refs/{what}/{ref}", "targetCommit": sha} for ref, sha in refs.items()]
                for what, refs in (("heads", found[0].refs), ("tags", found[0].tags))
            )
            self._json({"branches": branches, "tags": tags, "converts": []})

    def _tree(self, kind, name, rest):
        revision, _, folder = rest.partition("/")
        found = self._repository(kind, name, revision)
        if found:
            entries = self._entries(found, folder)
            if folder and not entries:
                return self._error(404, "EntryNotFound", "no such folder")
            self._json(entries)

    def _entries(self, found, folder):
        repository, sha, _ = found
        prefix = f"{folder}/" if folder else ""
        files = {path: data for path, data in repository.commits[sha].items() if path.startswith(prefix)}
        if self._query.get("recursive", ["false"])[0].lower() != "true":
            folders = {prefix + path[len(prefix) :].partition("/")[0] for path in files if "/" in path[len(prefix) :]}
            files = {path: data for path, data in files.items() if "/" not in path[len(prefix) :]}
        else:
            folders = {path.rsplit("/", 1)[0] for path in files if "/" in path}
        return [
            *({"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in sorted(folders)),
            *(_entry(path, data) for path, data in sorted(files.items())),
        ]

    def _paths_info(self, kind, name, revision):
        found = self._repository(kind, name, revision)
        if found:
            repository, sha, _ = found
            files, wanted = repository.commits[sha], self._posted.get("paths", [])
            folders = [path for path in wanted if any(file.startswith(f"{path}/") for file in files)]
            self._json([
                *(_entry(path, files[path]) for path in wanted if path in files),
                *({"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders),
            ])  # fmt: skip

    def _file(self, kind, name, revision, path, body):
        found = self._repository("datasets" if kind else "models", name, revision)
        if not found:
            return None
        repository, sha, allowed = found
        if repository.gated and not allowed:
            return self._error(403, "GatedRepo", f"Access to model {name} is restricted")
        if path not in repository.commits[sha]:
            return self._error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
        data = repository.commits[sha][path]
        etag, size, first = etag_of(path, data), len(data), 0
        if body and self.hub.faults.flip and is_large(path) and self.hub.faults.only in path:
            data = data[: size // 2] + bytes([data[size // 2] ^ 1]) + data[size // 2 + 1 :]
        if body and (ranged := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            first = int(ranged[1])
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", sha)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(size - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        self.end_headers()
        if body:
            self._send(data[first:], path)
        return None

    def _send(self, data, path):
        faults = self.hub.faults
        cut = faults.cut_after is not None and faults.only in path and faults.cuts != 0 and len(data) > faults.cut_after
        if cut:
            faults.cuts -= 1
            data = data[: faults.cut_after]
        try:
            if faults.bytes_a_second and faults.only in path:
                at_once = max(1, int(faults.bytes_a_second / 50))
                for begin in range(0, len(data), at_once):
                    self.wfile.write(data[begin : begin + at_once])
                    self.wfile.flush()
                    time.sleep(1 / 50)
            else:
                self.wfile.write(data)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):  # the client was killed
            cut = True
        if cut:
            self.close_connection = True

    def _json(self, value):
        self._whole(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status, code, message, headers=()):
        sent = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self._whole(status, json.dumps({"error": message}).encode(), sent | dict(headers))

    def _whole(self, status, content, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(path, data):
    entry = {"type": "file", "oid": etag_of("", data), "size": len(data), "path": path}
    if is_large(path):
        entry["lfs"] = {"oid": etag_of(path, data), "size": len(data), "pointerSize": 134}
    return entry
