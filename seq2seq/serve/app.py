"""The server over HTTP: Starlette's routes, uvicorn's connections, and the limits of both."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import re
import socket
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from seq2seq.serve.api import Api, RefusedError
from seq2seq.serve.metrics import Metrics
from seq2seq.serve.openapi import document

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]

_PATIENCE = 10.0  # seconds for a client to send a request, or to take an answer
_LETTING_IN = 3  # rounds of the event loop, until it knows all whom it has let in
_LAST_MOMENT = 0.5  # seconds; when the server ends, for the first request of a new connection
_HEADER_BYTES = 16_384
_CONNECTIONS = 1000
_FIELDS = 2000  # of a form
_CLOSED_REQUEST = 499  # nobody reads this answer; nginx counts such requests with this number
_PRIVATE = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def make_app(api: Api, metrics: Metrics, report: Callable[[str], None], cors: str | None = None) -> Starlette:
    """The web application.

    Args:
        report: gets a message about each bug; no text of a request is in it.
        cors: an origin whose pages may use the server, or ``*``; None: none.
    """
    server = _Server(api, metrics, report)
    handlers: list[tuple[str, str, Handler]] = [
        ("/", "GET", server.page),
        ("/translate", "POST", server.translate),
        ("/translate_list", "POST", server.translate_list),
        ("/translate_file", "POST", server.translate_file),
        ("/download_file/{name}", "GET", server.download_file),
        ("/detect", "POST", server.detect),
        ("/explain", "POST", server.explain),
        ("/languages", "GET", server.languages),
        ("/frontend/settings", "GET", server.frontend_settings),
        ("/health", "GET", server.health),
        ("/metrics", "GET", server.metrics),
        ("/openapi.json", "GET", server.openapi),
    ]
    routes = [
        Route(path, partial(server.answered, path, handler), methods=[way], name=path)
        for path, way, handler in handlers
    ]
    middleware = []
    if cors is not None:
        headers = ["Authorization", "Content-Type"]
        allowed = Middleware(CORSMiddleware, allow_origins=[cors], allow_methods=["GET", "POST"], allow_headers=headers)
        middleware.append(allowed)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(error.status_code, error.detail.lower(), error.headers)

    return Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: refused})


class _Server:
    """The handlers of the routes."""

    def __init__(self, api: Api, metrics: Metrics, report: Callable[[str], None]) -> None:
        self._api, self._metrics, self._report = api, metrics, report
        self._max_bytes = api.settings.max_bytes
        self._page = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
        hashes = {
            name: " ".join(
                f"'sha256-{_sha256(inside)}'" for inside in re.findall(f"<{name}>(.*?)</{name}>", self._page, re.S)
            )
            for name in ("script", "style")
        }
        self._policy = (
            f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
            "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )

    async def answered(self, path: str, handler: Handler, request: Request) -> Response:
        """The answer of a handler, or an error."""
        started = monotonic()
        try:
            response = await handler(request)
        except RefusedError as error:
            headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
            response = _error(error.status, error.message, headers)
        except ClientDisconnect:
            response = _error(_CLOSED_REQUEST, "the client is gone")
        except Exception as error:  # its message may have the text of a request
            place = traceback.extract_tb(error.__traceback__)[-1]
            self._report(f"{path}: a bug: {type(error).__name__} in {place.filename}:{place.lineno}; please report it")
            response = _error(500, "a bug in the server; its log says where")
        response.headers.update({name: value for name, value in _PRIVATE.items() if name not in response.headers})
        self._metrics.request(path, response.status_code, monotonic() - started)
        return response

    async def translate(self, request: Request) -> Response:
        fields, _ = await self._fields(request)
        return JSONResponse(await self._api.translate(fields, partial(self._wait, request)))

    async def translate_list(self, request: Request) -> Response:
        fields, _ = await self._fields(request)
        return JSONResponse(await self._api.translate_list(fields, partial(self._wait, request)))

    async def translate_file(self, request: Request) -> Response:
        fields, file = await self._fields(request)
        if file is None:
            raise RefusedError(400, "file: missing; send it as multipart/form-data")
        token = await self._api.translate_file(fields, *file, partial(self._wait, request))
        return JSONResponse({"translatedFileUrl": str(request.url_for("/download_file/{name}", name=token))})

    async def download_file(self, request: Request) -> Response:
        name, content = self._api.file(request.path_params["name"])
        return Response(
            content, 200, {"Content-Disposition": f'attachment; filename="{name}"'}, "application/octet-stream"
        )

    async def detect(self, request: Request) -> Response:
        fields, _ = await self._fields(request)
        return JSONResponse(self._api.detect(fields))

    async def explain(self, request: Request) -> Response:
        fields, _ = await self._fields(request)
        return JSONResponse(await self._api.explain(fields, partial(self._wait, request)))

    async def languages(self, request: Request) -> Response:
        return JSONResponse(self._api.languages())

    async def frontend_settings(self, request: Request) -> Response:
        return JSONResponse(self._api.frontend_settings())

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        self._api.check_key(_bearer(request))
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        return JSONResponse(document(self._api))

    async def page(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"Content-Security-Policy": self._policy})

    async def _wait(self, request: Request, future: Future[T]) -> T:
        """The result of a future; cancels it after the time limit of the request, or when the client is gone."""
        work = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(_gone(request))
        timeout = self._api.settings.timeout
        end = request.scope.setdefault("seq2seq.end", monotonic() + timeout)  # also for what it waits for later
        try:
            await asyncio.wait((work, gone), timeout=max(0.0, end - monotonic()), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if gone.done():
                raise ClientDisconnect
            raise RefusedError(503, f"not translated within {timeout:g} seconds; send less, or try later", 5)
        finally:
            gone.cancel()
            work.cancel()  # and with it the future

    async def _fields(self, request: Request) -> tuple[dict[str, Any], tuple[str, bytes] | None]:
        """The fields of a request, and its file: name and content. Its key is checked."""
        try:
            body = await asyncio.wait_for(self._body(request), _PATIENCE)
        except asyncio.TimeoutError:
            raise RefusedError(408, "the request did not arrive in time") from None
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        file = None
        try:
            fields = _form(request.url.query)
            if kind == "application/json":
                fields = _json(body)
            elif kind == "application/x-www-form-urlencoded":
                fields |= _form(body.decode())
            elif kind == "multipart/form-data":
                form, file = await _multipart(request, body, self._max_bytes)
                fields |= form
        except UnicodeDecodeError:
            raise RefusedError(400, "the request is not valid UTF-8") from None
        except (ValueError, RecursionError, MultiPartException):
            raise RefusedError(400, "the request is malformed") from None
        self._api.check_key(_bearer(request) or fields.get("api_key"))
        return fields, file

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        size = int(request.headers.get("content-length", "0"))  # uvicorn has checked that it is a number
        parts = request.stream()
        if size <= self._max_bytes:
            async for part in parts:
                body += part
                if len(body) > self._max_bytes:
                    break
            else:
                return bytes(body)
        with suppress(asyncio.TimeoutError):  # a client reads no answer before it has sent its request
            await asyncio.wait_for(_discard(parts), _PATIENCE / 2)
        raise RefusedError(413, f"the request has more than {self._max_bytes:,} bytes")


def _error(status: int, message: str, headers: Any = None) -> Response:
    close = {"Connection": "close"} if status in (408, 413) else {}  # the rest of the request is not read
    return JSONResponse({"error": message}, status, {**_PRIVATE, **close, **(headers or {})})


def _bearer(request: Request) -> str | None:
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else None


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _discard(parts: AsyncGenerator[bytes, None]) -> None:
    async for _ in parts:
        pass


def _json(body: bytes) -> dict[str, Any]:
    fields = json.loads(body.decode())
    if not isinstance(fields, dict):
        raise ValueError
    return fields


def _form(text: str) -> dict[str, Any]:
    pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
    return _collected(pairs)


def _collected(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Fields by name; a repeated one is a list."""
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: some if len(some) > 1 else some[0] for name, some in values.items()}


