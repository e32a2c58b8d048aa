"""What an operator deploys: each file is read by the tool, or the schema, that will read it."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser
from supervisor.options import ServerOptions

from data.settings import ListenAddress, read_settings
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
        assert program.stdout_events_enabled, "Quay's event listener prints them"
        assert program.stderr_events_enabled
    assert not programs["securityworker"].autostart, "Quay runs its own"


def test_init_script_adds_the_programs_to_quays_supervisord(tmp_path: Path) -> None:
    """Quay's own file ends without a newline and includes none of ours."""
    target = tmp_path / "supervisord.conf"
    target.write_text("[supervisord]\nnodaemon=true\n\n[program:nginx]\ncommand=nginx\n# EOF")
    environment = {"PATH": os.environ["PATH"], "QUAYCONF": str(tmp_path)}
    script = [str(CONF / "zz_quay_rescan.sh")]
    for _ in range(2):  # the second time it finds them there
        subprocess.run(script, env=environment | {"QUAY_RESCAN": str(CONF.parent)}, check=True)
    sections = re.findall(r"^\[program:([\w-]+)\]$", target.read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(["nginx", *(f"rescan-{each}" for each in WORKERS)])


@pytest.fixture
def deployments() -> dict[str, dict[str, Any]]:
    """The pod of each Deployment, by worker."""
    found = [each for path in RESOURCES for each in documents(path) if each["kind"] == "Deployment"]
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]["template"]["spec"]
        for each in found
    }


def ops_address(environment: Mapping[str, str], tmp_path: Path) -> ListenAddress:
    """Where the ops server listens with this environment and nothing about it in config.yaml."""
    config = tmp_path / "config.yaml"
    config.write_text(
        "DB_URI: sqlite:///quay.db\n"
        "DISTRIBUTED_STORAGE_CONFIG: {default: [LocalStorage, {storage_path: /storage}]}\n"
    )
    return read_settings(config, environment).rescan.ops_listen


def test_ops_server_is_reached_from_outside_its_container(
    deployments: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    (container,) = deployments["opsserver"]["containers"]
    pod = {each["name"]: each["value"] for each in container["env"]}
    service = documents(CONF / "compose.yaml")[0]["services"]["opsserver"]
    for environment in (pod, service["environment"]):
        assert ops_address(environment, tmp_path) == ("0.0.0.0", 9101)
    assert container["ports"] == [{"name": "http", "containerPort": 9101}]


def test_one_patch_names_the_config_secret_of_every_deployment(
    deployments: dict[str, dict[str, Any]],
) -> None:
    (kustomization,) = documents(CONF / "kubernetes" / "kustomization.yaml")
    (patch,) = kustomization["patches"]
    assert patch["target"] == {"kind": "Deployment"}
    (operation,) = yaml.safe_load(patch["patch"])
    assert operation["path"] == "/spec/template/spec/volumes/0/secret/secretName"
    assert len(deployments) == len(WORKERS) - 1
    for pod in deployments.values():
        assert "secretName" in pod["volumes"][0]["secret"]
        (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if "readOnly" in each]
        assert mount == {"name": "config", "mountPath": "/conf/stack", "readOnly": True}


def test_each_worker_may_go_where_it_works(deployments: dict[str, dict[str, Any]]) -> None:
    everywhere, further, _ = documents(CONF / "kubernetes" / "networkpolicy.yaml")
    assert everywhere["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everywhere["spec"]
    assert {53, 5432, 3306, 6379} <= open_ports(everywhere)
    (chosen,) = further["spec"]["podSelector"]["matchExpressions"]
    assert set(chosen["values"]) == {"rescanworker", "proxycacheblobworker"} <= set(deployments)
    assert {6060, 443} <= open_ports(further)


def open_ports(policy: dict[str, Any]) -> set[int]:
    return {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}


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
    assert '"workers.liveness"' in steps["HEALTHCHECK"]
    copied = [step["value"] for step in parser.structure if step["instruction"] == "COPY"]
    for source in (value.split()[0] for value in copied):
        assert (CONF.parent / source).exists() or source == "requirements.txt"


@pytest.mark.parametrize(
    "path",
    [
        CONF / "supervisord.conf",
        CONF / "zz_quay_rescan.sh",
        CONF / "Containerfile",
        CONF / "compose.yaml",
        *KUBERNETES,
    ],
    ids=lambda path: path.name,
)
def test_each_file_says_what_could_not_be_run(path: Path) -> None:
    head = " ".join(path.read_text().splitlines()[:2])
    assert "tests/test_conf.py" in head
    assert "not" in head
