"""`distjob serve` as a process on real stores: what is answered, to whom, and at what price."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distjob import Client, clock, connect
from distjob.config import load, open_backend
from distjob.serve.guarded import HEADERS
from distjob.store import Committed
from keeping import keep
from serving import TOKEN, Served, served
from until import until

pytestmark = pytest.mark.xdist_group("browser")
DISTJOB = (sys.executable, "-c", "from distjob.cli import main; main()")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SQLite: the settings."""
    path = tmp_path_factory.mktemp("store") / "jobs.db"
    return {"controller": "ctl-a", "sqlite": {"path": str(path)}}


@pytest.fixture(scope="module")
def jobs(there: Any) -> Iterator[Client]:
    with connect(there) as client:
        yield client


@pytest.fixture(scope="module")
def server(there: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(there, tmp_path_factory.mktemp("serve")) as one:
        yield one


def names(server: Served) -> list[str]:
    return [vm["vm"] for vm in server.ask("/v1/vms").json["vms"]]


def test_who_holds_and_who_waits_as_json(jobs: Client, server: Served) -> None:
    with jobs.begin_async("vm/1 \u00e9", "backup", api="nightly") as lease:
        lease.set_phase("copy")
        until(lambda: names(server) == ["vm/1 \u00e9"])
        (one,) = server.ask("/v1/vms").json["vms"]
        alone = server.ask("/v1/vms/vm%2F1%20%C3%A9").json
        assert alone == one
        (held,) = alone["holders"]
        assert (held["job"], held["token"], held["phase"]) == ("async backup", lease.token, "copy")
        assert abs(clock.wall() - held["since"]) < 60
    until(lambda: names(server) == [])
    assert server.ask("/v1/vms/vm-2").json["holders"] == []
    assert server.ask(f"/v1/vms/{'x' * 256}").status == 400


def test_a_stream_tells_of_each_change(jobs: Client, server: Served) -> None:
    with server.events() as told:
        assert next(told)["whole"]
        with jobs.begin("vm-told", "modify"):
            assert next(one for one in told if one["vms"])["vms"][0]["vm"] == "vm-told"
        assert next(one for one in told if one["gone"])["gone"] == ["vm-told"]


def test_every_answer_is_guarded(server: Served) -> None:
    for path in ("/", "/page.js", "/v1/vms", "/nowhere", "/v1/me"):
        headers = server.ask(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS
    assert "'unsafe" not in HEADERS["content-security-policy"]
    page = server.ask("/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert server.ask("/", If_None_Match=page.headers["etag"]).status == 304


def test_another_sites_name_is_not_answered(server: Served) -> None:
    assert server.ask("/v1/vms", Host="rebound.example").status == 421
    assert server.ask("/v1/vms", Host=f"localhost:{server.port}").status == 200
    assert server.ask("/v1/vms", Host="[::1]:1").status == 200


def test_names_of_its_own_are_answered(there: Any, tmp_path: Path) -> None:
    with served(there, tmp_path, "--allow-host", "Jobs.example", tokens=False) as server:
        assert server.ask("/healthz", Host="jobs.example").status == 200
        assert server.ask("/healthz", Host="other.example").status == 421


@pytest.mark.parametrize("token", ["", "0" * 32, TOKEN[:-1]])
def test_nothing_is_written_without_a_token(jobs: Client, server: Served, token: str) -> None:
    with jobs.begin_async("vm", "backup") as lease:
        (held,) = jobs.status("vm").holders
        for what, more in (("abort", {}), ("discard", {}), ("evict", {"tickets": [held.ticket]})):
            got = server.ask(f"/v1/{what}", {"vm": "vm", **more}, token=token)
            assert (got.status, got.headers["www-authenticate"]) == (401, 'Bearer realm="distjob"')
        lease.check()
        assert lease.abort_requested is None


def test_a_server_without_tokens_only_shows(there: Any, tmp_path: Path) -> None:
    with served(there, tmp_path, tokens=False) as server:
        got = server.ask("/v1/abort", {"vm": "vm"}, token=TOKEN)
        assert (got.status, "without --tokens" in got.json["error"]) == (403, True)


def test_an_abort_tells_the_owner_who_asked(jobs: Client, server: Served) -> None:
    with jobs.begin_async("vm", "backup") as lease:
        got = server.ask("/v1/abort", {"vm": "vm", "reason": "disk is full"}, token=TOKEN)
        assert (got.status, got.json["by"]) == (200, "anna")
        asked = lease.wait_abort(30)
        assert asked
        assert asked.reason == "anna: disk is full"
    assert "abort on VM 'vm' by anna: async backup of ctl-a" in server.log.read_text()
    got = server.ask("/v1/abort", {"vm": "vm"}, token=TOKEN)
    assert (got.status, "no async job runs" in got.json["error"]) == (409, True)


def test_evict_and_discard(jobs: Client, server: Served) -> None:
    lease = jobs.begin("vm", "modify")
    ticket = jobs.status("vm").holders[0].ticket
    got = server.ask("/v1/evict", {"vm": "vm", "tickets": [ticket]}, token=TOKEN)
    assert [job["ticket"] for job in got.json["jobs"]] == [ticket]
    until(lambda: lease.lost)
    long = jobs.begin_async("vm", "backup", on_owner_loss="orphan")
    assert server.ask("/v1/discard", {"vm": "vm"}, token=TOKEN).status == 409
    long.detach()
    assert server.ask("/v1/discard", {"vm": "vm"}, token=TOKEN).status == 200
    assert jobs.status("vm").idle


def test_requests_that_can_not_be(server: Served) -> None:
    def status(body: object, **headers: str) -> int:
        return server.ask("/v1/evict", body, token=TOKEN, **headers).status

    assert status({"vm": "vm"}) == 400
    assert status({"vm": "vm", "tickets": [], "more": 1}) == 400
    assert status({"vm": "", "tickets": ["t"]}) == 400
    assert status({"vm": "v" * 70_000, "tickets": []}) == 413
    assert status({"vm": "vm", "tickets": []}, Content_Type="text/plain") == 415
    assert server.ask("/v1/evict", token=TOKEN).status == 405


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_though_browsers_watch(there: Any, tmp_path: Path, number: int) -> None:
    with served(there, tmp_path) as server, server.events() as told:
        next(told)
        server.process.send_signal(number)
        assert server.process.wait(20) == 0
        assert list(told) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_though_nothing_was_read_yet(tmp_path: Path, number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with served({"backend": "redis", "redis": {"url": url}}, tmp_path) as server:
            server.process.send_signal(number)
            assert server.process.wait(20) == 0


def test_what_keeps_it_from_starting(tmp_path: Path) -> None:
    def said(*options: str) -> tuple[int, str]:
        done = subprocess.run(
            [*DISTJOB, "serve", *options], check=False, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, text = said("--port", port)
        assert (code, f"127.0.0.1 port {port}: in use already" in text) == (71, True)
    code, text = said("--host", "nowhere.invalid")
    assert (code, "no such host" in text) == (71, True)
    code, text = said("--host", "192.0.2.1", "--port", "0")
    assert (code, "no address of this host" in text) == (71, True)
    code, text = said("--tokens", str(tmp_path / "none"))
    assert (code, "tokens can't be read" in text) == (78, True)
    assert "Traceback" not in text
    without = "import sys; sys.modules['starlette'] = None; from distjob.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", without, "serve"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, 'pip install "distjob-vm[web]"' in done.stderr) == (1, True)


def metrics(server: Served) -> dict[str, float]:
    text = server.ask("/metrics").body.decode()
    return {
        sample.name.removeprefix("distjob_serve_"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_many_browsers_cost_the_store_what_one_does(
    redis_server: Any, fresh_namespace: str, tmp_path: Path
) -> None:
    settings = {"namespace": fresh_namespace, "redis": {"url": redis_server.url}}
    settings |= {"backend": "redis", "session": {"ttl": 600}}

    def told(section: str, name: str) -> int:
        lines = redis_server.ask("INFO", section).splitlines()
        return int(next(line for line in lines if line.startswith(f"{name}:")).partition(":")[2])

    def price(looks: int = 8) -> tuple[float, int]:
        """Commands for each look, and connections."""
        first, sent = metrics(server)["looks_total"], told("stats", "total_commands_processed")
        until(lambda: metrics(server)["looks_total"] >= first + looks)
        sent = told("stats", "total_commands_processed") - sent
        each = sent / (metrics(server)["looks_total"] - first)
        return each, told("clients", "connected_clients")

    with connect(settings) as jobs, served(settings, tmp_path, "--every", "0.1") as server:
        for number in range(20):
            keep(jobs.begin(f"vm-{number}", "modify"))
        with ExitStack() as stack:
            streams = [stack.enter_context(server.events())]
            assert len(next(streams[0])["vms"]) == 20
            one, links = price()
            streams += [stack.enter_context(server.events()) for _ in range(30)]
            assert [len(next(told)["vms"]) for told in streams[1:]] == [20] * 30
            assert metrics(server)["streams"] == 31
            many, same = price()
            assert many < one + 2  # the renewals, and what asks here
            assert same <= links
            with jobs.begin("vm-new", "modify"):
                for told_one in streams:
                    assert any(
                        vm["vm"] == "vm-new" for told in [next(told_one)] for vm in told["vms"]
                    )
        until(lambda: metrics(server)["streams"] == 0)


@pytest.mark.parametrize(("away", "back"), [("kill", "start"), ("pause", "resume")])
def test_a_store_that_is_away_and_comes_back(
    redis_server: Any, fresh_namespace: str, tmp_path: Path, away: str, back: str
) -> None:
    settings = {"namespace": fresh_namespace, "redis": {"url": redis_server.url, "timeout": 1.0}}
    settings |= {"backend": "redis", "session": {"ttl": 60}}
    with connect(settings) as jobs, served(settings, tmp_path) as server:
        keep(jobs.begin("vm", "modify"))
        until(lambda: server.ask("/readyz").status == 200)
        with server.events() as told:
            assert next(told)["store"]["up"]
            getattr(redis_server, away)()
            seen = next(one for one in told if not one["store"]["up"])
            assert seen["store"]["trouble"]
            ready = server.ask("/readyz")
            assert (ready.status, ready.json["ready"]) == (503, False)
            assert ready.json["store"]["trouble"]
            assert server.ask("/healthz").status == 200
            assert metrics(server)["store_up"] == 0
            assert server.ask("/v1/vms").status == 503
            assert "the store can't be read" in server.log.read_text()
            getattr(redis_server, back)()
            assert next(one for one in told if one["store"]["up"])["gone"] == []
        assert server.ask("/readyz").status == 200
        assert names(server) == ["vm"]


def test_a_record_that_can_not_be_read(tmp_path: Path) -> None:
    settings = {"sqlite": {"path": str(tmp_path / "jobs.db")}}
    store = open_backend(load(settings))
    session = store.open_session(60, "a test")
    with served(settings, tmp_path) as server:
        until(lambda: server.ask("/readyz").status == 200)
        done = store.commit("vm-broken", 0, b"junk", session, ())
        assert isinstance(done, Committed)
        until(lambda: server.ask("/v1/vms").status == 503)
        assert "vm-broken" in server.ask("/readyz").json["store"]["trouble"]
        store.commit("vm-broken", done.version, None, session, ())
        until(lambda: server.ask("/v1/vms").status == 200)
    store.close()


def test_it_starts_before_its_store(
    redis_server: Any, fresh_namespace: str, tmp_path: Path
) -> None:
    settings = {"namespace": fresh_namespace, "redis": {"url": redis_server.url, "timeout": 1.0}}
    redis_server.kill()
    with served({"backend": "redis", **settings}, tmp_path) as server:
        until(lambda: server.ask("/readyz").json["store"]["trouble"])
        assert server.ask("/v1/abort", {"vm": "vm"}, token=TOKEN).status == 503
        redis_server.start()
        until(lambda: server.ask("/readyz").status == 200)
