"""Whatever the bytes are, out comes a manifest or a ManifestError that can be logged and stored.

FUZZ_EXAMPLES sets the number of tries (2,000 by default).
"""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.digests import DIGEST
from data.errors import ManifestError
from data.manifests import Manifest, media_types, parse_manifest
from data.manifests.parse import PARSERS
from tests.data.manifests.examples import EXPECTED, read

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "2000")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
KEYS = (
    "schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers", "blobSum", "history",
    "v1Compatibility", "digest", "size", "urls", "platform", "os", "architecture", "id", "Size",
)  # fmt: skip
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(
        [1, 2, "sha256:" + "a" * 64, "{}", "a\x00", "\ud800", 2**63, 10**30, *PARSERS]
    )
    | st.sampled_from([media_types.DOCKER_FOREIGN_LAYER, media_types.OCI_EMPTY]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)


def parse_or_refuse(content: str | bytes, media_type: str) -> None:
    message = ""
    try:
        check(parse_manifest(content, media_type))
    except ManifestError as error:
        message = str(error)
    assert message.isprintable()
    assert len(message) < 1000


def check(manifest: Manifest) -> None:
    """What the rest of the house relies on."""
    digests = [layer.digest for layer in manifest.layers]
    digests += [child.digest for child in manifest.children]
    digests += [manifest.config_digest] if manifest.config_digest is not None else []
    assert all(DIGEST.fullmatch(digest) for digest in digests)
    assert all(0 <= (layer.size or 0) < 2**63 for layer in manifest.layers)
    assert all(layer.urls for layer in manifest.layers if layer.foreign)
    assert (manifest.config_media_type or "").isascii()
    assert manifest.layers or manifest.unscannable is not None


@fuzz
@given(st.binary(max_size=300) | st.text(st.characters()), st.sampled_from(sorted(PARSERS)))
def test_any_bytes(content: str | bytes, media_type: str) -> None:
    parse_or_refuse(content, media_type)


@fuzz
@given(values, st.sampled_from(sorted(PARSERS)) | st.text(max_size=5))
def test_nothing_but_a_manifest_error_comes_out(document: Any, media_type: str) -> None:
    parse_or_refuse(json.dumps(document), media_type)


@fuzz
@given(st.data())
def test_examples_with_another_value_somewhere(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(EXPECTED)))
    document = json.loads(read(name))
    place: Any = document
    while True:
        steps = list(place) if isinstance(place, dict) else list(range(len(place)))
        step = data.draw(st.sampled_from(steps))
        if not place[step] or not isinstance(place[step], dict | list) or data.draw(st.booleans()):
            break
        place = place[step]
    place[step] = data.draw(values)
    parse_or_refuse(json.dumps(document), EXPECTED[name][0])


@fuzz
@given(st.data())
def test_examples_with_other_bytes_somewhere(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(EXPECTED)))
    content = bytearray(read(name).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = min(len(content), start + data.draw(st.integers(0, 12)))
        content[start:end] = data.draw(st.binary(max_size=8))
    parse_or_refuse(bytes(content), EXPECTED[name][0])
