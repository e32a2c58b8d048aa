"""The site's own certificate authorities count for every connection, as they do for Quay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data.authorities import VARIABLES, trust_extra_authorities
from data.errors import SettingsError
from tests.certificates import make_certificate
from tests.data.storage import servers


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    return directory


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "conf" / "stack").mkdir(parents=True)
    return tmp_path / "conf"


def certificate(directory: Path) -> str:
    directory.mkdir()
    return make_certificate(directory).path.read_text().strip()


@pytest.mark.parametrize("place", ["extra_ca_certs/one.crt", "extra_ca_certs", "extra_ca_one.crt"])
def test_every_place_that_quay_looks_at_is_read(
    conf: Path, temporary: Path, tmp_path: Path, place: str
) -> None:
    one, two = certificate(tmp_path / "one"), certificate(tmp_path / "two")
    file = conf / "stack" / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"the two of our site\n{one}\n{two}")
    environ: dict[str, str] = {}
    assert trust_extra_authorities(conf, environ) == 2
    assert set(environ) == set(VARIABLES)
    (bundle,) = {Path(path) for path in environ.values()}
    assert [bundle] == list(temporary.iterdir())
    content = bundle.read_text()
    assert one in content
    assert two in content
    assert content.count("BEGIN CERTIFICATE") > 50, "the public ones go on counting"


def test_without_any_nothing_changes(conf: Path, temporary: Path) -> None:
    environ: dict[str, str] = {}
    (conf / "stack" / "extra_ca_certs").mkdir()
    (conf / "stack" / "extra_ca_certs" / "README").write_text("none yet")
    assert trust_extra_authorities(conf, environ) == 0
    assert environ == {}
    assert list(temporary.iterdir()) == []


def test_a_variable_that_is_set_stays(conf: Path, temporary: Path, tmp_path: Path) -> None:
    (conf / "stack" / "extra_ca_one.crt").write_text(certificate(tmp_path / "one"))
    environ = {"SSL_CERT_FILE": "/etc/ssl/mine.pem"}
    trust_extra_authorities(conf, environ)
    assert environ["SSL_CERT_FILE"] == "/etc/ssl/mine.pem"
    assert environ["REQUESTS_CA_BUNDLE"] != "/etc/ssl/mine.pem"


def test_bundle_that_cannot_be_written_is_named_with_the_mend(
    conf: Path, temporary: Path, tmp_path: Path
) -> None:
    (conf / "stack" / "extra_ca_one.crt").write_text(certificate(tmp_path / "one"))
    temporary.rmdir()
    with pytest.raises(SettingsError, match=r"extra_ca_certs: can't be used.*writable"):
        trust_extra_authorities(conf, {})


CLIENTS = """
import os, sys
from pathlib import Path
from data.authorities import trust_extra_authorities
trust_extra_authorities(Path(sys.argv[1]), os.environ)
import requests
from data.storage import open_storage
requests.get(sys.argv[2], timeout=10)
parameters = {"storage_path": "/a", "s3_bucket": "none", "s3_access_key": "a", "s3_secret_key": "b"}
store = open_storage({"s3": ("S3Storage", {**parameters, "endpoint_url": sys.argv[2]})}).preferred
assert store.size("sha256:" + "a" * 64) is None
"""


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_clients_of_clair_and_of_storage_trust_them(
    conf: Path, temporary: Path, tmp_path: Path
) -> None:
    made = servers.make_certificate(tmp_path)
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment["TMPDIR"] = str(temporary)
    with servers.moto(made) as url:
        command = [sys.executable, "-c", CLIENTS, str(conf), url]
        assert "certificate verify failed" in run(command, environment).stderr.lower()
        (conf / "stack" / "extra_ca_one.crt").write_text(made.path.read_text())
        done = run(command, environment)
        assert done.returncode == 0, done.stderr
