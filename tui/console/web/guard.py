"""Who may reach the server: what is refused before any handler sees it, and what each answer forbids the browser.

A browser is a door into this machine for every page that it shows. Three rules keep the pages of strangers out:

* The ``Host`` of a request is a number or a name of this machine. A stranger's name that was pointed at this
  machine (DNS rebinding) is refused, or its page would be of the same origin as ours.
* Where a browser says which page a request comes from (``Origin``), it is a page of ours. WebSockets know no
  same-origin rule of their own, so the one of the console must say so.
* The path has the secret of this start, which no page, and no other user of this machine, can know.

The headers of every answer let our page load nothing from elsewhere, be shown in no frame (a stranger's page could
have it clicked unseen), tell nobody its address, and be kept in no cache.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

# xterm.js writes style elements; fonts, scripts and the socket come from the server itself.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; img-src 'self' data:; "
    "connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def new_secret() -> str:
    """A secret for one start: 128 bits, safe in a path."""
    return secrets.token_urlsafe(16)


def same_secret(one: str, other: str) -> bool:
    """Whether two are equal, in a time that tells nothing."""
    return secrets.compare_digest(one.encode(), other.encode())


def make_guard(name: str) -> Middleware:
    """The middleware for a server that was told to listen on ``name``."""
    known = {name.lower(), "localhost", os.uname().nodename.lower()}

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not _is_ours(request.host, known):
            raise web.HTTPForbidden(text="This name is not one of this machine.")
        origin = request.headers.get("Origin", "")
        if origin and _place(origin) != request.host.lower():
            raise web.HTTPForbidden(text="Another page has no business here.")
        return await handler(request)

    return guard


def is_of_our_page(request: web.Request) -> bool:
    """Whether a browser says that the request comes from a page of ours; programs that say nothing are refused."""
    return _place(request.headers.get("Origin", "")) == request.host.lower()


def _place(origin: str) -> str:
    """Host and port of an origin, "" (which is equal to no host) when it makes no sense."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For aiohttp's ``on_response_prepare``: every answer, errors too."""
    response.headers.update(_HEADERS)
    if _is_plain(request.host):
        response.headers["Content-Security-Policy"] = _POLICY.format(host=request.host)


def _is_plain(host: str) -> bool:
    """Nothing in it could end a header or a directive of the policy."""
    return all(character.isalnum() or character in ".-:[]" for character in host) and host.isascii()


def _is_ours(host: str, known: set[str]) -> bool:
    """A number cannot be rebound to another machine; a name must be known."""
    if not _is_plain(host):
        return False
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in known
    return True
