"""The server of the console in browsers: textual-serve's transport, with a page, checks and an end of our own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable

from aiohttp import WSMsgType, web
from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager
from textual_serve.server import Server

from tui.console.web import guard

HEARTBEAT_S = 15.0
STOP_S = 2.0
"""So long may the console of a closed tab take to end; then it is killed."""
_PAGE = os.path.join(os.path.dirname(__file__), "page")
_DRIVER = "tui.console.web.driver:TabDriver"
_MIN_CELLS, _MAX_CELLS = 1, 1000
_ESCAPE = "\x1b[27u"
"""The key Escape as kitty's protocol has it: with a bare ESC, the key after it would seem to be pressed with Alt."""


class TabService(AppService):
    """The console process of one tab."""

    def _build_environment(self, width: int = 80, height: int = 24) -> dict[str, str]:
        return super()._build_environment(width, height) | {"TEXTUAL_DRIVER": _DRIVER}

    async def stop(self) -> None:
        """Ask it to end; after STOP_S it is killed. It is gone when this returns."""
        try:
            async with asyncio.timeout(STOP_S):
                await super().stop()
                if self._process is not None:
                    await self._process.wait()
        except (TimeoutError, OSError):
            pass
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class ConsoleServer(Server):
    """Serves consoles at ``url``, which nobody can guess."""

    def __init__(self, command: str, host: str, port: int) -> None:
        super().__init__(command, host=host, port=port, title="diskwright")
        self.secret = guard.new_secret()
        self.url = f"{self.public_url if ':' not in host else f'http://[{host}]:{port}'}/{self.secret}/"
        self.download_manager = DownloadManager()
        self._tabs: set[TabService] = set()

    def run(self, when_ready: Callable[[], None]) -> None:
        """Serve until Ctrl-C or SIGTERM. OSError when the address cannot be had."""
        for name in ("textual-serve", "aiohttp", "asyncio"):  # they write to the terminal of the operator
            logging.getLogger(name).setLevel(logging.CRITICAL)
        web.run_app(
            self._make_app(), host=self.host, port=self.port, access_log=None, shutdown_timeout=STOP_S,
            print=lambda text: when_ready(),
        )  # fmt: skip

    async def _make_app(self) -> web.Application:
        app = web.Application(middlewares=[guard.make_guard(self.host)])
        app.on_response_prepare.append(guard.add_headers)
        app.on_shutdown.append(self._end_tabs)
        app.router.add_get("/{secret}/", self._index)
        app.router.add_get("/{secret}/ws", self.handle_websocket)
        app.router.add_get("/download/{key}", self.handle_download)
        app.router.add_static("/static", self.statics_path)
        app.router.add_static("/page", _PAGE)
        return app

    def _check_secret(self, request: web.Request) -> None:
        if not guard.same_secret(request.match_info["secret"], self.secret):
            raise web.HTTPForbidden(text="Open the address that `diskwright tui --serve` has printed.")

    async def _index(self, request: web.Request) -> web.StreamResponse:
        self._check_secret(request)
        return web.FileResponse(os.path.join(_PAGE, "index.html"))

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """One tab, from its first byte to its last."""
        self._check_secret(request)
        if not guard.is_of_our_page(request):
            raise web.HTTPForbidden(text="Only the page of the console may open this.")
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_S)
        await socket.prepare(request)

        async def close() -> None:
            await socket.close()

        tab = TabService(
            f"exec {self.command}", write_bytes=socket.send_bytes, write_str=socket.send_str, close=close,
            download_manager=self.download_manager,
        )  # fmt: skip
        self._tabs.add(tab)
        try:
            await tab.start(_cells(request.query.get("width"), 80), _cells(request.query.get("height"), 24))
            await self._listen(socket, tab)
        finally:
            self._tabs.discard(tab)
            await tab.stop()
            await socket.close()
        return socket

    async def _listen(self, socket: web.WebSocketResponse, tab: TabService) -> None:
        """Hand on what the page sends; a message that the page would not send ends the tab."""
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                return
            try:
                await _hand_on(json.loads(message.data), socket, tab)
            except (ValueError, TypeError, LookupError, AttributeError):
                return

    async def _end_tabs(self, app: web.Application) -> None:
        del app
        await asyncio.gather(*(tab.stop() for tab in self._tabs))


async def _hand_on(message: list[object], socket: web.WebSocketResponse, tab: TabService) -> None:
    kind, value = message[0], message[1] if len(message) > 1 else None
    if kind == "stdin" and isinstance(value, str):
        await tab.send_bytes((_ESCAPE if value == "\x1b" else value).encode("utf-8", "replace"))
    elif kind == "resize" and isinstance(value, dict):
        await tab.set_terminal_size(_cells(value["width"], 80), _cells(value["height"], 24))
    elif kind == "ping":
        await socket.send_json(["pong", value])
    elif kind == "blur":
        await tab.blur()
    elif kind == "focus":
        await tab.focus()


def _cells(value: object, default: int) -> int:
    try:
        return max(_MIN_CELLS, min(_MAX_CELLS, int(str(value))))
    except ValueError:
        return default
