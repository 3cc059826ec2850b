"""A hub on this machine: as much of its protocol as a push and a download need, in memory."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_this_test"


class FakeHub:
    """Repositories by name: files of the one commit that each has."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.url = ""

    def commit_of(self, name: str) -> str:
        """What names the state of a repository."""
        found = hashlib.sha1()
        for path, content in sorted(self.repositories[name].items()):
            found.update(path.encode() + content)
        return found.hexdigest()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Serves on a free port of this machine."""
    hub = FakeHub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _send(
        self, content: bytes | dict[str, Any] | list[Any], status: int = 200, **headers: str
    ) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        body, hub = self._body(), self.state
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send({"error": "Invalid username or password."}, 401)
        parts = self.path.strip("/").split("/")
        if self.path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            hub.repositories.setdefault(name, {})
            hub.private[name] = bool(asked.get("private"))
            return self._send({"url": f"{hub.url}/{name}", "id": name})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{hub.url}/object/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self._send({"transfer": "basic", "objects": objects})
        name = "/".join(parts[2:4])
        if parts[4:5] == ["preupload"]:
            modes = [
                {
                    "path": each["path"],
                    "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            return self._send({"files": modes})
        if parts[4:5] == ["commit"]:
            for line in body.splitlines():
                self._apply(name, json.loads(line))
            commit = hub.commit_of(name)
            url = f"{hub.url}/{name}/commit/{commit}"
            return self._send({"success": True, "commitUrl": url, "commitOid": commit})
        return self._send({"error": f"no such place: {self.path}"}, 404)

    def _apply(self, name: str, line: dict[str, Any]) -> None:
        files, value = self.state.repositories[name], line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            files[value["path"]] = self.state.objects[value["oid"]]

    def do_PUT(self) -> None:
        body = self._body()
        self.state.objects[self.path.rpartition("/")[2]] = body
        assert hashlib.sha256(body).hexdigest() == self.path.rpartition("/")[2]
        self._send(b"")

    def do_GET(self) -> None:
        hub, parts = self.state, self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in hub.repositories:
            name = "/".join(parts[2:4])
            files = hub.repositories[name]
            if parts[4:5] == ["tree"]:
                return self._send(
                    [
                        {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                        for path, content in files.items()
                    ]
                )
            about = {"id": name, "modelId": name, "sha": hub.commit_of(name), "tags": []}
            return self._send({**about, "siblings": [{"rfilename": each} for each in files]})
        name = "/".join(parts[:2])
        files = hub.repositories.get(name, {})
        path = "/".join(parts[4:])
        if parts[2:3] == ["resolve"] and path in files:
            etag = hashlib.sha256(files[path]).hexdigest()
            return self._send(files[path], ETag=f'"{etag}"', X_Repo_Commit=hub.commit_of(name))
        return self._send({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET
