"""Who gets in: hosts, origins, tokens, sizes; and what every answer carries."""

import pytest
from fastapi.testclient import TestClient

from iglens.errors import ArgumentError
from iglens.serve.access import access_to, is_loopback

TOKEN = "a-token-of-enough-letters"
QUESTION = {"prompt": "the", "target": " Paris"}


@pytest.fixture
def exposed(client):
    """A server that listens everywhere."""
    access = access_to("0.0.0.0", 8417, expose=True, token=TOKEN, allow=("box.lan",))
    return client(access=access, base="http://192.168.1.5:8417")


def refused(answer, status, kind):
    assert answer.status_code == status
    assert answer.json()["error"]["kind"] == kind
    return True


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8417",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.168.1.5:8417",  # not listening there
        "evil@127.0.0.1.example",
        "",
        "[::1",
        "0.0.0.0",
    ],
)
def test_names_that_are_not_ours_get_no_answer(client, host):
    here = client()
    for path in ("/", "/api/results", "/assets/serve.js"):
        assert refused(here.get(path, headers={"Host": host}), 421, "host")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8417", "localhost:8417", "LOCALHOST", "[::1]:8417"]
)
def test_our_own_names_get_one(client, host):
    assert client().get("/api/status", headers={"Host": host}).status_code == 200


def test_only_numbers_and_named_hosts_reach_an_exposed_server(exposed):
    key = {"Authorization": f"Bearer {TOKEN}"}
    for host, status in (
        ("192.168.1.5:8417", 200),
        ("box.lan", 200),
        ("BOX.LAN:8417", 200),
        ("[fe80::1]:8417", 200),
        ("other.lan", 421),
        ("1.2.3.4.evil.example", 421),
    ):
        answer = exposed.get("/api/status", headers=key | {"Host": host})
        assert answer.status_code == status, host


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:8417.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_of_other_sites_cannot_ask(client, headers):
    here = client()
    answer = here.post("/api/explain", json=QUESTION, headers=headers)
    assert refused(answer, 403, "origin")
    assert refused(here.delete("/api/results", headers=headers), 403, "origin")
    assert here.application.worker.busy == (False, 0)


def test_our_own_page_can(client):
    own = {"Origin": "http://127.0.0.1:8417", "Sec-Fetch-Site": "same-origin"}
    assert client().post("/api/explain", json=QUESTION, headers=own).status_code == 200


def test_a_link_from_elsewhere_opens_the_page(client):
    answer = client().get("/", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
)
def test_what_a_form_of_another_site_can_send_is_no_question(client, kind):
    body = b'{"prompt": "the", "target": " Paris"}'
    answer = client().post("/api/explain", content=body, headers={"Content-Type": kind})
    assert refused(answer, 415, "type")


def test_no_answer_lets_other_sites_read_it(client):
    here = client()
    asked = {
        "Origin": "http://127.0.0.1:8417",
        "Access-Control-Request-Method": "POST",
    }
    answers = [
        here.options("/api/explain", headers=asked),
        here.get("/api/model"),
        here.get("/"),
        here.get("/nothing"),
        here.post("/api/explain", json={}),
        here.get("/", headers={"Host": "evil.example"}),
    ]
    for answer in answers:
        names = {name.lower() for name in answer.headers}
        assert not [name for name in names if name.startswith("access-control")]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe-eval" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in names


def test_without_its_token_an_exposed_server_gives_nothing(exposed):
    for path in ("/", "/api/results", "/docs", "/assets/serve.js", "/r/x"):
        answer = exposed.get(path)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "iglens serve" in answer.text
    assert refused(exposed.post("/api/explain", json=QUESTION), 401, "token")


@pytest.mark.parametrize(
    "header",
    [
        "Bearer wrong",
        "Bearer ",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        TOKEN,
        "Bearer \udcff".encode("utf-8", "surrogateescape"),
    ],
)
def test_a_wrong_token_is_no_token(exposed, header):
    answer = exposed.get("/api/status", headers={"Authorization": header})
    assert answer.status_code == 401


