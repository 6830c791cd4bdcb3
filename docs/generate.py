"""Everything in the documentation that a program prints, put in its place.

    python docs/generate.py          write
    python docs/generate.py help …   write only the blocks of these names
    python docs/generate.py --check  exit 1 if anything is stale (the tests do this)

Blocks stand between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
"""

import atexit
import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

os.environ["TERMINAL_WIDTH"] = os.environ["COLUMNS"] = "80"
os.environ["NO_COLOR"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import iglens

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "The capital of France is"
OTHER = "The capital of Italy is"
CHAT = "What is the capital of Vietnam?"
ANSWER = "The capital of Vietnam is Hanoi."


def help_pages() -> str:
    """The help of every command."""
    from iglens.cli.main import run

    pages = []
    for words in _commands():
        out = io.StringIO()
        with redirect_stdout(out):
            run([*words, "--help"])
        title = " ".join(["iglens", *words])
        lines = [line.rstrip() for line in out.getvalue().strip("\n").splitlines()]
        pages.append(f"## {title}\n\n```text\n" + "\n".join(lines) + "\n```")
    return "\n\n".join(pages)


def _commands() -> list[list[str]]:
    """The program, its commands and theirs, as one types them."""
    import typer

    from iglens.cli.main import app

    def below(command: Any, words: list[str]) -> Iterator[list[str]]:
        yield words
        for name, inner in getattr(command, "commands", {}).items():
            if [*words, name] != ["models", "list"]:  # the same as `iglens models`
                yield from below(inner, [*words, name])

    return list(below(typer.main.get_command(app), []))


def first_output() -> str:
    """What the first command prints, with the map left to the picture."""
    from iglens.cli.output import show

    out = io.StringIO()
    with redirect_stdout(out):
        show(_paris(), quiet=True)
    before, _, after = out.getvalue().strip("\n").partition("    layers")
    _, _, checks = after.partition("\n\n")
    text = f"{before}[the map in the picture]\n\n{checks}"
    lines = [line.rstrip() for line in text.splitlines()]
    return f'```text\n$ iglens explain "{PROMPT}"\n' + "\n".join(lines) + "\n```"


def picture() -> str:
    """The same map as a picture, without anything loaded from elsewhere."""
    from rich.console import Console

    from iglens.report.terminal import render

    console = Console(
        record=True, width=76, file=io.StringIO(), force_terminal=True, no_color=False
    )
    console.print(render(_paris(), 76))
    svg = console.export_svg(title=f'iglens explain "{PROMPT}"', unique_id="iglens")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)
    return svg.replace("Fira Code", "DejaVu Sans Mono")


