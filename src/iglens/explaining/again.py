"""The question of a result, asked again: of the same tokens, or of another prompt."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..attribution import Scalar
from ..attribution.rows import Explained
from ..errors import ArgumentError
from ..model.decoder import Decoder
from ..model.text import Prompt
from ..readout.lens import AbstractLens
from ..records import Attribution
from ..records.matching import prompt_length
from .plan import Prepared
from .reader import Reader
from .recorded import recorded_reader, recorded_rows, was_strict
from .start import StartLike

_KEPT = ("chat", "system", "max_new_tokens", "sampling")
"""Settings that go over to another prompt."""


def explain_like(
    decoder: Decoder,
    prompt: Prompt | None,
    result: Attribution,
    *,
    chat: bool = False,
    system: str | None = None,
    special_tokens: bool = True,
    baseline: StartLike | Sequence[StartLike] | None = None,
    lens: str | Path | AbstractLens | None = None,
    scalars: Sequence[Scalar] = (),
) -> Attribution:
    """Explain another prompt, or the same on another model, as a result was explained.

    Whatever followed the prompt of `result` follows this one too, token by token, and
    the same targets are explained at the same distance from the end of the prompt, so
    that `iglens.diff` finds a counterpart for every row. Rows that would lie before
    the second token of this text are left out.

    Args:
        decoder: The model: that of the result, or another of the same vocabulary and
            depth.
        prompt: Text, token ids, or (with `chat`) messages; None for the prompt of the
            result, token by token.
        result: What to do again: targets, path, unit, baseline, lens, estimator.
        chat: Put the prompt through the tokenizer's chat template.
        system: System message of the chat.
        special_tokens: Let the tokenizer add what it adds to a text.
        baseline: Where paths start, if the result only knows that it was a vector.
        lens: What to read through, if the result does not know its file, or the model
            is another.
        scalars: The scalars of the user's own among the targets.

    Returns:
        One row per row of `result`, in its order.

    Raises:
        ArgumentError: If the model is another in depth or vocabulary, or the result
            does not say enough.
    """
    length, known = prompt_length(result), result.provenance.settings
    top = known.get("top")
    reader = recorded_reader(result, baseline, lens).check(decoder)
    reader = replace(reader, top=top if isinstance(top, int) else None)
    settings = {name: known[name] for name in _KEPT if name in known}
    if prompt is None:
        ids, text = result.token_ids[:length].tolist(), result.provenance.prompt
    else:
        ids = decoder.encode(
            prompt, chat=chat, system=system, special_tokens=special_tokens
        )
        text = prompt if isinstance(prompt, str) else None
        settings |= {"chat": chat, "system": system}
    rows = [
        (position, target)
        for position, target in recorded_rows(result, scalars, len(ids) - length)
        if position > 0
    ]
    if not rows:
        raise ArgumentError(
            f"The prompt has {len(ids)} tokens: none of the rows of the other result "
            "has a place in it."
        )
    check_same_tokens(decoder, result)
    return run_again(
        decoder,
        result,
        reader,
        [*ids, *result.token_ids[length:].tolist()],
        rows,
        prompt=text,
        settings=settings | {"prompt_tokens": len(ids)},
    )


def run_again(
    decoder: Decoder,
    result: Attribution,
    reader: Reader,
    ids: Sequence[int],
    rows: Sequence[tuple[int, Explained]],
    *,
    prompt: str | None,
    settings: dict[str, object],
) -> Attribution:
    """Rows of a text, along the path of a result, in their order.

    Raises:
        ArgumentError: If the model is of another depth.
    """
    check_depth(decoder, result)
    layers = _traced_layers(result)
    trace = decoder.trace(
        ids,
        sorted({position for position, _ in rows}),
        layers=layers,
        by=reader.by,
        prompt=prompt,
        settings=settings | {"layers": layers, "by": reader.by},
    )
    asked = Prepared(trace, list(rows), tuple(ids))
    found = reader.of(
        decoder,
        asked,
        diagnostics=result.top_ids.shape[-1] > 0,
        strict=was_strict(result),
    )
    if found.layers != result.layers:
        found = found.coarsen(layer for layer in result.layers if layer)
    order = sorted(range(len(rows)), key=lambda row: rows[row][0])  # as it is now
    return found.select(sorted(range(len(rows)), key=lambda place: order[place]))


def _traced_layers(result: Attribution) -> list[int] | None:
    """Layers to run through: the path's, or those the baseline was taken from."""
    settings = result.provenance.settings
    if result.baseline_kind == "paper-mean" and "layers" in settings:
        known = settings["layers"]
        return known if isinstance(known, list) else None
    return [layer for layer in result.layers if layer]


def check_depth(decoder: Decoder, result: Attribution) -> None:
    """Refuse a model of another depth.

    Raises:
        ArgumentError: If it is one.
    """
    then = result.provenance.model
    if then.n_layers != decoder.n_layers:
        raise ArgumentError(
            f"The result is of {then.id}, which has {then.n_layers} layers; "
            f"{decoder.info.id} has {decoder.n_layers}, and no layer of one is a layer "
            "of the other."
        )


def check_same_tokens(decoder: Decoder, result: Attribution) -> None:
    """Refuse a model whose token ids mean other texts.

    Raises:
        ArgumentError: If they do.
    """
    if decoder.tokenizer is None:
        return
    ids = result.token_ids.tolist()
    for token, text in zip(ids, result.token_texts, strict=True):
        now = decoder.token_text(token)
        if now != text != f"<{token}>":
            raise ArgumentError(
                f"The result is of {result.provenance.model.id}, in which token "
                f"{token} is {text!r}; in {decoder.info.id} it is {now!r}. Only models "
                "of one vocabulary can be compared token by token."
            )
