"""Questions and answers as JSON, refused ones included."""

import io
import json

import numpy as np
import pyarrow.parquet
import pytest

import iglens
from iglens.serve.formats import MEDIA
from iglens.serve.question import Question

PROMPT = "The capital of France is"


def lines_of(answer):
    return [json.loads(line) for line in answer.text.splitlines()]


def streamed(client, question):
    accept = {"Accept": "application/x-ndjson"}
    answer = client.post("/api/explain", json=question, headers=accept)
    assert answer.status_code == 200
    return lines_of(answer)


def test_the_answer_is_that_of_explain(client, fragile):
    asked = {"target": " Paris", "by": "head", "unit": "log_odds", "baseline": "zero"}
    answer = client().post("/api/explain", json={"prompt": PROMPT, **asked})
    assert answer.status_code == 200
    found, wanted = answer.json(), iglens.explain(fragile, PROMPT, top=10, **asked)
    assert found["schema"] == "iglens.attribution/1"
    np.testing.assert_array_equal(found["levels"], wanted.levels)
    np.testing.assert_array_equal(found["credits"], wanted.credits)
    assert found["components"] == wanted.to_json()["components"]


@pytest.mark.parametrize(
    "asked",
    [
        {"max_new_tokens": 3},
        {"answer": " Rome", "positions": "all"},
        {"target": [" Paris", " Rome|Paris", "@entropy", 3, [4, 5]]},
        {"target": " Paris", "contrast": "@rival"},
        {"chat": True, "system": "is", "max_new_tokens": 2},
        {"max_new_tokens": 0, "positions": "1:3", "layers": "::2"},
        {"max_new_tokens": 2, "layers": [1, 3], "precision": "float64"},
        {"max_new_tokens": 2, "sample": True, "temperature": 2.0, "seed": 5},
        {"max_new_tokens": 1, "estimator": "gradient", "n_steps": 8},
        {"max_new_tokens": 2, "baseline": ["mean", "prompt:the tale of a capital is"]},
        {"max_new_tokens": 1, "diagnostics": False, "strict": False, "by": "source"},
        {"max_new_tokens": 1, "tolerance": 0},
    ],
)
def test_every_word_of_explain_is_understood(client, asked):
    answer = client().post("/api/explain", json={"prompt": PROMPT, **asked})
    assert answer.status_code == 200, answer.text
    json_form = answer.json()
    assert len(json_form["positions"]) == len(json_form["target"]) >= 1


def test_the_words_are_those_of_explain():
    import inspect

    known = set(inspect.signature(iglens.explain).parameters) - {"decoder", "sampling"}
    sampling = {"sample", "temperature", "top_p", "seed"}
    assert set(Question.model_fields) == known | sampling | {"model"}


def test_a_conversation_is_a_prompt(client):
    turns = [{"role": "user", "content": "is"}, {"role": "assistant", "content": "a"}]
    question = {"prompt": [*turns, turns[0]], "chat": True, "max_new_tokens": 1}
    answer = client().post("/api/explain", json=question)
    assert answer.status_code == 200, answer.text


