"""Knows where the bytes of a blob lie: one small port, one file an engine."""

from data.storage.blobstore import BlobStore, BlobWriter
from data.storage.storage import Storage, open_storage

__all__ = ["BlobStore", "BlobWriter", "Storage", "open_storage"]
