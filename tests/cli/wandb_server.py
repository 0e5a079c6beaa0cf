"""A W&B server on loopback, as small as ``wandb sweep``, ``wandb agent`` and one run at a time need
it. It keeps what it is told.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"name": "zoo", "entityName": "me", "entity": {"name": "me"}, "id": "p"}


class Server(ThreadingHTTPServer):
    """Serves on a free port of 127.0.0.1 while used as a context manager.

    Attributes:
        sweeps: the sweep configs received, as text. configs: a run's config. history: its logged
            rows. files: uploaded file names.
        wanted: parameter settings still to be handed to the agent.
    """

    daemon_threads = True

    def __init__(self, wanted: list[dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sweeps: list[str] = []
        self.wanted, self.running, self.finished = [*wanted], "", set()
        self.configs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.summary: dict[str, dict[str, Any]] = {}
        self.files: list[str] = []
        self.operations: list[str] = []
        self.started = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Server:
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, address: Any) -> None:
        """Clients hang up as they please; anything else is a fault of this server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, address)

    def answer(self, operation: str, v: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL operation."""
        sweep = {
            "id": "c3dlZXA=",
            "name": "s1",
            "state": "RUNNING",
            "config": self.sweeps[-1] if self.sweeps else "{}",
            "runs": {"edges": []},
        }
        if operation == "Viewer":
            return {
                "viewer": {
                    "id": "u",
                    "entity": "me",
                    "username": "me",
                    "flags": "{}",
                    "teams": {"edges": []},
                }
            }
        if operation == "UpsertSweep":
            self.sweeps.append(v["config"])
            return {
                "upsertSweep": {
                    "sweep": {**sweep, "project": PROJECT},
                    "configValidationWarnings": [],
                }
            }
        if operation == "SweepWithRuns":
            return {
                "project": {
                    "sweep": {
                        **sweep,
                        "method": "grid",
                        "bestLoss": None,
                        "controller": None,
                        "scheduler": None,
                    }
                }
            }
        if operation == "CreateAgent":
            return {"createAgent": {"agent": {"id": "agent1"}}}
        if operation == "Heartbeat":
            return {
                "agentHeartbeat": {
                    "agent": {"id": "agent1"},
                    "commands": json.dumps(self.commands(json.loads(v.get("runState") or "{}"))),
                }
            }
        if operation == "RunResumeStatus":
            return {"model": {**PROJECT, "bucket": None}}
        if operation == "UpsertBucket":
            name = v.get("name") or "run"
            if v.get("config"):
                self.configs[name] = {
                    k: x.get("value") if isinstance(x, dict) else x
                    for k, x in json.loads(v["config"]).items()
                }
            bucket = {
                "id": f"id-{name}",
                "name": name,
                "displayName": name,
                "description": "",
                "config": "{}",
                "sweepName": v.get("sweep"),
                "project": PROJECT,
                "historyLineCount": 0,
            }
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": f, "uploadUrl": f"{self.url}/upload/{f}"} for f in v["files"]]
            return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": files}}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        raise KeyError(operation)

    def commands(self, states: dict[str, str]) -> list[dict[str, Any]]:
        """What the agent is to do next: nothing while a run is going, the next setting, or
        leave.
        """
        current = f"run{self.started}"
        if (
            self.started
            and current not in self.finished
            and states.get(current, True) in (True, "RUNNING", "QUEUED", "running")
        ):
            return []
        if not self.wanted:
            return [{"type": "exit"}]
        self.started += 1
        setting = self.wanted.pop(0)
        return [
            {
                "type": "run",
                "run_id": f"run{self.started}",
                "program": "zoo.fit",
                "args": {k: {"value": x} for k, x in setting.items()},
            }
        ]

    def stream(self, run: str, body: dict[str, Any]) -> None:
        for name, part in body.get("files", {}).items():
            if name == "wandb-history.jsonl":
                self.history[run] += [json.loads(line) for line in part["content"]]
            elif name == "wandb-summary.json":
                self.summary[run] = json.loads(part["content"][-1])
        if body.get("complete"):
            self.finished.add(run)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        return body

    def _reply(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self._body()
        if self.path.endswith("/graphql"):
            asked = json.loads(body)
            operation = asked.get("operationName") or re.search(
                r"(?:query|mutation)\s+(\w+)", asked["query"]
            ).group(1)
            self.server.operations.append(operation)
            try:
                self._reply({"data": self.server.answer(operation, asked.get("variables") or {})})
            except KeyError as error:
                self._reply({"errors": [{"message": f"not served: {error}"}], "data": None})
        elif self.path.endswith("/file_stream"):
            self.server.stream(self.path.split("/")[-2], json.loads(body))
            self._reply({"exitcode": None, "limits": {}})
        else:
            self._reply({})

    def do_PUT(self) -> None:
        self._body()
        self.server.files.append(self.path.removeprefix("/upload/"))
        self._reply({})

    def do_GET(self) -> None:
        self._reply({})

    def log_message(self, *_: object) -> None:
        pass