def double_norm() -> str:
    """What the final norm does to a state that already carries it."""
    import torch

    decoder = _decoder()
    ids = decoder.encode(CHAT, chat=True)
    n_prompt = len(ids)
    ids += decoder.generate(ids, 8)
    trace = decoder.trace(ids, range(1, len(ids)))
    assert trace.logits is not None
    model, tail = decoder.model, decoder.readout
    with torch.no_grad():
        own = trace.logits.softmax(-1)
        once = tail.logits(trace.states[-1]).softmax(-1)
        twice = tail.logits(model.model.norm(trace.states[-1])).softmax(-1)
    targets = torch.tensor(ids[1:])
    at = {int(p): row for row, p in enumerate(trace.positions)}
    lines = [
        "| token | model | norm once | norm twice | total variation, norm twice |",
        "|---|---|---|---|---|",
    ]
    for position in range(n_prompt, len(ids)):
        row = at[position]
        values = [float(d[row, targets[row]]) for d in (own, once, twice)]
        apart = float((twice[row] - own[row]).abs().sum() / 2)
        text = decoder.token_text(ids[position]).replace("\n", "↵").strip()
        cells = [f"`{text}`", *(f"{v:.4f}" for v in values), f"{apart:.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    gaps = (own - twice).gather(1, targets[:, None]).abs()
    same = ((own - twice).abs() < 5e-5).float().mean()
    lines += [
        "",
        f"Over all {len(gaps)} positions of this chat the target's probability is "
        f"wrong by {float(gaps.mean()):.3f} on average and by {float(gaps.max()):.3f} "
        f"at most, although {float(same):.0%} of all probabilities agree within 5e-5.",
    ]
    return "\n".join(lines)


def two_prompts() -> str:
    """What `iglens diff` prints of a clean and a corrupted prompt."""
    from iglens.cli.main import run

    arguments = [PROMPT, OTHER, "--target", " Paris"]
    out = io.StringIO()
    with redirect_stdout(out):
        assert run(["diff", *arguments, "--quiet"]) == 0
    lines = [line.rstrip() for line in out.getvalue().strip("\n").splitlines()]
    command = f'$ iglens diff "{PROMPT}" "{OTHER}" --target " Paris"'
    return "```text\n" + "\n".join([command, *lines]) + "\n```"


def targets_output() -> str:
    """What `iglens explain` prints of several targets at once."""
    asked = ["--target", " Paris|Paris", "--target", "@entropy", "--target", "@kl"]
    return _printed([PROMPT, *asked, "--layers", "::5"])


def contrast_output() -> str:
    """What it prints of a token against its best rival."""
    asked = ["--target", " Paris", "--contrast", "@rival"]
    return _printed([PROMPT, *asked, "--unit", "log_probability", "--layers", "::5"])


def answer_output() -> str:
    """What it prints of an answer of several words."""
    return _printed([CHAT, "--chat", "--answer", ANSWER, "--layers", "::5"])


def rivals_output() -> str:
    """What it says of the tokens that gained and lost."""
    return _printed([PROMPT, "--target", " Paris", "--rivals", "3"], further=True)


def promotion_output() -> str:
    """What it says of target and rivals, in log-odds."""
    return _printed([PROMPT, "--target", " Paris", "--promotion"], further=True)


def sensitivity_output() -> str:
    """What it says of baselines."""
    asked = ["--target", " Paris", "--unit", "log_probability", "--sensitivity"]
    return _printed([PROMPT, *asked, "--baseline", f"prompt:{OTHER}"], further=True)


def sublayers_output() -> str:
    """What it prints of a path through the parts of blocks."""
    return _printed([PROMPT, "--target", " Paris", "--by", "sublayer"])


def interaction_output() -> str:
    """What it says of what parts do together."""
    asked = ["--target", " Paris", "--by", "sublayer", "--interaction"]
    return _printed([PROMPT, *asked], further=True)


def heads_output() -> str:
    """What it says of heads."""
    return _printed([PROMPT, "--target", " Paris", "--by", "head"], inside=True)


def neurons_output() -> str:
    """What it says of neurons."""
    return _printed([PROMPT, "--target", " Paris", "--by", "neuron"], inside=True)


def sources_output() -> str:
    """What it says of what heads read."""
    return _printed([PROMPT, "--target", " Paris", "--by", "source"], inside=True)


def audit_output() -> str:
    """What `iglens audit` prints of one text."""
    return _command("audit", PROMPT)


def gates_output() -> str:
    """What `iglens explain` prints of the gate path."""
    return _command("explain", PROMPT, "--target", " Paris", "--path", "gates")


def summary_output() -> str:
    """What `iglens summary` prints of some of the prompts that come with iglens."""
    with chdir(_runs()):
        words = ("--slice", "kind", "--null", "runs/null")
        return _command("summary", "runs/plain", *words)


def two_runs_output() -> str:
    """What `iglens diff` prints of them with and without an example before."""
    with chdir(_runs()):
        return _command("diff", "runs/plain", "runs/example")


@cache
def _runs() -> Path:
    """A folder with runs: 100 prompts, their null, and each behind an example."""
    from iglens.corpus import Selection, run
    from iglens.data import prompts

    folder = Path(tempfile.mkdtemp(prefix="iglens-docs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rows = list(prompts())
    behind = [_behind_an_example(rows, at) for at in range(len(rows))]
    for name, lines in (("plain", rows), ("example", behind)):
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    some = Selection(limit=100, shuffle=True)
    for name, source, null in (
        ("plain", "plain", "none"),
        ("null", "plain", "targets"),
        ("example", "example", "none"),
    ):
        place = folder / "runs" / name
        run(_decoder(), folder / f"{source}.jsonl", place, selection=some, null=null)
    return folder


def _behind_an_example(rows: list[dict[str, Any]], at: int) -> dict[str, Any]:
    """A prompt with the next one of its relation, answered, before it."""
    row = rows[at]
    others = [*rows[at + 1 :], *rows[:at]]
    other = next(one for one in others if one["relation"] == row["relation"])
    prompt = f"{other['prompt']}{other['answer']}. {row['prompt']}"
    return {**row, "prompt": prompt}


def compare_output() -> str:
    """What `iglens compare` prints of all methods."""
    return _command("compare", PROMPT)


def _command(*words: str) -> str:
    """All that a command prints."""
    from iglens.cli.main import run

    out = io.StringIO()
    with redirect_stdout(out):
        assert run([*words, "--quiet"]) == 0
    shown = (w if re.fullmatch(r"[\w@:./-]+", w) else f'"{w}"' for w in words)
    lines = [" ".join(["$ iglens", *shown])]
    lines += [line.rstrip() for line in out.getvalue().strip("\n").splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```"


def _printed(
    arguments: list[str], *, further: bool = False, inside: bool = False
) -> str:
    """What `iglens explain` prints.

    Args:
        arguments: What it is asked.
        further: Only what comes after the map and its verification.
        inside: Only what comes between these.
    """
    from iglens.cli.main import run

    out = io.StringIO()
    with redirect_stdout(out):
        assert run(["explain", *arguments, "--quiet"]) == 0
    text = out.getvalue().strip("\n")
    if further:
        text = "[the map]\n\n" + text.partition("readout in float32.\n\n")[2]
    if inside:
        told = text.partition("= readout")[2].partition("\n\n")[2]
        text = "[the map]\n\n" + told.partition("\n\nVerified: ")[0]
    words = (w if re.fullmatch(r"[\w@:./-]+", w) else f'"{w}"' for w in arguments)
    lines = [" ".join(["$ iglens explain", *words])]
    lines += [line.rstrip() for line in text.splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```"


BLOCKS: dict[tuple[str, str], Callable[[], str]] = {
    ("docs/cli.md", "help"): help_pages,
    ("README.md", "output"): first_output,
    ("docs/method.md", "double-norm"): double_norm,
    ("docs/two-runs.md", "two-prompts"): two_prompts,
    ("docs/answers.md", "targets"): targets_output,
    ("docs/answers.md", "contrast"): contrast_output,
    ("docs/answers.md", "answer"): answer_output,
    ("docs/answers.md", "rivals"): rivals_output,
    ("docs/answers.md", "promotion"): promotion_output,
    ("docs/answers.md", "sensitivity"): sensitivity_output,
    ("docs/inside.md", "sublayers"): sublayers_output,
    ("docs/inside.md", "interaction"): interaction_output,
    ("docs/inside.md", "heads"): heads_output,
    ("docs/inside.md", "neurons"): neurons_output,
    ("docs/inside.md", "sources"): sources_output,
    ("docs/audit.md", "audit"): audit_output,
    ("docs/audit.md", "gates"): gates_output,
    ("docs/compare.md", "compare"): compare_output,
    ("docs/corpus.md", "summary"): summary_output,
    ("docs/corpus.md", "two-runs"): two_runs_output,
}
PICTURES: dict[str, Callable[[], str]] = {"docs/images/paris.svg": picture}


@cache
def _decoder() -> "iglens.Decoder":
    """The embedded model."""
    return iglens.Decoder.from_pretrained("smollm2")


@cache
def _paris() -> "iglens.Attribution":
    """The result of the first command."""
    return iglens.explain(_decoder(), PROMPT)


def filled(path: str, name: str, content: str) -> str:
    """The file's text with a block replaced."""
    text = (ROOT / path).read_text()
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def stale(names: list[str] | None = None) -> list[str]:
    """Files whose generated parts are not what would be generated now."""
    return [
        path
        for (path, name), make in BLOCKS.items()
        if (names is None or name in names)
        and filled(path, name, make()) != (ROOT / path).read_text()
    ]


def main() -> None:
    """Write everything, or what is named, or check it."""
    names = [word for word in sys.argv[1:] if not word.startswith("-")]
    if "--check" in sys.argv:
        found = stale(names or None)
        sys.exit(f"stale: {', '.join(found)}" if found else 0)
    for (path, name), make in BLOCKS.items():
        if not names or name in names:
            (ROOT / path).write_text(filled(path, name, make()))
    for path, make in PICTURES.items():
        if not names or path in names:
            (ROOT / path).write_text(make())


if __name__ == "__main__":
    main()
