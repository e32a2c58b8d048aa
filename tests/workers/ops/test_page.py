"""The page in a real browser: every control, with and without JavaScript, in light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from redis import Redis

from data.models import ManifestSecurityStatus
from queues.events import Event, EventKind
from queues.metricstore import MetricStore, OrganizationCount
from queues.rescanqueue import RescanQueue, job_id_of
from tests.servers import wait_until
from tests.systemtools import CHROMIUM
from tests.workers.ops.conftest import TOKEN, Running
from workers.ops import watcher

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 30_000  # the machine may be busy with other tests
expect.set_options(timeout=PATIENCE_MS)
# One browser for all of them.
pytestmark = pytest.mark.xdist_group("page")
AXE = (files("axe_playwright_python") / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium with an empty profile of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM.path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """What the browser complained about; a test that leaves something here fails."""
    found: list[str] = []
    yield found
    assert found == []


def open_page(context: BrowserContext, complaints: list[str]) -> Page:
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text) if message.type in {"error", "warning"} else None
        ),
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    return page


@pytest.fixture
def page(browser: Browser, busy: Running, complaints: list[str]) -> Iterator[Page]:
    """The page of a Quay in full swing, nobody signed in."""
    with browser.new_context(base_url=busy.url) as context:
        page = open_page(context, complaints)
        page.goto("/")
        yield page


def sign_in(page: Page) -> None:
    page.goto("/sign-in")
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("status").filter(has_text="Signed in")).to_be_visible()


def serious_violations(page: Page) -> list[str]:
    page.evaluate(AXE)
    result: Any = page.evaluate("() => axe.run()")
    assert result["passes"], "axe looked at the page"
    return [
        f"{each['id']}: {node['html']}"
        for each in result["violations"]
        for node in each["nodes"]
        if each["impact"] in {"serious", "critical"}
    ]


def test_funnel_tells_every_stage(page: Page) -> None:
    stages = page.locator("#funnel li")
    expect(stages).to_have_count(5)
    expect(stages.nth(0)).to_contain_text("Waiting for blobs")
    expect(stages.nth(0).locator(".count")).to_have_text("3")
    expect(stages.nth(1)).to_contain_text("first waits")
    expect(stages.nth(2)).to_contain_text("longest runs")
    expect(stages.nth(3).locator(".count")).to_have_text("14")
    expect(stages.nth(4).locator(".count")).to_have_text("2")
    expect(page.locator("#facts")).to_contain_text("9 complete and not scanned")


def test_lists_tell_what_waits_what_failed_and_whose(page: Page) -> None:
    expect(page.locator("#waiting tr")).to_have_count(3)
    expect(page.locator("#waiting")).to_contain_text("3/7")
    expect(page.locator("#failed tr")).to_have_count(3)
    expect(page.locator("#failed")).to_contain_text("no tar archive")
    expect(page.locator("#organizations tr")).to_have_count(3)
    expect(page.locator("#organizations")).to_contain_text("docker-hub")
    assert page.locator("#events tr").count() > 20


@pytest.fixture
def few_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "MOST_WAITING", 2)


def test_more_than_are_listed_are_counted(few_listed: None, page: Page) -> None:
    expect(page.locator("#funnel li").nth(0).locator(".count")).to_have_text("3")
    expect(page.locator("#waiting tr")).to_have_count(3)
    expect(page.locator("#waiting")).to_contain_text("and 1 more")


def test_plots_have_lines_and_words(page: Page) -> None:
    depth = page.get_by_role("img", name=re.compile("Jobs in the queue"))
    expect(depth).to_be_visible()
    assert page.locator("#plot-depth path.line").count() == 3
    assert page.locator("#plot-latency path.line").count() == 2
    words = page.locator("#plot-depth-words").text_content() or ""
    assert re.search(r"queued: \d+ now; .*at most \d+ \(queued\) in the last hour\.", words)


def test_wrong_token_is_told_and_changes_nothing(page: Page, complaints: list[str]) -> None:
    page.get_by_role("link", name="Sign in to act").click()
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not the token")
    page.get_by_role("link", name="Back to the page").click()
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)
    assert complaints.pop().startswith("Failed to load resource"), "the browser's word on the 401"


def test_pause_and_resume(page: Page, redis: Redis) -> None:
    sign_in(page)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status").filter(has_text="Paused")).to_be_visible()
    expect(page.locator("#state")).to_contain_text("Paused")
    assert redis.exists(RescanQueue("rescan", connection=redis).paused_key)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#state")).to_contain_text("Working")
    assert not redis.exists(RescanQueue("rescan", connection=redis).paused_key)
    expect(page.locator("#events")).to_contain_text("paused")


def test_retry_by_keyboard_alone(page: Page, busy: Running, redis: Redis) -> None:
    assert busy.filled is not None
    manifest_id = busy.filled.failed[0]
    sign_in(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    button = page.get_by_role("button", name=f"Retry manifest {manifest_id}")
    for _ in range(20):
        page.keyboard.press("Tab")
        if button.evaluate("each => each === document.activeElement"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="queued")).to_be_visible()
    assert redis.lindex("rq:queue:rescan", 0) == job_id_of(manifest_id).encode()


def test_sign_out(page: Page) -> None:
    sign_in(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("link", name="Sign in to act")).to_be_visible()
    expect(page.get_by_role("button", name="Retry")).to_have_count(0)


def test_links_of_the_foot_lead_somewhere(page: Page) -> None:
    for name, words in [("Metrics", "quay_rescan"), ("Readiness", "ok"), ("API", "openapi")]:
        page.goto("/")
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.locator("body")).to_contain_text(words)


def test_refreshes_itself_and_keeps_the_focus(
    browser: Browser, busy: Running, redis: Redis, complaints: list[str]
) -> None:
    assert busy.filled is not None
    with browser.new_context(base_url=busy.url) as context:
        page = open_page(context, complaints)
        page.clock.install()
        sign_in(page)
        page.locator(f"#retry-{busy.filled.failed[0]}").focus()
        RescanQueue("rescan", connection=redis).pause()
        page.clock.run_for(6_000)
        expect(page.locator("#state")).to_contain_text("Paused")
        expect(page.locator(f"#retry-{busy.filled.failed[0]}")).to_be_focused()
        expect(page.get_by_role("button", name="Resume")).to_be_visible()


def test_refreshing_can_be_switched_off(
    browser: Browser, busy: Running, redis: Redis, complaints: list[str]
) -> None:
    with browser.new_context(base_url=busy.url) as context:
        page = open_page(context, complaints)
        page.clock.install()
        page.goto("/")
        toggle = page.get_by_role("button", name="Auto refresh", pressed=True)
        toggle.click()
        RescanQueue("rescan", connection=redis).pause()
        page.clock.run_for(20_000)
        expect(page.locator("#state")).to_contain_text("Working")
        page.get_by_role("button", name="Auto refresh", pressed=False).click()
        expect(page.locator("#state")).to_contain_text("Paused")


def test_silence_of_the_server_is_told(
    browser: Browser, busy: Running, complaints: list[str]
) -> None:
    with browser.new_context(base_url=busy.url) as context:
        page = open_page(context, complaints)
        page.clock.install()
        page.goto("/")
        page.route("**/", lambda route: route.abort())
        page.clock.run_for(6_000)
        told = page.get_by_role("status").filter(has_text="has not answered since")
        expect(told).to_be_visible()
        page.unroute("**/")
        page.clock.run_for(6_000)
        expect(told).to_be_hidden()
        complaints[:] = [each for each in complaints if "Failed to load" not in each]


def test_reads_and_acts_without_javascript(
    browser: Browser, busy: Running, complaints: list[str]
) -> None:
    with browser.new_context(base_url=busy.url, java_script_enabled=False) as context:
        page = open_page(context, complaints)
        page.goto("/")
        expect(page.locator("#funnel li")).to_have_count(5)
        expect(page.locator("#plot-depth svg")).to_be_visible()
        assert page.locator("#events tr").count() > 20
        expect(page.get_by_role("button", name="Auto refresh")).to_have_count(0)
        assert '<noscript><meta http-equiv="refresh"' in page.content()
        sign_in(page)
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#state")).to_contain_text("Paused")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_serious(
    browser: Browser, busy: Running, complaints: list[str], scheme: Any, width: int
) -> None:
    size: Any = {"width": width, "height": 900}
    with browser.new_context(base_url=busy.url, color_scheme=scheme, viewport=size) as context:
        page = open_page(context, complaints)
        page.goto("/sign-in")
        assert serious_violations(page) == []
        sign_in(page)
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#notices")).to_contain_text("Paused")
        assert serious_violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_retry_is_in_sight_on_a_telephone(
    browser: Browser, busy: Running, complaints: list[str]
) -> None:
    size: Any = {"width": 390, "height": 844}
    with browser.new_context(base_url=busy.url, viewport=size) as context:
        page = open_page(context, complaints)
        sign_in(page)
        retry = page.get_by_role("button", name="Retry").first

        def in_sight() -> bool:
            box = retry.bounding_box()
            return box is not None and box["x"] + box["width"] <= 390

        wait_until(in_sight, 20, "the button is in sight")  # once the style has been applied


def test_state_is_the_worst_of_what_keeps_all_waiting(page: Page, redis: Redis) -> None:
    def shows(state: str) -> None:
        page.reload()
        expect(page.locator("#state .pill")).to_have_text(state)

    shows("Working")
    redis.set("rescan:rescan:circuit", "down")
    shows("Clair is down")
    RescanQueue("rescan", connection=redis).pause()
    shows("Paused")
    redis.delete("rq:workers:rescan")
    shows("No worker runs")


def test_light_and_dark_follow_the_reader(
    browser: Browser, busy: Running, complaints: list[str]
) -> None:
    backs = []
    schemes: list[Any] = ["light", "dark"]
    for scheme in schemes:
        with browser.new_context(base_url=busy.url, color_scheme=scheme) as context:
            page = open_page(context, complaints)
            page.goto("/")
            back = page.evaluate("getComputedStyle(document.body).backgroundColor")
            backs.append(sum(int(part) for part in re.findall(r"\d+", back)))
    assert backs[0] > 600
    assert backs[1] < 150


HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'>"


def test_what_others_wrote_is_text(page: Page, busy: Running, redis: Redis) -> None:
    store = MetricStore(redis, "rescan")
    event = Event(kind=EventKind.AGAIN_LATER, manifest_id=1, repository=HOSTILE, detail=HOSTILE)
    store.record({}, [event], {(HOSTILE, OrganizationCount.FAILED): 1})
    update = ManifestSecurityStatus.update(error_json=f'"{HOSTILE}"', last_indexed="2000-01-01")
    update.where(ManifestSecurityStatus.index_status == -1).execute()
    meta = '{"waiting_for": "<script>alert(3)</script>"}'
    assert busy.filled is not None
    redis.hset(f"rq:job:{job_id_of(busy.filled.complete[-2])}", "meta", meta)
    page.goto(f"/?done={HOSTILE}")
    expect(page.locator("#events")).to_contain_text(HOSTILE)
    expect(page.locator("#organizations")).to_contain_text(HOSTILE)
    expect(page.locator("#failed")).to_contain_text("<script>alert(3)</script>")
    assert page.locator("script:not([src]), main img").count() == 0
    assert busy.get(f"/?done={HOSTILE}").text.count("<script") == 1


def test_policy_lets_no_script_in_that_isnt_ours(page: Page, complaints: list[str]) -> None:
    page.evaluate(
        "() => { const each = document.createElement('script');"
        " each.textContent = 'window.ran = true'; document.body.append(each); }"
    )
    assert page.evaluate("window.ran") is None
    assert "Content Security Policy" in complaints.pop()
