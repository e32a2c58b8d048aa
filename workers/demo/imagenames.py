"""What an image that a person has is called at the upstream registry."""

from __future__ import annotations

import re
from pathlib import Path

_NOT_IN_NAMES = re.compile(r"[^a-z0-9._/-]+")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def repository_and_tag(reference: str, path: Path) -> tuple[str, str]:
    """Reads `[host/]repository[:tag]`, as docker and containerd write it, or a tag alone.

    The host is left out: the image is served by ours. Without a name, the file lends its own.
    """
    reference = reference.partition("@")[0]
    head, colon, last = reference.rpartition(":")
    name, tag = (head, last) if colon and "/" not in last else (reference, "latest")
    if not colon and "/" not in reference:
        name, tag = "", reference or "latest"
    host, slash, rest = name.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost"):
        name = rest
    return repository_name(name or path.name.partition(".")[0]), valid_tag(tag)


def repository_name(text: str) -> str:
    """`text` with what a repository's name can't have replaced."""
    steps = (step.strip("._-") for step in _NOT_IN_NAMES.sub("-", text.lower()).split("/"))
    return "/".join(step for step in steps if step) or "image"


def valid_tag(text: str) -> str:
    return text if _TAG.fullmatch(text) else "latest"
