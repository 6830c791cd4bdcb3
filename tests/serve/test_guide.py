"""The guide says what the code does."""

import inspect
import re
from pathlib import Path

from iglens.cli.serve import serve_command
from iglens.report.documents import DOCUMENTS
from iglens.serve import failure, guard
from iglens.serve.limits import Limits
from iglens.storage import FORMATS

GUIDE = (Path(__file__).parents[2] / "docs" / "serve.md").read_text()


def test_the_usual_limits_are_those_of_the_command_and_of_the_library():
    given = inspect.signature(serve_command).parameters
    told = dict(re.findall(r"\| `--([\w-]+)` \|.*\| (\d+) \|", GUIDE))
    assert len(told) == 5
    for name, usual in told.items():
        assert given[name.replace("-", "_")].default == int(usual), name
    usual = Limits()
    known = (usual.tokens, usual.new_tokens, usual.waiting, usual.seconds, usual.kept)
    assert [int(number) for number in told.values()] == list(known)


def test_the_address_in_the_guide_is_the_usual_one():
    given = inspect.signature(serve_command).parameters
    host, port = given["host"].default, given["port"].default
    assert f"http://{host}:{port}/" in GUIDE


def test_every_kind_of_failure_is_in_the_table():
    made = [
        failure.CRASHED,
        failure.NO_MEMORY,
        failure.of_stop("cancelled", 1.0),
        failure.of_stop("timeout", 1.0),
        failure.of_many(3, 1),
        guard.too_large(5),
    ]
    rows = dict(re.findall(r"^\| (\d{3}) \| (.*?) \|", GUIDE, re.M))
    for one in made:
        assert f"`{one.kind}`" in rows[str(one.status)]
    named = re.findall(
        r"Failure\(\s*(\d{3}),\s*\"(\w+)\"",
        "".join(
            path.read_text() for path in Path(failure.__file__).parent.glob("*.py")
        ),
    )
    assert len(named) > 8
    for status, kind in named:
        assert f"`{kind}`" in rows[status], (status, kind)


def test_every_format_is_named():
    for extension in (*DOCUMENTS, *FORMATS):
        assert f"`{extension[1:]}`" in GUIDE
