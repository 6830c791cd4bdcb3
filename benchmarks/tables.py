"""Every table of the pages, from the results alone."""

from collections.abc import Callable, Iterable, Sequence

from .cases.maps import PLAIN, SPARED
from .claims import CLAIMS, TIMES, Values, models, others, seconds_of, worst
from .claims import against_published as published_by_ours
from .results import Measurement, Results

NONE = "\u2013"
"""A cell without a number."""

Row = Sequence[str]


def table(columns: Row, rows: Iterable[Row]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines)


def short(value: float) -> str:
    """Three digits.

    Example:
        >>> short(1.1234), short(164.2), short(2.5e-7)
        ('1.12', '164', '2.5e-07')
    """
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def timed(found: Measurement) -> Row:
    """Median, and the smallest and largest ratio."""
    if not found.ratios:
        return (NONE, found.note)
    low, high = found.spread
    spread = f"{short(low)} … {short(high)}"
    note = f"; {found.note}" if found.note else ""
    return (f"{short(found.median)}{TIMES}", f"{spread}{note}")


def setting(results: Results) -> str:
    """What was measured on, and with what."""
    about = results.about
    machine, versions = about["machine"], about["versions"]
    return (
        f"{about['form'].capitalize()} form of {about['date']}, seed {about['seed']}, "
        f"{about['seconds'] / 60:.0f} minutes. {machine['cpu']}, {machine['cores']} "
        f"cores, {machine['threads']} threads, {machine['memory_gib']:.0f} GiB, "
        f"{machine['system']}, load {machine['load_before']} before. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )


def maps(results: Results) -> str:
    """The readout alone and the whole map."""
    columns = ("model", "tokens", "timed", "tool", "time / bare product", "spread")
    titles = {"map": "readout", "whole": "whole map"}
    return table(columns, _by_length(results, titles))


def floor(results: Results) -> str:
    """The readout by the product that it is made of."""
    columns = ("model", "tokens", "timed", "tool", "time / its product", "spread")
    return table(columns, _by_length(results, {"floor": "readout"}))


def _by_length(results: Results, titles: dict[str, str]) -> list[Row]:
    """Some cases, by what they are called, with models in order."""
    return [
        (each.model, f"{each.tokens:,}", title, each.what, *timed(each))
        for case, title in titles.items()
        for each in sorted(
            results.of(case),
            key=lambda e: (models(results).index(e.model), e.tokens),
        )
    ]


def published(results: Results) -> str:
    """The published procedure, by what it is compared with."""
    rows = [
        (each.model, str(each.tokens), each.what, each.against, *timed(each))
        for each in [*results.of("published"), *results.of("one token")]
    ]
    return table(("model", "tokens", "timed", "by", "ratio", "spread"), rows)


def accuracy(results: Results) -> str:
    """The largest errors."""
    rows = [
        (each.model, str(each.tokens), each.what, short(each.median))
        for each in results.of("accuracy")
    ]
    return table(("model", "tokens", "tool", "largest error"), rows)


def beside(results: Results) -> str:
    """Start-up, drill-down, corpora, memory."""
    rows: list[Row] = [
        (each.model, each.what, each.against, *timed(each))
        for case in ("start", "inside", "corpus", "spread")
        for each in results.of(case)
    ]
    rows += [
        (each.model, "peak memory", NONE, f"{each.median:.0f} {each.unit}", "")
        for each in results.of("memory")
    ]
    return table(("model", "timed", "by", "ratio", "spread"), rows)


def neighbours(results: Results) -> str:
    """Their releases, and why any of them is missing."""
    rows = []
    for name, known in results.neighbours.items():
        versions = ", ".join(f"{n} {v}" for n, v in known["versions"].items())
        reasons = [f"{model}: {why}" for model, why in known["reasons"].items()]
        if len(set(known["reasons"].values())) == 1 and not versions:
            reasons = list(known["reasons"].values())[:1]
        told = "; ".join(reasons).replace("|", "/")
        rows.append((name, versions or NONE, known["note"] or NONE, told or NONE))
    columns = ("tool", "measured with", "note", "not measured, because")
    return table(columns, rows)


def claims(results: Results) -> str:
    """Targets beside what was measured."""
    words = {True: "met", False: "not met", None: "not measured"}
    rows = [
        (
            claim.text,
            f"{'≤' if claim.at_most else '≥'} {claim.bound:g}{claim.unit}",
            _values(claim.values(results), claim.unit),
            words[claim.met(results)],
        )
        for claim in CLAIMS
    ]
    return table(("what", "target", "measured", ""), rows)


def _values(values: Values, unit: str) -> str:
    """By model."""
    told = [f"{model} {short(v)}{unit}".strip() for model, v in values.items()]
    return ", ".join(told) or NONE


def readme(results: Results) -> str:
    """What a user cares for, in a few lines, a column per model."""
    names = models(results)
    fastest = {
        name: min(found, key=lambda each: each.median)
        for name in names
        if (found := list(others(results, "map", name)))
    }
    exact = {
        name: min(each.median for each in found)
        for name in names
        if (found := list(others(results, "accuracy", name)))
    }
    lines: list[tuple[str, Values, str]] = [
        ("Layer map, every point read whole", worst(results, "map", PLAIN), TIMES),
        ("Layer map, points below 2^-24 pruned", worst(results, "map", SPARED), TIMES),
        (
            "Whole, by the faster product that it uses",
            worst(results, "floor", PLAIN),
            TIMES,
        ),
        (
            "Pruned, by the faster product that it uses",
            worst(results, "floor", SPARED),
            TIMES,
        ),
    ]
    tools = " / ".join(dict.fromkeys(each.what for each in fastest.values()))
    many = {n: each.median for n, each in fastest.items()}
    lines += [
        (f"The fastest neighbour ({tools})", many, TIMES),
        ("Published procedure, by ours", published_by_ours(results, SPARED), TIMES),
        ("Largest error, ours", worst(results, "accuracy", PLAIN), ""),
        ("Largest error, best neighbour", exact, ""),
        ("Peak memory on top", worst(results, "memory", "iglens"), " MiB"),
    ]
    rows = [
        (title, *(_cell(values, name, unit) for name in names))
        for title, values, unit in lines
        if values
    ]
    help_, explain = (
        seconds_of(results, f"iglens {word}") for word in ("--help", "explain")
    )
    if help_ and explain:
        (first,), (second,) = help_.values(), explain.values()
        rows.append(
            ("`iglens --help` / cached `iglens explain`",)
            + (f"{short(first)} s / {short(second)} s",)
            + ("",) * (len(names) - 1)
        )
    return table(("time by the bare product, unless said", *names), rows)


def _cell(values: Values, name: str, unit: str) -> str:
    """A number, or a dash."""
    return f"{short(values[name])}{unit}" if name in values else NONE


BLOCKS: dict[tuple[str, str], Callable[[Results], str]] = {
    ("docs/performance.md", "setting"): setting,
    ("docs/performance.md", "claims"): claims,
    ("docs/performance.md", "maps"): maps,
    ("docs/performance.md", "floor"): floor,
    ("docs/performance.md", "published"): published,
    ("docs/performance.md", "accuracy"): accuracy,
    ("docs/performance.md", "beside"): beside,
    ("docs/performance.md", "neighbours"): neighbours,
    ("README.md", "performance"): readme,
}
"""Where each of them stands."""
