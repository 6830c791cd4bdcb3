"""The questions and answers of the server, as JSON."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ..attribution import BASELINES
from .failure import Failure
from .formats import MEDIA, all_formats, result_bytes
from .guard import failed
from .job import Job
from .question import Question
from .served import Served
from .shelf import Kept, Shelf
from .worker import Worker

LINES = "application/x-ndjson"
"""Asked for by `Accept`: one JSON object per line, as things happen."""

_LOOK, _BEAT = 0.05, 1.0
"""Seconds between two looks at a job, and between two lines that say it is alive."""

_GONE = Failure(
    404,
    "unknown",
    "No such result is kept here: the server was started anew, or newer ones took its "
    "place. Ask the question again.",
)
_NO_JOB = Failure(404, "unknown", "No such question waits or runs: it has ended.")

Name = Annotated[str, Path(max_length=64, description="name of a result")]
_ERROR = {"description": "an error: `{error: {kind, message}}`"}
_CODES = (401, 403, 409, 413, 415, 422, 429, 500, 504)
_ERRORS: dict[int | str, dict[str, Any]] = dict.fromkeys(_CODES, _ERROR)


def api_routes(served: Served, worker: Worker, shelf: Shelf) -> APIRouter:
    """What the server answers to under `/api`."""
    router = APIRouter(prefix="/api")

    @router.get("/model")
    def model() -> dict[str, Any]:
        """The model in memory, what it may be asked, and the limits."""
        return about(served)

    @router.get("/status")
    def status() -> dict[str, Any]:
        """Whether a question is being answered, how many wait and how many may."""
        running, waiting = worker.busy
        most = served.limits.waiting
        return {"running": running, "waiting": waiting, "most_waiting": most}

    @router.post("/explain", responses=_ERRORS)
    async def explain(question: Question, request: Request) -> Response:
        """Answer a question.

        Gives the result in iglens's JSON form. With `Accept: application/x-ndjson` it
        gives lines instead, as things happen: `waiting`, `running`, and at last `done`
        with the addresses of the result, or `error`. A client that goes away takes its
        question with it.
        """
        job = worker.submit(question)
        if LINES in request.headers.get("accept", ""):
            lines = _lines(job, worker, shelf, request)
            return StreamingResponse(lines, media_type=LINES)
        try:
            while not job.ended.is_set() and not await request.is_disconnected():
                await asyncio.sleep(_LOOK)
        finally:
            worker.cancel(job)
        kept = shelf.get(job.result_id or "")
        if kept is None:
            return failed(job.failure or _GONE)
        return await run_in_threadpool(_as, kept, "json", {"X-Result": kept.id})

    @router.delete("/jobs/{job}", status_code=202, responses=_ERRORS)
    def cancel(
        job: Annotated[str, Path(max_length=64, description="`job` of those lines")],
    ) -> Response:
        """Cancel a question that waits or runs; the lines of its stream name it."""
        found = worker.find(job)
        if found is None:
            return failed(_NO_JOB)
        worker.cancel(found)
        return JSONResponse({"cancelled": job}, 202)

    @router.get("/results")
    def results() -> dict[str, Any]:
        """The results that are remembered, the newest first."""
        return {"results": [entry(kept) for _, kept in shelf.newest()]}

    @router.delete("/results")
    def forget() -> dict[str, int]:
        """Forget all results."""
        return {"forgotten": shelf.clear()}

    @router.get("/results/{name}", responses={404: _ERROR, 422: _ERROR})
    def result(
        name: Name,
        format: Annotated[str, Query(max_length=16, description=_formats())] = "json",
        kind: Annotated[str | None, Query(max_length=32, description="chart")] = None,
        row: Annotated[int, Query(ge=0, description="row of the chart")] = 0,
        theme: Annotated[
            str, Query(max_length=8, description="light or dark")
        ] = "light",
    ) -> Response:
        """A result in any format, as a file."""
        kept = shelf.get(name)
        if kept is None:
            return failed(_GONE)
        return _as(kept, format, {}, kind, row, theme)

    return router


def _formats() -> str:
    """The formats there are, in words."""
    return ", ".join(extension[1:] for extension in all_formats())


async def _lines(
    job: Job, worker: Worker, shelf: Shelf, request: Request
) -> AsyncIterator[str]:
    """What happens to a job, line by line; whoever stops listening cancels it."""
    said: dict[str, Any] | None = None
    quiet = 0.0
    try:
        while not job.ended.is_set():
            now = job.progress(worker.ahead(job))
            if now != said or quiet >= _BEAT:
                said, quiet = now, 0.0
                yield json.dumps(now) + "\n"
            if await request.is_disconnected():  # servers need not end a stream for it
                return
            await asyncio.sleep(_LOOK)
            quiet += _LOOK
        yield json.dumps(_outcome(job, shelf)) + "\n"
    finally:
        worker.cancel(job)


def _outcome(job: Job, shelf: Shelf) -> dict[str, Any]:
    """The last line."""
    kept = shelf.get(job.result_id or "")
    if kept is not None:
        return {"event": "done", "job": job.id, **entry(kept)}
    failure = job.failure or _GONE
    return {
        "event": "error",
        "job": job.id,
        "status": failure.status,
        **failure.to_json(),
    }


def _as(
    kept: Kept,
    format: str,
    headers: dict[str, str],
    kind: str | None = None,
    row: int = 0,
    theme: str = "light",
) -> Response:
    """A result as a file of some format."""
    extension = f".{format.lower()}"
    data = result_bytes(kept.result, extension, kind, row, theme)
    name = f"iglens-{kept.id}{extension}"
    told = {"Content-Disposition": f'attachment; filename="{name}"', **headers}
    return Response(data, media_type=MEDIA[extension], headers=told)


def permalink(kept: Kept) -> str:
    """Where a result is shown, and asked for again if it is not kept."""
    return f"/r/{kept.id}#{kept.code}"


def entry(kept: Kept) -> dict[str, Any]:
    """A result in a list."""
    result = kept.result
    return {
        "id": kept.id,
        "prompt": kept.text,
        "targets": [target.name for target in result.targets[:8]],
        "rows": result.n_rows,
        "by": kept.again.by,
        "unit": result.unit,
        "created": result.provenance.created,
        "page": permalink(kept),
        "files": {
            extension[1:]: f"/api/results/{kept.id}?format={extension[1:]}"
            for extension in all_formats()
        },
    }


def about(served: Served) -> dict[str, Any]:
    """The model and its choices."""
    face, limits = served.face, served.limits
    return {
        "model": {
            **face.model.model_dump(),
            "architecture": face.architecture,
            "n_layers": face.n_layers,
            "vocab_size": face.vocab_size,
            "labels": face.labels,
            "chat": face.chat,
        },
        "models": served.models,
        "lenses": face.lenses,
        "baselines": [*BASELINES, "prompt:TEXT"],
        "limits": {
            "tokens": limits.tokens,
            "new_tokens": limits.new_tokens,
            "waiting": limits.waiting,
            "seconds": limits.seconds,
            "body": limits.body,
        },
    }
