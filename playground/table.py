"""The page's tables."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .plan import QUESTIONS
from .scores import Check, Score

PAGE = Path(__file__).resolve().parents[1] / "docs" / "playground.md"
BEGIN, END = "<!-- playground:begin -->", "<!-- playground:end -->"

_TITLES = {
    ("layer", "readable"): "Layers: where did the token become readable?",
    ("layer", "cause"): "Layers: which ones do the work?",
    ("part", "readable"): "Attention or MLP: where did it become readable?",
    ("part", "cause"): "Attention or MLP: which do the work?",
    ("head", "readable"): "Heads: where did it become readable?",
    ("head", "cause"): "Heads: which do the work?",
}


def render(
    checks: Sequence[Check], scores: Sequence[Score], made: str, seconds: float
) -> str:
    """The generated part of the page."""
    models = len(checks) // len({each.mechanism for each in checks})
    one = scores[0]
    prompts = sum(
        (s.mechanism, s.method, s.level, s.question)
        == (one.mechanism, one.method, one.level, one.question)
        for s in scores
    )
    parts = [
        f"{models} models of each kind (seeds 0 to {models - 1}), {prompts // models} "
        f"prompts each; {made}; {seconds / 60:.0f} minutes.",
        "### Do they do what was planned?",
        checks_table(checks),
    ]
    for (level, question), title in _TITLES.items():
        chosen = [s for s in scores if (s.level, s.question) == (level, question)]
        parts += [f"### {title}", scores_table(chosen)]
    return "\n\n".join(parts)


def checks_table(checks: Sequence[Check]) -> str:
    """What models do, with all of their layers and without one."""
    lines = [
        "| planted | right | probability | without a planned layer, at most | without "
        "another, at least |",
        "|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(each.mechanism for each in checks):
        own = [each for each in checks if each.mechanism == name]
        cells = (
            _percent(np.mean([each.right for each in own])),
            f"{np.mean([each.probability for each in own]):.2f}",
            _percent(max(each.without_cause for each in own)),
            _percent(min(each.without_other for each in own)),
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def scores_table(scores: Sequence[Score]) -> str:
    """A line for every method, a column for every mechanism."""
    names = list(dict.fromkeys(score.mechanism for score in scores))
    methods = list(dict.fromkeys(score.method for score in scores))
    lines = [
        f"| method | {' | '.join(names)} | mean |",
        f"|{'---|' * (len(names) + 2)}",
    ]
    for method in methods:
        own = [[s for s in scores if (s.mechanism, s.method) == (name, method)]
               for name in names]  # fmt: skip
        cells = [_cell(each) for each in own]
        mean = np.mean([np.mean([s.found for s in each]) for each in own])
        lines.append(f"| {method} | {' | '.join(cells)} | {_percent(mean)} |")
    chance = []
    for name in names:
        one = next(score for score in scores if score.mechanism == name)
        chance.append(one.planned / one.places)
    cells = [_percent(value) for value in (*chance, np.mean(chance))]
    lines.append(f"| *chance* | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(scores: Sequence[Score]) -> str:
    """Share of prompts; where several places were planned, what was found of them."""
    first = _percent(np.mean([score.first for score in scores]))
    if all(score.planned == 1 for score in scores):
        return first
    return f"{first}, {_percent(np.mean([score.found for score in scores]))}"


def _percent(share: float) -> str:
    """A share in percent."""
    return f"{share:.0%}"


def write(block: str, page: Path = PAGE) -> None:
    """Put the generated part into the page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{block}\n\n{END}{after}", encoding="utf-8")


assert {question for _, question in _TITLES} == set(QUESTIONS)
