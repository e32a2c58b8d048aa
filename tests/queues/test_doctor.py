"""`python -m queues doctor`: one line a check, and the mend of what is wrong."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.data.storage.servers import moto
from tests.data.storage.targets import open_moto_account, s3_target
from tests.queues.conftest import Shell
from tests.servers import free_port
from workers.demo.scannerstandin import ScannerStandIn

PSK, OTHER = (base64.b64encode(key).decode() for key in (b"Clair's" * 6, b"another" * 6))


def test_doctor_checks_everything_and_names_the_mend(shell: Shell) -> None:
    findings = {row["check"]: row for row in shell.json("doctor")}
    assert all(row["ok"] for row in findings.values())
    assert "stand-in-1" in findings["scanner"]["words"]
    shell.quay.scanner.go_down()
    result = shell.run("doctor", code=1)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("FAIL")]
    assert "scanner" in line


def change(shell: Shell, **keys: Any) -> None:
    config = yaml.safe_load(shell.config.read_text()) | keys
    shell.config.write_text(yaml.safe_dump({k: v for k, v in config.items() if v is not None}))


def failing(shell: Shell) -> dict[str, str]:
    """The words of each check that failed, by the check; every line is one line."""
    lines = shell.run("doctor", code=1).stdout.splitlines()
    assert all(line.startswith(("ok  ", "FAIL")) for line in lines)
    return {line[6:20].strip(): line[21:] for line in lines if line.startswith("FAIL")}


@pytest.mark.parametrize(
    ("keys", "checks", "mend"),
    [
        ({"DB_URI": "postgresql://u:secret@127.0.0.1:9/q"}, {"database", "schema"}, "DB_URI"),
        ({"RESCAN_REDIS": {"host": "127.0.0.1", "port": 9}}, {"redis"}, "RESCAN_REDIS"),
        (
            {
                "DISTRIBUTED_STORAGE_CONFIG": {
                    "default": ["LocalStorage", {"storage_path": "/proc/nowhere"}]
                }
            },
            {"storage", "layer links"},
            "check that the volume is mounted",
        ),
        (
            {"RESCAN_LAYER_SERVER_SECRET": "another"},
            {"layer links"},
            "check the address and keys in RESCAN_LAYER_SERVER_URL",
        ),
        (
            {"RESCAN_LAYER_SERVER_URL": None, "RESCAN_LAYER_SERVER_SECRET": None},
            {"layer links"},
            "INSTANCE_SERVICE_KEY_LOCATION",
        ),
        ({"SECURITY_SCANNER_V4_ENDPOINT": None}, {"scanner"}, "SECURITY_SCANNER_V4_ENDPOINT"),
    ],
)
def test_what_is_wrong_is_named_with_its_mend(
    shell: Shell, keys: dict[str, Any], checks: set[str], mend: str
) -> None:
    change(shell, **keys)
    failed = failing(shell)
    assert set(failed) == checks
    assert mend in " ".join(failed.values())
    assert "secret" not in " ".join(failed.values())


def test_database_that_is_no_quays_is_named(shell: Shell) -> None:
    change(shell, DB_URI=f"sqlite:///{shell.config.parent}/empty.db")
    failed = failing(shell)
    assert set(failed) == {"schema"}
    assert "is DB_URI Quay's database" in failed["schema"]


def test_key_that_is_not_clairs_is_named(shell: Shell) -> None:
    with ScannerStandIn(psk=PSK) as scanner:
        change(shell, SECURITY_SCANNER_V4_ENDPOINT=scanner.endpoint, SECURITY_SCANNER_V4_PSK=OTHER)
        failed = failing(shell)
        assert set(failed) == {"scanner"}
        assert "SECURITY_SCANNER_V4_PSK" in failed["scanner"]
        change(shell, SECURITY_SCANNER_V4_PSK=PSK)
        shell.run("doctor")


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, Any]]:
    with moto() as url:
        engine, parameters = s3_target(open_moto_account(url)).config
        yield {"default": [engine, dict(parameters)]}


def test_presigned_link_is_followed(shell: Shell, bucket: dict[str, Any]) -> None:
    change(shell, DISTRIBUTED_STORAGE_CONFIG=bucket)
    assert "the storage presigns, and its link can be followed" in shell.run("doctor").stdout


def test_presigned_link_that_leads_nowhere_is_told_and_not_shown(
    shell: Shell, bucket: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a bucket whose address is not the one that Clair has to ask."""
    change(shell, DISTRIBUTED_STORAGE_CONFIG=bucket)
    nowhere = f"http://127.0.0.1:{free_port()}/layer?X-Amz-Signature=signed"
    monkeypatch.setattr("data.storage.storage.Storage.presign", lambda *_, **__: nowhere)
    failed = failing(shell)
    assert "check the address and keys in DISTRIBUTED_STORAGE_CONFIG" in failed["layer links"]
    assert "Amz" not in failed["layer links"]
