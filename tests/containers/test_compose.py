"""docker-compose.yml, as Compose reads it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.platform.settings import Settings
from tests.containers.compose import (
    COMPOSE_FILE,
    ENV_EXAMPLE,
    ONE_SHOT,
    PROFILES,
    ROOT,
    configuration,
    environment_of,
    stages,
)
from tests.deploy.command_line import parse
from tests.documentation.samples import text_of

if sys.platform != "linux":
    pytest.skip("Compose is installed for Linux only", allow_module_level=True)

EVERYTHING = configuration(*PROFILES)
SERVICES: dict[str, dict[str, Any]] = EVERYTHING["services"]
LONG_LIVED = sorted(set(SERVICES) - set(ONE_SHOT))
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
every_service = pytest.mark.parametrize("name", sorted(SERVICES))
every_long_lived = pytest.mark.parametrize("name", LONG_LIVED)


@pytest.mark.parametrize(
    ("profiles", "more"),
    [((), set()), (("gpu",), {"worker-gpu"}), (("monitoring",), {"prometheus", "grafana"})],
)
def test_profiles(profiles: tuple[str, ...], more: set[str]) -> None:
    always = {"migrate", "bucket", "api", "worker-cpu", "postgres", "redis", "s3"}
    assert set(configuration(*profiles)["services"]) == always | more


def test_without_an_env_file_everything_is_as_the_example_says(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert configuration(*PROFILES, env_file=empty) == EVERYTHING


def test_a_port_that_is_changed_is_in_the_addresses_that_clients_get(tmp_path: Path) -> None:
    """Without a second place to change."""
    changed = tmp_path / "changed"
    changed.write_text(
        ENV_EXAMPLE.read_text()
        .replace("API_PORT=8000", "API_PORT=9001")
        .replace("S3_PORT=8333", "S3_PORT=9002")
    )
    environment = configuration(env_file=changed)["services"]["api"]["environment"]
    assert environment["REGEN_PUBLIC_URL"] == "http://127.0.0.1:9001"
    assert environment["REGEN_S3_PUBLIC_ENDPOINT_URL"] == "http://127.0.0.1:9002"


def test_the_services_of_the_mocks_page(tmp_path: Path) -> None:
    """docs/mock.md: Compose reads them, and `regen` the command."""
    file = tmp_path / "docker-compose.yml"
    file.write_text(text_of("docs/mock.md", "services:"))
    (service,) = configuration(file=file)["services"].values()
    assert service["image"] in {SERVICES[name]["image"] for name in OURS}
    (port,) = service["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8000", 8000)
    program, *arguments = service["command"]
    assert program == "regen"
    parse(arguments)


def test_env_example_names_what_the_file_reads_and_nothing_else() -> None:
    read = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE_FILE.read_text()))
    documented = re.findall(r"^(\w+)=", ENV_EXAMPLE.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(read)


@every_service
def test_images_are_pinned(name: str) -> None:
    service = SERVICES[name]
    if name in OURS:
        assert service["image"].startswith("regen-server:")
        assert service["build"].get("target", "gpu") in stages(service["build"]["dockerfile"])
    else:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-\w+)?(@sha256:\w{64})?", service["image"]), (
            service["image"]
        )


@every_long_lived
def test_long_lived_services_are_watched_and_started_again(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["healthcheck"]["interval"] and service["healthcheck"]["timeout"]
    assert service["stop_grace_period"]


@every_long_lived
def test_health_checks_survive_podman(name: str) -> None:
    """Its service for Docker's clients joins the words of a CMD and splits them at spaces (seen with 4.3.1)."""
    kind, *words = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD-SHELL" or not [word for word in words if len(word.split()) != 1]


@pytest.mark.parametrize("name", ONE_SHOT)
def test_one_shot_services_run_once_and_the_others_wait_for_them(name: str) -> None:
    assert SERVICES[name]["restart"] == "no"
    for other in ("api", "worker-cpu", "worker-gpu"):
        assert SERVICES[other]["depends_on"][name]["condition"] == "service_completed_successfully"


@every_service
def test_services_have_few_rights(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9]\d*:\d+", service["user"]), "not root"
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    # Compose copies inline configs into the container, which it cannot when that is read-only.
    assert service.get("read_only", False) is ("configs" not in service)
    assert not service.get("privileged")
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


def test_ours_run_as_the_user_of_the_images() -> None:
    for name in OURS:
        build = SERVICES[name]["build"]
        (user,) = stages(build["dockerfile"])[build.get("target", "gpu")].all("USER")
        assert SERVICES[name]["user"] == user


