"""One question on its way: waiting, running, and how it ended."""

import secrets
import threading
from dataclasses import dataclass, field
from typing import Any, Literal

from .failure import Failure
from .question import Question
from .watch import Watch

State = Literal["waiting", "running", "done", "failed"]


@dataclass(eq=False)
class Job:
    """A question and what has become of it; one thread writes, any may read.

    Attributes:
        question: What was asked.
        watch: Stops it.
        id: A name that nobody can guess, to cancel it by.
        state: Where it is.
        stage: What is being done, in words.
        done: How much of that is done, where that is known.
        of: And of how much.
        result_id: Name of the result once it is done.
        failure: Why there is none.
        ended: Is set when there is nothing more to wait for.
    """

    question: Question
    watch: Watch = field(init=False)
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "waiting"
    stage: str = "waiting"
    done: int | None = None
    of: int | None = None
    result_id: str | None = None
    failure: Failure | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def told(self, stage: str, done: int | None, of: int | None) -> None:
        """Note how far it is."""
        self.stage, self.done, self.of = stage, done, of

    def succeed(self, result_id: str) -> None:
        """It has a result."""
        self.result_id, self.state = result_id, "done"
        self.ended.set()

    def fail(self, failure: Failure) -> None:
        """It has none, and will have none."""
        self.failure, self.state = failure, "failed"
        self.ended.set()

    def progress(self, ahead: int) -> dict[str, Any]:
        """Where it is, as JSON values.

        Args:
            ahead: Questions to be answered before.
        """
        if self.state == "waiting":
            return {"event": "waiting", "job": self.id, "ahead": ahead}
        return {
            "event": "running",
            "job": self.id,
            "stage": self.stage,
            "done": self.done,
            "of": self.of,
        }
