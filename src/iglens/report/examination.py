"""A model's examination in words: the verdict first, then what it rests on.

Sections of labelled lines are made once; the terminal and plain text draw the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap

from rich.console import RenderableType
from rich.text import Text

from ..records.examination import Examination
from ..records.findings import (
    Distance,
    Fidelity,
    LayerFacts,
    MemoryEstimate,
    ModelFacts,
    NormFacts,
    PrecisionCost,
    ReadoutFacts,
)
from .parts import block_lines
from .visible import visible

Line = tuple[str, str]
"""What is said, and about what."""

_STYLE = {"exact": "bold rgb(86,180,233)", "refused": "bold rgb(230,159,0)"}
_LABEL = 15
_MEASURES = {"total_variation": "total variation", "logit": "difference of a logit"}

SHOWN_LABELS = 6
"""Labels of a classifier that are named; of more, the first."""


@dataclass(frozen=True)
class Section:
    """Some lines under a title."""

    title: str
    lines: tuple[Line, ...]


def sections(examination: Examination) -> list[Section]:
    """Everything that is known, in the order a reader asks for it."""
    found: list[tuple[str, Iterator[Line]]] = []
    if (model := examination.model) is not None:
        found.append(("model", _model(model)))
    if examination.tried:
        found.append(("what was tried", iter(examination.tried.items())))
    if (layers := examination.layers) is not None:
        found.append(("layers", _layers(layers)))
    if examination.blocks:
        found.append(("inside the layers", block_lines(examination.blocks)))
    if (readout := examination.readout) is not None:
        found.append(("readout", _readout(readout)))
    if (fidelity := examination.fidelity) is not None:
        about = "a text of {} tokens" if fidelity.text else "{} arbitrary token ids"
        title = f"measured on {about.format(fidelity.n_tokens)}"
        lines = _measured(fidelity, examination.readout, examination.precision)
        found.append((title, lines))
    if (memory := examination.memory) is not None:
        title = f"memory for a text of {memory.n_tokens:,} tokens (estimated)"
        found.append((title, _memory(memory, examination.batch_safe)))
    return [Section(title, tuple(map(_safe, lines))) for title, lines in found]


def render(examination: Examination, width: int) -> RenderableType:
    """The report for a terminal, as wide as that."""
    sentence = _safe(("", examination.sentence))[1]
    text = Text("\n".join(wrap(sentence, width)))
    style = _STYLE.get(examination.verdict, "bold")
    text.stylize(style, 0, sentence.index(":") if ":" in sentence else 0)
    for section in sections(examination):
        title = "\n".join(wrap(section.title, width))
        text.append(f"\n\n{title}", style="bold")
        for label, said in section.lines:
            text.append(f"\n  {label:<{_LABEL}}", style="dim")
            beside = len(label) <= _LABEL
            room = wrap(said, max(20, width - _LABEL - 4)) or [""]
            for place, piece in enumerate(room):
                start = "  " if beside and not place else f"\n{'':<{_LABEL + 4}}"
                text.append(start + piece)
    return text


def plain_text(examination: Examination) -> str:
    """The same without a terminal: one line each, however long."""
    lines = [_safe(("", examination.sentence))[1]]
    for section in sections(examination):
        lines += ["", section.title]
        lines += [f"  {label:<{_LABEL}}  {text}" for label, text in section.lines]
    lines += [f"Warning: {visible(warning)}" for warning in examination.warnings]
    return "\n".join(lines)


def _safe(line: Line) -> Line:
    """A line whose words cannot restyle a terminal."""
    label, text = (visible(" ".join(part.split())) for part in line)
    return label, text


def _model(model: ModelFacts) -> Iterator[Line]:
    """What it is."""
    known = model.id == model.architecture
    yield "name", model.id if known else f"{model.id} ({model.architecture})"
    if model.path not in (None, model.id):
        yield "from", f"{model.path}"
    if model.note is not None:
        yield "note", model.note
    dtypes = list(model.dtypes)
    if len(dtypes) > 1:
        dtypes = [f"{name} ({count:,})" for name, count in model.dtypes.items()]
    places = [f"{size_of(size)} on {name}" for name, size in model.devices.items()]
    places = [place.replace(" on offloaded", " offloaded") for place in places]
    yield (
        "weights",
        f"{model.n_parameters:,} parameters in {', '.join(dtypes)}; "
        f"{', '.join(places)}",
    )
    if model.quantisation is not None:
        yield "quantised", model.quantisation
    yield "vocabulary", _vocabulary(model)
    if model.context is not None:
        yield "context", f"{model.context:,} tokens"
    if model.attention is not None:
        yield "attention", model.attention
    if model.declared:
        yield "declared", ", ".join(model.declared)


def _vocabulary(model: ModelFacts) -> str:
    """Head and tokenizer."""
    pieces = [] if model.n_logits is None else [_logits(model)]
    if model.tokenizer_size is None:
        return ", ".join([*pieces, "no tokenizer"])
    chat = "a" if model.chat_template else "no"
    pieces.append(
        f"{model.tokenizer_size:,} tokens in the tokenizer, {chat} chat template"
    )
    return ", ".join(pieces)


def _logits(model: ModelFacts) -> str:
    """Number of logits, and the labels they stand for."""
    if model.labels is None:
        return f"{model.n_logits:,} logits"
    named = ", ".join(model.labels[:SHOWN_LABELS])
    more = ", …" if len(model.labels) > SHOWN_LABELS else ""
    return f"{model.n_logits:,} logit{'s' * (model.n_logits != 1)} ({named}{more})"


def _layers(layers: LayerFacts) -> Iterator[Line]:
    """Where the stream runs."""
    calls = f"{layers.n_layers} block{'s' * (layers.n_layers > 1)}"
    if layers.n_modules < layers.n_layers:
        calls = f"{layers.n_layers} calls of {layers.n_modules} blocks"
    yield "found", f"{calls} in {layers.container} ({', '.join(layers.classes)})"
    if layers.n_layers > 1:
        yield (
            "chained",
            "yes: each is given the very tensor that the one before gave"
            if layers.chained
            else "no: the stream is changed between blocks; each layer's state is what "
            "the next block is given",
        )
    yield (
        "stream",
        f"{layers.d_model:,} numbers per token; enters a block as {layers.enters}, "
        f"leaves it as {layers.leaves}",
    )
    if layers.start != f"the input of {layers.first}":
        yield "starts at", layers.start
    if layers.axes[:2] != ("texts", "tokens"):
        yield "axes", ", ".join(layers.axes)
    if layers.prefix:
        yield "in front", f"{layers.prefix} virtual tokens of every text"
    if layers.repeat > 1:
        yield "side by side", f"{layers.repeat} streams on the axis of tokens"


def _readout(readout: ReadoutFacts) -> Iterator[Line]:
    """How states are read."""
    yield "kind", _kind(readout)
    if readout.reason is not None:
        yield "why", readout.reason
    if len(readout.steps) > 1 or (readout.steps and readout.norm is None):
        yield "before the head", ", then ".join(readout.steps)
    if readout.norm is not None:
        yield "final norm", _norm(readout.norm)
    if (head := readout.head) is not None:
        tied = f"tied to {' and '.join(head.tied_to)}" if head.tied_to else "not tied"
        bias = "with a bias" if head.bias else "no bias"
        yield "head", f"{head.module} ({head.module_class}), {tied}, {bias}"
        after = readout.postprocess
        yield "after the head", "nothing" if after == "identity" else after
    if readout.dtype == readout.precision:
        yield "dtype", readout.dtype
    else:
        yield "dtype", f"states in {readout.dtype}, levels read in {readout.precision}"


def _kind(readout: ReadoutFacts) -> str:
    """The kind of readout in words."""
    if readout.kind != "explicit":
        return "injected: the model's own forward, its blocks short-circuited"
    if readout.streamed:
        return "explicit: norm and head one by one, the vocabulary in blocks"
    return "explicit, but the head is called and not read: whole rows of logits"


def _norm(norm: NormFacts) -> str:
    """A norm in words."""
    gain = "no gain" if norm.gain == "none" else f"gain {norm.gain}"
    kind = {"RMS": "RMS norm", "layer": "layer norm"}.get(
        norm.kind, "a norm of its own"
    )
    shift = ", with a shift" if norm.shift else ""
    return f"{norm.module} ({norm.module_class}): {kind}, {gain}{shift}"


def _measured(
    fidelity: Fidelity, readout: ReadoutFacts | None, precision: PrecisionCost | None
) -> Iterator[Line]:
    """Fidelity, rounding, and what the dtype costs."""
    measured = _MEASURES.get(fidelity.measure, fidelity.measure)
    yield (
        "fidelity",
        f"{measured} at most {fidelity.own.largest:.1g} over {fidelity.n_positions} "
        f"predictions (tolerance {fidelity.tolerance:.1g})",
    )
    yield (
        "power",
        f"a wrong state misses by {_rounded(fidelity.power)} tolerances",
    )
    yield (
        "noise floor",
        f"{fidelity.noise_logit:.1g} of a logit"
        if fidelity.measure == "logit"
        else f"{fidelity.noise_probability:.1g} of a probability, "
        f"{fidelity.noise_log_probability:.1g} nats of a log-probability",
    )
    if readout is not None:
        yield f"read in {readout.precision}", _distance(fidelity.precise, measured)
    if precision is not None:
        cost = precision.float32_model
        told = f"not measured: {precision.not_measured}"
        yield "run in float32", told if cost is None else _distance(cost, measured)


def _distance(distance: Distance, measured: str) -> str:
    """How far some predictions are from the model's own."""
    if distance.largest == 0:
        return f"{measured} 0: no difference"
    words = f"{measured} at most {distance.largest:.2g}, on average {distance.mean:.2g}"
    if distance.probability is not None:
        words += f"; a probability differs by up to {distance.probability:.2g}"
    return words


