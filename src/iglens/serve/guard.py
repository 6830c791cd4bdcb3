"""What stands before every request: hosts, origins, token, sizes; and after it."""

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .access import Access
from .failure import CRASHED, Failure

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Scripts are files of this server; no text in a page can be one."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """Lets requests through that may come in, and nothing out that should stay."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        body: int,
        report: Callable[[BaseException], None],
    ) -> None:
        """Stand before an application.

        Args:
            app: The application.
            access: Who may ask.
            body: Bytes a request may have.
            report: Is told of exceptions.
        """
        self._app, self._access, self._body = app, access, body
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sender = _Sender(send)
        headers = {
            k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]
        }
        refused = self._refused(scope, headers)
        try:
            if refused is None:
                body = await self._whole_body(receive)
                refused = failed(too_large(self._body)) if body is None else None
            if refused is not None:
                await refused(scope, receive, sender)
            else:
                await self._app(scope, _replayed(body or b"", receive), sender)
        except Exception as error:
            self._report(error)
            if not sender.started:
                await failed(CRASHED)(scope, receive, sender)

    def _refused(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """The answer to a request that is not let in."""
        method = scope["method"]
        if (failure := self._access.refusal(method, headers)) is not None:
            return failed(failure)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:18]) > self._body:
            return failed(too_large(self._body))
        if method not in ("GET", "HEAD", "DELETE") and not _is_json(headers):
            return failed(
                Failure(415, "type", "Send JSON: `Content-Type: application/json`.")
            )
        return self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """The answer to a request without a token, or with it in its address."""
        if (given := self._moved_in(scope)) is not None:
            return given
        if self._access.lets_in(headers, _cookie(headers, self._access.cookie)):
            return None
        text = (
            "This server needs its token. Open the address with ?token=… that `iglens "
            "serve` printed, or send it as `Authorization: Bearer …`."
        )
        bearer = {"WWW-Authenticate": "Bearer"}
        if scope["path"].startswith("/api"):
            return failed(Failure(401, "token", text, bearer))
        return PlainTextResponse(text, 401, bearer)

    def _moved_in(self, scope: Scope) -> Response | None:
        """A cookie for who brings the token in the address, and the address without."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"))
        given = dict(pairs).get("token")
        if (
            scope["method"] != "GET"
            or given is None
            or not self._access.is_token(given)
        ):
            return None
        rest = urlencode([pair for pair in pairs if pair[0] != "token"])
        path = "/" + scope["path"].lstrip("/\\")  # never another host
        answer = Response(status_code=303)
        answer.headers["location"] = path + (f"?{rest}" if rest else "")
        answer.set_cookie(
            self._access.cookie,
            self._access.cookie_value,
            httponly=True,
            samesite="lax",
        )
        return answer

    async def _whole_body(self, receive: Receive) -> bytes | None:
        """The body; None as soon as it is too long."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._body:
                return None
            more = message["type"] == "http.request" and message.get("more_body", False)
        return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, and after it what else there is to hear."""
    told = False

    async def replayed() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


class _Sender:
    """Sends, with our headers on every answer."""

    def __init__(self, send: Send) -> None:
        """Take what sends."""
        self._send, self.started = send, False

    async def __call__(self, message: Message) -> None:
        """Send one message."""
        if message["type"] == "http.response.start":
            self.started = True
            own = [(k, v) for k, v in message.get("headers", []) if k != b"server"]
            named = {k for k, _ in own}
            more = {**HEADERS, "cache-control": "no-store"}
            own += [
                (k.encode(), v.encode())
                for k, v in more.items()
                if k.encode() not in named
            ]
            message = {**message, "headers": own}
        await self._send(message)


def failed(failure: Failure) -> JSONResponse:
    """A failure as an answer."""
    return JSONResponse(failure.to_json(), failure.status, dict(failure.headers))


def too_large(bound: int) -> Failure:
    """What is said of a body that is too long."""
    return Failure(413, "too_large", f"A request has at most {bound:,} bytes.")


def _is_json(headers: dict[str, str]) -> bool:
    """Whether the body says that it is JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json"


def _cookie(headers: dict[str, str], name: str) -> str | None:
    """One cookie of a request."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return None
    return None if found is None else found.value
