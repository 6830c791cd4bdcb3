"""Finding the parts of every block, and proving them on another text."""

from .runner import Runner
from .stream import Stream
from .sublayers import BlockPlan, Sublayers


def find_sublayers(runner: Runner, stream: Stream) -> Sublayers:
    """The parts of every block of a verified stream; see `sublayers`."""
    reason = "its parts are not looked for yet"
    return Sublayers(
        tuple(
            BlockPlan(layer, name, "none", reason=reason)
            for layer, name in enumerate(stream.names, 1)
        )
    )
