"""One class, built and proved in a process of its own, so that none stops the rest."""

import json
import multiprocessing
import os
import resource
import warnings
from dataclasses import asdict, dataclass
from typing import Any

from .prove import Proof

SECONDS, BYTES = 90, 8 * 2**30
"""What one class may take."""


@dataclass(frozen=True)
class Row:
    """What was found for one class.

    Attributes:
        kind: "causal", "image-text" or "classifier".
        model_type: Model type in Transformers.
        name: Class of the model.
        declared: What was declared about it, in words; empty for most.
        single: The proof in float32, of a classifier that with two labels.
        double: The proof in float64.
        reward: The proofs of a classifier with one label, in both.
    """

    kind: str
    model_type: str
    name: str
    declared: str
    single: Proof
    double: Proof
    reward: tuple[Proof, ...] = ()

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """All of them."""
        return (self.single, self.double, *self.reward)


def make_row(kind: str, model_type: str, name: str) -> Row:
    """Build and prove one class in both dtypes, in a forked process."""
    from .tiny import CLASSIFIER, REWARD, declaration

    kinds = (CLASSIFIER, REWARD) if kind == CLASSIFIER else (kind,)
    single, double, *reward = _forked(kinds, model_type)
    declared = declaration(model_type)
    fields = [] if declared is None else vars(declared).items()
    said = [key for key, value in fields if value not in (None, True)]
    named = kind, model_type, name, ", ".join(said)
    return Row(*named, single, double, tuple(reward))


def _forked(kinds: tuple[str, ...], model_type: str) -> list[Proof]:
    """Two proofs of each kind, or what became of the process."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(send, kinds, model_type))
    process.start()
    send.close()
    answer = None
    if receive.poll(SECONDS):
        try:
            answer = receive.recv()
        except EOFError:
            answer = None
    if answer is None and process.is_alive():
        process.kill()
    process.join()
    if answer is None:
        code = process.exitcode
        failed = Proof("failed", reason=f"the process ended with {code}")
        return [failed] * 2 * len(kinds)
    return [Proof(**fields) for fields in json.loads(answer)]


def _child(send: Any, kinds: tuple[str, ...], model_type: str) -> None:
    """Prove one class and send what was found."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # models warn of tiny sizes
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    found = [
        asdict(_prove(kind, model_type, dtype))
        for kind in kinds
        for dtype in (torch.float32, torch.float64)
    ]
    send.send(json.dumps(found))
    send.close()


def _prove(kind: str, model_type: str, dtype: Any) -> Proof:
    """One proof; whatever goes wrong is told, not raised."""
    from .prove import prove
    from .tiny import build, declaration

    try:
        model = build(kind, model_type, dtype)
    except Exception as error:
        return Proof("unbuilt", reason=_said(error))
    try:
        return prove(model, declaration(model_type))
    except Exception as error:
        return Proof("failed", reason=_said(error))


def _said(error: Exception) -> str:
    """An error on one line, shortened."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else text[:299] + "…"
