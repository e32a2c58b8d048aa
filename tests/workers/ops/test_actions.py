"""Who may act on the page: sessions, forms, and forms that another site sends."""

from __future__ import annotations

import re
from itertools import product

import pytest
import requests
from redis import Redis

from queues.rescanqueue import RescanQueue
from tests.workers.ops.conftest import TOKEN, Running
from workers.ops import authentication
from workers.ops.authentication import COOKIE, Authentication

ACTIONS = ["/pause", "/resume", "/retry", "/sign-out"]


@pytest.fixture
def session(busy: Running) -> requests.Session:
    """Signed in."""
    session = requests.Session()
    answer = session.post(f"{busy.url}/sign-in", data={"token": TOKEN}, allow_redirects=False)
    assert answer.status_code == 303
    return session


def form_token(session: requests.Session, busy: Running) -> str:
    found = re.search(r'name="form_token" value="(\w+)"', session.get(busy.url).text)
    assert found is not None
    return found[1]


def paused(redis: Redis) -> bool:
    return bool(redis.exists(RescanQueue("rescan", connection=redis).paused_key))


def test_session_cookie_is_out_of_reach_of_scripts_and_other_sites(busy: Running) -> None:
    answer = busy.post("/sign-in", data={"token": TOKEN}, allow_redirects=False)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Secure" not in cookie
    assert TOKEN not in cookie
    behind_tls = {"X-Forwarded-Proto": "https"}
    answer = busy.post("/sign-in", data={"token": TOKEN}, headers=behind_tls, allow_redirects=False)
    assert "Secure" in answer.headers["set-cookie"]


def test_nobody_acts_without_a_session(busy: Running, redis: Redis) -> None:
    for action in ACTIONS:
        answer = busy.post(action, data={"form_token": "x"}, allow_redirects=False)
        assert answer.status_code == 401
        assert "sign in first" in answer.text
    assert not paused(redis)


def test_form_of_nobodys_page_is_refused(
    busy: Running, session: requests.Session, redis: Redis
) -> None:
    forms = [{}, {"form_token": "x"}, {"form_token": Authentication("y").form_token("z")}]
    for action, form in product(ACTIONS, forms):
        answer = session.post(busy.url + action, data=form, allow_redirects=False)
        assert answer.status_code == 403
    assert "Sign out" in session.get(busy.url).text
    assert not paused(redis)


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_form_that_another_site_sends_is_refused(
    busy: Running, session: requests.Session, redis: Redis, headers: dict[str, str]
) -> None:
    data = {"form_token": form_token(session, busy)}
    for path, form in [("/pause", data), ("/sign-in", {"token": TOKEN})]:
        answer = session.post(busy.url + path, data=form, headers=headers, allow_redirects=False)
        assert answer.status_code == 403
    assert not paused(redis)


def test_form_of_our_own_page_is_taken(
    busy: Running, session: requests.Session, redis: Redis
) -> None:
    data = {"form_token": form_token(session, busy)}
    headers = {"Origin": busy.url, "Sec-Fetch-Site": "same-origin"}
    answer = session.post(f"{busy.url}/pause", data=data, headers=headers, allow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "./?done=paused")
    assert paused(redis)


def test_session_ends(
    busy: Running, session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Cookie": f"{COOKIE}={session.cookies[COOKIE]}"}
    assert "Sign out" in busy.get("/", headers=headers).text
    monkeypatch.setattr(authentication, "SESSION_SECONDS", -1)
    ended = Authentication(TOKEN).new_session()
    assert "Sign out" not in busy.get("/", headers={"Cookie": f"{COOKIE}={ended}"}).text


def test_session_that_we_never_gave_is_none(busy: Running) -> None:
    older = Authentication("an older token").new_session()
    invented = ["", "x", "..", "99999999999.nonce.", f"99999999999.nonce.{'0' * 64}", "é.é.é"]
    for value in [older, *invented]:
        headers = {"Cookie": f"{COOKIE}={value}".encode()}
        assert "Sign out" not in busy.get("/", headers=headers).text


def test_retry_of_a_manifest_that_is_gone_says_so(busy: Running, session: requests.Session) -> None:
    data = {"form_token": form_token(session, busy), "manifest_id": "4711"}
    answer = session.post(f"{busy.url}/retry", data=data)
    assert answer.status_code == 404
    assert "Quay has no manifest 4711 any more" in answer.text
    answer = session.post(f"{busy.url}/retry", data=data | {"manifest_id": "<i>"})
    assert answer.status_code == 404
    assert "<i>" not in answer.text


def test_form_that_is_no_form_is_refused(busy: Running, session: requests.Session) -> None:
    for body in (b"\xff=\xff", b"&".join(b"a=b" for _ in range(50)), b"x" * 10_000):
        assert session.post(f"{busy.url}/pause", data=body).status_code in {400, 403, 413}


def test_every_answer_has_the_policy(busy: Running) -> None:
    for path in ("/", "/page.css", "/page.js", "/sign-in", "/metrics", "/healthz", "/nothing"):
        headers = busy.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
