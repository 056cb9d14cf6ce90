"""The files of `deploy/`: checks that need no cluster and no container engine."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.instance import InstanceRef

from assets.instance import DEFAULT_CONFIG
from assets.settings import ENV_PREFIX, Settings
from helpers.paths import ROOT

DEPLOY = ROOT / "deploy"
INSTALLED = "/opt/calibration/.venv/bin"


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    """Return the schema of an object with these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT, WHOLE, FLAG = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}, {"type": "boolean"}
IMAGE = closed(
    {"repository": TEXT, "tag": TEXT, "pullPolicy": {"enum": ["Always", "IfNotPresent"]}}, "repository"
)
AMOUNTS = closed({"cpu": TEXT, "memory": TEXT})
RESOURCES = closed({"requests": AMOUNTS, "limits": AMOUNTS})
DAYS = {"anyOf": [WHOLE, closed(dict.fromkeys(("skipped", "success", "failure", "started"), WHOLE),
        "skipped", "success", "failure", "started")]}  # fmt: skip
MONITORING = (
    "startTimeoutSeconds",
    "cancelTimeoutSeconds",
    "maxRuntimeSeconds",
    "pollIntervalSeconds",
    "freeSlotsAfterRunEndSeconds",
)
# The parts of the chart's values.schema.json (as in its schema/charts) that the file uses.
CHART = closed(
    {
        "global": closed({"postgresqlSecretName": TEXT}),
        "dagster-user-deployments": closed(
            {
                "enabled": FLAG,
                "deployments": {
                    "type": "array",
                    "items": closed(
                        {
                            "name": TEXT,
                            "image": IMAGE,
                            "dagsterApiGrpcArgs": {"type": "array", "items": TEXT},
                            "port": WHOLE,
                            "includeConfigInLaunchedRuns": closed({"enabled": FLAG}, "enabled"),
                            "env": {
                                "type": "array",
                                "items": closed({"name": TEXT, "value": TEXT}, "name"),
                            },
                            "envSecrets": {"type": "array", "items": closed({"name": TEXT}, "name")},
                            "resources": RESOURCES,
                        },
                        "name",
                        "image",
                        "port",
                    ),
                },
            }
        ),
        "runLauncher": closed(
            {
                "type": {"enum": ["K8sRunLauncher"]},
                "config": closed(
                    {
                        "k8sRunLauncher": closed(
                            {"runK8sConfig": closed({"containerConfig": closed({"resources": RESOURCES})})}
                        )
                    }
                ),
            },
            "type",
        ),
        "postgresql": closed(
            {
                "enabled": FLAG,
                "postgresqlHost": TEXT,
                "postgresqlUsername": TEXT,
                "postgresqlDatabase": TEXT,
                "postgresqlScheme": {"const": "postgresql+psycopg2"},
                "service": closed({"port": WHOLE}),
            }
        ),
        "generatePostgresqlPasswordSecret": {"const": False},
        "dagsterWebserver": closed({"service": closed({"type": {"const": "ClusterIP"}, "port": WHOLE})}),
        # The chart's schema takes any keys of these two; its template for dagster.yaml reads these.
        "dagsterDaemon": closed(
            {
                "enabled": {"const": True},
                "runMonitoring": closed({"enabled": FLAG, **dict.fromkeys(MONITORING, WHOLE)}, *MONITORING),
                "runRetries": closed(
                    {"enabled": FLAG, "maxRetries": WHOLE, "retryOnAssetOrOpFailure": FLAG}, "enabled"
                ),
            }
        ),
        "concurrency": closed({"enabled": {"const": True}, "runs": closed({"maxConcurrentRuns": WHOLE})}),
        "retention": closed(
            {
                "enabled": FLAG,
                "schedule": closed({"purgeAfterDays": DAYS}),
                "sensor": closed({"purgeAfterDays": DAYS}),
            },
            "enabled",
        ),
        "telemetry": closed({"enabled": {"const": False}}),
        "ingress": closed({"enabled": {"const": False}}),
    }
)


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def test_the_charts_values_have_its_form() -> None:
    values = read("kubernetes/values.yaml")
    jsonschema.validate(values, CHART)
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    settings = {entry["name"].removeprefix(ENV_PREFIX).lower(): entry["value"] for entry in deployment["env"]}
    assert set(settings) <= set(Settings.model_fields)
    assert Settings(**settings).store_path.protocol == "s3"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "runLaunchers": {}}, CHART)


