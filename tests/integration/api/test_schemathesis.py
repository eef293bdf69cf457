"""Schemathesis asks a live server whatever its description allows, and much that it does not."""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import structlog
from sqlalchemy import select, update

from app.accounts import service as account_service
from app.accounts.scopes import Scope
from app.accounts.tables import ApiKey, User
from app.platform.pagination import Cursor
from app.platform.secrets import Secrets, new_id
from app.renders.statuses import RenderStatus
from app.renders.tables import Render
from tests.servers.serving import serving

EXAMPLES = 4
# On a busy machine, with an ffmpeg that starts slowly; alone it takes 35.
SECONDS = 600.0

# These take what a schema cannot say: one of several fields, addresses, parts that have come in, days that are near
# one another, nothing that is null where something else may be, moments of a video.
BEYOND_SCHEMAS = (
    "upscale", "estimateRender", "uploadFile", "createPreview", "openUpload", "completeUpload", "createWebhook",
    "updateWebhook", "createOwnKey", "createUser", "updateUser", "createKey", "updateKey", "getUsage", "getUsageOfUser",
    "listRenders", "listAllRenders", "getFrame",
)  # fmt: skip

CONFIGURATION = """
base-url = "{url}"
hooks = "with_a_real_video"
max-stream-events = 1
request-timeout = 60
headers = {{ Authorization = "Bearer {key}" }}

[generation]
deterministic = true
no-shrink = true
max-examples = {examples}
with-security-parameters = false
database = "none"

[phases.stateful.generation]
max-examples = 10

[phases.coverage]
unexpected-methods = ["put", "query"]

[phases.coverage.checks]
# This phase knows no cursor of a page.
positive_data_acceptance.enabled = false

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "413", "415", "429"]

[warnings]
enabled = false

[dictionaries]
{dictionaries}

[parameters]
{parameters}

[[operations]]
include-operation-id = {beyond_schemas}
checks.positive_data_acceptance.enabled = false

[[operations]]
# What comes is a stream of events, whose text the description shows; Schemathesis would have a schema of each.
include-operation-id = "watchRender"
checks.response_schema_conformance.enabled = false
"""

HOOKS = """
import os
import schemathesis
from hypothesis import strategies
from pathlib import Path

schemathesis.openapi.format("binary", strategies.just(Path(os.environ["VIDEO"]).read_bytes()))


@schemathesis.hook
def before_load_schema(context, raw_schema):
    # Both bodies are described alike, for generators of clients; JSON cannot hold a file.
    for route in ("upscale", "estimates"):
        content = raw_schema["paths"][f"/v1/{route}"]["post"]["requestBody"]["content"]
        del content["application/json"]["schema"]["properties"]["file"]


@schemathesis.hook
def filter_failure(context, failure, case, response):
    # Empty fields count as not given: the description says so in words, no schema of a field does.
    accepted = type(failure).__name__ == "AcceptedNegativeData"
    has_empty = isinstance(case.body, dict) and any(value in (None, "") for value in case.body.values())
    return not (accepted and has_empty)
"""


@pytest.fixture
def administrators_key(key, database, settings) -> str:
    """A key of ann's that may do everything."""
    with database.write() as session:
        return account_service.create_key(
            session, user_name="ann", key_name="all", keys=Secrets.load(settings), scopes=frozenset(Scope)
        ).key


@pytest.fixture
def ids(client: httpx.Client, clip, database) -> dict[str, list[str]]:
    """Things of ann's that there are, by the parameter that names them."""
    files, renders = [], []
    for _ in range(3):
        with clip.open("rb") as body:
            files.append(client.post("/v1/files", files={"file": body}).json()["file"]["id"])
    for number in range(9):
        answer = client.post("/v1/upscale", json={"file_id": files[number % 2]})
        renders.append(answer.json()["render"]["id"])
    for render_id in renders[:3]:
        assert client.post(f"/v1/renders/{render_id}/cancel").status_code == 200
    with database.write() as session:
        session.execute(
            update(Render)
            .where(Render.id.in_(renders[3:6]))
            .values(status=RenderStatus.COMPLETED, completed_at=datetime.now(UTC))
        )
    return {"file_id": files, "render_id": renders}


@pytest.fixture
def bobs(make_key, database) -> dict[str, list[str]]:
    """Users and keys that an administrator may change without shutting ann out."""
    for name in ("bob", "bo"):
        make_key(name)
    with database.read() as session:
        users = session.scalars(select(User.id).where(User.name != "ann")).all()
        keys = session.scalars(select(ApiKey.id).where(ApiKey.user_id.in_(users))).all()
        return {"user_id": [*users], "key_id": [*keys]}


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is at any address: whatever webhooks are made up, nothing is sent to anybody."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **options):
        if host in ("127.0.0.1", "localhost"):
            return look_up(host, *arguments, **options)
        raise socket.gaierror(socket.EAI_NONAME, "there are no names here")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is held until a preview has ended: nobody makes them here."""
    monkeypatch.setattr("app.http.long_polling.LONGEST_SECONDS", 0)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a line for each of a thousand requests."""
    silent = structlog.make_filtering_bound_logger(logging.ERROR)
    log = structlog.wrap_logger(structlog.PrintLogger(), wrapper_class=silent)
    monkeypatch.setattr("app.http.request_log.log", log)


def parameters(ids: Iterable[str], others: Iterable[str]) -> str:
    """Of ours most of the time, so that routes have something to work on; of others' always."""
    lines = [
        f'"{place}.{name}" = {{ dictionary = "{name}", probability = 0.8 }}'
        for name in ids
        for place in ("path", "query", "body")
    ]
    lines += [f'"path.{name}" = {{ dictionary = "{name}" }}' for name in others]
    return "\n".join([*lines, '"query.cursor" = { dictionary = "cursors" }'])


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.usefixtures("no_names", "impatient", "quiet")
def test_every_answer_is_one_that_the_description_names(
    app, administrators_key, ids, bobs, ffmpeg, tmp_path: Path
):
    video = ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=1", "video.mp4")
    cursor = str(Cursor(created_at=datetime.now(UTC) + timedelta(days=1), id=new_id()))
    dictionaries = {**ids, **bobs, "cursors": [cursor]}
    with serving(app) as url:
        configuration = CONFIGURATION.format(
            url=url,
            key=administrators_key,
            examples=EXAMPLES,
            dictionaries="\n".join(
                f"{name} = {{ values = {values} }}" for name, values in dictionaries.items()
            ),
            parameters=parameters(ids, bobs),
            beyond_schemas=list(BEYOND_SCHEMAS),
        )
        (tmp_path / "schemathesis.toml").write_text(configuration)
        (tmp_path / "with_a_real_video.py").write_text(HOOKS)
        ended = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{url}/openapi.json"],
            cwd=tmp_path,
            env={**os.environ, "VIDEO": str(video), "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        headers = {"Authorization": f"Bearer {administrators_key}"}
        assert httpx.get(f"{url}/v1/key", headers=headers).status_code != 401, (
            "it has not revoked its own key"
        )

    assert ended.returncode == 0, ended.stdout.partition("FAILURES")[2] or ended.stdout + ended.stderr
    assert "Stateful" in ended.stdout
