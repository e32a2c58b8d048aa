"""What a person's image is called at the upstream stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.demo.imagenames import repository_and_tag


@pytest.mark.parametrize(
    ("reference", "name", "tag"),
    [
        ("web", "saved", "web"),
        ("1.0", "saved", "1.0"),
        ("", "saved", "latest"),
        ("web:1.0", "web", "1.0"),
        ("library/web", "library/web", "latest"),
        ("library/web:1.0", "library/web", "1.0"),
        ("registry.example/library/web:1.0", "library/web", "1.0"),
        ("registry.example:5000/web", "web", "latest"),
        ("localhost/web:1.0", "web", "1.0"),
        ("library/web:1.0@sha256:abc", "library/web", "1.0"),
        ("My Image:!", "my-image", "latest"),
        ("../../etc:1", "etc", "1"),
        (":1", "saved", "1"),
    ],
)
def test_names_are_made_to_fit(reference: str, name: str, tag: str) -> None:
    assert repository_and_tag(reference, Path("/somewhere/Saved.tar.gz")) == (name, tag)


def test_a_file_without_a_name_that_fits() -> None:
    assert repository_and_tag("", Path("/---.tar")) == ("image", "latest")