BODIES = {
    '{"promt": "x"}': "`promt` is no part of a question; known are prompt, target",
    "{}": "`prompt` is missing: a text, a list of token ids",
    '{"prompt": 7}': "`prompt` is 7; it must be a text",
    '{"prompt": "a", "by": "foo"}': "`by` is 'foo'; it must be `layer`, `sublayer`",
    '{"prompt": "a", "max_new_tokens": "3"}': "`max_new_tokens` is '3'; it must be a",
    '{"prompt": "a", "max_new_tokens": 1.5}': "`max_new_tokens` is 1.5; it must be a",
    '{"prompt": "a", "tolerance": 0.5}': "`tolerance` is 0.5; it must be a probability",
    '{"prompt": "a", "top": 0}': "`top` is 0; it must be a whole number of parts",
    '{"prompt": "a", "chat": 1}': "`chat` is 1; it must be true",
    '{"prompt": "a", "temperature": NaN}': "`temperature` is nan; it must be a number",
    '{"prompt": "a", "temperature": 1e999}': "`temperature` is inf; it must be",
    '{"prompt": "a", "seed": 1e400}': "`seed` is inf; it must be",
    '{"prompt": ["a"]}': "`prompt` is ['a']; it must be a text",
    '{"prompt": [{"role": "user"}], "chat": true}': "`prompt` is",
    '{"prompt": "\\ud800"}': "half of a surrogate pair",
    '{"prompt": "a", "baseline": "corpus:/etc/passwd"}': "files are not read",
    '{"prompt": "a", "baseline": "vector:/etc/passwd"}': "files are not read",
    '{"prompt": "a", "baseline": []}': "`baseline` is []; it must be",
    '{"prompt": "a", "unit": "bits"}': "`unit` is 'bits'; it must be `probability`",
    '{"prompt": "a", "target": true}': "`target` is True; it must be a next token",
    '["prompt"]': "must be a JSON object",
    "null": "must be a JSON object",
    "{": "not JSON",
    "": "must be a JSON object",
    '"' + "[" * 60_000: "not JSON",
    "[" * 60_000: "not JSON",
}


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:40])
def test_wrong_types_are_refused_in_one_sentence(client, body):
    kind = {"Content-Type": "application/json"}
    answer = client().post("/api/explain", content=body, headers=kind)
    assert answer.status_code in (400, 422)
    error = answer.json()["error"]
    assert set(error) == {"kind", "message"}
    assert BODIES[body] in error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) < 500


