"""An environment per neighbour, from its releases; made once, and run from here."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-neighbours"
CONSTRAINTS = ROOT / "constraints.txt"
"""Versions that are known to work together, which are tried first."""


@dataclass(frozen=True)
class Neighbour:
    """A tool, as its users get it.

    Attributes:
        name: What it is called.
        module: Its script beside this file.
        imported: What must import before anything is run.
        requirements: What pip is asked for.
        note: What is not as it is released.
    """

    name: str
    module: str
    imported: str
    requirements: tuple[str, ...]
    note: str = ""

    @property
    def place(self) -> Path:
        """Its environment."""
        return FOLDER / "-".join(
            "".join(c if c.isalnum() else "-" for c in each)
            for each in self.requirements
        )

    @property
    def python(self) -> Path:
        """Its interpreter."""
        scripts = "Scripts" if os.name == "nt" else "bin"
        return self.place / scripts / "python"


NEIGHBOURS = (
    Neighbour(
        "TransformerLens",
        "transformer_lens",
        "transformer_lens.model_bridge",
        ("transformer-lens",),
    ),
    Neighbour("tuned-lens", "tuned_lens", "tuned_lens.plotting", ("tuned-lens",)),
    Neighbour("nnterp", "nnterp", "nnterp", ("nnterp",)),
    Neighbour(
        "nnterp, older nnsight",
        "nnterp",
        "nnterp",
        ("nnterp", "nnsight<0.8"),
        note="with `nnsight<0.8` beside it, which its release does not ask for",
    ),
    Neighbour(
        "Captum LayerConductance", "captum", "captum.attr", ("captum", "transformers")
    ),
)


class NotThereError(Exception):
    """A neighbour that cannot be measured, with the reason."""


def made(neighbour: Neighbour) -> None:
    """Make its environment, unless it is there.

    Known-good versions are tried first, then whatever its release resolves to.

    Raises:
        NotThereError: If pip cannot install it.
    """
    stamp = neighbour.place / "made.json"
    wanted = [torch_alone(), *neighbour.requirements, "psutil"]
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return
    _run([sys.executable, "-m", "venv", "--clear", str(neighbour.place)])
    pip = [str(neighbour.python), "-m", "pip", "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet"]
    _run([*install, torch_alone()])
    try:
        _run([*install, "-c", str(CONSTRAINTS), *wanted])
    except NotThereError:
        _run([*install, *wanted])
    stamp.write_text(json.dumps(wanted))


def torch_alone() -> str:
    """The torch of the constraints, which comes first: others bring gigabytes."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def ask(neighbour: Neighbour, task: Any) -> dict[str, Any]:
    """Versions and measurements of a neighbour on a model.

    Args:
        neighbour: Which.
        task: A `benchmarks.neighbours.task.Task`, or what has its fields.

    Raises:
        NotThereError: If it cannot be installed, imported or run.
    """
    made(neighbour)
    _run([str(neighbour.python), "-c", f"import {neighbour.imported}"])
    with tempfile.TemporaryDirectory() as folder:
        asked, told = Path(folder) / "task.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps(asdict(task)), encoding="utf-8")
        module = f"benchmarks.neighbours.{neighbour.module}"
        _run([str(neighbour.python), "-m", module, str(asked), str(told)])
        found: dict[str, Any] = json.loads(told.read_text())
        return found


def _run(words: Sequence[str]) -> None:
    """Run to the end.

    Raises:
        NotThereError: With the last thing it said, if it failed.
    """
    quiet = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=ROOT, env=os.environ | quiet, capture_output=True, text=True
    )
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise NotThereError((said or [f"exit code {done.returncode}"])[-1][:200])
