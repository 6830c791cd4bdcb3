"""Whatever happens inside, the answer is clear, nothing leaks, the next one works."""

import threading
import time

import pytest

from iglens.serve.watch import StoppedError

SECRET = "secret"
WELL = {"prompt": "The capital of France is", "target": " Paris"}


def ask(client, prompt, **but):
    return client.post("/api/explain", json={**WELL, "prompt": prompt, **but})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "kind", "reported"),
    [
        ("xx", "crashed", "UnsupportedModelError"),
        ("zz", "no_memory", "MemoryError"),
        ("qq", "crashed", "SystemExit"),
    ],
)
def test_a_crash_is_told_without_a_word_of_it_and_the_next_question_is_answered(
    client, reports, prompt, kind, reported
):
    here = client()
    for _ in range(3):
        answer = ask(here, f"the {prompt}")
        assert answer.status_code == 500
        assert answer.json()["error"]["kind"] == kind
        for word in (SECRET, "Traceback", "conftest", ".py", prompt):
            assert word not in answer.text
    assert [type(error).__name__ for error in reports] == 3 * [reported]
    assert ask(here, WELL["prompt"]).status_code == 200
    assert here.get("/api/status").json()["running"] is False


def test_the_report_on_the_terminal_holds_no_prompt(capsys, fragile):
    from iglens.serve.app import quiet_report

    quiet_report(RuntimeError("the prompt was: my secret"))
    said = capsys.readouterr().err
    assert "RuntimeError" in said
    assert "secret" not in said


def test_a_failure_outside_the_worker_is_told_in_our_form(client, reports):
    here = client()
    here.application.shelf._kept["broken"] = None
    answer = here.get("/api/results")
    assert answer.status_code == 500
    assert answer.json()["error"]["kind"] == "crashed"
    assert "NoneType" not in answer.text
    assert len(reports) == 1


def test_what_takes_too_long_is_stopped_and_said_to_be(client):
    here = client(seconds=0.4)
    start = time.monotonic()
    answer = ask(here, "the ww")
    assert time.monotonic() - start < 5  # the model would take ten seconds
    assert answer.status_code == 504
    assert "more than 0.4 seconds" in answer.json()["error"]["message"]
    assert here.get("/api/status").json()["running"] is False


def test_a_running_question_is_cancelled_within_a_moment(client, wait):
    here = client()
    answers = []
    thread = threading.Thread(
        daemon=True, target=lambda: answers.append(ask(here, "the ww"))
    )
    thread.start()
    worker = here.application.worker
    wait(lambda: worker._running is not None)
    start = time.monotonic()
    assert here.delete(f"/api/jobs/{worker._running.id}").status_code == 202
    thread.join(20)
    assert time.monotonic() - start < 3
    assert answers[0].status_code == 409
    assert answers[0].json()["error"]["kind"] == "cancelled"
    assert ask(here, WELL["prompt"]).status_code == 200


def test_a_waiting_question_is_cancelled_at_once_and_the_others_stay(client, wait):
    here = client()
    worker = here.application.worker
    answers = {}

    def run(name, prompt):
        answers[name] = ask(here, prompt)

    threads = [threading.Thread(daemon=True, target=run, args=("slow", "the ww"))]
    threads[0].start()
    wait(lambda: worker._running is not None)
    for name in ("one", "two"):
        threads.append(
            threading.Thread(daemon=True, target=run, args=(name, f"the {name[0]}"))
        )
        threads[-1].start()
        wait(lambda: len(worker._waiting) == len(threads) - 1)
    first, second = worker._waiting
    assert (worker.ahead(first), worker.ahead(second)) == (1, 2)
    here.delete(f"/api/jobs/{first.id}")
    assert worker.ahead(second) == 1
    threads[1].join(5)
    here.delete(f"/api/jobs/{worker._running.id}")
    for thread in threads:
        thread.join(20)
    codes = {name: answer.status_code for name, answer in answers.items()}
    assert codes == {"slow": 409, "one": 409, "two": 200}


def test_a_full_queue_says_when_to_come_back(client, wait):
    here = client(waiting=2)
    worker = here.application.worker
    threads = [
        threading.Thread(daemon=True, target=ask, args=(here, "the ww"))
        for _ in range(3)
    ]
    threads[0].start()
    wait(lambda: worker._running is not None)
    for thread in threads[1:]:
        thread.start()
    wait(lambda: worker.busy == (True, 2))
    answer = ask(here, "the")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert "2 questions are waiting" in answer.json()["error"]["message"]
    for job in [worker._running, *worker._waiting]:
        worker.cancel(job)
    for thread in threads:
        thread.join(20)
    assert ask(here, "the").status_code == 200


def test_many_at_once_are_answered_one_after_another(client):
    here = client(waiting=16)
    answers = []
    texts = ["the", "is", "a", "of", "an", "capital", "ta", "ri"]
    threads = [
        threading.Thread(
            daemon=True, target=lambda t=text: answers.append((t, ask(here, t)))
        )
        for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {answer.status_code for _, answer in answers} == {200}
    for text, answer in answers:
        said = "".join(token["text"] for token in answer.json()["tokens"])
        assert said == text


def test_after_closing_nothing_is_taken(client):
    here = client()
    here.application.worker.close()
    answer = ask(here, "the")
    assert answer.status_code == 503
    assert answer.json()["error"]["kind"] == "closing"


def test_stopping_is_no_exception_that_a_model_could_catch():
    assert not issubclass(StoppedError, Exception)
