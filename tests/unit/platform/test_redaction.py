import json

import pytest

from app.platform.redaction import redactor
from app.platform.settings import Settings

UNKNOWN_KEY = "regen_LGW20xaydHpgXEpk-X2izY2IKGGoRVIC4Rbt7JoXRy0"
SECRET = "correct horse/battery:staple"


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(
        data_dir=tmp_path,
        secret_key="k" * 20 + '"quoted"\\' + "k" * 20,
        database_url="postgresql://regen:inTheUrl%2Fitself@db.test/regen",
        broker_url="redis://broker.test",
        broker_password=SECRET,
        s3_secret_key="wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
        metrics_token="metrics-token-01",
    )


def test_every_secret_of_the_settings_wherever_it_stands(settings):
    redact = redactor(settings)
    for secret in (
        settings.secret_key.get_secret_value(),
        "inTheUrl%2Fitself",
        "inTheUrl/itself",
        SECRET,
        "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
        "metrics-token-01",
    ):
        for written in (secret, json.dumps({"detail": f"<{secret}>"}), f"[{secret!r}]"):
            line = redact(f"before {written} after")
            assert secret not in line
            assert repr(secret)[1:-1] not in line
            assert json.dumps(secret)[1:-1] not in line
            assert line.startswith("before ") and line.endswith(" after")
    for url in (settings.resolved_database_url, settings.resolved_broker_url):
        assert redact(f"cannot reach {url}!").count("[removed]") == 1


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key {UNKNOWN_KEY} is unknown", UNKNOWN_KEY),
        (f"signed with whsec_{'aB3+/' * 8}abc=", "aB3+/"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("(b'authorization', b'Bearer abc.def-ghi')", "abc.def-ghi"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "dXNlcjpwYXNz"),
        ("{'x-api-key': 'some-key-of-theirs'}", "some-key-of-theirs"),
        (
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/x/s3/aws4_request, Signature=5d672d79c15b13162d9279b0",
            "5d672d79c15b13162d9279b0",
        ),
        ("GET /storage/a/b?expires=1&name=x.mp4&signature=Zm9vYmFyYmF6 HTTP/1.1", "Zm9vYmFyYmF6"),
        ("https://s3.test/b/k?X-Amz-Credential=AKIAXXX&X-Amz-Signature=aabbcc", "AKIAXXX"),
        ("https://s3.test/b/k?X-Amz-Credential=AKIAXXX&X-Amz-Signature=aabbcc", "aabbcc"),
        ("postgresql://somebody:hunter2@db/x", "hunter2"),
        ("redis://:p@ss@host:6379/0", "p@ss"),
        ("host=db password=hunter2 user=x", "hunter2"),
        ("{'password': 'hunter2'}", "hunter2"),
        ('{"aws_secret_access_key": "hunter2"}', "hunter2"),
    ],
)
def test_what_passes_through_is_known_by_its_form(tmp_path, text, secret):
    redact = redactor(Settings(data_dir=tmp_path))

    assert secret not in redact(text)
    line = redact(json.dumps({"event": "e", "detail": text, "logger": "l"}))
    assert secret not in line
    assert json.loads(line).keys() == {"event", "detail", "logger"}
    assert json.loads(line)["logger"] == "l"


@pytest.mark.parametrize(
    "text",
    [
        "POST /v1/files?a=1 was refused",
        "password authentication failed for user regen",
        "authorization failed",
        "The broker at redis://127.0.0.1:6379/0 cannot be reached",
        "GET https://regen.test:8000/v1/renders/VxIlYTomwGfEp0D3",
        '{"event": "render_created", "render_id": "VxIlYTomwGfEp0D3"}',
        "regen_http_requests_total",
    ],
)
def test_harmless_text_stays(tmp_path, text):
    assert redactor(Settings(data_dir=tmp_path))(text) == text


@pytest.mark.parametrize(
    "piece",
    ["?", "://", "://a:", "authorization:", "authorization-", "bearer ", "signature=", "password=", "token"],
)
def test_text_that_a_stranger_made_to_keep_us_busy(tmp_path, piece):
    # Quadratic time would be hours here, which the suite's time limit ends.
    redactor(Settings(data_dir=tmp_path))(piece * (400_000 // len(piece)))


def test_a_short_secret_does_not_cut_words_in_pieces(tmp_path):
    redact = redactor(Settings(data_dir=tmp_path, broker_password="a"))

    assert redact("a render was made") == "a render was made"
    assert redact("redis://:a@host") == "redis://:[removed]@host"


@pytest.mark.parametrize(
    "name", ["AUTHORİZATıON: ", "ſıGNATURE=", "API\u212aey=", "paſſword=", "acceSS_\u212aEY="]
)
def test_names_in_letters_that_are_the_same_but_for_their_case(name, settings):
    assert redactor(settings)(f"sent {name}abcdefghijklmnopqrst") == f"sent {name}[removed]"
