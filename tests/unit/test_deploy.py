"""What deploy/ holds, taken as its readers do: schema, manifests, units, image."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from distjob.cli.serve import serve
from distjob.config import json_schema, load
from servers.plan import lacking

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
SYSTEMD = DEPLOY / "systemd"
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "distjob-serve.yaml").read_text()))
PORT = next(option.default for option in serve.params if option.name == "port")


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one["kind"])
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_manifests_are_kubernetes_own(manifest: Any, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


def test_manifests_fit_together(tmp_path: Path) -> None:
    config, deployment, service, policy = MANIFESTS
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for chosen in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        policy["spec"]["podSelector"]["matchLabels"],
    ):
        assert chosen.items() <= labels.items()
    assert container["ports"] == [{"name": "http", "containerPort": PORT}]
    assert service["spec"]["ports"][0]["port"] == PORT
    assert policy["spec"]["ingress"][0]["ports"] == [{"port": "http"}]
    file = tmp_path / "distjob.yaml"
    file.write_text(config["data"]["distjob.yaml"])
    assert load(file).backend == "redis"
    assert serve.make_context("serve", container["args"][1:])


@pytest.mark.parametrize("name", ["distjob-serve", "controller"])
def test_the_units_are_systemds(name: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze") or lacking("no systemd-analyze")
    text = (SYSTEMD / f"{name}.service").read_text()
    unit = tmp_path / f"{name}.service"
    unit.write_text(re.sub(r"/usr/bin/\w+", "/bin/true", text))
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", str(unit)],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_of_serve_says_what_the_command_takes() -> None:
    text = (SYSTEMD / "distjob-serve.service").read_text()
    command = re.search(r"^ExecStart=/usr/bin/distjob serve (.*)$", text, re.MULTILINE)
    assert command
    assert serve.make_context("serve", command[1].split())


def test_user_and_folders_are_systemds(tmp_path: Path) -> None:
    sysusers = shutil.which("systemd-sysusers") or lacking("no systemd-sysusers")
    tmpfiles = shutil.which("systemd-tmpfiles") or lacking("no systemd-tmpfiles")
    (tmp_path / "etc").mkdir()
    root = f"--root={tmp_path}"
    files = [SYSTEMD / f"distjob.{kind}.conf" for kind in ("sysusers", "tmpfiles")]
    for command in ((sysusers, root, files[0]), (tmpfiles, root, "--create", files[1])):
        done = subprocess.run(
            [str(word) for word in command], check=False, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    assert "distjob:" in (tmp_path / "etc" / "passwd").read_text()
    for folder in ("etc/distjob", "var/lib/distjob"):
        assert (tmp_path / folder).stat().st_mode & 0o7777 == 0o750


def test_the_alerts_are_prometheus_and_say_what_they_should() -> None:
    promtool = shutil.which("promtool") or pytest.skip("no promtool")
    for words in (("check", "rules", "alerts.yaml"), ("test", "rules", "alerts.test.yaml")):
        done = subprocess.run(
            [promtool, *words], cwd=DEPLOY / "prometheus",
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_says_what_the_command_takes() -> None:
    text = (DEPLOY / "serve" / "Dockerfile").read_text()
    assert f"EXPOSE {PORT}\n" in text
    variables = {option.envvar for option in serve.params}
    assert set(re.findall(r"(DISTJOB_\w+)=", text)) <= variables


def test_editors_find_the_schema_of_each_settings_file() -> None:
    """Made anew by ``distjob config schema > deploy/distjob.schema.json``."""
    schema = json.loads((DEPLOY / "distjob.schema.json").read_text())
    assert schema == json.loads(json.dumps(json_schema()))
    silent = [name for name, about in schema["properties"].items() if "description" not in about]
    assert silent == []
    files = sorted(DEPLOY.glob("*/*distjob.yaml"))
    assert len(files) > 6
    for file in files:
        first = file.read_text().partition("\n")[0]
        named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
        assert named, file
        assert (file.parent / named[1]).samefile(DEPLOY / "distjob.schema.json")
        jsonschema.validate(yaml.safe_load(file.read_text()), schema)
