"""Standing between models and the attention functions of Transformers.

A model asks `AttentionInterface` which function computes its attention; whatever the
answer is (SDPA, a flash kernel, the model's own eager code), calls can be watched or
changed here without computing anything anew.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import AttentionInterface

_LOCK = threading.RLock()


@dataclass(frozen=True, eq=False)
class AttentionFunction:
    """What a model calls to attend.

    Attributes:
        function: What `AttentionInterface` chose.
        eager: The function of the model's own file, which gives weights too.
    """

    function: Callable[..., Any]
    eager: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Attend as the model would have."""
        return self.function(*args, **kwargs)


Handler = Callable[[AttentionFunction, nn.Module, tuple[Any, ...], dict[str, Any]], Any]
"""Given the function, the attention module and the other arguments; returns what the
function is to have returned: a tensor of (texts, tokens, heads, head width), weights.
"""


@contextmanager
def intercepted_attention(handler: Handler) -> Iterator[None]:
    """While open, this thread's attention functions are called by the handler."""
    thread = threading.get_ident()

    with _LOCK:
        original = AttentionInterface.get_interface

        def get_interface(self: Any, *args: Any, **kwargs: Any) -> Any:
            chosen = original(self, *args, **kwargs)
            if threading.get_ident() != thread:
                return chosen
            own = kwargs.get("default", args[1] if len(args) > 1 else None)
            function = AttentionFunction(chosen, own)

            def called(module: nn.Module, *given: Any, **named: Any) -> Any:
                return handler(function, module, given, named)

            return called

        try:
            AttentionInterface.get_interface = get_interface  # type: ignore[method-assign]
            yield
        finally:
            AttentionInterface.get_interface = original  # type: ignore[method-assign]
