"""Standing between models and the attention functions of Transformers.

A model asks `AttentionInterface` which function computes its attention; whatever the
answer is (SDPA, a flash kernel, the model's own eager code), calls can be watched or
changed here without computing anything anew.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import AttentionInterface

Handler = Callable[
    [Callable[..., Any], nn.Module, tuple[Any, ...], dict[str, Any]], Any
]
"""Given the function, the attention module and the other arguments; returns what the
function is to have returned: a tensor of (texts, tokens, heads, head width), weights.
"""

_LOCK = threading.RLock()


@contextmanager
def intercepted_attention(handler: Handler) -> Iterator[None]:
    """While open, this thread's attention functions are called by the handler."""
    thread = threading.get_ident()

    with _LOCK:
        original = AttentionInterface.get_interface

        def get_interface(self: Any, *args: Any, **kwargs: Any) -> Any:
            function = original(self, *args, **kwargs)
            if threading.get_ident() != thread:
                return function

            def called(module: nn.Module, *given: Any, **named: Any) -> Any:
                return handler(function, module, given, named)

            return called

        try:
            AttentionInterface.get_interface = get_interface  # type: ignore[method-assign]
            yield
        finally:
            AttentionInterface.get_interface = original  # type: ignore[method-assign]
