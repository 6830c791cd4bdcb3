"""Records in notebooks: as their chart, and as words where no chart can be."""

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import ArgumentError

if TYPE_CHECKING:
    from .charts import Chart


@runtime_checkable
class Drawn(Protocol):
    """A record that draws itself."""

    def figure(self) -> "Chart":
        """Its natural chart."""


def chart_bundle(record: Drawn) -> Any:
    """What a notebook shows of a record: its chart, as Altair is set up to show it.

    Where there is nothing to draw, and where nothing can be drawn, its own words.
    """
    words = {"text/plain": str(record)}
    try:
        shown = record.figure()._repr_mimebundle_() or {}
    except ArgumentError:  # a flow in which nothing moves, no rows
        return words
    if isinstance(shown, tuple):  # with metadata
        return {**shown[0], **words}, shown[1]
    return {**shown, **words}
