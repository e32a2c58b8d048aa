"""The command line on a Quay of the test, in a terminal of 80 columns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from typer.testing import CliRunner, Result

from queues.__main__ import app
from tests.integration.pipeline import SECRET, Pipeline, pipeline
from workers.demo.sampleimages import debian_image

IMAGE = debian_image("library/app")


@dataclass(frozen=True)
class Shell:
    """Runs a command on the Quay of the test, in a terminal of 80 columns without colours."""

    quay: Pipeline
    config: Path

    def run(self, *arguments: str, code: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner(env={"COLUMNS": "80"}).invoke(
            app, [*arguments, "--config", str(self.config)], input=stdin
        )
        assert result.exit_code == code, result.output + repr(result.exception)
        if "--json" not in arguments:
            assert "\x1b" not in result.output
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


@pytest.fixture
def shell(sqlite_database: str, redis: Redis, tmp_path: Path) -> Iterator[Shell]:
    with pipeline(sqlite_database, redis, tmp_path) as quay:
        settings = quay.settings
        address = {"host": "127.0.0.1", "port": settings.redis.port}
        config = tmp_path / "config.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    "DB_URI": sqlite_database,
                    "DISTRIBUTED_STORAGE_CONFIG": {
                        "default": ["LocalStorage", {"storage_path": str(quay.storage_path)}]
                    },
                    "SECURITY_SCANNER_V4_ENDPOINT": quay.scanner.endpoint,
                    "RESCAN_REDIS": address,
                    "RESCAN_LAYER_SERVER_URL": str(settings.rescan.layer_server_url),
                    "RESCAN_LAYER_SERVER_SECRET": SECRET.decode(),
                }
            )
        )
        yield Shell(quay, config)


@pytest.fixture
def complete(shell: Shell) -> int:
    """A manifest whose blobs are placed and whose row says -2; nothing is queued."""
    shell.quay.publish(IMAGE)
    pulled = shell.quay.pull("proxy", IMAGE)
    shell.quay.security_worker_looks_too_early(pulled.manifest_id)
    shell.quay.run_blob_worker()
    shell.quay.queue.empty()  # type: ignore[no-untyped-call]
    return pulled.manifest_id
