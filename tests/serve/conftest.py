"""A server in front of a tiny model that can be made to fail in every way."""

import threading
import time

import families
import pytest
import torch
import transformers
import uvicorn
from fastapi.testclient import TestClient

from iglens.model.decoder import Decoder
from iglens.serve.access import access_to
from iglens.serve.app import Application
from iglens.serve.limits import Limits
from iglens.serve.run import listen
from iglens.serve.served import Served

BASE = "http://127.0.0.1:8417"
SECRET = "/home/somebody/secret.bin"

BAD = {"xx": "raises", "zz": "runs out of memory", "qq": "exits", "ww": "is slow"}
"""What the model does on these letters, once it is armed."""


class Fragile(transformers.LlamaForCausalLM):
    """A real model that fails on certain texts."""

    armed = False
    letters = ()

    def forward(self, input_ids=None, **kwargs):
        if self.armed and input_ids is not None:
            for letter, what in self.letters:
                pairs = (input_ids[:, 1:] == letter) & (input_ids[:, :-1] == letter)
                if pairs.any():
                    self.fail(what)
        return super().forward(input_ids=input_ids, **kwargs)

    def fail(self, what):
        if what == "raises":
            raise RuntimeError(f"cannot read {SECRET}")
        if what == "runs out of memory":
            raise MemoryError(f"no room for {SECRET}")
        if what == "exits":
            raise SystemExit(3)
        for _ in range(200):
            time.sleep(0.05)
            torch.ones(1, 1) @ torch.ones(1, 1)


def fragile_decoder():
    config = families.build("llama").config
    model = families.randomise(Fragile(config)).eval()
    tokenizer = families.tokenizer(chat=True)
    model.letters = [(tokenizer.encode(pair)[0], what) for pair, what in BAD.items()]
    decoder = Decoder(model, tokenizer)
    model.armed = True
    return decoder


@pytest.fixture(scope="session")
def fragile():
    return fragile_decoder()


@pytest.fixture
def reports():
    """Exceptions that the server reported."""
    return []


@pytest.fixture
def application(fragile, reports):
    """Makes applications, and ends their workers."""
    made = []

    def make(decoder=fragile, lenses=None, access=None, choices=None, **limits):
        served = Served(decoder, lenses or {}, Limits(**limits), choices)
        rules = access or access_to("127.0.0.1", 8417)
        made.append(Application(served, rules, reports.append))
        return made[-1]

    yield make
    for one in made:
        one.worker.close()
        one.worker.join(10.0)


@pytest.fixture
def client(application):
    """Makes clients of one."""

    def make(base=BASE, **options):
        one = application(**options)
        found = TestClient(one.asgi, base_url=base, raise_server_exceptions=True)
        found.application = one
        return found

    return make


class Live:
    """A real server in a thread."""

    def __init__(self, application, access, taken):
        self.application = application
        self.socket = taken
        self.port = self.socket.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.access = access
        config = uvicorn.Config(
            application.asgi, lifespan="off", log_config=None, log_level="critical"
        )
        self.server = uvicorn.Server(config)
        run = {"sockets": [self.socket]}
        self.thread = threading.Thread(daemon=True, target=self.server.run, kwargs=run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)

    def stop(self):
        self.application.worker.close()
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()
        assert not self.thread.is_alive()


@pytest.fixture
def live(application):
    """Makes real servers that listen on this machine."""
    started = []

    def make(token=None, **options):
        taken = listen("127.0.0.1", 0)
        access = access_to("127.0.0.1", taken.getsockname()[1], token=token)
        started.append(Live(application(access=access, **options), access, taken))
        return started[-1]

    yield make
    for one in started:
        one.stop()


def wait_until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


@pytest.fixture
def wait():
    """Waits until something is true."""
    return wait_until
