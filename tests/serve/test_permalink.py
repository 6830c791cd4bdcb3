"""A link asks the same question again, and gets the same answer, on any server."""

import base64
import json

import numpy as np
import pytest
import toys

import iglens
from iglens.model.decoder import Decoder
from iglens.serve.permalink import link_code, read_code
from iglens.serve.question import Question

PROMPT = "The capital of France is"

ASKED = {
    "greedy": {"max_new_tokens": 4, "by": "head"},
    "sampled": {"max_new_tokens": 4, "sample": True, "temperature": 3.0, "seed": 7},
    "answer": {"answer": " Rome", "positions": "all", "unit": "log_odds"},
    "targets": {"target": [" Paris", " Rome|Paris", "@kl", 3, [4, 5]]},
    "contrast": {"target": " Paris", "contrast": " Rome", "layers": "::2"},
    "rival": {"target": " Paris", "contrast": "@rival"},
    "chat": {"chat": True, "system": "a", "max_new_tokens": 3, "baseline": "mean"},
    "bare": {"special_tokens": False, "positions": "1:3", "max_new_tokens": 0},
    "parts": {"target": " Paris", "by": "source", "top": 3, "strict": False},
}


def asked_again(client, code):
    """What a browser posts when it opens a link."""
    text = base64.urlsafe_b64decode(code + "=" * (-len(code) % 4))
    return client.post("/api/explain", json=json.loads(text))


@pytest.mark.parametrize("name", ASKED)
def test_another_server_gives_the_same_numbers(client, name):
    first, second = client(), client()
    answer = first.post("/api/explain", json={"prompt": PROMPT, **ASKED[name]})
    assert answer.status_code == 200, answer.text
    (one,) = first.get("/api/results").json()["results"]
    path, _, code = one["page"].partition("#")
    assert path == f"/r/{answer.headers['x-result']}"
    repeated = asked_again(second, code)
    assert repeated.status_code == 200, repeated.text
    assert repeated.headers["x-result"] == answer.headers["x-result"]
    old, new = answer.json(), repeated.json()
    for field in ("levels", "credits", "positions", "layers", "unit", "rank", "depths"):
        np.testing.assert_equal(new[field], old[field])
    assert [t["id"] for t in new["tokens"]] == [t["id"] for t in old["tokens"]]
    assert [t["ids"] for t in new["target"]] == [t["ids"] for t in old["target"]]
    assert new.get("components") == old.get("components")
    (two,) = second.get("/api/results").json()["results"]
    assert two["page"] == one["page"]


def test_the_form_above_a_repeated_answer_holds_words(client):
    first, second = client(), client()
    asked = {"prompt": PROMPT, "target": [" Paris", [4, 5]], "contrast": " Rome"}
    first.post("/api/explain", json=asked)
    code = first.get("/api/results").json()["results"][0]["page"].partition("#")[2]
    name = asked_again(second, code).headers["x-result"]
    page = second.get(f"/r/{name}").text
    form = page[page.index("<form") : page.index("</form>")]
    assert f">\n{PROMPT}</textarea>" in form
    assert ">\n Paris\n" in form
    assert 'name="contrast" value=" Rome"' in form


def test_a_link_holds_the_ids_and_no_text(client):
    here = client()
    here.post("/api/explain", json={"prompt": PROMPT, "max_new_tokens": 2})
    code = here.get("/api/results").json()["results"][0]["page"].partition("#")[2]
    question = read_code(code)
    assert isinstance(question.prompt, list)
    assert isinstance(question.answer, list)
    assert "capital" not in question.model_dump_json()


def test_a_link_of_another_model_is_refused(client, fragile):
    here = client()
    other = iglens.Decoder(toys.tiny_model("gpt2"), fragile.tokenizer)
    here.post("/api/explain", json={"prompt": PROMPT, "max_new_tokens": 2})
    code = here.get("/api/results").json()["results"][0]["page"].partition("#")[2]
    answer = asked_again(client(decoder=other), code)
    assert answer.status_code == 422
    assert (
        "asked of Fragile; here runs GPT2LMHeadModel"
        in answer.json()["error"]["message"]
    )


def test_the_same_weights_under_another_name_are_the_same_model(client, tiny_folder):
    decoder = Decoder.from_pretrained(tiny_folder)
    here = client(decoder=decoder)
    here.post("/api/explain", json={"prompt": PROMPT, "max_new_tokens": 1})
    code = here.get("/api/results").json()["results"][0]["page"].partition("#")[2]
    question = json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    question["model"]["id"] = "another-name"
    assert here.post("/api/explain", json=question).status_code == 200
    question["model"]["weights"] = "0" * 64
    assert here.post("/api/explain", json=question).status_code == 422


def test_a_code_is_read_as_it_was_written():
    question = Question(prompt="ü \u202e \x00 🙂", target=["a|b", 3, [1, 2]], top=5)
    assert read_code(link_code(question)) == question
    with pytest.raises(ValueError, match=r".*"):
        read_code("%%%")


def test_a_page_that_is_not_kept_says_so_and_asks_what_the_link_says(client):
    answer = client().get("/r/0123456789abcdef")
    assert answer.status_code == 404
    assert "This result is not kept any more" in answer.text
    assert "serve.js" in answer.text
