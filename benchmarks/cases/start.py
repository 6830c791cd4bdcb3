"""Programs from their start: the help, and an explanation with everything cached."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from iglens.model.loading.embedded import cached_path

from ..pairs import Way, in_turns
from ..results import Measurement
from ..size import Size

PROMPT, N_NEW = "The capital of France is", 8

ALONE = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
ids = tokenizer(sys.argv[2], return_tensors="pt")
model.generate(**ids, max_new_tokens=int(sys.argv[3]), do_sample=False)
"""
"""Import, load and generate; nothing is explained."""


def starts(model: str, size: Size) -> Iterator[Measurement]:
    """`iglens --help`, and `iglens explain` against a script that only generates."""
    folder = cached_path(model)
    assert folder is not None  # loaded before
    iglens = Path(sys.executable).with_name("iglens")
    shown = [str(iglens), "--help"]
    explained = [str(iglens), "explain", PROMPT, "-m", model, "--quiet"]
    generated = [sys.executable, "-c", ALONE, str(folder), PROMPT, str(N_NEW)]
    bare = {
        "iglens --help": _started(shown),
        "python -c pass": _started([sys.executable, "-c", "pass"]),
    }
    turns = in_turns([bare] * max(3, size.launches))
    yield Measurement.of("start", turns, *bare)
    whole = {
        "iglens explain": _started(explained),
        "generating alone": _started(generated),
    }
    turns = in_turns([whole] * size.launches, warm=size.launches > 1)
    yield Measurement.of("start", turns, *whole, model=model, tokens=N_NEW)


def _started(words: Sequence[str]) -> Way:
    """A program, run to its end."""
    return lambda: subprocess.run(words, check=True, capture_output=True)
