"""The page of `distjob serve` in a real browser, with 2,000 VMs at work on Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from anyio.from_thread import start_blocking_portal
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from distjob import AsyncJob, Client, Job, aio, clock, connect
from keeping import keep
from serving import TOKEN, Served, look, picture, served
from until import until

BUSY = 2_000
KINDS = list(AsyncJob)[:7]
APIS = ("attach-disk", "set-memory", "change-cdrom", "detach-interface")
pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.timeout(180)]


class Scene(NamedTuple):
    settings: Any
    jobs: Client
    server: Served
    redis: Any


@pytest.fixture(scope="module")
def scene(redis_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """2,000 VMs at work, some of them with long jobs, some waited for, and a server."""
    folder = tmp_path_factory.mktemp("serve")
    settings = {"namespace": folder.name, "backend": "redis", "session": {"ttl": 120}}
    settings |= {"redis": {"url": redis_server.url, "timeout": 1.0}}
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(crowd(settings)),
        connect(settings | {"controller": "ctl-a"}) as jobs,
        served(settings, folder) as server,
    ):
        yield Scene(settings, jobs, server, redis_server)


@asynccontextmanager
async def crowd(settings: Any) -> AsyncIterator[None]:
    names = ("ctl-a", "ctl-b", "ctl-c")
    clients = [await aio.connect(settings | {"controller": name}) for name in names]
    await asyncio.gather(*(begin(clients[number % 3], number) for number in range(BUSY)))
    waiting = [
        asyncio.create_task(clients[(number + place) % 3].begin(f"vm-{number:04}", Job.MODIFY))
        for number in range(2, BUSY, 25)
        for place in range(1, 2 + number % 7)
    ]
    yield
    for task in waiting:
        task.cancel()
    for client in clients:
        await client.close()
    await asyncio.wait(waiting)


async def begin(client: aio.AsyncClient, number: int) -> None:
    """One job in five is a long one; one of these in four has lost its owner."""
    name = f"vm-{number:04}"
    if number % 5:
        keep(await client.begin(name, Job.MODIFY, api=APIS[number % len(APIS)]))
        return
    kind = KINDS[number // 5 % len(KINDS)]
    lease = await client.begin_async(name, kind, on_owner_loss="orphan", api="nightly")
    await lease.set_phase("copy disks")
    await lease.set_progress(1 + number % 39, 40, "GiB")
    if number % 20 == 5:
        await lease.detach()


@pytest.fixture
def page(browser: Any, scene: Scene) -> Iterator[Any]:
    """The page, fresh, at 1400 px; what the browser complains of fails the test."""
    look(browser, 1400, 900)
    browser.get_log("browser")
    shown(browser, scene, "")
    yield browser
    browser.execute_script("sessionStorage.clear()")
    assert [one for one in browser.get_log("browser") if one["source"] != "network"] == []


def shown(browser: Any, scene: Scene, query: str) -> None:
    browser.get(scene.server.url + query)
    until(lambda: rows(browser) and text(browser, "#state") == "live")


def rows(browser: Any) -> int:
    return browser.execute_script("return document.querySelectorAll('#vms > li').length")


def text(browser: Any, css: str) -> str:
    return browser.execute_script(
        "return document.querySelector(arguments[0])?.textContent ?? ''", css
    )


def one(browser: Any, css: str) -> Any:
    return browser.find_element(By.CSS_SELECTOR, css)


def press(browser: Any, css: str) -> None:
    """Click on what is drawn yet, or will be."""
    until(lambda: browser.find_elements(By.CSS_SELECTOR, css))
    one(browser, css).click()


def only(browser: Any, words: str, count: int = 1) -> None:
    """Filter, and wait until so many are left."""
    field = one(browser, "#filter")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(words)
    until(lambda: rows(browser) == count)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
def test_two_thousand_vms(page: Any, scene: Scene, width: int, height: int, scheme: str) -> None:
    look(page, width, height, scheme)
    started = clock.monotonic()
    shown(page, scene, "?sort=name")
    assert clock.monotonic() - started < 10
    assert text(page, "#count").startswith(f"{BUSY:,} VMs, ")
    assert rows(page) == 100
    wide, back, fore = page.execute_script(
        "const style = getComputedStyle(document.body);"
        "return [document.documentElement.scrollWidth, style.backgroundColor, style.color]"
    )
    assert wide <= width
    assert (brightness(back) > brightness(fore)) == (scheme == "light")
    assert page.execute_script(FAINT) == []
    picture(page, f"serve-{width}-{scheme}")


FAINT = """
const light = (colour) => {
  const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255);
  const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  const colour = getComputedStyle(element).backgroundColor;
  return colour.startsWith("rgba(0, 0, 0, 0") ? behind(element.parentElement) : colour;
};
const faint = [];
for (const element of document.querySelectorAll("body *")) {
  const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!words || !element.checkVisibility()) continue;
  const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort();
  if ((b + 0.05) / (a + 0.05) < 4.5) faint.push(`${element.className} ${element.textContent}`);
}
return [...new Set(faint)];
"""
"""Text whose contrast is below 4.5, which WCAG 2.2 (1.4.3) asks for."""


def brightness(colour: str) -> int:
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))


def test_everything_is_named_and_reached_by_keyboard(page: Any, scene: Scene) -> None:
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = ("button", "combobox", "image", "link", "progressbar", "searchbox", "textbox")
    found = [node for node in tree if node.get("role", {}).get("value") in roles]
    assert {node["role"]["value"] for node in found} >= {"button", "combobox", "progressbar"}
    assert [node for node in found if not node["name"]["value"]] == []
    type_in = ActionChains(page).send_keys
    reached = []
    for _ in range(5):
        type_in(Keys.TAB).perform()
        reached.append(page.execute_script("return document.activeElement.id || 'skip'"))
    assert reached == ["skip", "person", "filter", "only", "sort"]
    outline = page.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    one(page, "#more").send_keys(Keys.ENTER)
    until(lambda: rows(page) == 200)
    assert page.execute_script(
        "return document.activeElement === document.querySelectorAll('#vms > li')[100]"
    )


def test_filter_show_and_sort_are_kept_in_the_address(page: Any, scene: Scene) -> None:
    only(page, "VM-0777")
    assert text(page, "#count").startswith(f"1 VM of {BUSY:,}")
    one(page, "#only").send_keys("without a living owner")
    until(lambda: not rows(page))
    assert text(page, "#none") == "No VM is as you asked."
    one(page, "#filter").clear()
    one(page, "#sort").send_keys("longest held first")
    until(lambda: rows(page) == 100)
    assert text(page, "#count").startswith(f"{BUSY // 20} VMs of {BUSY:,}")
    page.refresh()
    until(lambda: rows(page) == 100 and one(page, "#only").get_attribute("value") == "lost")
    assert "only=lost&sort=held" in page.current_url


def test_who_waits_for_whom_and_how_far_a_long_job_is(page: Any, scene: Scene) -> None:
    with scene.jobs.begin_async("vm-long", "backup", api="nightly") as lease:
        lease.set_phase("flush")
        lease.set_progress(30, 40, "GiB")
        with ThreadPoolExecutor(1) as pool, connect(scene.settings | {"controller": "z"}) as other:
            done = pool.submit(wait_once, other, "vm-long")
            only(page, "vm-long flush")
            until(lambda: "waits for async backup of ctl-a" in text(page, ".waiters"))
            until(lambda: "75 %, 30 of 40 GiB" in text(page, ".holders"))
            assert "phase flush" in text(page, ".holders")
            assert one(page, "progress").get_property("value") == 30
            lease.end()
            done.result(30)
    until(lambda: not rows(page))


def wait_once(client: Client, name: str) -> None:
    client.begin(name, Job.MODIFY).end()


def test_a_begin_elsewhere_is_seen_within_a_second(page: Any, scene: Scene) -> None:
    """A busy machine has three tries."""
    one(page, "#filter").send_keys("vm-elsewhere")
    until(lambda: not rows(page))
    took = []
    for number in range(3):
        begun = clock.monotonic()
        with scene.jobs.begin(f"vm-elsewhere-{number}", Job.QUERY):
            until(lambda: rows(page) == 1)
            took.append(clock.monotonic() - begun)
        if took[-1] < 1.0:
            break
        until(lambda: not rows(page))
    assert took[-1] < 1.0, took


def test_an_abort_by_somebody_with_a_token(page: Any, scene: Scene) -> None:
    with scene.jobs.begin_async("vm-abort", "migration out") as lease:
        only(page, "vm-abort")
        assert page.find_elements(By.CSS_SELECTOR, ".actions button") == []
        sign_in(page, "0" * 32)
        until(lambda: "known here" in text(page, "#problem"))
        one(page, "#cancel").click()
        sign_in(page, TOKEN)
        until(lambda: text(page, "#person") == "Sign out anna")
        press(page, "[data-key=abort]")
        picture(page, "serve-abort")
        one(page, "#reason").send_keys("the target is full", Keys.ENTER)
        asked = lease.wait_abort(30)
        assert asked
        assert asked.reason == "anna: the target is full"
        until(lambda: "anna: the target is full" in text(page, ".abort"))
        assert text(page, "#said").endswith("asked to abort: async migration out of ctl-a")
    complaints = [each["message"] for each in page.get_log("browser")]
    assert [each for each in complaints if "401" not in each] == []  # the wrong token's


def sign_in(browser: Any, token: str) -> None:
    one(browser, "#person").click()
    one(browser, "#token").send_keys(token, Keys.ENTER)


def test_a_job_is_broken_by_force(page: Any, scene: Scene) -> None:
    lease = scene.jobs.begin("vm-evict", Job.MODIFY)
    only(page, "vm-evict")
    sign_in(page, TOKEN)
    until(lambda: text(page, "#person") == "Sign out anna")
    press(page, "[data-key=evict]")
    one(page, "#yes").click()
    until(lambda: text(page, "#problem") == "Choose what is to be broken.")
    one(page, "#body input").click()
    one(page, "#yes").click()
    until(lambda: lease.lost)
    until(lambda: not rows(page))


def test_names_are_text_whatever_they_say(page: Any, scene: Scene) -> None:
    name = "<img src=x onerror=alert(1)>"
    with scene.jobs.begin(name, Job.MODIFY, api="<script>alert(2)</script>"):
        only(page, "onerror")
        assert text(page, "#vms h2") == name
        assert page.find_elements(By.CSS_SELECTOR, "#vms img, #vms script") == []
    until(lambda: not rows(page))


BLOCKED = """
const done = arguments[0], refused = {};
document.addEventListener("securitypolicyviolation", (event) => {
  refused[event.violatedDirective] = true;
  if (Object.keys(refused).length === 3) done(Object.keys(refused).sort());
});
try { document.body.innerHTML = "<b>text</b>"; } catch { }
document.head.append(Object.assign(document.createElement("link"),
  {rel: "stylesheet", href: "https://elsewhere.invalid/x.css"}));
