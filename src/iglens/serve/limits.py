"""How much the server takes on: sizes, times, and how many."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on what one question, and all of them together, may cost.

    Attributes:
        tokens: Tokens of a prompt with its answer.
        new_tokens: Tokens to generate.
        waiting: Questions that wait while one is answered.
        seconds: Time that answering one may take, waiting not counted.
        body: Bytes of a request.
        kept: Results that are remembered.
        kept_bytes: Bytes of their arrays together; the newest is kept in any case.
    """

    tokens: int = 512
    new_tokens: int = 64
    waiting: int = 8
    seconds: float = 300.0
    body: int = 256 * 2**10
    kept: int = 32
    kept_bytes: int = 256 * 2**20
