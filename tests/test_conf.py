"""What an operator deploys: each file is read by the tool, or the schema, that will read it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser
from supervisor.options import ServerOptions

from workers.process import MODULES

CONF = Path(__file__).parent.parent / "conf"
KUBERNETES = sorted((CONF / "kubernetes").glob("*.yaml"))
RESOURCES = [path for path in KUBERNETES if path.name != "kustomization.yaml"]
WORKERS = set(MODULES.values())


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def test_supervisord_reads_its_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QUAYCONF", "/quay-registry/conf")
    whole = tmp_path / "supervisord.conf"
    whole.write_text("[supervisord]\n" + (CONF / "supervisord.conf").read_text())
    options = ServerOptions()
    options.realize(["-c", str(whole)])
    programs = {
        program.name.removeprefix("rescan-"): program
        for group in options.process_group_configs
        for program in group.process_configs
    }
    assert set(programs) == WORKERS
    for name, program in programs.items():
        assert f"-m workers.{name} --config /quay-registry/conf/stack" in program.command
        assert program.environment == {"PYTHONPATH": ""}
        assert program.stopwaitsecs >= 30
    assert not programs["securityworker"].autostart, "Quay runs its own"


@pytest.mark.parametrize("path", RESOURCES, ids=lambda path: path.name)
def test_kubernetes_resources_fit_their_schemas(path: Path) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, "1.30", strict=True)


def test_kustomization_names_every_file() -> None:
    (kustomization,) = documents(CONF / "kubernetes" / "kustomization.yaml")
    assert sorted(kustomization["resources"]) == [path.name for path in RESOURCES]


def test_each_deployment_runs_a_worker_that_exists() -> None:
    started = set()
    for path in RESOURCES:
        for document in documents(path):
            if document["kind"] == "Deployment":
                (container,) = document["spec"]["template"]["spec"]["containers"]
                started.update(container["args"])
                assert container["securityContext"]["readOnlyRootFilesystem"]
                assert {"requests", "limits"} <= set(container["resources"])
    assert started == {f"workers.{name}" for name in WORKERS - {"securityworker"}}


def test_compose_file_fits_the_specification() -> None:
    command = ["check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [sys.executable, "-m", *command, str(CONF / "compose.yaml")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    services = documents(CONF / "compose.yaml")[0]["services"]
    commands = [
        service["command"][0]
        for service in services.values()
        if service.get("command", [""])[0].startswith("workers.")
    ]
    for command_name in commands:
        importlib.import_module(command_name)
    assert len(commands) == 4


def test_containerfile_runs_as_nobody_special(tmp_path: Path) -> None:
    parser = DockerfileParser(
        path=str(tmp_path / "Dockerfile"), cache_content=True, env_replace=False
    )
    parser.content = (CONF / "Containerfile").read_text()
    steps = {step["instruction"]: step["value"] for step in parser.structure}
    assert steps["USER"] == "1001:0"
    assert steps["ENTRYPOINT"] == '["python", "-m"]'
    assert "HEALTHCHECK" in steps
    copied = [step["value"] for step in parser.structure if step["instruction"] == "COPY"]
    for source in (value.split()[0] for value in copied):
        assert (CONF.parent / source).exists() or source == "requirements.txt"


@pytest.mark.parametrize(
    "path",
    [CONF / "supervisord.conf", CONF / "Containerfile", CONF / "compose.yaml", *KUBERNETES],
    ids=lambda path: path.name,
)
def test_each_file_says_what_could_not_be_run(path: Path) -> None:
    head = " ".join(path.read_text().splitlines()[:2])
    assert "tests/test_conf.py" in head
    assert "not" in head
