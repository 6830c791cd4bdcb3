"""The application: pages and API in front of one worker."""

import sys
import traceback
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from .. import __version__
from ..errors import IGLensError
from .access import Access
from .answered import again, in_words
from .answering import Answering
from .api import api_routes
from .failure import CRASHED, Failure, of_error, of_invalid
from .guard import Guard, failed
from .pages import page_routes
from .question import Question
from .served import Served
from .shelf import Kept, Shelf
from .watch import Watch
from .worker import FullError, Worker


def quiet_report(error: BaseException) -> None:
    """Name an exception on standard error, without its text: prompts could be in it."""
    sys.stderr.write(f"iglens serve: {type(error).__name__} while answering\n")


def loud_report(error: BaseException) -> None:
    """Show where an exception comes from, with all it says; for `--debug`."""
    traceback.print_exception(error)


class Application:
    """An ASGI application with the thread that answers for it.

    Attributes:
        worker: Answers questions.
        shelf: Remembers results.
        asgi: What a server calls.
    """

    def __init__(
        self,
        served: Served,
        access: Access,
        report: Callable[[BaseException], None] = quiet_report,
    ) -> None:
        """Start the worker.

        Args:
            served: The model and the limits.
            access: Who may ask.
            report: Is told of exceptions that are no refusals.
        """
        self.shelf = Shelf(served.limits)
        self.worker = Worker(self._answer, served.limits, report)
        self._served = served
        inner = _fastapi(served, self.worker, self.shelf)
        self.asgi: ASGIApp = Guard(inner, access, served.limits.body, report)

    def _answer(self, question: Question, watch: Watch) -> str:
        """Answer a question and remember it."""
        served = self._served
        result = Answering(served).answer(question, watch)
        fixed = again(served, question, result)
        asked, text = in_words(served, question)
        return self.shelf.put(Kept(asked, fixed, text, result))


def _fastapi(served: Served, worker: Worker, shelf: Shelf) -> FastAPI:
    """Routes, and errors in one form."""
    app = FastAPI(
        title="iglens serve",
        version=__version__,
        description="Between which two layers does the probability of a token become "
        "readable?",
        openapi_url="/api/openapi.json",
        docs_url=None,  # these would load scripts from elsewhere
        redoc_url=None,
    )
    app.include_router(api_routes(served, worker, shelf))
    app.include_router(page_routes(served, shelf, app))

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return failed(of_invalid(error.errors()))

    @app.exception_handler(FullError)
    def full(request: Request, error: FullError) -> JSONResponse:
        return failed(error.failure)

    @app.exception_handler(IGLensError)
    def refused(request: Request, error: IGLensError) -> JSONResponse:
        return failed(of_error(error))

    @app.exception_handler(Exception)
    def crashed(request: Request, error: Exception) -> JSONResponse:
        return failed(CRASHED)

    @app.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> JSONResponse:
        return failed(_of_http(error.status_code))

    return app


def _of_http(status: int) -> Failure:
    """What is said where there is no such address, or not for that method."""
    said = {
        404: "There is no such address; `/docs` lists those there are.",
        405: "This address takes another method; `/docs` says which.",
        400: "The body is not JSON that can be read.",
    }
    if status not in said:
        return CRASHED if status >= 500 else Failure(status, "refused", "Not possible.")
    return Failure(status, "unknown" if status == 404 else "invalid", said[status])
