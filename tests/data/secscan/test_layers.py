from __future__ import annotations

from data.secscan.layers import LayerLinks, LayerLocation, PresignedLinks, foreign_location

DIGEST = f"sha256:{'a' * 64}"


def test_presigned_address_is_asked_for_by_digest_and_needs_no_header_of_ours() -> None:
    links: LayerLinks = PresignedLinks(lambda digest: f"https://s3.test/{digest}?signature=SECRET")
    location = links.locate("org", "repo", DIGEST)
    assert location.digest == DIGEST
    assert location.uri == f"https://s3.test/{DIGEST}?signature=SECRET"
    assert dict(location.headers) == {"Accept": ("application/gzip",)}


def test_presigned_address_is_made_anew_each_time() -> None:
    numbers = iter(range(2))
    links = PresignedLinks(lambda digest: f"https://s3.test/{digest}?{next(numbers)}")
    assert links.locate("o", "r", DIGEST).uri != links.locate("o", "r", DIGEST).uri


def test_foreign_layer_lies_where_its_manifest_says() -> None:
    location = foreign_location(DIGEST, "https://mcr.test/layer")
    assert (location.digest, location.uri) == (DIGEST, "https://mcr.test/layer")
    assert "Authorization" not in location.headers


def test_what_opens_a_layer_is_not_in_the_repr() -> None:
    location = LayerLocation(
        digest=DIGEST, uri="https://s3.test/?SECRET", headers={"Authorization": ("SECRET",)}
    )
    assert "SECRET" not in repr(location)
    assert DIGEST in repr(location)
    assert "SECRET" not in repr(PresignedLinks(lambda _: "SECRET"))
