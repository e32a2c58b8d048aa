"""Fetches manifests and blobs from an organisation's upstream registry, and from nowhere else.

registry.py        an organisation's upstream as a value: where, and its names
addresses.py       which addresses may be connected to
connections.py     kept connections that obey `addresses` and a deadline
fetch.py           one GET, with its tries and its redirects
answers.py         what a status, a header or an error means
authentication.py  challenges and the tokens that answer them
client.py          the two things that are fetched: a manifest, a blob
"""

from data.upstream.client import BlobStream, UpstreamClient, UpstreamManifest
from data.upstream.registry import Upstream, parse_upstream

__all__ = ["BlobStream", "Upstream", "UpstreamClient", "UpstreamManifest", "parse_upstream"]