fetch("https://elsewhere.invalid/").catch(() => null);
"""


def test_nothing_comes_from_elsewhere(browser: Any, scene: Scene) -> None:
    look(browser, 1400, 900)
    shown(browser, scene, "")
    entries = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    names = browser.execute_script(entries)
    assert len(names) >= 5
    assert [name for name in names if not name.startswith(scene.server.url)] == []
    refused = ["connect-src", "require-trusted-types-for", "style-src-elem"]
    assert browser.execute_async_script(BLOCKED) == refused
    with pytest.raises(Exception, match="TrustedScriptURL"):
        browser.execute_script("document.createElement('script').src = 'https://elsewhere.invalid'")
    browser.get_log("browser")


def test_a_store_that_is_killed(page: Any, scene: Scene) -> None:
    """The last of all: the jobs stay, and so does what was seen of them."""
    before = text(page, "#count")
    scene.redis.kill()
    until(lambda: text(page, "#state") == "store away")
    assert text(page, "#trouble").startswith("The store can’t be read since ")
    assert "What is shown is of " in text(page, "#trouble")
    assert text(page, "#count") == before
    assert scene.server.ask("/readyz").status == 503
    picture(page, "serve-away")
    scene.redis.start()
    until(lambda: text(page, "#state") == "live")
    assert not one(page, "#trouble").is_displayed()
    until(lambda: json.loads(scene.server.ask("/readyz").body)["ready"])
