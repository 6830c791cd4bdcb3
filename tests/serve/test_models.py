"""Choosing among models, one of which is in memory at a time."""

import gc
import weakref

import families
import pytest

import iglens
from iglens.errors import ModelLoadError
from iglens.serve.app import Application
from iglens.serve.limits import Limits
from iglens.serve.served import Served

PROMPT = {"prompt": "abc", "max_new_tokens": 1}


class Models:
    """Two models by name, and what was loaded when."""

    def __init__(self, folder):
        self.folder, self.loaded, self.alive_at_load = folder, [], []
        self.known = []
        self.broken = False

    def load(self, name):
        gc.collect()
        self.alive_at_load.append(sum(model() is not None for model in self.known))
        if self.broken:
            raise ModelLoadError("its disk is gone")
        decoder = iglens.Decoder.from_pretrained(str(self.folder / name))
        self.known.append(weakref.ref(decoder.model))
        self.loaded.append(name)
        return decoder, {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    for name, family in {"one": "llama", "two": "gpt2"}.items():
        families.build(family).save_pretrained(path / name)
        families.tokenizer(chat=name == "two").save_pretrained(path / name)
    return path


@pytest.fixture
def models(folder):
    return Models(folder)


@pytest.fixture
def client(models, reports):
    """A client of a server with both, the first loaded."""
    from fastapi.testclient import TestClient

    from iglens.serve.access import access_to

    choices = {name: lambda name=name: models.load(name) for name in ("one", "two")}
    served = Served(*models.load("one"), Limits(), choices)
    rules = access_to("127.0.0.1", 8417)
    application = Application(served, rules, reports.append)
    yield TestClient(application.asgi, base_url="http://127.0.0.1:8417")
    application.worker.close()
    application.worker.join(10.0)
    assert reports == []


def ask(client, **more):
    return client.post("/api/explain", json=PROMPT | more)


def test_the_asked_model_answers_and_stays(client, models):
    first = ask(client).json()
    assert first["model"]["id"] == "one"
    second = ask(client, model={"id": "two"}).json()
    assert second["model"]["id"] == "two"
    assert ask(client).json()["model"]["id"] == "two"
    assert ask(client, model={"id": "two"}).status_code == 200
    assert models.loaded == ["one", "two"]  # nothing twice
    back = ask(client, model={"id": "one"}).json()
    assert back["levels"] == first["levels"]


@pytest.mark.slow
def test_one_is_in_memory_at_a_time(client, models):
    for name in ("two", "one", "two"):
        assert ask(client, model={"id": name}).status_code == 200
    assert models.alive_at_load == [0, 0, 0, 0]


def test_pages_show_the_one_that_answers(client):
    about = client.get("/api/model").json()
    assert (about["model"]["id"], about["models"]) == ("one", ["one", "two"])
    assert about["model"]["chat"] is False
    page = client.get("/").text
    assert '<option value="one" selected>one</option>' in page
    ask(client, model={"id": "two"})
    about = client.get("/api/model").json()
    assert (about["model"]["id"], about["model"]["chat"]) == ("two", True)
    assert '<option value="two" selected>two</option>' in client.get("/").text


@pytest.mark.slow
def test_a_link_brings_its_model_back(client, models):
    """A saved question is of token ids, and these are of one model."""
    from iglens.serve.permalink import read_code

    ask(client)
    (kept,) = client.get("/api/results").json()["results"]
    asked = read_code(kept["page"].split("#")[1]).model_dump(mode="json")
    ask(client, model={"id": "two"})
    again = client.post("/api/explain", json=asked)
    assert again.json()["model"]["id"] == "one"
    asked["model"]["weights"] = "0" * 64
    refused = client.post("/api/explain", json=asked)
    assert refused.status_code == 422
    assert "was asked of one" in refused.json()["error"]["message"]


def test_a_model_that_is_no_choice_is_refused(client, models):
    refused = ask(client, model={"id": "/etc/passwd"})
    assert refused.status_code == 422
    assert "Start the server with the other model" in refused.json()["error"]["message"]
    assert models.loaded == ["one"]


def test_a_model_that_cannot_be_loaded_leaves_the_server_alive(client, models, reports):
    models.broken = True
    refused = ask(client, model={"id": "two"})
    assert refused.status_code == 503
    assert "cannot be loaded here" in refused.json()["error"]["message"]
    assert "disk" not in refused.text  # what it says may name folders
    (told,) = reports
    assert "disk" in str(told)
    reports.clear()
    assert client.get("/").status_code == 200
    models.broken = False
    assert ask(client).json()["model"]["id"] == "one"  # loaded again
    assert models.loaded == ["one", "one"]


def test_one_model_alone_is_no_choice(folder):
    decoder = iglens.Decoder.from_pretrained(str(folder / "one"))
    assert Served(decoder).models == ("one",)
