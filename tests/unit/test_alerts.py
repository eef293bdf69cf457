"""Each alert fires when it should, and not beside that."""

from pathlib import Path

import pytest

from tests.servers.promtool import RULES, run_tests

UNITS = 'regen_work_units_total{kind="upscale",outcome="%s",instance="w"}'
WORK_GOES_ON = {UNITS % "done": "0+60x60", UNITS % "failed": "0x60"}

# What makes an alert fire, and what nearly does: series by name, over an hour of minutes.
CASES = {
    "RegenApiDown": (
        {'up{job="regen-api",instance="a"}': "0x60"},
        {'up{job="regen-api",instance="a"}': "1x60"},
    ),
    "RegenWorkerDown": (
        {'up{job="regen-worker",instance="w"}': "0x60"},
        {'up{job="regen-worker"}': "1x60"},
    ),
    "RegenWorkerQuarantined": (
        {'regen_workers{status="quarantined"}': "1x60"},
        {'regen_workers{status="quarantined"}': "0x60", 'regen_workers{status="drained"}': "1x60"},
    ),
    "RegenSpoolFull": ({"regen_spool_free_bytes": "1000x60"}, {"regen_spool_free_bytes": "9e9x60"}),
    "RegenWorkDiskFull": (
        {"regen_work_disk_free_bytes": "1e9x60", "regen_work_disk_size_bytes": "100e9x60"},
        {"regen_work_disk_free_bytes": "9e9x60", "regen_work_disk_size_bytes": "100e9x60"},
    ),
    "RegenWebhooksLate": (
        {"regen_webhooks_overdue_seconds": "0+60x60"},
        # Receivers that are away: what waits for its next attempt is not late.
        {"regen_webhooks_overdue_seconds": "2x60", "regen_webhooks_waiting": "5000x60"},
    ),
    "RegenWebhooksFail": (
        {
            "regen_webhooks_waiting": "0+10x60",
            'regen_webhook_attempts_total{outcome="failed"}': "0+10x60",
            'regen_webhook_attempts_total{outcome="delivered"}': "0+1x60",
        },
        {
            "regen_webhooks_waiting": "5x60",
            'regen_webhook_attempts_total{outcome="failed"}': "0+10x60",
            'regen_webhook_attempts_total{outcome="delivered"}': "0+1x60",
        },
    ),
    "RegenDestinationsLate": (
        {"regen_destinations_overdue_seconds": "0+60x60"},
        # As long as a few large results take.
        {"regen_destinations_overdue_seconds": "0+20x60", "regen_destinations_waiting": "5000x60"},
    ),
    "RegenDestinationsFail": (
        {
            "regen_destinations_waiting": "0+10x60",
            'regen_destination_attempts_total{outcome="failed"}': "0+10x60",
            'regen_destination_attempts_total{outcome="delivered"}': "0+1x60",
        },
        {
            "regen_destinations_waiting": "0+10x60",
            'regen_destination_attempts_total{outcome="failed"}': "0+1x60",
            'regen_destination_attempts_total{outcome="delivered"}': "0+10x60",
        },
    ),
    "RegenWorkFails": (
        {**WORK_GOES_ON, UNITS % "failed": "0+60x60"},
        {**WORK_GOES_ON, UNITS % "failed": "0+5x60"},
    ),
    "RegenWorkersLost": (
        {**WORK_GOES_ON, 'regen_leases_expired_total{kind="upscale"}': "0+6x60"},
        # As many as an absolute threshold of three would fire at, in a large cluster.
        {**WORK_GOES_ON, 'regen_leases_expired_total{kind="upscale"}': "0+1x60"},
    ),
    "RegenLeasesLost": (
        {**WORK_GOES_ON, 'regen_lease_losses_total{kind="upscale"}': "0+6x60"},
        {**WORK_GOES_ON, 'regen_lease_losses_total{kind="upscale"}': "0+1x60"},
    ),
    "RegenHeartbeatsFail": (
        {"regen_heartbeat_failures_total": "0+30x60", 'regen_worker_busy{instance="w"}': "1x60"},
        {"regen_heartbeat_failures_total": "0+1x60", 'regen_worker_busy{instance="w"}': "1x60"},
    ),
    "RegenSweepsFail": ({"regen_sweep_failures_total": "0+6x60"}, {"regen_sweep_failures_total": "0x60"}),
    "RegenFfmpegFails": (
        {**WORK_GOES_ON, 'regen_ffmpeg_failures_total{program="ffmpeg",reason="status"}': "0+9x60"},
        {**WORK_GOES_ON, 'regen_ffmpeg_failures_total{program="ffmpeg",reason="status"}': "0+1x60"},
    ),
    "RegenQueueOld": (
        {'regen_work_oldest_waiting_seconds{queue="gpu"}': "0+60x60"},
        {'regen_work_oldest_waiting_seconds{queue="gpu"}': "60x60"},
    ),
}


@pytest.mark.slow
def test_every_alert_fires_when_it_should_and_not_beside_that(tmp_path: Path) -> None:
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                    "eval_time": "60m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }
            ],
        }
        for alert, cases in CASES.items()
        for fires, series in zip((True, False), cases, strict=True)
    ]
    run_tests(tmp_path, tests)


@pytest.mark.parametrize("alert", CASES)
def test_the_alerts_of_the_cases_exist(alert: str) -> None:
    assert f"- alert: {alert}\n" in RULES.read_text()
