"""A storage that no worker can use is one sentence at the start of each that needs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.programs import Program

CONFIG = {
    "DB_URI": "sqlite:////nowhere/quay.db",
    "DISTRIBUTED_STORAGE_CONFIG": {"default": ["SwiftStorage", {"swift_container": "images"}]},
    "FEATURE_PROXY_CACHE": True,
    "FEATURE_SECURITY_SCANNER": True,
    "SETUP_COMPLETE": True,
    "SECURITY_SCANNER_V4_ENDPOINT": "http://127.0.0.1:9",
    "PROMETHEUS_PUSHGATEWAY_URL": None,
}


@pytest.mark.parametrize("worker", ["proxycacheblobworker", "rescanworker", "securityworker"])
def test_swift_is_refused_with_what_to_do_instead(worker: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    program = Program(f"workers.{worker}", "--config", str(config), log=tmp_path / "worker.log")
    assert program.wait(30) == 2
    (line,) = program.log.read_text().splitlines()
    assert "DISTRIBUTED_STORAGE_CONFIG: location default: SwiftStorage is not supported" in line
    assert "RadosGWStorage" in line