def test_compose_opens_the_ui_on_loopback_alone_and_holds_no_password() -> None:
    compose = read("compose.yaml")
    services = compose["services"]
    assert set(services) == {"database", "code", "webserver", "daemon"}
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"webserver": ["127.0.0.1:3000:3000"]}
    for service in services.values():
        assert service["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).is_file(), source
    (server,) = read("workspace.yaml")["load_from"]
    assert server["grpc_server"]["host"] in services
    assert str(server["grpc_server"]["port"]) in (DEPLOY / "Dockerfile").read_text()


def read_instance(config: Path, folder: Path) -> InstanceRef:
    """Read an instance's configuration as Dagster does, which refuses keys that it does not know."""
    shutil.copy(config, folder / "dagster.yaml")
    return InstanceRef.from_dir(str(folder))


def test_composes_instance_is_one_that_dagster_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "not a secret")
    ref = read_instance(DEPLOY / "dagster.yaml", tmp_path)
    assert ref.storage_data is not None
    assert ref.storage_data.class_name == "DagsterPostgresStorage"
    assert "not a secret" not in str(ref)
    assert ref.settings["telemetry"] == {"enabled": False}


SHARED = {
    "concurrency": {"runs": {"max_concurrent_runs": 2}},
    "run_monitoring": {
        "enabled": True,
        "start_timeout_seconds": 300,
        "cancel_timeout_seconds": 180,
        "max_runtime_seconds": 14_400,
        "poll_interval_seconds": 60,
        "free_slots_after_run_end_seconds": 60,
    },
    "run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False},
}
"""Queue, monitoring and retries of runs in every configuration: a killed run leaves the queue."""


@pytest.mark.parametrize("config", [DEFAULT_CONFIG, DEPLOY / "dagster.yaml"], ids=["default", "compose"])
def test_queue_monitoring_and_retries_are_those_of_every_configuration(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "not a secret")
    settings = read_instance(config, tmp_path).settings
    assert {name: settings[name] for name in SHARED} == SHARED


def test_instance_runs_queue_monitoring_and_retries_as_configured(tmp_path: Path) -> None:
    """The default configuration, and the same keys as the chart writes them into dagster.yaml."""
    read_instance(DEFAULT_CONFIG, tmp_path)
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 2
        assert instance.get_concurrency_config().pool_config.default_pool_limit is None
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_start_timeout_seconds == 300
        assert instance.run_monitoring_max_runtime_seconds == 14_400
        assert instance.run_retries_enabled
        assert instance.get_settings("run_retries")["max_retries"] == 2


def test_the_charts_values_have_the_same_queue_monitoring_and_retries() -> None:
    values = read("kubernetes/values.yaml")
    daemon = values["dagsterDaemon"]
    runs = {snake_case(key): value for key, value in values["concurrency"]["runs"].items()}
    assert {
        "concurrency": {"runs": runs},
        "run_monitoring": {snake_case(key): value for key, value in daemon["runMonitoring"].items()},
        "run_retries": {snake_case(key): value for key, value in daemon["runRetries"].items()},
    } == SHARED


def snake_case(key: str) -> str:
    """Return the key of dagster.yaml that the chart writes for a key of its values."""
    return re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", key)


def test_the_image_copies_existing_paths() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    assert [name for names in copied for name in names if not (DEPLOY.parent / name).exists()] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    units = []
    for unit in (DEPLOY / "systemd").glob("*.service"):
        text = unit.read_text()
        for name in ("dagster-webserver", "dagster-daemon"):
            text = text.replace(f"{INSTALLED}/{name}", "/bin/true")
        units.append(tmp_path / unit.name)
        units[-1].write_text(text)
    assert len(units) == 2
    done = subprocess.run(
        ["systemd-analyze", "verify", *units],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_units_settings_are_settings() -> None:
    lines = (DEPLOY / "systemd" / "calibration.env").read_text().splitlines()
    named = [line.partition("=")[0] for line in lines if line.startswith(ENV_PREFIX)]
    assert {name.removeprefix(ENV_PREFIX).lower() for name in named} <= set(Settings.model_fields)
    assert "127.0.0.1" in (DEPLOY / "systemd" / "calibration-webserver.service").read_text()
