"""Results made of random numbers: valid records without a model."""

import itertools
from dataclasses import fields, replace

import hypothesis.strategies as st
import numpy as np

from iglens.records import (
    ENTROPY,
    KL_TO_FINAL,
    UNITS,
    Attribution,
    Flag,
    ModelInfo,
    Provenance,
    ReadoutInfo,
    Target,
    block_segment,
)

BASELINES = ("embedding", "zero", "mean", "paper-mean", "vector")

GRADIENT = "gradient(midpoint, n_steps=4)"

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a\u202eb",
    "line\nbreak\r",
    "\x00\x1b[31m",
    "日本語 🙂",
    "=1+1,;\"'&",
    "",
)


def make_attribution(
    *,
    rows=3,
    n_layers=6,
    layers=None,
    top=0,
    unit="probability",
    baseline="embedding",
    estimator="observed",
    lens="logit",
    kinds=False,
    texts=(" Paris", " a|b"),
    holes=(),
    noise_floor=1e-9,
    seed=0,
):
    """A random result.

    `top` above 0 means with diagnostics; `holes` are `(row, point, value)` levels that
    are not finite, which are flagged as attribution flags them.
    """
    rng = np.random.default_rng(seed)
    segments = make_segments(layers or range(1, n_layers + 1), baseline)
    n_points = len(segments) + 1
    levels = random_levels(rng, (rows, n_points), unit)
    for row, point, value in holes:
        levels[row, point] = value
    credits = np.diff(np.where(np.isfinite(levels), levels, np.nan), axis=1)
    writes = credits
    if estimator != "observed":
        credits = credits + rng.normal(size=credits.shape) * 1e-3
        writes = np.full_like(credits, np.nan)
    elif lens != "logit":
        writes = credits + rng.normal(size=credits.shape)
    n_text = int(rng.integers(1, 9))
    token_ids = rng.integers(0, 97, n_text)
    top_ids = rng.integers(0, 97, (rows, n_points, top))
    return Attribution(
        token_ids=token_ids,
        token_texts=tuple(texts[i % len(texts)] for i in token_ids.tolist()),
        positions=rng.integers(0, n_text + 1, rows),
        targets=tuple(
            random_target(rng, texts[i % len(texts)], kinds) for i in range(rows)
        ),
        segments=segments,
        levels=levels,
        credits=credits,
        writes=writes,
        top1=rng.random((rows, n_points)) < 0.5,
        pruned=np.zeros((rows, n_points), bool),
        model_value=levels[:, -1] + rng.normal(size=rows) * 1e-4,
        fidelity=rng.random(rows) * 1e-6,
        log_fidelity=rng.random(rows) * 1e-6,
        rank=rng.integers(1, 97, (rows, n_points)) * (top > 0),
        lens_kl=rng.random((rows, n_points)) if top else np.full_like(levels, np.nan),
        top_ids=top_ids,
        top_probabilities=rng.random(top_ids.shape),
        vocabulary={i: texts[i % len(texts)] for i in np.unique(top_ids).tolist()},
        unit=unit,
        baseline_kind=baseline,
        estimator=estimator,
        lens=lens,
        noise_floor=np.full(rows, noise_floor),
        readout=ReadoutInfo("explicit", "float32", "none", 1e-5, 2e4),
        provenance=make_provenance(texts[0], n_layers),
        flags=tuple(
            Flag(row, point, "non_finite_level", f"The level is {value}.")
            for row, point, value in holes
        ),
        warnings=tuple(texts[:1]),
    )


def make_answer(
    logs, *, unit="log_probability", texts=None, lens="logit", begin=2, **but
):
    """The attribution of an answer whose tokens have these log-probabilities."""
    logs = np.asarray(logs, float)
    n_tokens, n_points = logs.shape
    levels = {
        "log_probability": logs,
        "probability": np.exp(logs),
        "log_odds": logs - np.log(-np.expm1(logs)) if unit == "log_odds" else None,
    }[unit]
    base = make_attribution(
        rows=n_tokens, n_layers=n_points - 1, unit=unit, texts=("x",), lens=lens
    )
    texts = texts or [f" t{i}" for i in range(n_tokens)]
    ids = 10 + np.arange(n_tokens)
    moved = np.diff(np.where(np.isfinite(levels), levels, np.nan), axis=1)
    provenance = replace(base.provenance, settings={"prompt_tokens": 2})
    given = {
        "token_ids": np.concatenate([[1, 2], ids]),
        "token_texts": ("a", "b", *texts),
        "positions": begin + np.arange(n_tokens),
        "targets": tuple(
            Target((i,), t) for i, t in zip(ids.tolist(), texts, strict=True)
        ),
        "levels": levels,
        "credits": moved,
        "writes": moved,
        "provenance": provenance,
        "flags": (),
    }
    return replace(base, **(given | but))