def _rounded(ratio: float) -> str:
    """A ratio with two digits, or a whole number."""
    return f"{ratio:.2g}" if ratio < 100 else f"{float(f'{ratio:.2g}'):,.0f}"


def _memory(memory: MemoryEstimate, batch_safe: bool | None) -> Iterator[Line]:
    """Blocks and bytes."""
    yield "states", f"{memory.n_points} per prediction, {size_of(memory.states_bytes)}"
    yield "logits", f"the model's own, to verify by: {size_of(memory.logits_bytes)}"
    yield (
        "reading",
        f"{memory.n_passes} pass{'es' * (memory.n_passes > 1)} of up to "
        f"{memory.rows_per_pass} predictions, the vocabulary in {memory.n_blocks} "
        f"block{'s' * (memory.n_blocks > 1)} of {memory.block_width:,}",
    )
    yield (
        "peak",
        f"about {size_of(memory.tracing_bytes)} while the model runs and "
        f"{size_of(memory.reading_bytes)} while states are read, beyond weights and "
        "activations",
    )
    if batch_safe is not None:
        yield (
            "batches",
            "texts of several lengths may share one"
            if batch_safe
            else "texts are run one by one: among others, one gets other probabilities",
        )


def size_of(n_bytes: int) -> str:
    """Bytes in the unit that suits them.

    Example:
        >>> size_of(900), size_of(538_060_288), size_of(28_000_000_000)
        ('900 B', '538 MB', '28.0 GB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return (
                f"{n_bytes / size:.1f} GB"
                if unit == "GB"
                else f"{n_bytes / size:.0f} {unit}"
            )
    return f"{n_bytes} B"
