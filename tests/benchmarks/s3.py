"""An S3 server that is fast enough to be measured beside: rclone's, a process of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.data.storage.targets import rclone_account, s3_target

MEMORY = Path("/dev/shm")


@contextmanager
def running_s3(room: int) -> Iterator[list[object]]:
    """A new bucket, as an entry of DISTRIBUTED_STORAGE_CONFIG.

    It is kept in memory where there is `room` for so many bytes: what else is measured here writes
    to this machine's disk, and an S3 server has its own.
    """
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > room
    with (
        TemporaryDirectory(prefix="rescan-s3-", dir=MEMORY if in_memory else None) as folder,
        rclone_account(Path(folder)) as account,
    ):
        yield list(s3_target(account).config)
