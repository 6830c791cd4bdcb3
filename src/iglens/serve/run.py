"""Listening: the socket, the address that is printed, and a clean end."""

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from ..errors import ArgumentError
from .access import Access
from .app import Application

_CONNECTIONS = 100
"""Requests at once; each stream of a waiting question is one."""


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address, taken before the model is loaded.

    Raises:
        ArgumentError: If there is no such address, or something else listens there.
    """
    try:
        if port >= 2**16:
            raise OverflowError("ports end at 65535")
        family, kind, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _bound(socket.socket(family, kind), place)
    except (OSError, OverflowError, UnicodeError) as error:
        used = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "something else listens there" if used else str(error)
        raise ArgumentError(
            f"Cannot listen at {host}, port {port}: {why}. Choose another `--port`; 0 "
            "takes any that is free."
        ) from error


def _bound(taken: socket.socket, place: Any) -> socket.socket:
    """The socket at an address, or closed."""
    try:
        if os.name == "posix":  # elsewhere this would let two listen at one address
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(place)
    except BaseException:
        taken.close()
        raise
    return taken


def address(host: str, port: int, access: Access) -> str:
    """What to open in a browser, with the token if one is needed.

    Example:
        >>> address("::1", 80, Access(frozenset(), False, None, 80))
        'http://[::1]:80/'
    """
    shown = f"[{host}]" if ":" in host else host
    key = f"?token={access.token}" if access.token is not None else ""
    return f"http://{shown}:{port}/{key}"


class _Server(uvicorn.Server):
    """Ends its questions when it is told to end, so that no stream holds it up."""

    def __init__(self, config: uvicorn.Config, close: Callable[[], None]) -> None:
        """Take what ends the questions."""
        super().__init__(config)
        self._close = close

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End on a signal."""
        self._close()
        super().handle_exit(sig, frame)


def serve_until_stopped(
    application: Application, taken: socket.socket, started: Callable[[], None]
) -> None:
    """Answer requests until Ctrl-C or the end of the process is asked for.

    Args:
        application: What answers.
        taken: Where to listen.
        started: Is called when it listens.
    """
    config = uvicorn.Config(
        application.asgi,
        lifespan="off",
        log_config=None,
        log_level="critical",  # no addresses, and no texts of errors
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
    )
    server = _Server(config, application.worker.close)
    taken.listen(128)
    started()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[taken])
    finally:
        application.worker.close()
        application.worker.join(5.0)
        taken.close()
