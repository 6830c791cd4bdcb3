"""Who may ask: which hosts, which origins, and with which token."""

import hmac
import ipaddress
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from ..errors import ArgumentError
from .failure import Failure

SHORTEST_TOKEN = 16
"""Characters of a token that a user chooses."""

_SAFE = ("GET", "HEAD")


@dataclass(frozen=True)
class Access:
    """The rules of one server.

    Attributes:
        names: Host names it answers to, in lower case, besides numeric addresses
            where `numeric` is set.
        numeric: Whether any numeric address will do: where the server listens beyond
            this machine. A page elsewhere cannot give itself one by its name server.
        token: What every request must bring; None for none.
        port: Where it listens.
    """

    names: frozenset[str]
    numeric: bool
    token: str | None
    port: int

    @property
    def cookie(self) -> str:
        """Name of the cookie: cookies of all ports of a host are one heap."""
        return f"iglens-{self.port}"

    @property
    def cookie_value(self) -> str:
        """What the cookie holds: nothing the token could be read from."""
        return sha256(f"iglens cookie {self.token}".encode()).hexdigest()

    def refusal(self, method: str, headers: Mapping[str, str]) -> Failure | None:
        """Why a request is not let in, or None; the token is a matter of its own.

        Args:
            method: Of HTTP.
            headers: In lower case.
        """
        host = headers.get("host", "")
        if not self._known(host):
            return Failure(
                421,
                "host",
                "This server does not answer to that host name. Use the address that "
                "`iglens serve` printed, or name the host with `--allow-host`.",
            )
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
        site = headers.get("sec-fetch-site", "none")
        if foreign or (method not in _SAFE and site not in ("same-origin", "none")):
            return Failure(
                403,
                "origin",
                "The request comes from a page of another site, which may not ask.",
            )
        return None

    def _known(self, host: str) -> bool:
        """Whether it is a name of this server."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        return name in self.names or (self.numeric and _is_numeric(name))

    def lets_in(self, headers: Mapping[str, str], cookie: str | None) -> bool:
        """Whether a request brings the token, in a header or a cookie."""
        if self.token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and _equal(given.strip(), self.token):
            return True
        return cookie is not None and _equal(cookie, self.cookie_value)

    def is_token(self, given: str) -> bool:
        """Whether that is the token; takes as long whatever is wrong with it."""
        return self.token is not None and _equal(given, self.token)


def access_to(
    host: str,
    port: int,
    *,
    expose: bool = False,
    token: str | None = None,
    allow: tuple[str, ...] = (),
) -> Access:
    """The rules for an address.

    Args:
        host: Where the server listens.
        port: And on which port.
        expose: Whether it may be another address than this machine's own.
        token: What to ask for; where it listens elsewhere one is made if none is given.
        allow: Further host names it is reached by.

    Raises:
        ArgumentError: If it would listen elsewhere and nobody said it may, or the
            token could be guessed.
    """
    local = is_loopback(host)
    if not local and not expose:
        raise ArgumentError(
            f"`--host` {host} can be reached from other machines. If that is meant, "
            "add `--expose`; then a token is needed to get in."
        )
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise ArgumentError(
            f"`--token` must have {SHORTEST_TOKEN} ASCII characters at least; leave it "
            "out to have one made."
        )
    if token is None and not local:
        token = secrets.token_urlsafe(24)
    names = {"localhost", "127.0.0.1", "::1", host.lower(), *(a.lower() for a in allow)}
    return Access(frozenset(names), not local, token, port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("localhost")
        (True, False, True)
    """
    return host == "localhost" or (
        _is_numeric(host) and ipaddress.ip_address(host).is_loopback
    )


def _is_numeric(name: str) -> bool:
    """Whether it is an address in numbers."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _equal(given: str, wanted: str) -> bool:
    """Whether two secrets are the same; the time it takes does not tell where not."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())
