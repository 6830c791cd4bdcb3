"""What a method costs, counted where it happens: at the first block and at the head."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.autograd import forward_ad

from ..model.decoder import Decoder
from ..model.structure import get
from ..readout import AbstractReadout, CalledReadout, LinearReadout
from ..records.comparison import Cost


@dataclass(eq=False)
class Evaluations:
    """Counts that grow while a method runs.

    Attributes:
        forwards: Texts that went through the first block.
        backwards: Gradients that came back to its output, or to gates on the blocks.
        head: Products of one vector with the unembedding.
        began: When counting began.
    """

    forwards: int = 0
    backwards: int = 0
    head: int = 0
    began: float = 0.0

    @property
    def cost(self) -> Cost:
        """What was counted so far."""
        seconds = time.perf_counter() - self.began
        return Cost(self.forwards, self.backwards, self.head, seconds)

    def counted(self, readout: AbstractReadout) -> AbstractReadout:
        """The same readout, every state that it reads being counted.

        A state that is read together with a derivative counts twice: the head is
        multiplied with both.
        """
        match readout:
            case LinearReadout():
                norm, own = readout.norm, readout.own_logits
                return replace(
                    readout,
                    norm=lambda states, dtype: norm(self._seen(states), dtype),
                    own_logits=lambda states: own(self._seen(states)),
                )
            case CalledReadout():
                tail = readout.tail
                return replace(readout, tail=lambda states: tail(self._seen(states)))
        return readout

    def _seen(self, states: Tensor) -> Tensor:
        """The states, counted."""
        derived = forward_ad.unpack_dual(states).tangent is not None
        self.head += len(states) * (2 if derived else 1)
        return states

    @contextmanager
    def watching(self, decoder: Decoder) -> Iterator[None]:
        """While open, passes through the model are counted.

        Blocks that a readout short-circuits do not run, and are not counted.
        """
        stream = decoder.verified.stream
        block, calls = stream.blocks[0], 0
        turns = sum(other is block for other in stream.blocks)

        def passed(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal calls
            calls += 1
            if calls % turns != 1 % turns:
                return
            given = get(output, stream.leave[0])
            self.forwards += given.shape[stream.batch_axis]
            if given.requires_grad:
                rows = given.shape[stream.batch_axis]
                given.register_hook(lambda gradient: self.came_back(rows))

        self.began = time.perf_counter()
        handle = block.register_forward_hook(passed)
        try:
            yield
        finally:
            handle.remove()

    def came_back(self, more: int) -> None:
        """The gradients of so many texts have arrived."""
        self.backwards += more
