"""Manifests that want to do harm are refused, with a reason that names the place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from data.errors import ManifestError
from data.manifests import media_types, parse_manifest
from data.manifests.document import LARGEST_MANIFEST, MOST_ENTRIES
from tests.data.manifests.examples import EXPECTED, read

DIGEST = "sha256:" + "a" * 64
LAYER = {"mediaType": media_types.OCI_GZIP_LAYER, "digest": DIGEST, "size": 1}


def image(**changes: Any) -> str:
    return json.dumps(json.loads(read("oci_gzip")) | changes)


def layer(**changes: Any) -> str:
    return image(layers=[LAYER, LAYER | changes])


def shortened(value: object) -> str:
    """An id for a test: some of the values are as large as a manifest may be."""
    return ascii(value[:24]) if isinstance(value, str | bytes) else ascii(value)


def refusal(manifest_bytes: str | bytes, media_type: str = media_types.OCI_MANIFEST) -> str:
    with pytest.raises(ManifestError) as refused:
        parse_manifest(manifest_bytes, media_type)
    message = str(refused.value)
    assert len(message) < 600
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("manifest_bytes", "message"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[]", "no object"),
        ("null", "no object"),
        (b"\xff\xfe\xfa", "no JSON"),
        (image().encode("utf-16"), "no JSON"),
        ("\ufeff" + image(), "no JSON"),
        (image() + "\ud800", "no JSON"),
        ("{" * 100_000, "no JSON"),
        ("[" * 100_000 + "]" * 100_000, "no JSON"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "no JSON"),
        ('{"size": ' + "9" * 10_000 + "}", "no JSON"),
        ('{"config": {}, "config": {}}', "twice"),
        ('{"layers": [{"digest": "a", "digest": "b"}]}', "twice"),
        ('{"size": NaN}', "NaN"),
        ('{"size": -Infinity}', "Infinity"),
        (" " * (LARGEST_MANIFEST + 1), "larger than any may be"),
        ("ä" * (LARGEST_MANIFEST // 2 + 1), "larger than any may be"),
    ],
    ids=shortened,
)
def test_what_is_no_json_object(manifest_bytes: str | bytes, message: str) -> None:
    assert message in refusal(manifest_bytes)


@pytest.mark.parametrize(
    ("manifest_bytes", "where"),
    [
        ("{}", "schemaVersion"),
        (image(schemaVersion=1), "schemaVersion"),
        (image(schemaVersion="2"), "schemaVersion"),
        (image(mediaType=media_types.OCI_INDEX), "mediaType"),
        (image(config=None), "config"),
        (image(config={"mediaType": 1, "digest": DIGEST, "size": 1}), "config.mediaType"),
        (image(config={"mediaType": "a", "size": 1}), "config.digest"),
        (image(layers=None), "layers"),
        (image(layers={}), "layers"),
        (image(layers=["x"]), "layers[0]"),
        (image(layers=[LAYER] * (MOST_ENTRIES + 1)), "layers"),
        (layer(digest="sha256:../../etc/passwd"), "layers[1].digest"),
        (layer(digest="sha256:" + "A" * 64), "layers[1].digest"),
        (layer(digest=DIGEST + "\n"), "layers[1].digest"),
        (layer(digest=None), "layers[1].digest"),
        (layer(digest=[[[]]]), "layers[1].digest"),
        (layer(digest="\ud800"), "layers[1].digest"),
        (layer(size=-1), "layers[1].size"),
        (layer(size=2**63), "layers[1].size"),
        (layer(size=10**4000), "layers[1].size"),
        (layer(size=True), "layers[1].size"),
        (layer(size="1"), "layers[1].size"),
        (layer(size=1.0), "layers[1].size"),
        (layer(size=None), "layers[1].size"),
        (layer(mediaType=None), "layers[1].mediaType"),
        (layer(mediaType="a" * 256), "layers[1].mediaType"),
        (layer(mediaType="a\x00"), "layers[1].mediaType"),
        (layer(mediaType="a\n"), "layers[1].mediaType"),
        (layer(mediaType="\ud800"), "layers[1].mediaType"),
        (layer(urls="https://example.com"), "layers[1].urls"),
        (layer(urls=[1]), "layers[1].urls[0]"),
    ],
    ids=shortened,
)
def test_wrong_values_are_named_by_their_place(manifest_bytes: str, where: str) -> None:
    assert refusal(manifest_bytes).startswith(f"the manifest's {where}: ")


@pytest.mark.parametrize(
    ("manifest_bytes", "message"),
    [
        ("{}", "schemaVersion: missing; config: missing; layers: missing"),
        (image(config=1, layers=2), "config: no object; layers: no list"),
        (
            layer(size="1", mediaType=2),
            "layers[1].mediaType: no text; layers[1].size: no whole number",
        ),
        (
            image(layers=[1] * 100),
            "layers[0]: no object; layers[1]: no object; layers[2]: no object",
        ),
    ],
    ids=shortened,
)
def test_a_person_is_told_what_is_wrong_but_not_all_of_it(
    manifest_bytes: str, message: str
) -> None:
    assert refusal(manifest_bytes) == f"the manifest's {message}"


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("oci_gzip", {"manifests": [LAYER]}),
        ("oci_gzip", {"fsLayers": [{"blobSum": DIGEST}]}),
        ("docker_schema2", {"manifests": [LAYER]}),
        ("docker_schema2", {"fsLayers": [{"blobSum": DIGEST}]}),
        ("oci_index_with_attestations", {"layers": [LAYER]}),
        ("docker_list", {"config": LAYER}),
        ("docker_schema1_signed", {"layers": [LAYER]}),
    ],
)
def test_a_manifest_of_two_kinds_is_refused(name: str, other: dict[str, Any]) -> None:
    """One reader would run its layers, and another say that it has none to scan."""
    document = json.loads(read(name)) | other
    message = refusal(json.dumps(document), EXPECTED[name][0])
    assert message == f"the manifest is of two kinds at once: it has {next(iter(other))!r} too"


def test_an_empty_list_makes_no_second_kind() -> None:
    """Else anybody could keep an image from being scanned, which runs all the same."""
    assert parse_manifest(image(manifests=[]), media_types.OCI_MANIFEST).unscannable is None


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"helm_chart", "oci_zstd"}))
def test_bytes_of_another_format_than_announced_are_refused(name: str) -> None:
    """The two left out don't say what they are, as OCI allows."""
    announced = EXPECTED[name][0]
    others = {media_types.DOCKER_SCHEMA2, media_types.DOCKER_LIST, media_types.OCI_MANIFEST}
    for other in others - {announced}:
        refusal(read(name), other)


@pytest.mark.parametrize(
    "media_type", ["", "text/html", media_types.OCI_CONFIG, "x" * 10_000], ids=shortened
)
def test_unknown_media_type_is_refused(media_type: str) -> None:
    assert "no media type of a manifest" in refusal("{}", media_type)
