"""What is to be tried out about modules, and about blocks in which no module mixes."""

from collections.abc import Iterable, Mapping, Sequence

from ..stream import Stream
from .dataflow import Flow
from .parts import attends, graph_facts
from .regions import Cutting
from .trials import Answer, Key, Question, key


def questions(flow: Flow, cuttings: Iterable[Cutting]) -> list[Question]:
    """What to try out: every module with weights of every part."""
    asked: dict[Key, Question] = {}
    for region in (region for cutting in cuttings for region in cutting.regions):
        writer = graph_facts(flow, region, None).writer.call
        for call in region.calls:
            places = call.returned.items()
            on_path = tuple(place for place, node in places if node in region.path)
            returned = on_path or tuple(call.returned)
            own = writer if writer is not None and call in writer.chain else None
            question = Question(call, returned, own, attends(flow, call.made))
            asked.setdefault(key(call), question)
    return list(asked.values())


def block_questions(
    flow: Flow,
    stream: Stream,
    cuttings: Sequence[Cutting],
    answers: Mapping[Key, Answer],
) -> list[Question]:
    """Blocks of whose modules none mixes tokens: do they do so between modules?"""
    quiet = {
        layer
        for layer, cutting in enumerate(cuttings, 1)
        if cutting.regions
        and not any(
            answers[key(call)].mixes for r in cutting.regions for call in r.calls
        )
    }
    return [
        Question(call, tuple(call.returned))
        for call in flow.calls
        if call.block in quiet and call.name == stream.names[call.block - 1]
    ]