def test_only_the_api_the_store_and_the_dashboard_are_published_and_on_loopback() -> None:
    published = {
        (name, port["host_ip"], port["target"])
        for name, service in SERVICES.items()
        for port in service.get("ports", ())
    }
    assert published == {
        ("api", "127.0.0.1", 8000),
        ("s3", "127.0.0.1", 8333),
        ("grafana", "127.0.0.1", 3000),
    }
    assert EVERYTHING["networks"]["backend"]["internal"] is True
    for name, service in SERVICES.items():
        assert "backend" in service["networks"]
        assert ("edge" in service["networks"]) is ("ports" in service), name


@every_service
def test_volumes_that_hold_data_have_names(name: str) -> None:
    """Ours keep nothing: what they have is a volume that goes with the container."""
    mounts = [mount for mount in SERVICES[name].get("volumes", ()) if mount["type"] == "volume"]
    if name in OURS:
        assert [(mount["target"], mount.get("source")) for mount in mounts] == [("/data", None)]
    else:
        assert all(mount["source"] in EVERYTHING["volumes"] for mount in mounts)


def test_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            assert mount["type"] != "bind" or Path(mount["source"]).is_file(), mount


def test_secrets_are_files_that_git_does_not_take() -> None:
    for name, secret in EVERYTHING["secrets"].items():
        path = Path(secret["file"])
        assert path == ROOT / "secrets" / name
        ignored = subprocess.run(["git", "check-ignore", "-q", str(path)], cwd=ROOT, check=False)
        assert ignored.returncode == 0, path


@every_service
def test_services_get_the_secrets_that_they_need_and_no_secret_by_environment(name: str) -> None:
    needed = {
        "migrate": {"regen_database_password"},
        "bucket": {"regen_s3_access_key", "regen_s3_secret_key"},
        "postgres": {"regen_database_password"},
        "redis": {"regen_broker_password", "redis.conf"},
        "s3": {"s3.json"},
        "prometheus": {"regen_metrics_token"},
        "grafana": {"grafana_admin_password"},
    }
    of_workers = {
        "regen_database_password",
        "regen_broker_password",
        "regen_s3_access_key",
        "regen_s3_secret_key",
    }
    needed["worker-cpu"] = needed["worker-gpu"] = of_workers
    needed["api"] = of_workers | {"regen_secret_key", "regen_metrics_token"}
    assert {secret["source"] for secret in SERVICES[name]["secrets"]} == needed[name]
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY", variable):
            assert variable.endswith("_FILE") and value.startswith("/run/secrets/")
        assert not re.search(r"://[^/@]*:[^/@]*@", value or ""), f"{variable} has a password in its URL"


def test_every_regen_variable_is_a_setting() -> None:
    """In what containers get, from the compose file and from their images."""
    known = {f"REGEN_{name.upper()}" for name in Settings.model_fields}
    named = set(re.findall(r"REGEN_[A-Z0-9_]+", COMPOSE_FILE.read_text() + ENV_EXAMPLE.read_text()))
    for dockerfile, target in (("Dockerfile", "api"), ("Dockerfile", "worker"), ("Dockerfile.gpu", "gpu")):
        named |= {name for name in environment_of(dockerfile, target) if name.startswith("REGEN_")}
    assert named <= known, named - known
    secrets = {name.upper() for name in EVERYTHING["secrets"] if name.startswith("regen_")}
    assert secrets <= known, secrets - known


def test_settings_take_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OURS:
        build = SERVICES[name]["build"]
        image = environment_of(build["dockerfile"], build.get("target", "gpu"))
        with monkeypatch.context() as patch:
            for variable, value in (image | SERVICES[name]["environment"]).items():
                patch.setenv(variable, value)
            settings = Settings()
        assert settings.storage == "s3" and settings.log_format == "json"
        assert settings.root == Path("/data")


def test_gpus_are_reserved() -> None:
    (devices,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices["driver"] == "nvidia" and devices["count"] == -1
    assert set(devices["capabilities"]) == {"gpu", "compute", "utility"}


def test_prometheus_reads_what_the_services_serve() -> None:
    content = EVERYTHING["configs"]["prometheus.yml"]["content"]
    assert "{names: [api], type: A, port: 8000}" in content
    assert "{names: [worker-cpu], type: A, port: 9100}" in content
    assert "/run/secrets/regen_metrics_token" in content
    example = (ROOT / "docs/observability/prometheus.yml").read_text()  # whose names the alerts go by
    assert re.findall(r"job_name: (\S+)", content) == re.findall(r"job_name: (\S+)", example)
    for name in ("worker-cpu", "worker-gpu"):
        command = SERVICES[name]["command"]
        assert command[command.index("--metrics-port") + 1] == "9100"
        assert SERVICES[name]["environment"]["REGEN_WORKER_METRICS_HOST"] == "0.0.0.0"
