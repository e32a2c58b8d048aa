"""Manifests of every kind: what they hold, and whether Quay would scan them."""

from __future__ import annotations

import json

import pytest

from data.manifests import Unscannable, media_types
from data.manifests.parse import PARSERS
from data.upstream.verification import verified_digest
from tests.data.manifests.examples import DIGESTS, EXAMPLES, EXPECTED, parse, read


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_each_kind_is_read_and_judged_as_quay_does(name: str) -> None:
    media_type, layers, required, children, unscannable = EXPECTED[name]
    manifest = parse(name)
    assert manifest.media_type == media_type
    assert len(manifest.layers) == layers
    assert len(manifest.required_layer_digests) == required
    assert len(manifest.children) == children
    assert manifest.unscannable is unscannable


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_config_is_the_one_that_is_named(name: str) -> None:
    config = json.loads(read(name)).get("config", {})
    manifest = parse(name)
    assert manifest.config_digest == config.get("digest")
    assert manifest.config_size == config.get("size")
    assert manifest.config_media_type == config.get("mediaType")


def test_every_example_has_its_expectation() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.json")} == set(EXPECTED)


def test_every_example_is_what_a_registry_gave_out() -> None:
    assert set(DIGESTS) == set(EXPECTED)


def test_examples_are_of_every_format_and_every_verdict() -> None:
    assert {expected[0] for expected in EXPECTED.values()} | {media_types.DOCKER_SCHEMA1} == set(
        PARSERS
    )
    assert {expected[4] for expected in EXPECTED.values()} == {None, *Unscannable}


@pytest.mark.parametrize("reason", Unscannable)
def test_a_verdict_is_one_line_that_a_person_can_read(reason: Unscannable) -> None:
    assert reason.value.startswith(("a ", "an ")), "it is read after 'it is'"
    assert "\n" not in reason.value


@pytest.mark.parametrize(("name", "digest"), sorted(DIGESTS.items()))
def test_bytes_of_a_registry_have_the_digest_it_gave_them(name: str, digest: str) -> None:
    reference = f"sha256:{digest}"
    content = read(name).encode()
    verified = verified_digest(
        content, EXPECTED[name][0], reference=reference, announced=None, what=name
    )
    assert verified == reference
