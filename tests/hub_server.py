"""As much of the Hugging Face hub as progan speaks to, on the loopback, in memory."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """Repositories by OWNER/NAME, each a list of commits, each a dict of files by path; and what was asked."""

    url: str = ""
    repositories: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    """Hidden, to whoever brings no token."""
    large: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path, token."""
    fails: int | None = None
    """Answer everything with this status."""

    def commits(self, name: str) -> dict[str, dict[str, bytes]]:
        """Files by revision: every commit by its number's hash, the last one also as main."""
        found = {hashlib.sha1(f"{name} {i}".encode()).hexdigest(): c for i, c in enumerate(self.repositories[name])}
        return found | {"main": self.repositories[name][-1]}


class Refusal(Exception):
    """status, and the hub's own name for what is wrong."""


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.asked.append((self.command, path, self.headers.get("Authorization")))
        try:
            if hub.fails is not None:
                raise Refusal(hub.fails, None)
            self.serve(path.strip("/").split("/"), body)
        except Refusal as refusal:
            status, name = refusal.args
            self.reply(status, b"{}", {"X-Error-Code": name} if name else {})

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

    def serve(self, words: list[str], body: bytes) -> None:
        match self.command, words:
            case "POST", ["api", "repos", "create"]:
                self.create(json.loads(body))
            case "POST", ["api", "validate-yaml"]:
                self.json({"errors": [], "warnings": []})
            case "POST", ["api", "models", owner, name, "preupload", _]:
                self.repository(f"{owner}/{name}", token=True)
                modes = [{"path": f["path"], "size": f["size"]} for f in json.loads(body)["files"]]
                large = (".safetensors", ".png")
                self.json(
                    {
                        "files": [
                            {
                                "path": mode["path"],
                                "uploadMode": "lfs" if mode["path"].endswith(large) else "regular",
                                "shouldIgnore": False,
                            }
                            for mode in modes
                        ]
                    }
                )
            case "POST", [_, _, "info", "lfs", "objects", "batch"]:
                self.json({"transfer": "basic", "objects": [self.place(o) for o in json.loads(body)["objects"]]})
            case "PUT", ["large", oid]:
                assert hashlib.sha256(body).hexdigest() == oid
                self.hub.large[oid] = body
                self.json({})
            case "POST", ["api", "models", owner, name, "commit", _]:
                self.commit(f"{owner}/{name}", [json.loads(line) for line in body.splitlines()])
            case "GET", ["api", "models", owner, name, *rest]:
                sha, files = self.revision(f"{owner}/{name}", rest[1] if rest else "main")
                siblings = [{"rfilename": path} for path in files]
                self.json({"id": f"{owner}/{name}", "sha": sha, "siblings": siblings, "private": False, "tags": []})
            case "GET" | "HEAD", [owner, name, "resolve", revision, *path]:
                self.file(f"{owner}/{name}", revision, "/".join(path))
            case _:
                raise Refusal(404, None)

    def repository(self, name: str, *, token: bool = False) -> None:
        known = name in self.hub.repositories
        if not self.headers.get("Authorization") and (token or not known or name in self.hub.private):
            raise Refusal(401, None if token else "RepoNotFound")
        if not known:
            raise Refusal(404, "RepoNotFound")

    def revision(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        self.repository(name)
        commits = self.hub.commits(name)
        if revision not in commits:
            raise Refusal(404, "RevisionNotFound")
        return next(sha for sha, files in commits.items() if files is commits[revision]), commits[revision]

    def create(self, about: dict[str, Any]) -> None:
        name = f"{about['organization']}/{about['name']}"
        if not self.headers.get("Authorization"):
            raise Refusal(401, None)
        status = 409 if name in self.hub.repositories else 200
        self.hub.repositories.setdefault(name, [{".gitattributes": b""}])
        if about.get("private") or about.get("visibility") == "private":
            self.hub.private.add(name)
        self.json({"url": f"{self.hub.url}/{name}", "name": name, "id": name}, status)

    def place(self, thing: dict[str, Any]) -> dict[str, Any]:
        return {**thing, "actions": {"upload": {"href": f"{self.hub.url}/large/{thing['oid']}"}}}

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        self.repository(name, token=True)
        commits = self.hub.repositories[name]
        files = dict(commits[-1])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        commits.append(files)
        sha = list(self.hub.commits(name))[len(commits) - 1]
        self.json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha})

    def file(self, name: str, revision: str, path: str) -> None:
        sha, files = self.revision(name, revision)
        if path not in files:
            raise Refusal(404, "EntryNotFound")
        etag = hashlib.sha256(files[path]).hexdigest()
        self.reply(200, files[path], {"X-Repo-Commit": sha, "ETag": f'"{etag}"'})

    def json(self, value: Any, status: int = 200) -> None:
        self.reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        message = Message()
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            message[key] = value
        for key, value in message.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on a free port of the loopback, for as long as the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
