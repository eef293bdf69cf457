import os
import signal
import sys
from pathlib import Path

import httpx

from app.platform.settings import Settings
from app.serving.broker import answers
from tests.servers.process import is_alive, wait_until

CLIP = Path(__file__).parents[2] / "media" / "bunny-240x136-25fps.mp4"


def broker_socket(server):
    return Settings(data_dir=server.data_directory).broker_socket


def test_a_server_answers_once_it_says_so_and_leaves_nothing_when_stopped(serve):
    first = serve("--no-worker")
    ready = first.wait_until_ready()
    key = {"Authorization": f"Bearer {ready['key']}"}
    assert ready["pid"] == first.process.pid
    assert httpx.get(f"{ready['url']}/v1/engines", headers=key).status_code == 200
    wait_until(lambda: ready["url"] in first.output)
    assert first.output.count(ready["key"]) == 1
    stop_and_look(first, signal.SIGTERM)

    # The key was shown that once; it goes on working.
    second = serve("--no-worker")
    again = second.wait_until_ready()
    assert "key" not in again
    assert ready["key"] not in second.output
    assert httpx.get(f"{again['url']}/v1/engines", headers=key).status_code == 200
    stop_and_look(second, signal.SIGINT)


def stop_and_look(server, number):
    [broker] = server.descendants()
    assert answers(broker_socket(server))
    server.process.send_signal(number)
    assert server.process.wait(timeout=20) == 0
    assert not is_alive(broker)
    assert not server.ready_file.exists()
    assert not broker_socket(server).parent.exists()


def test_a_server_that_is_told_to_stop_twice_says_nothing_of_it(serve):
    server = serve("--no-worker")
    server.wait_until_ready()
    for number in (signal.SIGINT, signal.SIGTERM):
        server.process.send_signal(number)
    assert server.process.wait(timeout=20) == 0
    assert "Traceback" not in server.output


def test_a_second_server_on_the_same_data_is_refused_and_harms_nothing(serve):
    first = serve("--no-worker")
    ready = first.wait_until_ready()
    second = serve("--no-worker")
    assert second.process.wait(timeout=20) == 1
    assert f"process {first.process.pid}" in second.output
    assert "Traceback" not in second.output
    assert httpx.get(f"{ready['url']}/healthz").status_code == 200
    assert answers(broker_socket(first))


def test_a_port_in_use_is_refused_before_anything_is_started(serve):
    first = serve("--no-worker")
    port = first.wait_until_ready()["url"].rpartition(":")[2]
    second = serve("--no-worker", "--port", port, "--data-dir", str(first.data_directory.with_name("other")))
    assert second.process.wait(timeout=20) == 1
    assert "--port" in second.output
    assert "API key" not in second.output


def test_a_broker_that_dies_is_started_again(serve):
    server = serve("--no-worker")
    server.wait_until_ready()
    [broker] = server.descendants()
    os.kill(broker, signal.SIGKILL)
    wait_until(lambda: "child_ended" in server.output)
    wait_until(lambda: answers(broker_socket(server)))


def test_a_server_killed_at_work_takes_everything_along_and_can_be_started_again(serve):
    # So slow that it is at work for long.
    slow = {"REGEN_STAND_IN_NETWORK": "1", "REGEN_STAND_IN_SECONDS_PER_FRAME": "0.5"}
    server = serve(environment=slow, forks_workers=False)
    ready = server.wait_until_ready()
    with CLIP.open("rb") as file:
        answer = httpx.post(
            f"{ready['url']}/v1/upscale",
            files={"file": ("clip.mp4", file, "video/mp4")},
            headers={"Authorization": f"Bearer {ready['key']}"},
        )
    assert answer.status_code == 200, answer.text

    # The broker, the worker, and an ffmpeg that decodes and one that encodes.
    wait_until(lambda: sum("ffmpeg" in command for command in server.descendants().values()) >= 2, seconds=60)
    children = server.descendants()
    assert len(children) >= 4
    if sys.platform != "linux":  # there the broker is shut down by the next start
        children = {pid for pid, command in children.items() if "valkey" not in command}
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    wait_until(lambda: not any(map(is_alive, children)))

    again = serve("--no-worker")
    again.wait_until_ready()
    assert answers(broker_socket(again))


def test_a_broker_of_ones_own_is_used_instead_of_the_embedded_one(serve):
    server = serve("--no-worker", environment={"REGEN_BROKER_URL": "redis://127.0.0.1:1/0"})
    server.wait_until_ready()
    assert server.descendants() == {}


def test_a_worker_that_dies_is_started_again(serve):
    server = serve(environment={"REGEN_STAND_IN_NETWORK": "1"})
    server.wait_until_ready()
    wait_until(lambda: "worker_ready" in server.output, seconds=60)
    [worker] = [pid for pid, command in server.descendants().items() if " worker" in command]
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: server.output.count("worker_ready") == 2, seconds=60)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0


def test_a_program_that_is_missing_is_told_in_a_sentence(serve):
    server = serve("--no-worker", environment={"REGEN_FFMPEG": "/no/such/ffmpeg"})
    assert server.process.wait(timeout=20) == 1
    assert "REGEN_FFMPEG" in server.output
    assert "Traceback" not in server.output
    assert not server.ready_file.exists()

    # The first key is made by the first start that succeeds.
    assert "API key" not in server.output
    again = serve("--no-worker")
    assert again.wait_until_ready()["key"] in again.output


def test_a_server_on_a_network_limits_each_user_unless_it_is_told_otherwise(serve):
    server = serve(
        "--no-worker",
        environment={
            "REGEN_PUBLIC_URL": "https://regen.example.com",
            "REGEN_MAX_QUEUED_RENDERS_PER_USER": "3",
            "REGEN_MAX_STORAGE_BYTES_PER_USER": "unlimited",
        },
    )
    ready = server.wait_until_ready()
    usage = httpx.get(f"{ready['url']}/v1/usage", headers={"Authorization": f"Bearer {ready['key']}"}).json()
    limits = usage["usage"]["limits"]
    assert limits["requests"] == "100/second;1200/minute"
    assert limits["maxQueuedRenders"] == 3
    assert "maxStorageBytes" not in limits
    assert "limits_by_default" in server.output
