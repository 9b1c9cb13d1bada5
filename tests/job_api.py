"""Ray's dashboard as a client of its job API sees it, answering as Ray 2.60 does; what jobs do is for tests to say."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from aiohttp import web

RUNNING, DONE, FAILED, STOPPED = "RUNNING", "SUCCEEDED", "FAILED", "STOPPED"


@dataclass
class JobApi:
    """A dashboard on 127.0.0.1.

    Attributes:
        address: of it.
        jobs: what it tells of each job, by submission id.
        logs: of each job.
        streams: whether logs can be followed; a proxy before it may let no websocket through.
        requests: method, path and headers of all that came.
        packages: names of what was uploaded.
        sent_on: status of a proxy's answer to all requests, and the address to which it sends them on.
        page: status and text of a proxy's answer to whatever is to be changed.
    """

    address: str = ""
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    streams: bool = True
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    packages: dict[str, bytes] = field(default_factory=dict)
    sent_on: tuple[int, str] | None = None
    page: tuple[int, str] | None = None

    def add(self, job_id: str, status: str, **told: Any) -> dict[str, Any]:
        """A job that is there."""
        job = {"type": "SUBMISSION", "submission_id": job_id, "entrypoint": "true", "status": status}
        times = {"start_time": 1000 * (1 + len(self.jobs)), "end_time": None if status == RUNNING else 10**6}
        self.jobs[job_id] = job | times | told
        return self.jobs[job_id]


@contextmanager
def job_api() -> Iterator[JobApi]:
    """A dashboard in a thread of its own, for the time of the block."""
    api, loop, ready = JobApi(), asyncio.new_event_loop(), threading.Event()
    left = asyncio.Event()

    async def serve() -> None:
        runner = web.AppRunner(_application(api), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        api.address = f"http://{host}:{port}"
        ready.set()
        await left.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait()
    try:
        yield api
    finally:
        loop.call_soon_threadsafe(left.set)
        thread.join()
        loop.close()


def _application(api: JobApi) -> web.Application:
    @web.middleware
    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        api.requests.append((request.method, request.path, dict(request.headers)))
        if api.sent_on:
            status, address = api.sent_on
            return web.Response(status=status, headers={"Location": f"{address}{request.path}"})
        if api.page and request.method != "GET":
            return web.Response(status=api.page[0], text=api.page[1], content_type="text/html")
        answer: web.StreamResponse = await handler(request)
        return answer

    def found(request: web.Request) -> dict[str, Any]:
        job_id = request.match_info["job"]
        if job_id not in api.jobs:
            raise web.HTTPNotFound(text=f"Job {job_id} does not exist")
        return api.jobs[job_id]

    async def submit(request: web.Request) -> web.Response:
        sent = await request.json()
        if sent["submission_id"] in api.jobs:
            text = f"Traceback\nValueError: Job with submission_id {sent['submission_id']} already exists. Please use a"
            return web.Response(status=400, text=f"{text} different submission_id.\n")
        kept = {name: sent[name] for name in ("entrypoint", "metadata", "runtime_env")}
        api.add(sent["submission_id"], RUNNING, **kept)
        return web.json_response({"job_id": sent["submission_id"], "submission_id": sent["submission_id"]})

    async def stop(request: web.Request) -> web.Response:
        found(request)["status"] = STOPPED
        return web.json_response({"stopped": True})

    async def logs(request: web.Request) -> web.Response:
        found(request)
        return web.json_response({"logs": api.logs.get(request.match_info["job"], "")})

    async def tail(request: web.Request) -> web.StreamResponse:
        if not api.streams:
            raise web.HTTPForbidden(text="no websockets here")
        socket, sent, job = web.WebSocketResponse(), 0, found(request)
        await socket.prepare(request)
        while True:
            over, log = job["status"] != RUNNING, api.logs.get(request.match_info["job"], "")
            if log[sent:]:
                await socket.send_str(log[sent:])
                sent = len(log)
            if over:
                return socket
            await asyncio.sleep(0.02)

    async def package(request: web.Request) -> web.Response:
        if request.method == "PUT":
            api.packages[request.path] = await request.read()
        return web.Response(status=200 if request.path in api.packages else 404)

    async def version(request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": ray.__version__, "ray_commit": ""})

    async def jobs(request: web.Request) -> web.Response:
        return web.json_response(list(api.jobs.values()))

    async def job(request: web.Request) -> web.Response:
        return web.Response(text=json.dumps(found(request)), content_type="application/json")

    application = web.Application(middlewares=[note], client_max_size=1 << 30)
    application.add_routes(
        [
            *(web.get("/api/version", version), web.get("/api/jobs/", jobs), web.post("/api/jobs/", submit)),
            *(web.get("/api/jobs/{job}", job), web.post("/api/jobs/{job}/stop", stop)),
            *(web.get("/api/jobs/{job}/logs", logs), web.get("/api/jobs/{job}/logs/tail", tail)),
            *(web.get("/api/packages/{tail:.*}", package), web.put("/api/packages/{tail:.*}", package)),
        ]
    )
    return application
