"""Every two values of different options, and kinds of file, together: what comes out is what a model expects."""

import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.renders.options import RenderOptions
from tests.e2e.film import Film
from tests.e2e.measuring import input_film
from tests.e2e.option_model import TELECINED, Expected, faults
from tests.e2e.pairs import Case, pairwise
from tests.media.corpus import has_filter, missing, write_corpus
from tests.media.kinds import KINDS
from tests.servers.process import wait_until

pytestmark = pytest.mark.slow

WAIT_SECONDS = 280
# So many renders are begun while another is measured.
AHEAD = 4
CLIPS = {
    **{name: KINDS[name] for name in ("variable-mp4", "hdr10", "vp9-opus")},
    "telecined": TELECINED,
    "alpha": KINDS["prores-4444"],
}
TARGET = "vmaf=90"
VALUES: dict[str, tuple[Any, ...]] = {
    "kind": tuple(CLIPS),
    "form": (
        ("h264", None),
        ("hevc", "mov"),
        ("av1", "mkv"),
        ("prores", "mov"),
        ("ffv1", "mkv"),
        ("vp9", "mp4"),
        (None, "webm"),
    ),
    "target_fps": (None, "12.5", "60"),
    "retime": ("nearest", "blend", "motion"),
    "part": ((None, None), ("0.13", None), ("0.08", "0.5")),
    "size": (
        None,
        {"scale": "1"},
        {"scale": "2"},
        {"max_width": "200"},
        {"max_height": "150"},
    ),
    "strength": (None, "0.5"),
    "grain": (None, "0.5"),
    "stabilise": (None, "2"),
    "deinterlace": ("auto", "off", "frame", "field", "detelecine"),
    "output_quality": (
        *(None, "lossless", "high", "medium", "small"),
        *((TARGET,) if has_filter("libvmaf") else ()),
    ),
    "quality": (None, "true"),
    "destination": (None, "a receiver"),
}
# Which options the parameters above stand for.
HOLDS = {
    "form": {"codec", "container"},
    "part": {"start", "end"},
    "size": {"scale", "max_width", "max_height"},
}
# Those that neither change the output nor bring it anywhere: they are judged where they are made.
NOT_OF_THE_OUTPUT = {"engine", "metadata", "cancel_after", "priority", "webhook_url"}
# Combinations that nobody had tried.
FIRST: tuple[Case, ...] = (
    {"kind": "variable-mp4", "part": ("0.08", "0.5"), "deinterlace": "field", "target_fps": None},
    {"kind": "hdr10", "form": ("av1", "mkv")},
    {"kind": "vp9-opus", "part": ("0.08", "0.5"), "form": (None, "webm")},
    {"kind": "alpha", "form": ("prores", "mov"), "size": {"scale": "2"}},
    # Nearly everything else as by default: each sample is known.
    *(
        {
            **{"form": ("ffv1", "mkv"), "target_fps": None, "deinterlace": "auto", "size": None},
            **{"strength": None, "grain": None, "stabilise": None, **case},
        }
        for case in (
            {"kind": "variable-mp4", "part": ("0.13", None)},
            {"kind": "hdr10", "size": {"max_width": "200"}, "strength": "0.5"},
            {"kind": "vp9-opus", "size": {"scale": "1"}, "grain": "0.5"},
            {"kind": "vp9-opus", "part": (None, None), "stabilise": "2"},
        )
    ),
)
QUALITIES = {
    "av1": {"high", "medium", "small", TARGET},
    "prores": {"high", "medium", "small"},
    "ffv1": {"lossless"},
}
# What takes time is not filled in where any other value would do.
SELDOM = ("quality", "stabilise", "output_quality", "target_fps", "destination")


def goes(case: Case) -> bool:
    codec, _ = case.get("form", (None, None))
    quality = case.get("output_quality")
    return quality is None or quality in QUALITIES.get(codec, {quality})


CASES = pairwise(VALUES, goes=goes, first=FIRST, seldom=SELDOM)


def told(case: Case) -> str:
    return " ".join(f"{name}={value}" for name, value in case.items() if value not in (None, (None, None)))