def test_the_token_in_a_header_lets_in(exposed):
    key = {"Authorization": f"Bearer {TOKEN}"}
    assert exposed.get("/api/status", headers=key).status_code == 200
    answer = exposed.post("/api/explain", json=QUESTION, headers=key)
    assert answer.status_code == 200


def test_the_token_in_an_address_becomes_a_cookie_and_leaves_the_address(exposed):
    asked = f"/r/abc?x=1&token={TOKEN}"
    answer = exposed.get(asked, follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/r/abc?x=1"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert TOKEN not in cookie
    assert exposed.get("/api/status").status_code == 200
    with_cookie = exposed.post("/api/explain", json=QUESTION)
    assert with_cookie.status_code == 200
    wrong = exposed.post(
        "/api/explain", json=QUESTION, headers={"Origin": "http://evil.example"}
    )
    assert refused(wrong, 403, "origin")


def test_a_wrong_token_in_an_address_sets_nothing(exposed):
    answer = exposed.get("/?token=wrong", follow_redirects=False)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    place = f"http://192.168.1.5:8417//evil.example/?token={TOKEN}"
    moved = exposed.get(place, follow_redirects=False)
    assert moved.headers["location"] == "/evil.example/"


def test_the_cookie_of_another_token_does_not_let_in(application, exposed):
    other = access_to("0.0.0.0", 8417, expose=True, token=TOKEN + "!")
    here = TestClient(application(access=other).asgi, base_url="http://10.0.0.1:8417")
    exposed.get(f"/?token={TOKEN}")
    (value,) = [cookie.value for cookie in exposed.cookies.jar]
    here.cookies.set("iglens-8417", value)
    assert here.get("/api/status").status_code == 401


def test_listening_elsewhere_must_be_meant_and_gets_a_token():
    with pytest.raises(ArgumentError, match="add `--expose`"):
        access_to("0.0.0.0", 80)
    with pytest.raises(ArgumentError, match="16 ASCII characters"):
        access_to("0.0.0.0", 80, expose=True, token="short")
    made = {access_to("::", 80, expose=True).token for _ in range(3)}
    assert len(made) == 3
    assert min(map(len, made)) >= 32
    assert access_to("127.0.0.1", 80).token is None
    assert access_to("127.0.0.1", 80, token=TOKEN).token == TOKEN


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_what_is_local(host, local):
    assert is_loopback(host) is local


def test_bodies_that_are_too_long_are_refused_said_or_not(client):
    here = client(body=2000)
    kind = {"Content-Type": "application/json"}
    fits = b'{"prompt": "the", "target": " Paris"}'.ljust(2000)
    assert here.post("/api/explain", content=fits, headers=kind).status_code == 200
    long = here.post("/api/explain", content=fits + b" ", headers=kind)
    assert refused(long, 413, "too_large")

    def pieces():
        for _ in range(50):
            yield b" " * 100

    streamed = here.post("/api/explain", content=pieces(), headers=kind)
    assert refused(streamed, 413, "too_large")
    lied = here.post(
        "/api/explain", content=fits, headers=kind | {"Content-Length": "x"}
    )
    assert refused(lied, 413, "too_large")


def test_texts_that_are_too_long_are_refused_in_tokens(client):
    here = client(tokens=10, new_tokens=2)
    asked = {"max_new_tokens": 0, "positions": "all"}
    for prompt, answer, status in (
        ("a" * 10, None, 200),
        ("a" * 11, None, 422),
        ("a" * 6, "b" * 5, 422),
        (list(range(5, 15)), None, 200),
        (list(range(5, 16)), None, 422),
    ):
        question = {"prompt": prompt, "answer": answer, **asked}
        found = here.post("/api/explain", json=question)
        assert found.status_code == status, found.text
        if status == 422:
            assert "takes at most 10" in found.json()["error"]["message"]
    many = here.post("/api/explain", json={"prompt": "a", "max_new_tokens": 3})
    assert "generates at most 2" in many.json()["error"]["message"]
