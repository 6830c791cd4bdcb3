"""The one thread that uses the model, and the questions that wait for it."""

import gc
import threading
import time
from collections import deque
from collections.abc import Callable

from ..errors import IGLensError
from .failure import Failure, of_error, of_many, of_stop
from .job import Job
from .limits import Limits
from .question import Question
from .watch import StoppedError, Watch

Answer = Callable[[Question, Watch], str]
"""Answers a question and gives the name under which the result is kept."""


class FullError(IGLensError):
    """No room in the queue.

    Attributes:
        failure: What to tell.
    """

    def __init__(self, failure: Failure) -> None:
        """Take what to tell."""
        super().__init__(failure.message)
        self.failure = failure


class Worker:
    """Answers questions one after another, whatever happens to any of them."""

    def __init__(
        self,
        answer: Answer,
        limits: Limits,
        report: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        """Start the thread.

        Args:
            answer: What to do with a question.
            limits: How many wait, and how long one may take.
            report: Is told of every exception that was no refusal.
        """
        self._answer, self._limits, self._report = answer, limits, report
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._took = 1.0
        self._thread = threading.Thread(target=self._work, daemon=True, name="iglens")
        self._thread.start()

    def submit(self, question: Question) -> Job:
        """Let a question wait for its turn.

        Raises:
            FullError: If too many wait already.
        """
        job = Job(question)
        job.watch = Watch(self._limits.seconds, job.told)
        with self._changed:
            if self._closed:
                raise FullError(Failure(503, "closing", "The server is shutting down."))
            if len(self._waiting) >= self._limits.waiting:
                turns = (len(self._waiting) + 1) * self._took
                raise FullError(of_many(len(self._waiting), max(1, round(turns))))
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Take a question back: at once if it waits, else as soon as it looks."""
        with self._changed:
            job.watch.cancel()
            if job in self._waiting:
                self._waiting.remove(job)
                job.fail(of_stop("cancelled", 0.0))

    def find(self, name: str) -> Job | None:
        """The job of that name, if it waits or runs."""
        with self._changed:
            known = [*self._waiting, *([self._running] if self._running else [])]
        return next((job for job in known if job.id == name), None)

    def ahead(self, job: Job) -> int:
        """How many questions are answered before this one."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

    @property
    def busy(self) -> tuple[bool, int]:
        """Whether a question is being answered, and how many wait."""
        with self._changed:
            return self._running is not None, len(self._waiting)

    def close(self) -> None:
        """Cancel everything and take nothing more."""
        with self._changed:
            self._closed = True
            known = [*self._waiting, *([self._running] if self._running else [])]
            self._changed.notify()
        for job in known:
            self.cancel(job)

    def join(self, seconds: float) -> None:
        """Wait for the thread to end, after `close`."""
        self._thread.join(seconds)

    def _work(self) -> None:
        """Answer until closed."""
        while (job := self._next()) is not None:
            start = time.monotonic()
            self._run(job)
            self._took = 0.5 * (self._took + time.monotonic() - start)
            with self._changed:
                self._running = None

    def _next(self) -> Job | None:
        """The question whose turn it is; None when closed."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            self._running = job = self._waiting.popleft()
            job.state = "running"
            return job

    def _run(self, job: Job) -> None:
        """Answer one question; every way it can end is told."""
        job.watch.begin()
        try:
            job.succeed(self._answer(job.question, job.watch))
        except StoppedError as stop:
            job.fail(of_stop(stop.reason, self._limits.seconds))
        except BaseException as error:  # the thread must outlive whatever a model does
            job.fail(failure := of_error(error))
            if failure.status >= 500:
                self._report(error)
            del error
            gc.collect()
