"""A real server: streams, clients that go away, and the way it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest
import uvicorn

from iglens.errors import ArgumentError
from iglens.serve.question import Question
from iglens.serve.run import _Server, listen

SLOW = {"prompt": "the ww", "target": " Paris"}
WELL = {"prompt": "The capital of France is", "max_new_tokens": 3}
ACCEPT = {"Accept": "application/x-ndjson"}


def stream(live, question):
    return httpx2.stream(
        "POST", f"{live.address}/api/explain", json=question, headers=ACCEPT, timeout=60
    )


def test_lines_come_while_it_runs(live):
    server = live()
    with stream(server, SLOW) as answer:
        start = time.monotonic()
        lines = (json.loads(line) for line in answer.iter_lines())
        assert next(lines)["event"] in ("waiting", "running")
        assert time.monotonic() - start < 2  # it would take ten seconds
    with stream(server, WELL) as answer:
        assert json.loads([*answer.iter_lines()][-1])["event"] == "done"


def test_a_client_that_goes_away_takes_its_question_with_it(live, wait):
    server = live()
    worker = server.application.worker
    with stream(server, SLOW) as answer:
        lines = answer.iter_lines()
        next(lines)
        wait(lambda: worker.busy[0])
    start = time.monotonic()
    wait(lambda: worker.busy == (False, 0), 5)
    assert time.monotonic() - start < 3
    with stream(server, WELL) as answer:
        assert json.loads([*answer.iter_lines()][-1])["event"] == "done"


def test_so_does_one_that_waits_for_plain_json(live, wait):
    server = live()
    worker = server.application.worker
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(f"{server.address}/api/explain", json=SLOW, timeout=0.7)
    wait(lambda: worker.busy == (False, 0), 5)


def test_one_that_goes_away_while_it_waits_frees_its_place(live, wait):
    server = live(waiting=1)
    worker = server.application.worker
    with stream(server, SLOW) as running:
        held = running.iter_lines()  # which closes the stream when it goes
        next(held)
        wait(lambda: worker.busy[0])
        with stream(server, WELL) as waiting:
            lines = waiting.iter_lines()
            line = json.loads(next(lines))
            assert (line["event"], line["ahead"]) == ("waiting", 1)
            full = httpx2.post(f"{server.address}/api/explain", json=WELL)
            assert full.status_code == 429
        wait(lambda: worker.busy == (True, 0), 5)
    wait(lambda: worker.busy == (False, 0), 5)


def test_half_a_request_disturbs_nobody(live):
    server = live()
    with socket.create_connection(("127.0.0.1", server.port)) as half:
        half.sendall(
            b"POST /api/explain HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
        )
        answer = httpx2.post(f"{server.address}/api/explain", json=WELL, timeout=60)
        assert answer.status_code == 200
    with socket.create_connection(("127.0.0.1", server.port)) as rubbish:
        rubbish.sendall(b"\x16\x03\x01\x00\xa5" + bytes(200))
        rubbish.settimeout(10)
        assert b"200" not in rubbish.recv(100)
    assert httpx2.get(f"{server.address}/api/status").status_code == 200


def test_a_port_that_is_taken_is_refused_in_one_sentence(live):
    with pytest.raises(ArgumentError, match="something else listens there"):
        listen("127.0.0.1", live().port)
    with pytest.raises(ArgumentError, match="Cannot listen at no"):
        listen("no.such.host.invalid", 0)
    with pytest.raises(ArgumentError, match="Cannot listen"):
        listen("127.0.0.1", 99999)


def test_a_signal_ends_the_questions_at_once_so_that_no_stream_holds_the_server_up(
    application, wait
):
    one = application()
    job = one.worker.submit(Question(prompt="the ww", target=" Paris"))
    wait(lambda: job.state == "running")
    server = _Server(uvicorn.Config(one.asgi), one.worker.close)
    server.handle_exit(signal.SIGINT, None)
    assert job.ended.wait(3)
    assert job.failure.kind == "cancelled"
    assert server.should_exit


@pytest.fixture
def command(tiny_folder):
    """`iglens serve` in a process of its own."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from iglens.cli.main import run; sys.exit(run(sys.argv[1:]))"
    )
    words = ["serve", "-m", str(tiny_folder), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_the_command_says_where_it_is_logs_no_prompt_and_ends_with_ctrl_c(command):
    said = ""
    while "Listening at" not in said:
        line = command.stderr.readline()
        assert line, said
        said += line
    address = said.split("Listening at ")[1].split("/ ")[0]
    question = {"prompt": "a quite private text", "max_new_tokens": 1}
    answer = httpx2.post(f"{address}/api/explain", json=question, timeout=60)
    assert answer.status_code == 200
    refused = {"prompt": "another private text", "target": "no private token"}
    assert httpx2.post(f"{address}/api/explain", json=refused).status_code == 422
    assert httpx2.get(f"{address}/?q=private").status_code == 200
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=30)
    assert command.returncode == 0
    assert out == ""
    assert "private" not in said + err
    assert "Traceback" not in err
    assert err.strip().endswith("Stopped.")