async def _multipart(request: Request, body: bytes, most: int) -> tuple[dict[str, Any], tuple[str, bytes] | None]:
    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    form = await MultiPartParser(request.headers, whole(), max_files=1, max_fields=_FIELDS, max_part_size=most).parse()
    pairs, file = [], None
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            file = (value.filename or "", await value.read())
        else:
            pairs.append((name, value))
    await form.close()
    return _collected(pairs), file


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


class _Connection(H11Protocol):
    """A connection that is closed when its client takes too long to send the head of a request, or to take an answer.

    uvicorn limits only the time between two requests.
    """

    _since = 0.0  # seconds that the client has been waited for
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._watch is not None:
            self._watch.cancel()

    def shutdown(self) -> None:
        """A client that has just connected may still send its request."""
        if self.cycle is None:
            self.loop.call_later(_LAST_MOMENT, self._end)
        else:
            self._end()

    def _end(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _look(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        between = self.timeout_keep_alive_task is not None  # uvicorn's own limit
        unread = self.transport.get_write_buffer_size() > 0
        self._since = self._since + 1 if unread or not (answering or between) else 0.0
        if self._since > _PATIENCE:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(1, self._look)


class _Uvicorn(uvicorn.Server):
    """A server whose graceful end is success."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Finish what has begun at the first signal; end at the second one."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and let in all who have connected by then: closing alone would reset them."""
        loop = asyncio.get_running_loop()
        for listener in sockets or ():
            loop.remove_reader(listener)
        for _ in range(_LETTING_IN):
            await asyncio.sleep(0)
        late: list[socket.socket] = []
        for listener in sockets or ():
            with suppress(BlockingIOError):
                while True:
                    late.append(listener.accept()[0])
        entering = [loop.create_task(self._let_in(connection)) for connection in late]
        await super().shutdown(sockets)  # at once closes the listeners
        await asyncio.gather(*entering, return_exceptions=True)  # a client may be gone

    async def _let_in(self, connection: socket.socket) -> None:
        loop, state = asyncio.get_running_loop(), self.lifespan.state
        _, protocol = await loop.connect_accepted_socket(
            lambda: _Connection(self.config, self.server_state, state, loop), connection
        )
        protocol.shutdown()


def run(app: Starlette, listener: socket.socket, timeout: float, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish all accepted requests.

    Args:
        timeout: the seconds that a request may take.
        ready: called when requests are answered.
    """

    logging.getLogger().addHandler(logging.NullHandler())  # messages of libraries may have parts of requests

    async def announce() -> None:
        while not server.started:
            await asyncio.sleep(0.01)
        ready()

    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # its messages may have parts of requests
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=int(timeout) + 5,
    )
    server = _Uvicorn(config)

    async def serve() -> None:
        announced = asyncio.ensure_future(announce())
        await server.serve(sockets=[listener])
        announced.cancel()

    asyncio.run(serve())
