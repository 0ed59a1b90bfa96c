"""The explorer's server: it reads a request, lets the library work, and writes the answer."""

import json
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import uvicorn
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from patchmosaic.data.pixels import as_floats
from patchmosaic.errors import InputError
from patchmosaic.explorer import messages
from patchmosaic.explorer.flow import Flow
from patchmosaic.explorer.picture import export
from patchmosaic.explorer.studio import Studio
from patchmosaic.explorer.uploads import MAX_BYTES, encode_start, read_drawing, read_picture
from patchmosaic.explorer.view import View
from patchmosaic.explorer.work import Job, Workshop, counted

STATIC = Path(__file__).with_name("static")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_DROPPED = 1 << 28
_LOCAL_NAMES = ["127.0.0.1", "localhost", "[::1]"]


def build_app(studio: Studio, command: Callable[[View], str], local: bool = True) -> Starlette:
    """The whole application.

    Args:
        studio: what is explored.
        command: what to type to get a view's picture again.
        local: whether to refuse requests that name another host, as a page elsewhere could send them here.
    """
    hosts = [Middleware(TrustedHostMiddleware, allowed_hosts=_LOCAL_NAMES)] if local else []
    api = _Api(studio, command)
    return Starlette(
        routes=[
            Route("/", _page),
            Mount("/static", StaticFiles(directory=STATIC)),
            Route("/api/setup", api.setup),
            Route("/api/run", api.run),
            Route("/api/trace", api.trace),
            Route("/api/pixel", api.pixel),
            Route("/api/dial", api.dial),
            Route("/api/network", api.network),
            Route("/api/picture", api.picture, methods=["POST"]),
            Route("/api/drawn", api.drawn, methods=["POST"]),
            Route("/api/export.png", api.export),
            Route("/api/command", api.told),
        ],
        middleware=[Middleware(_Headers), *hosts],
        exception_handlers={InputError: _refuse, HTTPException: _refuse},
    )


def make_server(app: Starlette) -> uvicorn.Server:
    """It says nothing but errors, and ends at once."""
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=1,
        http="h11",
        h11_max_incomplete_event_size=1 << 20,  # a link may hold a picture
    )
    return uvicorn.Server(config)


async def _page(request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _refuse(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    text = error.detail if isinstance(error, HTTPException) else str(error)
    return JSONResponse({"error": text}, status)


class _Headers:
    """Adds the headers that every answer has."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [
                    (name.lower().encode(), value.encode()) for name, value in _HEADERS.items()
                ]
            await send(message)

        await self.app(scope, receive, with_headers)


class _Api:
    """One method for each address; the work itself is in jobs, which run in threads."""

    def __init__(self, studio: Studio, command: Callable[[View], str]):
        self.studio, self.command, self.workshop = studio, command, Workshop()

    async def setup(self, request: Request) -> Response:
        return JSONResponse(messages.setup(self.studio))

    async def run(self, request: Request) -> Response:
        return self._stream(request, self._run)

    async def trace(self, request: Request) -> Response:
        return self._stream(request, self._trace)

    async def pixel(self, request: Request) -> Response:
        return self._stream(request, self._pixel)

    async def dial(self, request: Request) -> Response:
        return self._stream(request, self._dial)

    async def network(self, request: Request) -> Response:
        return self._stream(request, self._network)

    async def export(self, request: Request) -> Response:
        view = View.parse(request.query_params)
        drawn: list[bytes] = []

        def begin() -> tuple[Job, float]:
            return self._export(view, drawn), self.studio.work(view)

        async with aclosing(self.workshop.lines(begin)) as lines:
            async for line in lines:
                message = json.loads(line)
                if "error" in message:
                    raise InputError(message["error"])
                if await request.is_disconnected():
                    return Response(status_code=204)
        name = f'attachment; filename="patchmosaic-{view.machine}-{view.seed}.png"'
        return Response(drawn[0], media_type="image/png", headers={"Content-Disposition": name})

    async def told(self, request: Request) -> Response:
        return JSONResponse({"command": self.command(View.parse(request.query_params))})

    async def picture(self, request: Request) -> Response:
        content = await _body(request)
        return self._started(await to_thread.run_sync(read_picture, content, self.studio.shape))

    async def drawn(self, request: Request) -> Response:
        try:
            pixels = json.loads(await _body(request))["pixels"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InputError("a drawing is JSON with the name pixels") from None
        return self._started(read_drawing(pixels, self.studio.shape))

    def _started(self, picture: Any) -> Response:
        return JSONResponse({"start": encode_start(picture), "picture": messages.png(as_floats(picture)[0])})

    def _stream(self, request: Request, job: Callable[[View], Job]) -> Response:
        view = View.parse(request.query_params)

        def begin() -> tuple[Job, float]:
            return job(view), self.studio.work(view)

        return StreamingResponse(self.workshop.lines(begin), media_type="application/x-ndjson")

    def _run(self, view: View) -> Job:
        studio, flow = self.studio, self.studio.flow(view)
        yield from _take(flow)
        if studio.traces_every_step(view):
            machine, steps = studio.machine(view), range(len(flow.times))
            yield from counted(
                len(steps),
                "tracing",
                lambda: sum(map(flow.is_traced, steps)),
                lambda: flow.trace(machine, next((k for k in steps if not flow.is_traced(k)), steps[-1])),
            )
        yield {"result": messages.flow(studio, view, flow)}

    def _trace(self, view: View) -> Job:
        studio, flow = self.studio, self.studio.flow(view)
        yield from _take(flow)
        machine, k = studio.machine(view), studio.step(view, flow)
        yield from counted(1, "tracing", lambda: int(flow.is_traced(k)), lambda: flow.trace(machine, k))
        yield {"result": messages.step_map(studio, view, flow, k)}

    def _pixel(self, view: View) -> Job:
        flow = self.studio.flow(view)
        yield from _take(flow)
        yield {"result": messages.pixel(self.studio, view, flow)}

    def _dial(self, view: View) -> Job:
        count = 0
        for one in self.studio.dial(view):
            yield from _take(one.flow)
            yield {"picture": messages.dialled(self.studio, view, one)}
            count += 1
        yield {"result": {"count": count}}

    def _network(self, view: View) -> Job:
        theory, drawn = self.studio.flow(view), self.studio.network_flow(view)
        yield from _take(theory)
        yield from _take(drawn)
        yield {"result": messages.network(theory, drawn)}

    def _export(self, view: View, drawn: list[bytes]) -> Job:
        flow = self.studio.flow(view)
        yield from _take(flow)
        drawn.append(export(self.studio, view, flow))


def _take(flow: Flow) -> Job:
    """Every step of a flow that is not taken yet."""
    yield from counted(len(flow.times), "drawing", lambda: len(flow.steps), flow.advance)


async def _body(request: Request) -> bytes:
    """What was sent. Some of what is too much is read and dropped: a browser shows no answer before it has sent all.

    Raises:
        HTTPException: more than MAX_BYTES.
    """
    too_much = HTTPException(413, f"the file has more than {MAX_BYTES >> 20} MiB: use a smaller picture")
    if int(request.headers.get("content-length", "0")) > _DROPPED:
        raise too_much
    content, length = b"", 0
    async for part in request.stream():
        length += len(part)
        if length > _DROPPED:
            break
        content = content + part if length <= MAX_BYTES else b""
    if length > MAX_BYTES:
        raise too_much
    return content


def reproduced(studio: Studio, view: View) -> bytes:
    """The picture of a view, without a server."""
    flow = studio.flow(view)
    for _ in _take(flow):
        pass
    return export(studio, view, flow)
