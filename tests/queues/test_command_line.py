"""`python -m queues`, as a person runs it: words, JSON, exit codes, and what changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data.models import Manifest, ManifestSecurityStatus
from data.secscan.status import IndexStatus, Reason
from queues.__main__ import app
from queues.rescanqueue import RescanQueue, backfill_lane, job_id_of
from tests.queues.conftest import IMAGE, Shell
from workers.demo import scannerfaults
from workers.demo.sampleimages import helm_chart, multi_platform_image

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


def test_database_that_is_away_is_one_sentence_and_exit_1(shell: Shell) -> None:
    config = shell.config.read_text().splitlines()
    away = [line for line in config if not line.startswith("DB_URI")]
    shell.config.write_text("\n".join([*away, "DB_URI: postgresql://u@127.0.0.1:9/quay"]))
    result = shell.run("why", "proxy/library/app:1", code=1)
    assert len(result.stderr.splitlines()) == 1
    assert "DB_URI" in result.stderr


def test_words_of_others_are_shown_as_text(shell: Shell, complete: int) -> None:
    """Clair's and an upstream's words are no markup, no emoji, and no orders to the terminal."""
    queue = shell.quay.queue
    queue.enqueue_rescan(complete, Reason.EVENT, timeout=60)
    fail(queue, complete, "no such file [/layer.tar] :key: [bold]x[/bold] \x1b[31mred\x9b2J")
    for words in (
        shell.run("list", "failed").stdout,
        shell.run("why", "--manifest-id", str(complete)).stdout,
        shell.run("show", "--manifest-id", str(complete)).stdout,
    ):
        assert "[/layer.tar] :key: [bold]x[/bold]" in " ".join(words.split())
        assert "\x9b" not in words


def fail(queue: RescanQueue, manifest_id: int, reason: str) -> None:
    """What is left of a job that failed."""
    job_id = job_id_of(manifest_id)
    queue.connection.lrem(queue.key, 0, job_id)
    queue.connection.hset(f"rq:job:{job_id}", mapping={"status": "failed", "exc_info": reason})
    queue.connection.zadd(f"rq:failed:{queue.name}", {job_id: 9e9})


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
    assert words.startswith("manifest ")
    assert "claimed by" not in words, "what says nothing is left out"
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
    shell.quay.publish(IMAGE)
    pulled = shell.quay.pull("proxy", IMAGE)
    reference = f"proxy/library/app:{IMAGE.tag}"
    assert "waiting for blobs, 0/3" in shell.run("why", reference).stdout
    shell.quay.scanner.faults.add(scannerfaults.Failing(400, "layer is no tar"))
    shell.quay.run()
    assert shell.quay.status(pulled.manifest_id) is IndexStatus.FAILED
    assert "Clair failed on it" in shell.run("why", reference).stdout
    assert "layer is no tar" in shell.run("why", reference).stdout
    row = Manifest.get_by_id(pulled.manifest_id)
    row.manifest_bytes = json.dumps(json.loads(row.manifest_bytes) | {"layers": []})
    row.save()
    assert "an image without layers" in shell.run("why", reference).stdout


def test_why_tells_that_cycle_is_immediate_under_the_v2_indexer(
    shell: Shell, complete: int
) -> None:
    """It only visits rows that exist, so a row that is reset for its cycle would be lost."""
    text = shell.config.read_text() + "RESCAN_POLICY: {default: cycle}\n"
    shell.config.write_text(text)
    assert shell.json("why", "--manifest-id", str(complete))["policy"] == "cycle"
    shell.config.write_text(text + "FEATURE_SECURITY_SCANNER_V2: true\n")
    story = shell.json("why", "--manifest-id", str(complete))
    assert story["policy"] == "immediate"
    assert story["rule"].startswith("default, where cycle is immediate")


def test_retry_runs_failed_jobs_once_more(shell: Shell, complete: int) -> None:
    assert shell.json("retry", "--all-failed") == {"asked": 0, "queued": 0}
    queue = shell.quay.queue
    queue.enqueue_rescan(complete, Reason.EVENT, timeout=60)
    fail(queue, complete, "boom")
    assert shell.json("retry", "--all-failed") == {"asked": 1, "queued": 1}
    assert queue.depth().failed == 0
    shell.quay.run_rescan_worker()
    assert shell.quay.status(complete) is IndexStatus.COMPLETED


def test_retry_leaves_a_failed_backfill_on_its_lane(shell: Shell, complete: int) -> None:
    redis = shell.quay.queue.connection
    backfill = RescanQueue(backfill_lane("rescan"), connection=redis)
    backfill.enqueue_rescan(complete, Reason.SWEEP, timeout=60)
    fail(backfill, complete, "boom")
    assert shell.json("retry", "--all-failed") == {"asked": 1, "queued": 1}
    assert (redis.llen(shell.quay.queue.key), redis.llen(backfill.key)) == (0, 1)


def test_cancel_takes_a_waiting_job_off_and_says_when_there_is_none(
    shell: Shell, complete: int
) -> None:
    shell.run("enqueue", "--manifest-id", str(complete))
    words = shell.run("cancel", "--manifest-id", str(complete)).stdout
    assert "is canceled" in words
    assert "the sweep asks for it again" in words
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
    ) == sorted([*COMMANDS, "completion"])


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "queues", "status", "--config", "/nowhere"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