def fields_of(case: Case, *, destination: str) -> dict[str, str]:
    codec, container = case["form"]
    start, end = case["part"]
    fields = {"codec": codec, "container": container, "start": start, "end": end, **(case["size"] or {})}
    alone = VALUES.keys() - {"kind", "destination", *HOLDS}
    fields |= {name: case[name] for name in alone}
    fields["destination"] = case["destination"] and destination
    return {name: text for name, text in fields.items() if text}


def test_every_option_is_among_those_that_are_tried() -> None:
    declared = RenderOptions.model_json_schema()["properties"]
    tried = (VALUES.keys() - {"kind", *HOLDS}) | set().union(*HOLDS.values())
    assert declared.keys() - tried - NOT_OF_THE_OUTPUT == set(), (
        "Each option that changes the output needs values here, in VALUES, and what comes of them in the model."
    )
    shown = {
        "codec": {codec for codec, _ in VALUES["form"]},
        "container": {name for _, name in VALUES["form"]},
    }
    for name in tried:
        values = set(declared[name].get("enum", ()))
        assert values <= shown.get(name, set(VALUES.get(name, ()))) | {"mp4"}, (
            f"`{name}` has a value that is not tried with others: add it to VALUES."
        )


def test_the_cases_hold_every_pair() -> None:
    names = list(VALUES)
    for at, one in enumerate(names):
        for two in names[at + 1 :]:
            for a in VALUES[one]:
                for b in VALUES[two]:
                    if goes({one: a, two: b}):
                        assert any(case[one] == a and case[two] == b for case in CASES), (one, a, two, b)
    assert all(map(goes, CASES))


class Store:
    """A server on loopback that keeps what is put there, by path."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                store.kept[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/{number}"


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    store = Store()
    thread = threading.Thread(target=store.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield store
    store.server.shutdown()
    store.server.server_close()
    thread.join(20)


class Submissions:
    """Clips, each made once, and renders, begun a few ahead of the test that waits for one."""

    def __init__(self, directory: Path, server: Any, store: Store) -> None:
        names = {kind.name: name for name, kind in CLIPS.items()}
        kinds = [kind for kind in CLIPS.values() if missing(kind) is None]
        self._clips = {names[kind.name]: path for kind, path in write_corpus(directory, kinds)}
        self._server, self._store = server, store
        self._begun: dict[int, str] = {}
        # Read once for all cases.
        self.source = cache(lambda name: input_film(self._clips[name], CLIPS[name]))

    def get(self, number: int) -> str:
        """The id of the case's render."""
        for coming in range(number, min(number + AHEAD, len(CASES))):
            path = self._clips.get(CASES[coming]["kind"])
            if path is not None and coming not in self._begun:
                fields = fields_of(CASES[coming], destination=self._store.url(coming))
                self._begun[coming] = self._server.submit(path, **fields)["id"]
        return self._begun[number]


@pytest.fixture(scope="module")
def submissions(stand_in_server: Any, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Submissions:
    return Submissions(tmp_path_factory.mktemp("pairs"), stand_in_server, store)


@pytest.mark.parametrize("number", range(len(CASES)))
def test_what_comes_out_is_what_the_model_expects(
    number: int, stand_in_server: Any, submissions: Submissions, store: Store, tmp_path: Path
) -> None:
    case = CASES[number]
    kind = CLIPS[case["kind"]]
    if reason := missing(kind):
        pytest.skip(reason)
    render = stand_in_server.wait(submissions.get(number), seconds=WAIT_SECONDS)
    assert render["status"] == "completed", f"{told(case)}: {render.get('error')}"
    output = Film(stand_in_server.download(render["outputFileURL"], tmp_path / "output"))
    expected = Expected.nearest(case, kind, submissions.source(case["kind"]), output)
    assert list(faults(expected, render, output)) == [], told(case)
    if case["destination"]:
        wait_until(
            lambda: stand_in_server.get(render["id"])["destination"]["status"] == "delivered",
            seconds=WAIT_SECONDS,
            what="the result is delivered",
        )
        assert store.kept[httpx.URL(store.url(number)).path] == output.path.read_bytes()
