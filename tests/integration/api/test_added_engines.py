"""Engines that an operator added to workers, as the API shows, prices and accepts them."""

import pytest

from app.platform.work_kinds import WorkQueue
from app.work.ledger import WorkLedger
from models.catalog import ENGINES, AddedWeights, Engine
from worker.registration import NO_ENGINE, Registration

OWN = "own-net"


def own(*, digest="a" * 64, multiplier=1.5):
    return Engine(
        id=OWN,
        name="SPAN",
        description="Mine.",
        cost_multiplier=multiplier,
        source=AddedWeights(data_sha256=digest),
        licence="MIT",
    )


@pytest.fixture
def start_worker(database, monkeypatch):
    """Registers a worker with these added engines; returns its ledger, registration, and the engines to change."""
    monkeypatch.setattr("app.engines.service.FRESH_SECONDS", 0.0)

    def start(*engines, name="gpu", queues=tuple(WorkQueue), pool=tuple(ENGINES), lease_seconds=30):
        ledger = WorkLedger(
            database=database,
            worker=name,
            lease_seconds=lease_seconds,
            max_attempts=3,
            queues=queues,
            engines=pool,
        )
        here = {engine.id: engine for engine in engines}
        registration = Registration(
            ledger,
            device="cpu",
            added_engines=lambda: here,
            serve=lambda served: setattr(ledger, "engines", served),
        )
        registration.beat()
        return ledger, registration, here

    return start


@pytest.fixture
def file_id(client, clip):
    with clip.open("rb") as content:
        return client.post("/v1/files", files={"file": content}).json()["file"]["id"]


def listed(client):
    return {engine["id"]: engine for engine in client.get("/v1/engines").json()["engines"]}


def test_an_added_engine_is_one_as_soon_as_a_worker_has_it(client, file_id, start_worker):
    _, registration, here = start_worker()
    refused = client.post("/v1/upscale", json={"file_id": file_id, "engine": OWN, "target_fps": 0.5})
    assert refused.status_code == 400
    assert len(refused.json()["errors"]) == 2
    assert list(listed(client)) == list(ENGINES)

    here[OWN] = own()
    registration.beat()
    assert listed(client)[OWN] == {
        **{"id": OWN, "scale": 4, "costMultiplier": 1.5, "description": "Mine.", "default": False}
    }
    estimates = [
        client.post("/v1/estimates", json={"file_id": file_id, **engine}).json()["estimate"]
        for engine in ({}, {"engine": OWN})
    ]
    assert estimates[1]["cost"] == pytest.approx(1.5 * estimates[0]["cost"])
    render = client.post("/v1/upscale", json={"file_id": file_id, "engine": OWN}).json()["render"]
    assert render["engine"] == OWN
    assert client.get(f"/v1/renders/{render['id']}").json()["render"]["engine"] == OWN
    found = client.get("/v1/renders", params={"engine": OWN}).json()["renders"]
    assert [one["id"] for one in found] == [render["id"]]
    preview = client.post("/v1/previews", json={"file_id": file_id, "engine": OWN})
    assert preview.json()["preview"]["engine"] == OWN
    unknown = client.post("/v1/previews", json={"file_id": file_id, "engine": "other"})
    assert (unknown.status_code, OWN in unknown.text) == (400, True)

    # A failed render is retried with its engine, even while no worker has it.
    client.post(f"/v1/renders/{render['id']}/cancel")
    here.clear()
    registration.beat()
    retried = client.post(f"/v1/renders/{render['id']}/retry").json()["render"]
    assert retried["engine"] == OWN


def test_an_engine_of_workers_that_are_silent_is_none(client, start_worker, serve, settings, key):
    client = serve(settings.model_copy(update={"lease_seconds": 0.1}), key=key)
    start_worker(own())
    for _ in range(100):
        if OWN not in listed(client):
            break
    assert list(listed(client)) == list(ENGINES)


def test_only_workers_that_have_an_engine_claim_its_segments(start_worker):
    without, _, _ = start_worker(name="without")
    having, registration, here = start_worker(own(), name="having")
    alone, _, _ = start_worker(own(), name="pool", pool=(OWN,))
    assert without.engines == tuple(ENGINES)
    assert having.engines == (*ENGINES, OWN)
    assert alone.engines == (OWN,)
    here.clear()
    registration.beat()
    assert having.engines == tuple(ENGINES)


def test_workers_with_other_weights_of_the_same_name_do_not_mix(client, start_worker):
    start_worker(own(), name="first")
    other, _, _ = start_worker(own(digest="b" * 64, multiplier=9), name="other")
    assert other.engines == tuple(ENGINES)
    # One whose pool is that engine alone claims nothing, rather than everything.
    pool, _, _ = start_worker(own(digest="b" * 64), name="pool", pool=(OWN,))
    assert pool.engines == (NO_ENGINE,)
    assert listed(client)[OWN]["costMultiplier"] == 1.5
    # Once all workers with the former weights are gone, the new ones are the engine.
    later, _, _ = start_worker(own(digest="b" * 64, multiplier=9), name="later", lease_seconds=-1)
    assert OWN in later.engines
    assert listed(client)[OWN]["costMultiplier"] == 9