QUESTIONS = {
    "lens": ({"lens": "/etc/passwd"}, "this server has logit"),
    "token": ({"target": "no token"}, "is not one token"),
    "empty": ({"prompt": ""}, "`prompt` is empty"),
    "ids": ({"prompt": [10**6]}, "10"),
    "position": ({"positions": [99]}, "`positions` names 99"),
    "layer": ({"layers": "1,99"}, "99"),
    "both": ({"target": " Paris", "answer": "a"}, "not both"),
    "greedy": ({"temperature": 2.0}, "need `sample`"),
    "system": ({"system": "a"}, "needs `chat=True`"),
    "top_p": ({"sample": True, "top_p": 0.0}, "`top_p` is 0.0"),
    "context": ({"max_new_tokens": 60, "prompt": "a" * 60}, "context"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_does_not_fit_is_refused_as_on_the_command_line(client, name, reports):
    asked, told = QUESTIONS[name]
    answer = client().post("/api/explain", json={"prompt": PROMPT, **asked})
    assert answer.status_code == 422
    assert told in answer.json()["error"]["message"]
    assert reports == []


def test_the_stream_tells_what_happens_and_ends_with_the_result(client):
    here = client()
    *before, last = streamed(here, {"prompt": PROMPT, "max_new_tokens": 4})
    assert {line["event"] for line in before} <= {"waiting", "running"}
    assert last["event"] == "done"
    assert last["prompt"] == PROMPT
    assert last["rows"] == 4
    assert here.get(last["files"]["json"]).json()["positions"] == [5, 6, 7, 8]


def test_a_stream_that_is_refused_ends_with_the_error(client):
    (*_, last) = streamed(client(), {"prompt": PROMPT, "target": "no token"})
    assert (last["event"], last["status"]) == ("error", 422)
    assert "is not one token" in last["error"]["message"]


def test_every_format_can_be_fetched_and_is_what_it_says(client, tmp_path):
    here = client()
    question = {"prompt": PROMPT, "max_new_tokens": 2, "by": "head"}
    name = here.post("/api/explain", json=question).headers["x-result"]
    files = {}
    for kind, address in here.get("/api/results").json()["results"][0]["files"].items():
        answer = here.get(address)
        assert answer.status_code == 200, kind
        wanted = f'attachment; filename="iglens-{name}.{kind}"'
        assert answer.headers["content-disposition"] == wanted
        files[kind] = answer.content
    assert sorted(files) == sorted(extension[1:] for extension in MEDIA)
    assert len(files) == 9
    path = tmp_path / "one.safetensors"
    path.write_bytes(files["safetensors"])
    result = iglens.Attribution.load(path)
    assert result.n_rows == 2
    assert json.loads(files["json"])["levels"] == result.levels.tolist()
    table = pyarrow.parquet.read_table(io.BytesIO(files["parquet"]))
    assert table.num_rows == files["csv"].decode().strip().count("\n")
    assert files["html"].startswith(b"<!doctype html>")
    assert files["png"].startswith(b"\x89PNG")
    assert files["pdf"].startswith(b"%PDF")
    assert b"<svg" in files["svg"]
    assert b"# Where did this token come from?" in files["md"]


def test_other_pictures_are_asked_for_by_name(client):
    here = client()
    question = {"prompt": PROMPT, "max_new_tokens": 2}
    name = here.post("/api/explain", json=question).headers["x-result"]
    place = f"/api/results/{name}?format=svg"
    plain = here.get(place).content
    assert here.get(f"{place}&kind=waterfall&row=1").content != plain
    assert here.get(f"{place}&theme=dark").content != plain
    for wrong in ("kind=pie", "kind=waterfall&row=7", "theme=pink"):
        answer = here.get(f"{place}&{wrong}")
        assert answer.status_code == 422
        assert wrong.split("=")[-1] in answer.json()["error"]["message"]
    assert here.get(f"/api/results/{name}?format=exe").status_code == 422


def test_results_are_listed_newest_first_and_can_be_forgotten(client):
    here = client()
    for text in ("a", "the", "is"):
        here.post("/api/explain", json={"prompt": text, "max_new_tokens": 1})
    listed = here.get("/api/results").json()["results"]
    assert [one["prompt"] for one in listed] == ["is", "the", "a"]
    assert here.delete("/api/results").json() == {"forgotten": 3}
    assert here.get("/api/results").json() == {"results": []}
    assert here.get(listed[0]["files"]["json"]).status_code == 404


def test_the_model_and_the_limits_are_told(client):
    told = client(tokens=40, new_tokens=5).get("/api/model").json()
    assert told["model"]["n_layers"] == 3
    assert told["model"]["chat"] is True
    assert told["lenses"] == ["logit"]
    assert (told["limits"]["tokens"], told["limits"]["new_tokens"]) == (40, 5)


def test_addresses_that_are_none_say_so_in_our_form(client):
    here = client()
    missing, wrong = here.get("/api/nothing"), here.put("/api/explain", json={})
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert "There is no such address" in missing.json()["error"]["message"]
    assert here.get("/assets/../app.py").status_code == 404
    assert here.get("/assets/app.py").status_code == 404
    assert here.delete("/api/jobs/nothing").status_code == 404


def test_the_description_names_every_word_and_the_page_of_it_too(client):
    here = client()
    schema = here.get("/api/openapi.json").json()
    fields = schema["components"]["schemas"]["Question"]["properties"]
    assert list(fields) == list(Question.model_fields)
    page = here.get("/docs").text
    assert [name for name in fields if f"<code>{name}</code>" not in page] == []
    assert [path for path in schema["paths"] if f">{path}</code>" not in page] == []
    assert page.count("<td>needed</td>") == 1  # the prompt
    assert "//cdn" not in page
    assert "https://" not in page


def test_what_goes_out_names_no_folder(client, tiny_folder):
    decoder = iglens.Decoder.from_pretrained(tiny_folder)
    here = client(decoder=decoder)
    answer = here.post("/api/explain", json={"prompt": PROMPT, "max_new_tokens": 1})
    name = answer.headers["x-result"]
    told = [answer.text, here.get("/api/model").text, here.get(f"/r/{name}").text]
    assert answer.json()["model"]["id"] == tiny_folder.name
    assert [text for text in told if str(tiny_folder.parent) in text] == []