def make_segments(layers, baseline):
    ends = [*layers] if baseline == "paper-mean" else [0, *layers]
    if baseline != "embedding":
        ends = [None, *ends]
    modules = tuple(f"model.layers.{i}" for i in range(max(layers)))
    return tuple(
        block_segment(after, layer, modules)
        for after, layer in itertools.pairwise(ends)
    )


def make_provenance(prompt, n_layers):
    return Provenance(
        model=ModelInfo(
            id="a/model",
            path="/models/a",
            revision="abc",
            weights_sha256="0" * 64,
            dtype="bfloat16",
            n_layers=n_layers,
            vocab_size=97,
            architecture="AModel",
            note="Q4_1 dequantised",
        ),
        prompt=prompt,
        versions={"iglens": "0", "torch": "0"},
        created="2026-01-01T00:00:00+00:00",
        settings={"chat": False, "seed": 1, "stops": ["\n"], "penalty": None},
    )


def random_levels(rng, shape, unit):
    if unit == "probability":
        return rng.random(shape)
    if unit == "log_probability":
        return -rng.exponential(5, shape)
    return rng.normal(0, 5, shape)


def random_target(rng, text, of_all_kinds):
    ids = rng.choice(97, size=rng.integers(1, 4), replace=False).tolist()
    plain = Target(tuple(sorted(ids)), text)
    if not of_all_kinds:
        return plain
    contrast = plain.versus(Target((97, 98), f"not {text}"))
    own = Target((), text, space="stars", kind="scalar")
    return (plain, contrast, ENTROPY, KL_TO_FINAL, own)[rng.integers(5)]


@st.composite
def recipes(draw):
    """Arguments of `make_attribution`: every shape, unit and baseline.

    Not results themselves: their type checks draw random numbers, which hypothesis
    does not want inside a strategy.
    """
    rows = draw(st.integers(1, 4))
    n_layers = draw(st.integers(1, 7))
    inner = draw(st.sets(st.integers(1, n_layers)))
    layers = sorted(inner | {n_layers})
    baseline = draw(st.sampled_from(BASELINES))
    n_points = len(layers) + (1 if baseline in ("embedding", "paper-mean") else 2)
    cells = st.tuples(st.integers(0, rows - 1), st.integers(0, n_points - 1))
    values = st.sampled_from([np.nan, np.inf, -np.inf])
    holes = draw(st.dictionaries(cells, values, max_size=3))
    texts = st.lists(st.text() | st.sampled_from(HOSTILE), min_size=1, max_size=4)
    return {
        "rows": rows,
        "n_layers": n_layers,
        "layers": layers,
        "top": draw(st.integers(0, 3)),
        "unit": draw(st.sampled_from(UNITS)),
        "baseline": baseline,
        "estimator": draw(st.sampled_from(["observed", GRADIENT])),
        "kinds": draw(st.booleans()),
        "lens": draw(st.sampled_from(["logit", "ridge"])),
        "texts": draw(texts),
        "holes": [(*cell, value) for cell, value in holes.items()],
        "noise_floor": draw(st.sampled_from([0.0, 1e-9, 0.01])),
        "seed": draw(st.integers(0, 2**32)),
    }


def assert_same(found, expected, *, but=()):
    """Every field equal, arrays bit for bit up to the kind of NaN."""
    for name in (field.name for field in fields(expected)):
        if name in but:
            continue
        a, b = getattr(found, name), getattr(expected, name)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, err_msg=name)
        else:
            assert a == b, name


def without_infinity(attribution):
    """What the JSON form can hold: NaN where a level was infinite."""
    levels = np.where(np.isfinite(attribution.levels), attribution.levels, np.nan)
    values = attribution.model_value
    return replace(
        attribution,
        levels=levels,
        model_value=np.where(np.isfinite(values), values, np.nan),
    )
