"""The conformance table: written by the run, read by the test of its age."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from .rows import Row

_TITLES = {
    "causal": "Causal language models",
    "image-text": "Text decoders of image-text models",
    "classifier": "Classifiers and reward models",
}

_HEAD = """# Conformance

*Written by `make conformance`; not edited by hand.*

Every class that the installed Transformers maps to a causal language model, the text
path of every image-text model, and the text classifier of every model type of either
kind (with two labels, and with one as reward models have it) was built from its
configuration class with tiny sizes, random weights and biases, and scales and
soft-caps that act. Each was then loaded as a user would load it and judged against the
model itself on another text: the logits of a plain forward pass, and of one in which
only the last block's output is replaced by random vectors. Texts that begin alike, of
which the beginning is run once where that can be, were judged against each run alone
(float32).

- **exact**: equal to both within a total variation of 1e-5 (float32) or 1e-10
  (float64); with one label, of which there is no distribution, within as much in its
  logit. *explicit*: norm, head and post-processing were recovered and are streamed;
  *injected*: the model's own forward reads, which is slower.
- **inside the blocks**: whether each block splits, and into what (float32); classes of
  which every block splits, or holds one module with weights alone, are counted as
  *split*. States between parts are judged by intervention: with another input of the
  block, and only that state as it was, the block's output must be as it was.
- **opened**: what credits can be shared over below the parts of blocks (float64):
  heads, neurons or experts, and what heads read from each token; "some" if not wherever
  a block is split. Shares, their sums and the layer map must agree within 1e-6 of the
  largest credit. What heads give besides sources, and mixtures besides experts, is the
  difference, so there the sums show nothing: tests compare them with the models.
- **refused**: iglens says why and explains nothing.
- **unbuilt**: the class could not be made in this environment.
- **declared**: what had to be said about the model, as a user would
  (`Declaration(...)`).
"""


def counts(rows: Iterable[Row], kind: str) -> dict[str, int]:
    """How many classes of a kind had which result."""
    chosen = [row for row in rows if row.kind == kind]
    found = Counter(row.single.status for row in chosen)
    found["classes"] = len(chosen)
    found["exact in float64"] = sum(row.double.status == "exact" for row in chosen)
    found["exact with one label"] = sum(
        all(proof.status == "exact" for proof in row.reward) and bool(row.reward)
        for row in chosen
    )
    found["wrong"] = sum(
        any(proof.status == "wrong" for proof in row.proofs) for row in chosen
    )
    found["split"] = sum(
        bool(row.single.parts) and not row.single.unsplit for row in chosen
    )
    for what in ("heads", "neurons", "sources"):
        found[what] = sum(what in row.double.opened for row in chosen)
    for readout in ("explicit", "injected"):
        found[readout] = sum(
            row.single.status == "exact" and row.single.readout == readout
            for row in chosen
        )
    return dict(found)


def render(rows: Sequence[Row], versions: dict[str, str]) -> str:
    """The page."""
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [_HEAD, f"Versions: {made}.\n"]
    for kind, title in _TITLES.items():
        chosen = [row for row in rows if row.kind == kind]
        rewards = any(row.reward for row in chosen)
        found = counts(rows, kind)
        parts += [f"## {title}\n", _summary(found, rewards), _table(chosen, rewards)]
        parts += [_reasons(chosen)]
    return "\n".join(part for part in parts if part)


def _summary(found: dict[str, int], rewards: bool) -> str:
    """Counts as a small table."""
    names = ("classes", "exact", "exact in float64", "explicit", "injected")
    names += ("exact with one label",) if rewards else ()
    names += ("split", "heads", "neurons", "sources")
    names += ("refused", "unbuilt", "failed", "wrong")
    head = " | ".join(names)
    values = " | ".join(str(found.get(name, 0)) for name in names)
    return f"| {head} |\n|{'---|' * len(names)}\n| {values} |\n"


def _table(rows: Sequence[Row], rewards: bool) -> str:
    """One line for each class."""
    names = ["model type", "class", "float32", "float64"]
    names += ["one label"] if rewards else []
    names += ["readout", "after the head", "blocks", "inside the blocks"]
    names += ["opened", "declared"]
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for row in sorted(rows, key=lambda row: row.model_type):
        proof = row.single
        blocks = f"`{proof.stack}` ({proof.layers})" if proof.stack else ""
        cells = (
            row.model_type,
            f"`{row.name}`",
            proof.status,
            row.double.status,
            *([" / ".join(_distinct(row))] if rewards else []),
            proof.readout,
            proof.postprocess,
            blocks,
            proof.parts,
            row.double.opened,
            row.declared,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _distinct(row: Row) -> list[str]:
    """What became of a class with one label, in both dtypes; once if that is one."""
    return list(dict.fromkeys(proof.status for proof in row.reward))


def _reasons(rows: Sequence[Row]) -> str:
    """Why the classes that are not exact are not."""
    lines = []
    for row in sorted(rows, key=lambda row: row.model_type):
        for dtype, proof in (("float32", row.single), ("float64", row.double)):
            if proof.status != "exact" and (
                dtype == "float32" or row.single.status == "exact"
            ):
                reason = re.sub(r"\s+", " ", proof.reason).replace("`", "'")
                where = f"**{row.model_type}** in {dtype}, {proof.status}"
                lines.append(f"- {where}: {_code(reason)}")
        if row.single.unsplit:
            lines.append(f"- **{row.model_type}**, not split: {row.single.unsplit}")
        for proof in row.reward:
            if proof.status not in ("exact", row.single.status):
                reason = re.sub(r"\s+", " ", proof.reason).replace("`", "'")
                where = f"**{row.model_type}** with one label, {proof.status}"
                lines.append(f"- {where}: {_code(reason)}")
    return "\n".join(["Reasons:\n", *lines, ""]) if lines else ""


def _code(text: str) -> str:
    """A sentence that Markdown leaves as it is."""
    return f"`{text}`" if text else ""


def classes_in(page: str) -> set[str]:
    """The classes a page has a line for."""
    return set(re.findall(r"^\| [^|]+ \| `(\w+)` \|", page, re.MULTILINE))


def statuses_in(page: str) -> set[str]:
    """Every status that a class has on a page."""
    pattern = r"^\| [^|]+ \| `\w+` \| ([\w ]+) \| ([\w ]+) \|"
    return {status for pair in re.findall(pattern, page, re.M) for status in pair}


def version_in(page: str, package: str) -> str | None:
    """The version of a package that a page was made with."""
    match = re.search(rf"^Versions: .*\b{package} ([^,\s]+?)[,.]?(?:\s|$)", page, re.M)
    return None if match is None else match[1]
