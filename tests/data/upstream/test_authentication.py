"""Challenges, token servers and tokens."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import UpstreamRefused
from data.upstream import parse_upstream
from data.upstream.authentication import (
    Authorizations,
    Challenge,
    basic_authorization,
    choose_challenge,
    parse_challenges,
    parse_token_answer,
    token_url,
)

SCOPE = "repository:library/web:pull"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], []),
        (["Basic realm=x"], [Challenge("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://auth.example/token",service="a, b",scope="r:x:pull,push"'],
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.example/token",
                        "service": "a, b",
                        "scope": "r:x:pull,push",
                    },
                )
            ],
        ),
        (
            ['Negotiate, BEARER Realm = "r" , Basic realm="say \\"b\\""'],
            [
                Challenge("negotiate"),
                Challenge("bearer", {"realm": "r"}),
                Challenge("basic", {"realm": 'say "b"'}),
            ],
        ),
        (
            ["Bearer realm=a", "Basic realm=b"],
            [Challenge("bearer", {"realm": "a"}), Challenge("basic", {"realm": "b"})],
        ),
        (['Bearer realm="first",realm="second"'], [Challenge("bearer", {"realm": "first"})]),
        (['Bearer realm="unfinished'], [Challenge("bearer")]),
        (['realm="of nobody"'], []),
        (["\x00"], []),
    ],
)
def test_challenges_are_read_as_they_are_written(
    headers: list[str], expected: list[Challenge]
) -> None:
    assert parse_challenges(headers) == expected


@given(st.lists(st.text(max_size=200), max_size=3))
@settings(max_examples=200)
def test_no_header_breaks_the_reader(headers: list[str]) -> None:
    parse_challenges(headers)


def test_a_long_header_is_read_in_no_time() -> None:
    parse_challenges(['Bearer realm="' + "\\" * 60_000, "a=" * 30_000, "a " * 30_000])


def test_tokens_come_before_logins() -> None:
    basic, bearer, other = Challenge("basic"), Challenge("bearer"), Challenge("negotiate")

    assert choose_challenge([other, basic, bearer], has_login=True) == bearer
    assert choose_challenge([other, basic], has_login=True) == basic
    assert choose_challenge([other, basic], has_login=False) is None
    assert choose_challenge([other], has_login=True) is None


def test_the_scope_asked_for_is_ours() -> None:
    challenge = Challenge(
        "bearer",
        {"realm": "https://auth.example/token?a=b#c", "service": "s p", "scope": "registry:*"},
    )

    url = token_url(challenge, SCOPE, insecure=False)

    assert url == (
        "https://auth.example/token?a=b&service=s+p&scope=repository%3Alibrary%2Fweb%3Apull"
    )


@pytest.mark.parametrize(
    "realm", ["", "token", "file:///etc/passwd", "https://", "https://a:b@auth.example/"]
)
def test_a_realm_that_is_no_url_is_refused(realm: str) -> None:
    with pytest.raises(UpstreamRefused, match=r"names a token server that is no http\(s\) URL"):
        token_url(Challenge("bearer", {"realm": realm}), SCOPE, insecure=True)


def test_no_login_leaves_https() -> None:
    challenge = Challenge("bearer", {"realm": "http://auth.example/token"})

    with pytest.raises(UpstreamRefused, match=r"its token server auth\.example http; no login"):
        token_url(challenge, SCOPE, insecure=False)
    assert token_url(challenge, SCOPE, insecure=True).startswith("http://auth.example/token?")


def test_a_login_needs_a_name_and_a_password() -> None:
    login = parse_upstream("registry.example", username="Aladdin", password="open sesame")

    assert basic_authorization(login) == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert basic_authorization(parse_upstream("registry.example", username="robot")) is None
    assert basic_authorization(parse_upstream("registry.example")) is None


@pytest.mark.parametrize(
    ("body", "lifetime"),
    [
        (b'{"token": "t", "expires_in": 300}', 290),
        (b'{"access_token": "t"}', 50),
        (b'{"token": "t", "access_token": "u", "expires_in": null, "issued_at": 1}', 50),
        (b'{"token": "t", "expires_in": 1e300}', 24 * 3600 - 10),
        (b'{"token": "t", "expires_in": -1}', -11),
    ],
)
def test_tokens_are_read_with_their_lifetime(body: bytes, lifetime: float) -> None:
    token = parse_token_answer(body, "auth.example")

    assert token.authorization == "Bearer t"
    assert token.lifetime == lifetime
    assert "Bearer" not in repr(token)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"token": ""}',
        b'{"token": "a\\r\\nX-Evil: b"}',
        b'{"token": ["t"]}',
        b'{"token": "t", "expires_in": NaN}',
        b'{"token": "' + b"t" * 20_000 + b'"}',
        b"[" * 100_000,
    ],
)
def test_an_answer_without_a_token_that_fits_in_a_header_is_refused(body: bytes) -> None:
    with pytest.raises(UpstreamRefused, match=r"the token server auth\.example answers with"):
        parse_token_answer(body, "auth.example")


def test_headers_are_kept_by_scope_until_they_end() -> None:
    authorizations = Authorizations()
    authorizations.keep("a", "Bearer a", 60)
    authorizations.keep("b", "Bearer b", -1)

    assert authorizations.get("a") == "Bearer a"
    assert authorizations.get("b") is None
    assert authorizations.get("c") is None
