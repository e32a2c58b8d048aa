"""`python -m queues`, as a person runs it: words, JSON, exit codes, and what changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis
from typer.testing import CliRunner, Result

from data.models import ManifestSecurityStatus
from data.secscan.status import IndexStatus, Reason
from queues.__main__ import app
from queues.rescanqueue import job_id_of
from tests.integration.pipeline import Pipeline, pipeline
from workers.demo.sampleimages import debian_image, helm_chart, multi_platform_image

IMAGE = debian_image("library/app")
COMMANDS = [
    "enqueue",
    "status",
    "list",
    "show",
    "why",
    "retry",
    "cancel",
    "pause",
    "resume",
    "drain",
    "backfill",
    "doctor",
]


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
                    "RESCAN_LAYER_SERVER_SECRET": "x",
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


def test_enqueue_says_the_job_and_whether_it_was_waiting(shell: Shell, complete: int) -> None:
    first = shell.run("enqueue", f"proxy/library/app:{IMAGE.tag}")
    assert f"rescan-{complete}  proxy/library/app  queued now" in first.stdout
    again = shell.run("enqueue", f"proxy/library/app@{IMAGE.digest}")
    assert "was waiting already" in again.stdout
    by_id = shell.json("enqueue", "--manifest-id", str(complete))
    assert by_id[0]["enqueued"] == "waiting"
    assert shell.quay.queue.connection.llen("rq:queue:rescan") == 1
    shell.quay.run_rescan_worker()
    assert shell.quay.status(complete) is IndexStatus.COMPLETED


def test_enqueue_reads_references_from_standard_input(shell: Shell, complete: int) -> None:
    result = shell.run("enqueue", "-", stdin=f"proxy/library/app:{IMAGE.tag}\n\n")
    assert result.stdout.count("queued now") == 1


def test_enqueue_of_a_list_enqueues_its_pulled_children(shell: Shell) -> None:
    image = multi_platform_image("library/multi")
    shell.quay.publish(image)
    shell.quay.pull("proxy", image)
    child = shell.quay.pull("proxy", image.children[0], image.children[0].digest)
    answers = shell.json("enqueue", f"proxy/library/multi:{image.tag}")
    assert [answer["manifest_id"] for answer in answers] == [child.manifest_id]


def test_enqueue_of_an_organisation_takes_what_is_stuck(shell: Shell, complete: int) -> None:
    answers = shell.json("enqueue", "--org", "proxy")
    assert [answer["manifest_id"] for answer in answers] == [complete]
    assert shell.json("enqueue", "--org", "mirror") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["enqueue", "no-reference"], "no reference"),
        (["enqueue", "proxy/missing:latest"], "no repository proxy/missing"),
        (["enqueue", "proxy/library/app:missing"], "no tag missing"),
        (["enqueue", "--manifest-id", "4711"], "no manifest with the id 4711"),
        (["enqueue"], "name a manifest"),
        (["why"], "name a manifest"),
        (["retry"], "name one manifest, or --all-failed"),
    ],
)
def test_wrong_use_is_one_sentence_exit_2_and_changes_nothing(
    shell: Shell, complete: int, arguments: list[str], message: str
) -> None:
    result = shell.run(*arguments, code=2)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert shell.quay.queue.connection.llen("rq:queue:rescan") == 0
    assert shell.quay.status(complete) is IndexStatus.MANIFEST_UNSUPPORTED


def test_redis_that_is_away_is_one_sentence_and_exit_1(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "DB_URI: sqlite:///x.db\nRESCAN_REDIS: {host: 127.0.0.1, port: 9}\n"
        "DISTRIBUTED_STORAGE_CONFIG: {default: [LocalStorage, {storage_path: /nowhere}]}\n"
    )
    result = CliRunner().invoke(app, ["status", "--config", str(config)])
    assert result.exit_code == 1
    assert "RESCAN_REDIS" in result.stderr


def test_broken_config_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("RESCAN_SWEEP_INTERVAL: never\n")
    result = CliRunner().invoke(app, ["status", "--config", str(config)])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_status_shows_the_depth_that_redis_shows(shell: Shell, complete: int) -> None:
    shell.run("enqueue", "--manifest-id", str(complete))
    document = shell.json("status")
    assert document["queued"] == shell.quay.queue.connection.llen("rq:queue:rescan") == 1
    assert set(document) >= {"queued", "started", "scheduled", "failed", "workers", "backfill"}
    words = shell.run("status").stdout
    assert max(map(len, words.splitlines())) <= 80
    assert "rescan-backfill" in words


def test_lists_show_jobs_and_why(shell: Shell, complete: int) -> None:
    assert "No job is queued." in shell.run("list", "queued").stdout
    shell.run("enqueue", "--manifest-id", str(complete))
    assert shell.json("list", "queued")[0]["job_id"] == job_id_of(complete)
    shell.quay.scanner.go_down()
    shell.quay.run_rescan_worker()
    (row,) = shell.json("list", "scheduled")
    assert "Connection refused" in row["why"]
    words = shell.run("list", "scheduled").stdout
    assert max(map(len, words.splitlines())) <= 80


def test_why_and_show_tell_the_story(shell: Shell) -> None:
    quay = shell.quay
    quay.publish(IMAGE)
    pulled = quay.pull("proxy", IMAGE)
    reference = f"proxy/library/app:{IMAGE.tag}"
    assert "waiting for blobs, 0/3 layers are placed" in shell.run("why", reference).stdout
    quay.run_blob_worker()
    assert "its rescan is queued on rescan" in shell.run("why", reference).stdout
    facts = shell.json("show", reference)
    assert (facts["layers placed"], facts["status row"]) == ("3/3", "none")
    assert [blob["placed"] for blob in facts["blobs"]] == ["default"] * 4
    quay.run_rescan_worker()
    assert "it is scanned" in shell.run("why", reference).stdout
    assert shell.json("why", reference)["rule"] == "default"
    words = shell.run("show", reference).stdout
    assert "2 COMPLETED" in words
    assert max(map(len, words.splitlines())) <= 80
    assert quay.status(pulled.manifest_id) is IndexStatus.COMPLETED


def test_why_tells_the_kinds_of_unsupported_apart(shell: Shell) -> None:
    chart, listed = helm_chart("charts/app"), multi_platform_image("library/multi")
    for image in (chart, listed):
        shell.quay.publish(image)
        shell.quay.pull("proxy", image)
    assert "an artifact" in shell.run("why", f"proxy/charts/app:{chart.tag}").stdout
    assert "manifest list" in shell.run("why", f"proxy/library/multi:{listed.tag}").stdout
    child = f"proxy/library/multi@{listed.children[0].digest}"
    assert "no client pulled it yet" in shell.run("why", child).stdout


def test_retry_runs_failed_jobs_once_more(shell: Shell, complete: int) -> None:
    assert shell.json("retry", "--all-failed") == {"asked": 0, "queued": 0}
    queue = shell.quay.queue
    queue.enqueue_rescan(complete, Reason.EVENT, timeout=60)
    queue.connection.hset(f"rq:job:{job_id_of(complete)}", "status", "failed")
    queue.connection.delete(queue.key)
    queue.connection.zadd("rq:failed:rescan", {job_id_of(complete): 9e9})
    assert shell.json("retry", "--all-failed") == {"asked": 1, "queued": 1}
    assert queue.depth().failed == 0
    shell.quay.run_rescan_worker()
    assert shell.quay.status(complete) is IndexStatus.COMPLETED


def test_cancel_takes_a_waiting_job_off_and_says_when_there_is_none(
    shell: Shell, complete: int
) -> None:
    shell.run("enqueue", "--manifest-id", str(complete))
    assert "is canceled" in shell.run("cancel", "--manifest-id", str(complete)).stdout
    assert shell.quay.queue.depth().queued == 0
    assert shell.json("cancel", "--manifest-id", str(complete), code=1)["canceled"] is False
    assert shell.json("enqueue", "--manifest-id", str(complete))[0]["enqueued"] == "queued"


def test_paused_workers_take_no_job_until_they_are_resumed(shell: Shell, complete: int) -> None:
    shell.run("pause")
    shell.run("enqueue", "--manifest-id", str(complete))
    shell.quay.run_rescan_worker()
    assert shell.quay.queue.depth().queued == 1
    assert "Paused" in shell.run("status").stdout
    shell.run("resume")
    shell.quay.run_rescan_worker()
    assert shell.quay.status(complete) is IndexStatus.COMPLETED


def test_drain_waits_until_all_is_done_or_says_what_is_left(shell: Shell, complete: int) -> None:
    shell.run("enqueue", "--manifest-id", str(complete))
    left = shell.json("drain", "--timeout", "0.3", code=1)
    assert left == {"empty": False, "left": 1}
    shell.quay.run_rescan_worker()
    assert shell.json("drain") == {"empty": True, "left": 0}


def test_backfill_finds_what_is_stuck_on_a_lane_of_its_own(shell: Shell, complete: int) -> None:
    assert shell.json("backfill", "--dry-run") == {"stuck": 1, "queued": 0, "dry_run": True}
    assert shell.quay.queue.connection.llen("rq:queue:rescan-backfill") == 0
    assert shell.json("backfill")["queued"] == 1
    assert shell.json("backfill")["queued"] == 0, "again is no more"
    assert shell.quay.queue.connection.llen("rq:queue:rescan-backfill") == 1
    assert shell.json("backfill", "--org", "mirror")["stuck"] == 0


def test_backfill_goes_on_where_it_was_cut_short(shell: Shell, complete: int) -> None:
    redis = shell.quay.queue.connection
    redis.hset("rescan:rescan:backfill:cursor", "unsupported", complete)
    assert shell.json("backfill")["stuck"] == 0
    assert not redis.exists("rescan:rescan:backfill:cursor")
    redis.hset("rescan:rescan:backfill:cursor", "unsupported", complete)
    assert shell.json("backfill", "--restart")["stuck"] == 1


def test_force_indexes_a_completed_manifest_again(shell: Shell, complete: int) -> None:
    shell.run("enqueue", "--manifest-id", str(complete))
    shell.quay.run_rescan_worker()
    shell.quay.scanner.state = "stand-in-2"
    shell.run("enqueue", "--manifest-id", str(complete))
    shell.quay.run_rescan_worker()
    assert ManifestSecurityStatus.get().indexer_hash == "stand-in-1", "not without --force"
    shell.run("enqueue", "--manifest-id", str(complete), "--force")
    shell.quay.run_rescan_worker()
    assert ManifestSecurityStatus.get().indexer_hash == "stand-in-2"


def test_wait_tells_the_outcome(shell: Shell, complete: int) -> None:
    shell.run("enqueue", "--manifest-id", str(complete))
    shell.quay.run_rescan_worker()
    shell.config.write_text(
        shell.config.read_text() + "FEATURE_SECURITY_SCANNER: true\nSETUP_COMPLETE: true\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-m", "workers.rescanworker", "--config", str(shell.config)],
        stderr=subprocess.DEVNULL,
    )
    try:
        answers = shell.json("enqueue", "--manifest-id", str(complete), "--wait")
        assert answers[0]["outcome"] == "up_to_date"
    finally:
        worker.terminate()
        worker.wait(30)


def test_doctor_checks_everything_and_names_the_mend(shell: Shell) -> None:
    findings = {row["check"]: row for row in shell.json("doctor")}
    assert all(row["ok"] for row in findings.values())
    assert "stand-in-1" in findings["scanner"]["words"]
    shell.quay.scanner.go_down()
    result = shell.run("doctor", code=1)
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("FAIL")]
    assert "scanner" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_there_and_explains_itself(command: str) -> None:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "--config" in result.stdout
    assert "--json" in result.stdout


def test_there_is_no_other_command() -> None:
    assert sorted(
        (each.name or each.callback.__name__)  # type: ignore[union-attr]
        for each in app.registered_commands
    ) == sorted(COMMANDS)


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "queues", "status", "--config", "/nowhere"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
