"""Whom the viewer answers, and what browsers may do with its answers."""

import secrets

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Lets in what asks to read, with the secret, by one of `hosts` (None: any); everything else is refused unread.

    A page elsewhere that has its own name lead to this machine is so told from the viewer's.
    """

    def __init__(self, app: ASGIApp, secret: str, hosts: set[str] | None) -> None:
        self.app, self.secret, self.hosts = app, secret, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        raw = scope.get("raw_path") or scope["path"].encode()
        given = scope["path"].split("/")[1] if scope["path"].startswith("/") else ""
        refusal = None
        if (self.hosts is not None and host not in self.hosts) or origin not in ("", f"http://{host}"):
            refusal = 403
        elif scope["method"] not in ("GET", "HEAD"):
            refusal = 405
        elif not secrets.compare_digest(given.encode(), self.secret.encode()) or b"%2f" in raw.lower() or b".." in raw:
            refusal = 404
        if refusal:
            await Response(status_code=refusal, headers=HEADERS)(scope, receive, send)
            return
        await self.app(scope, receive, send)
