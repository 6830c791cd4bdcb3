"""The report of an examination: everything in it, nothing that escapes its lines."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from iglens.records.examination import Examination
from iglens.records.findings import (
    BlockFacts,
    Distance,
    Fidelity,
    HeadFacts,
    LayerFacts,
    MemoryEstimate,
    ModelFacts,
    NormFacts,
    PartFacts,
    PrecisionCost,
    ReadoutFacts,
)
from iglens.report.examination import plain_text, render, sections

MODEL = ModelFacts(
    id="a/model",
    path="/models/a",
    revision="abc",
    weights_sha256="0" * 64,
    note="Q4_1 dequantised",
    architecture="AModel",
    n_parameters=1_234_567,
    n_bytes=3_000_000,
    dtypes={"bfloat16": 1_234_000, "float32": 567},
    devices={"cuda:0": 2_000_000, "offloaded": 1_000_000},
    n_logits=50_000,
    labels=None,
    tokenizer_size=49_999,
    context=2048,
    chat_template=True,
    attention="sdpa",
    quantisation=None,
    declared=("blocks=model.layers",),
)
LAYERS = LayerFacts(
    container="model.layers",
    n_layers=6,
    n_modules=3,
    first="model.layers.0",
    last="model.layers.2",
    classes=("ABlock",),
    chained=False,
    start="the input of model.embed_norm",
    enters="argument `hidden`",
    leaves="entry 1 of the output",
    axes=("tokens", "texts", "width"),
    prefix=4,
    repeat=2,
    d_model=4096,
)
READOUT = ReadoutFacts(
    kind="explicit",
    streamed=True,
    reason=None,
    steps=("model.norm (ANorm)", "scale 0.5"),
    norm=NormFacts("model.norm", "ANorm", "RMS", "1 + w", True),
    head=HeadFacts("lm_head", "Linear", ("model.embed",), True),
    postprocess="softcap 30",
    dtype="bfloat16",
    precision="float32",
)
PART = PartFacts(
    name="attention",
    module="attn",
    norms="sandwich",
    carry=1.0,
    scale=0.6,
    writer="attn.out",
    writer_reason=None,
    heads=12,
    heads_reason=None,
    neurons=None,
    neurons_reason="it mixes tokens",
    experts=None,
)
WHOLE = replace(
    PART,
    name="mlp",
    writer=None,
    heads=None,
    heads_reason="it is no attention",
    neurons_reason="a router chooses",
    experts=4,
)
FULL = Examination(
    verdict="exact",
    sentence="Exact: it is.",
    name="a/model",
    model=MODEL,
    layers=LAYERS,
    readout=READOUT,
    blocks=(
        BlockFacts((1, 2, 4), "sequential", "additive", (PART, WHOLE), None),
        BlockFacts((3,), "none", "not additive", (), "no state lies between"),
    ),
    fidelity=Fidelity(
        text="a text",
        n_tokens=9,
        n_positions=8,
        measure="total_variation",
        own=Distance(0.0, 0.0, 0.0),
        precise=Distance(0.023, 0.01, 0.022),
        tolerance=0.07,
        noise_probability=0.004,
        noise_log_probability=0.02,
        noise_logit=0.03,
        power=30437.3,
    ),
    precision=PrecisionCost("bfloat16", Distance(0.045, 0.018, 0.029), None),
    memory=MemoryEstimate(512, 31, 58, 9, 583, 85, 10**7, 10**8, 4 * 10**8, 2 * 10**8),
    batch_safe=True,
    warnings=("Mind the gap.",),
)
REFUSED = Examination(
    verdict="refused",
    sentence="Refused: no stack of layers.",
    name="a/model",
    model=MODEL,
    tried={"model.layers": "it misses by 0.9"},
)


def drawn(examination, width=80, **options):
    file = io.StringIO()
    Console(file=file, width=width, highlight=False, **options).print(
        render(examination, width)
    )
    return file.getvalue()


def words(text):
    return " ".join(text.split())


@pytest.mark.parametrize("examination", [FULL, REFUSED], ids=["full", "refused"])
@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(examination, width):
    lines = drawn(examination, width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines == [line.rstrip() for line in lines]


@pytest.mark.parametrize("examination", [FULL, REFUSED], ids=["full", "refused"])
def test_terminal_and_plain_text_say_the_same(examination):
    wide = words(drawn(replace(examination, warnings=()), width=1000))
    assert wide == words(plain_text(replace(examination, warnings=())))


@pytest.mark.parametrize("examination", [FULL, REFUSED], ids=["full", "refused"])
def test_the_verdict_comes_first(examination):
    for text in (drawn(examination), plain_text(examination)):
        assert text.startswith(examination.sentence)


@pytest.mark.parametrize(
    "said",
    [
        "a/model (AModel)",
        "Q4_1 dequantised",
        "1,234,567 parameters in bfloat16 (1,234,000), float32 (567); 2 MB on cuda:0, "
        "1 MB offloaded",
        "50,000 logits, 49,999 tokens in the tokenizer, a chat template",
        "2,048 tokens",
        "blocks=model.layers",
        "6 calls of 3 blocks in model.layers (ABlock)",
        "no: the stream is changed between blocks",
        "4,096 numbers per token; enters a block as argument `hidden`, leaves it as "
        "entry 1 of the output",
        "the input of model.embed_norm",
        "tokens, texts, width",
        "4 virtual tokens",
        "2 streams",
        "model.norm (ANorm), then scale 0.5",
        "model.norm (ANorm): RMS norm, gain 1 + w, with a shift",
        "lm_head (Linear), tied to model.embed, with a bias",
        "softcap 30",
        "states in bfloat16, levels read in float32",
        "layers 1-2, 4 one part after the other; each adds to the stream",
        "norms in front and behind; times 0.6; written by attn.out; 12 heads",
        "4 experts; neurons cannot be separated: a router chooses",
        "layer 3 not split: no state lies between",
        "measured on a text of 9 tokens",
        "total variation at most 0 over 8 predictions (tolerance 0.07)",
        "a wrong state misses by 30,000 tolerances",
        "0.004 of a probability, 0.02 nats of a log-probability",
        "read in float32 total variation at most 0.023, on average 0.01; a probability "
        "differs by up to 0.022",
        "run in float32 total variation at most 0.045",
        "memory for a text of 512 tokens (estimated)",
        "31 per prediction, 10 MB",
        "9 passes of up to 58 predictions, the vocabulary in 85 blocks of 583",
        "about 400 MB while the model runs and 200 MB while states are read",
        "texts of several lengths may share one",
        "Warning: Mind the gap.",
    ],
)
def test_everything_that_is_known_is_said(said):
    assert said in words(plain_text(FULL))


def test_what_is_as_usual_is_not_said():
    usual = replace(
        LAYERS,
        n_layers=3,
        start="the input of model.layers.0",
        axes=("texts", "tokens", "width"),
        prefix=0,
        repeat=1,
        chained=True,
    )
    text = plain_text(replace(FULL, layers=usual))
    for label in ("starts at", "axes", "in front  ", "side by side", "calls of"):
        assert label not in text
    assert "3 blocks in model.layers" in text


def test_a_refused_model_shows_what_was_tried():
    text = words(plain_text(REFUSED))
    assert "what was tried model.layers it misses by 0.9" in text
    assert [s.title for s in sections(REFUSED)] == ["model", "what was tried"]


def test_an_injected_readout_says_why():
    odd = replace(READOUT, kind="injected", reason="No chain leads there.", head=None)
    text = words(plain_text(replace(FULL, readout=odd)))
    assert "injected: the model's own forward" in text
    assert "why No chain leads there." in text
    called = replace(READOUT, streamed=False)
    assert "whole rows of logits" in plain_text(replace(FULL, readout=called))


def test_what_was_not_measured_says_why():
    cost = PrecisionCost("float32", None, "it is what it is")
    text = words(plain_text(replace(FULL, precision=cost)))
    assert "run in float32 not measured: it is what it is" in text


@pytest.mark.parametrize(
    ("fidelity", "title"),
    [(None, None), ("text", "a text of 9 tokens"), ("ids", "9 arbitrary token ids")],
)
def test_the_title_says_what_was_measured_on(fidelity, title):
    text = "x" if fidelity == "text" else None
    changed = None if fidelity is None else replace(FULL.fidelity, text=text)
    said = plain_text(replace(FULL, fidelity=changed))
    assert ("measured on" in said) == (title is not None)
    assert title is None or title in said


def test_a_reward_model_is_described_by_its_logit():
    model = replace(MODEL, n_logits=1, labels=("reward",))
    fidelity = replace(
        FULL.fidelity,
        measure="logit",
        own=Distance(0.001, 0.0, None),
        precise=Distance(0.02, 0.01, None),
    )
    text = words(plain_text(replace(FULL, model=model, fidelity=fidelity)))
    assert "1 logit (reward), 49,999 tokens" in text
    assert "fidelity difference of a logit at most 0.001 over 8 predictions" in text
    assert "noise floor 0.03 of a logit" in text
    assert (
        "read in float32 difference of a logit at most 0.02, on average 0.01 " in text
    )


def test_many_labels_are_not_all_named():
    labels = tuple(f"L{number}" for number in range(100))
    text = plain_text(replace(FULL, model=replace(MODEL, n_logits=100, labels=labels)))
    assert "100 logits (L0, L1, L2, L3, L4, L5, …)" in text


def test_colour_adds_nothing_to_the_text():
    for examination in (FULL, REFUSED):
        coloured = drawn(examination, force_terminal=True, color_system="truecolor")
        assert "\x1b[" in coloured
        assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == drawn(examination)


def test_nothing_from_a_model_can_reach_the_terminal():
    evil = "\x1b]0;owned\x07\x1b[2J\u202e\nsecond [bold]line"
    model = replace(MODEL, id=evil, note=evil, declared=(evil,), attention=evil)
    odd = replace(
        FULL,
        sentence=f"Exact: {evil}",
        model=model,
        tried={evil: evil},
        layers=replace(LAYERS, container=evil, classes=(evil,)),
        warnings=(evil,),
    )
    for text in (drawn(odd), plain_text(odd)):
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
        assert "[bold]" in words(text).replace(" ", "")


def test_printing_an_examination_prints_the_report():
    assert str(FULL) == plain_text(FULL)


def test_an_examination_needs_no_torch():
    from isolated import run_python

    run_python(
        "import sys, iglens.report.examination, iglens.records;"
        "sys.exit('torch' in sys.modules)"
    )
