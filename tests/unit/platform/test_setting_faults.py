"""What is told of settings that cannot be used."""

import pytest
from pydantic import ValidationError

from app.platform.setting_faults import sentences, unknown_settings
from app.platform.settings import Settings

LISTED = "must list networks such as 10.1.0.0/16 or fd00::/8, without bits beyond the prefix"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("LEASE_SECONDS", "1", "must be 2 or more, not '1'."),
        ("LEASE_SECONDS", "soon", "must be a number, not 'soon'."),
        ("LEASE_SECONDS", "nan", "must be a finite number, not 'nan'."),
        ("KEEP_FILES_DAYS", "inf", "must be a finite number, not 'inf'."),
        ("MAX_UPLOAD_BYTES", "2GB", "must be a whole number, not '2GB'."),
        ("MAX_UPLOAD_BYTES", "0", "must be more than 0, not '0'."),
        ("WORKER_METRICS_PORT", "99999", "must be 65535 or less, not '99999'."),
        ("STORAGE", "tape", "must be 'local' or 's3', not 'tape'."),
        ("QUEUES", "cpu,tpu", "must be 'cpu' or 'gpu', not 'tpu'."),
        ("ALLOW_FILE_URLS", "maybe", "must be true or false, not 'maybe'."),
        ("SEGMENT_SECONDS", "1/0", "must be a number such as 4, 0.5 or 1/3, not '1/0'."),
        ("SEGMENT_SECONDS", "-1", "must be more than 0, not '-1'."),
        ("MOCK_CLOCK", "noon", "must be a moment such as 2026-01-01T00:00:00Z, not 'noon'."),
        ("OUTBOUND_ALLOWED_NETWORKS", "10.0.0.0/8,10.1.1.1/8", f"{LISTED}, not '10.1.1.1/8'."),
        ("CORS_ORIGINS", "example.com", "must look like https://app.example.com, not 'example.com'."),
        ("S3_PREFIX", "/x", "must look like regen/ with a slash only at the end, not '/x'."),
        # What may hold a password is not repeated.
        ("PUBLIC_URL", "user:hunter2@example.com", "must look like https://regen.example.com."),
        ("DATABASE_URL", "postgres://user:hunter2@[x", "must look like postgresql://user@host:5432/name."),
        ("BROKER_URL", "amqp://user:hunter2@host", "must look like redis://host:6379/0."),
        ("SECRET_KEY", "hunter2", "must have at least 32 characters, not 7."),
        ("METRICS_TOKEN", "hunter2", "must have at least 16 characters, not 7."),
    ],
)
def test_a_refused_value_is_told_in_one_sentence(monkeypatch, name, value, sentence):
    monkeypatch.setenv(f"REGEN_{name}", value)
    with pytest.raises(ValidationError) as refusal:
        Settings()
    assert sentences(refusal.value) == [f"REGEN_{name} {sentence}"]
    assert "hunter2" not in str(refusal.value)


def test_names_that_no_setting_has(monkeypatch, tmp_path):
    monkeypatch.setenv("REGEN_SECRETS_DIR", str(tmp_path))
    for name in ("regen_secret_kee", "regen_secret_key", "other"):
        (tmp_path / name).write_text("x")
    for name in ("REGEN_LEASE_SECOND", "REGEN_COLOUR", "REGEN_TEST_URL", "REGEN_DATA_DIR"):
        monkeypatch.setenv(name, "1")
    assert list(unknown_settings()) == [
        ("REGEN_COLOUR", None),
        ("REGEN_LEASE_SECOND", "REGEN_LEASE_SECONDS"),
        ("regen_secret_kee", "REGEN_SECRET_KEY"),
    ]


def test_a_setting_keeps_its_effect_under_its_former_name(monkeypatch):
    assert Settings().output_quality == "high"
    monkeypatch.setenv("REGEN_QUALITY", "small")
    assert Settings().output_quality == "small"
    monkeypatch.setenv("REGEN_OUTPUT_QUALITY", "lossless")
    assert Settings().output_quality == "lossless"
