"""The explorer: views, what the server answers, and what it refuses."""

import io
import json
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import weakref
from dataclasses import replace

import anyio
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import patchmosaic as pm
from patchmosaic.cache import Cache
from patchmosaic.cli import main
from patchmosaic.explorer import uploads, work
from patchmosaic.explorer.flow import Flow
from patchmosaic.explorer.messages import bytes_of, setup
from patchmosaic.explorer.picture import _boxes
from patchmosaic.explorer.server import _Api, reproduced
from patchmosaic.explorer.studio import Studio
from patchmosaic.explorer.view import View
from patchmosaic.metrics import measure
from patchmosaic.nets.network import BUNDLED, Network
from patchmosaic.nets.resnet import ResNet
from patchmosaic.viz import to_pil

LIMIT = 120


class Client:
    """A page's half of the conversation."""

    def __init__(self, address):
        self.address = address

    def open(self, path, body=None, headers=None):
        request = urllib.request.Request(self.address + path, body, headers or {})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def lines(self, path):
        return [json.loads(line) for line in self.open(path)[2].splitlines()]

    def result(self, path):
        last = self.lines(path)[-1]
        assert "result" in last, last
        return last["result"]

    def refusal(self, path, body=None, headers=None):
        """The status and the one line that says what is wrong."""
        status, _, content = self.open(path, body, headers)
        told = json.loads(content.splitlines()[-1])["error"]
        assert told
        assert "\n" not in told
        return status, told


@pytest.fixture(scope="module")
def data():
    return pm.load_dataset("digits", limit=LIMIT)


@pytest.fixture(scope="module")
def studio(data):
    return Studio(data, pm.load_network())


@pytest.fixture(scope="module")
def client(studio, serve):
    return Client(serve(studio))


def pixels(address):
    """(H, W, 3) of a data address."""
    return np.asarray(Image.open(io.BytesIO(bytes_of(address))).convert("RGB"))


def told_command(client, query):
    return json.loads(client.open(f"/api/command?{query}")[2])["command"]


def drawn(image):
    return np.asarray(to_pil(image))


# ------------------------------------------------------------------------------------------- views


@given(
    st.builds(
        View,
        machine=st.sampled_from(["is", "es", "ls", "els", "bbels"]),
        locality=st.sampled_from(["auto", "5", "mnist-resnet"]),
        padding=st.sampled_from(["zeros", "circular"]),
        label=st.none() | st.integers(0, 9),
        seed=st.integers(0, 2**32 - 1),
        steps=st.integers(1, 100),
        start=st.text("abc_-123", max_size=9),
        level=st.floats(0.01, 1),
        step=st.none() | st.integers(0, 99),
    )
)
def test_a_link_holds_the_whole_view(view):
    from urllib.parse import parse_qsl

    assert View.parse(dict(parse_qsl(view.query()))) == view


def test_the_flow_of_a_view_forgets_what_does_not_change_its_pictures():
    seen = View(machine="bbels", padding="circular", level=0.3, second="els", step=3, row=1, col=2)
    assert seen.flow == View(machine="bbels")
    assert View(machine="ls", padding="circular").flow.padding == "circular"
    assert View(start="abc", level=0.3).flow.level == 0.3


# ----------------------------------------------------------------------------------------- results


@pytest.mark.parametrize(
    ("query", "make"),
    [
        ("locality=5&", lambda d: pm.presets.boundary_broken(d.images, 5, labels=d.labels)),
        (
            "machine=els&locality=3&label=3&",
            lambda d: pm.presets.equivariant_local(d.images, 3, labels=d.labels),
        ),
        ("machine=ls&locality=7&padding=circular&", lambda d: pm.presets.local(d.images, 7, "circular")),
        ("machine=es&", lambda d: pm.presets.equivariant(d.images)),
        ("machine=is&", lambda d: pm.presets.ideal(d.images)),
    ],
)
def test_a_run_shows_what_sample_draws(client, studio, data, query, make):
    found = client.result(f"/api/run?{query}seed=7&steps=6")
    label = torch.tensor([3]) if "label" in query else None
    noise = pm.draw_noise(pm.generators([7]), (1, 8, 8))
    expected = pm.sample(make(data), noise, 6, studio.schedule, labels=label, keep_trajectory=True)
    assert found["times"] == list(expected.times)
    assert found["alpha_bars"] == list(expected.alpha_bars)
    for k in range(6):
        assert np.array_equal(pixels(found["states"][k]), drawn(expected.states[k][0]))
        assert np.array_equal(pixels(found["predictions"][k]), drawn(expected.predictions[k][0]))
    assert np.array_equal(pixels(found["picture"]), drawn(expected.images[0]))
    nearest = int(make(data).dictionary.nearest(expected.images, label))
    assert found["nearest"]["image"] == int(data.indices[nearest])
    if "machine=is" in query:
        assert found["nearest"]["distance"] < 1e-3
        assert np.array_equal(pixels(found["nearest"]["picture"]), pixels(found["picture"]))
    assert len(found["maps"]) == 6
    assert sum(one["pixels"] for one in found["maps"][0]["named"]) <= 64


@pytest.mark.parametrize("machine", ["bbels", "els", "es", "ls"])
def test_a_pixel_is_told_its_sources(client, data, machine):
    view = f"machine={machine}&locality=5&seed=2&steps=5&step=3&row=0&col=6&second=is"
    found = client.result(f"/api/pixel?{view}")
    options = {} if machine == "es" else {"locality": 5}
    tested = pm.presets.MACHINES[machine](data.images, **options)
    flow = pm.sample(tested, pm.draw_noise(pm.generators([2]), (1, 8, 8)), 5, keep_trajectory=True)
    for belief, one in ((found["first"], tested), (found["second"], pm.presets.ideal(data.images))):
        expected = pm.provenance(one, flow.states[3], flow.alpha_bars[3], 8)
        count = len(belief["sources"])
        assert count == int((expected.image[0, :, 0, 6] >= 0).sum())
        assert [s["image"] for s in belief["sources"]] == data.indices[
            expected.image[0, :count, 0, 6]
        ].tolist()
        assert [(s["row"], s["col"]) for s in belief["sources"]] == list(
            zip(expected.row[0, :count, 0, 6].tolist(), expected.col[0, :count, 0, 6].tolist(), strict=True)
        )
        weights = [s["weight"] for s in belief["sources"]]
        assert weights == pytest.approx(expected.weight[0, :count, 0, 6].tolist(), abs=1e-5)
        assert belief["effective"] == pytest.approx(float(expected.effective[0, 0, 6]), rel=1e-4)
        best = belief["sources"][0]
        assert np.array_equal(pixels(best["picture"]), drawn(data.images[expected.image[0, 0, 0, 6]]))
    if machine == "es":
        return
    first = found["first"]
    assert first["box"] == [-2, 4, 5, 5]
    best = first["sources"][0]
    centre = pixels(best["patch"])[2, 2]
    assert np.array_equal(centre, pixels(best["picture"])[best["row"], best["col"]])
    if machine == "els":
        around = np.take(np.take(drawn(flow.states[3][0]), range(-2, 3), 0), range(4, 9), 1, mode="wrap")
        assert np.array_equal(pixels(first["seen"]), around), "it goes on at the other side"
    else:
        assert first["seen"] is None
    if machine == "bbels":
        assert (pixels(best["patch"])[0] == 128).all(), "a row that lies above the picture is grey"


@pytest.mark.parametrize(
    ("box", "shown"),
    [
        ([1, 1, 5, 5], {(1, 1, 5, 5)}),
        ([-2, 4, 5, 5], {(-2, 4, 5, 5), (6, 4, 5, 5), (-2, -4, 5, 5), (6, -4, 5, 5)}),
        ([-4, 3, 9, 9], {(0, 0, 8, 8)}),
    ],
)
def test_a_wrapped_window_is_outlined_on_both_sides(studio, box, shown):
    assert {tuple(one) for one in _boxes(box, studio, True)} == shown
    assert _boxes(box, studio, False) == [box]


def test_the_ideal_machine_ends_with_one_training_image(client):
    found = client.result("/api/pixel?machine=is&seed=1&row=4&col=4")
    assert found["first"]["sources"][0]["weight"] > 0.999
    assert found["first"]["box"] == [0, 0, 8, 8]


def test_another_machine_stands_beside_the_ideal_one(client, data):
    assert client.result("/api/pixel?machine=is&row=4&col=4")["second"]["machine"] == "bbELS"
    assert client.result("/api/pixel?machine=is&second=is&row=4&col=4")["second"]["machine"] == "IS"
    assert client.result("/api/pixel?machine=els&row=4&col=4")["second"]["machine"] == "IS"
    assert Studio(data, Network(ResNet(8, 1, 4, 1, "circular"))).beside("is") == "els"


def test_a_flow_may_begin_with_a_picture(client, data):
    picture = ((data.images[5] + 1) * 127.5).round().byte()
    answer = json.loads(client.open("/api/drawn", json.dumps({"pixels": picture.tolist()}).encode())[2])
    found = client.result(f"/api/run?steps=10&level=0.35&seed=4&start={answer['start']}")
    assert found["times"] == [0.3, 0.2, 0.1]
    alpha_bar = pm.CosineSchedule().alpha_bar(0.3)
    noise = pm.draw_noise(pm.generators([4]), (1, 8, 8))
    clean = picture.float() / 127.5 - 1
    expected = alpha_bar**0.5 * clean + (1 - alpha_bar) ** 0.5 * noise[0]
    assert np.array_equal(pixels(found["states"][0]), drawn(expected))
    assert "start=" in told_command(client, f"start={answer['start']}")
    for steps, told in (
        ("2", "with 2 steps none"),
        ("1", "with 1 step none is at or below t = 0.30: take more"),
    ):
        few = f"steps={steps}&level=0.3&start={answer['start']}"
        assert client.refusal(f"/api/run?{few}")[1].startswith(told)


def test_the_dial_goes_from_patches_to_a_copy(client):
    lines = client.lines("/api/dial?seed=3&steps=5&machine=ls")
    shown = [line["picture"] for line in lines if "picture" in line]
    assert [one["locality"] for one in shown] == ["3", "5", "7", "9", "13", "whole"]
    assert lines[-1] == {"result": {"count": 6}}
    same = client.result("/api/run?seed=3&steps=5&machine=ls&locality=5")
    assert shown[1]["picture"] == same["picture"]
    copy = client.result("/api/run?seed=3&steps=5&machine=is")
    assert shown[-1]["picture"] == copy["picture"]
    assert shown[-1]["sources"] == 1
    assert shown[-1]["largest"] == 1
    assert shown[0]["sources"] > 3


def test_the_network_gets_the_same_noise(client, studio):
    found = client.result("/api/network?seed=6&steps=8&locality=5")
    noise = pm.draw_noise(pm.generators([6]), (1, 8, 8))
    network = studio.network
    reference = pm.sample(network, noise, 8, network.schedule).images.clamp(-1, 1)
    predicted = pm.sample(studio.machine(View(locality="5")), noise, 8).images.clamp(-1, 1)
    assert found["r"] == pytest.approx(float(measure(reference, predicted)["r"]), abs=1e-6)
    assert np.array_equal(pixels(found["picture"]), drawn(reference[0]))
    assert "choose all classes under Class" in client.refusal("/api/network?label=3")[1]


def test_machines_are_drawn_on_the_networks_schedule(studio):
    """On another one their pictures would differ by that, too."""
    schedule = pm.LinearSchedule()
    beside = Studio(studio.data, pm.Network(studio.network.model, schedule))
    flow = beside.flow(View(locality="5", seed=6, steps=8))
    for _ in flow.times:
        flow.advance()
    noise = pm.draw_noise(pm.generators([6]), (1, 8, 8))
    expected = pm.sample(beside.machine(View(locality="5")), noise, 8, schedule).images
    assert torch.equal(flow.picture, expected)


def test_a_view_can_be_drawn_again_from_its_command(client, tmp_path, monkeypatch):
    query = "seed=3&steps=4&step=2&row=4&col=1&machine=els&locality=3"
    status, headers, content = client.open(f"/api/export.png?{query}")
    assert status == 200
    assert "patchmosaic-els-3.png" in headers["Content-Disposition"]
    Image.open(io.BytesIO(content)).verify()
    command = shlex.split(told_command(client, query))
    monkeypatch.chdir(tmp_path)
    assert command[0] == "patchmosaic"
    assert main([*command[1:], "--limit", str(LIMIT)]) == 0
    assert (tmp_path / "view.png").read_bytes() == content


def test_the_command_of_an_untouched_page_is_short(client):
    assert told_command(client, "") == "patchmosaic explore --save view.png"


def test_only_classes_with_images_are_offered(data):
    few = pm.load_dataset("digits", classes=("3", "7"), limit=LIMIT)
    offered = setup(Studio(few))["data"]["classes"]
    assert [(one["label"], one["name"]) for one in offered] == [(i, data.class_names[i]) for i in (3, 7)]
    assert setup(Studio(replace(data, labels=None)))["data"]["classes"] == []


def test_names_with_signs_of_formulas_can_be_drawn(data):
    names = tuple(f"$^{name}$" for name in data.class_names)
    studio = Studio(replace(data, name="we$^$ird", class_names=names))
    Image.open(io.BytesIO(reproduced(studio, View(steps=2, row=1, col=1)))).verify()


def test_large_sets_are_traced_where_they_are_asked(client, studio, monkeypatch):
    monkeypatch.setattr("patchmosaic.explorer.studio.TRACED_AT_ONCE", 1e3)
    monkeypatch.setattr("patchmosaic.explorer.studio._TRACED_WHOLE", 1e3)
    query = "seed=11&steps=4&locality=5"
    assert client.result(f"/api/run?{query}")["maps"] is None
    flow = studio.flow(View(seed=11, steps=4, locality="5"))
    alone = client.result(f"/api/pixel?{query}&step=2&row=3&col=3")["first"]
    assert not any(map(flow.is_traced, range(4))), "one pixel does not need all of them"
    asked = client.result(f"/api/trace?{query}&step=2")
    assert flow.is_traced(2)
    assert asked["patches"] == max(alone["patches"], asked["patches"])
    among = client.result(f"/api/pixel?{query}&step=2&row=3&col=3")["first"]
    assert [s["image"] for s in alone["sources"]] == [s["image"] for s in among["sources"]]
    assert [s["weight"] for s in alone["sources"]] == pytest.approx(
        [s["weight"] for s in among["sources"]], abs=1e-5
    )


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("machine=unet", "machine must be one of"),
        ("second=unet", "machine must be one of"),
        ("locality=4", "odd"),
        ("locality=17", "larger than the image: 15"),
        ("locality=big", "auto, an odd number"),
        ("locality=%C2%B2", "auto, an odd number"),
        ("locality=" + "9" * 5000, "auto, an odd number"),
        ("padding=mirror", "zeros or circular"),
        ("label=77", "no training image has label 77"),
        ("label=x", "label must be a number"),
        ("label=" + "9" * 30, "label must be the number of a class"),
        ("seed=-1", "4,294,967,295"),
        ("seed=1e9", "seed must be a number"),
        ("steps=0", "steps must be 1 to 100"),
        ("steps=101", "steps must be 1 to 100"),
        ("start=abc&level=0", "level must be"),
        ("start=abc&level=nan", "level must be"),
        ("start=abc", "damaged|no picture"),
        ("start=" + "A" * 200_000, "damaged|no picture"),
        ("row=1", "both a row and a col"),
        ("row=8&col=0", "a row and a column in"),
        ("row=-1&col=0", "a row and a column in"),
        ("step=20&row=1&col=1", "step must be 0 to 19"),
        ("", "choose a pixel"),
    ],
)
def test_what_cannot_be_shown_is_told_in_one_line(client, query, told):
    import re

    assert re.search(told, client.refusal(f"/api/pixel?{query}")[1])


def test_uploads_are_bounded_and_must_be_pictures(client):
    big = bytes(50 << 20)
    for length in ((4 << 20) + 1, 50 << 20):
        status, told = client.refusal("/api/picture", big[:length])
        assert (status, told) == (413, "the file has more than 4 MiB: use a smaller picture")
    request = b"POST /api/picture HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1073741824\r\n\r\n"
    with socket.create_connection(client.address.removeprefix("http://").split(":")) as raw:
        raw.sendall(request)
        assert raw.recv(100).startswith(b"HTTP/1.1 413"), "refused before it is sent"
    assert client.refusal("/api/picture", b"just words, whatever its name")[0] == 400
    png = io.BytesIO()
    Image.fromarray(np.arange(4800, dtype=np.uint8).reshape(40, 40, 3)).save(png, "PNG")
    assert "no picture that can be read" in client.refusal("/api/picture", png.getvalue()[:200])[1]
    bitmap = io.BytesIO()
    Image.new("RGB", (9, 9)).save(bitmap, "BMP")
    assert "PNG, JPEG" in client.refusal("/api/picture", bitmap.getvalue())[1]
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")
    assert "megapixels" in client.refusal("/api/picture", bomb.getvalue())[1]
    words = b'{"pixels": ["' + b"x" * 1_000_000 + b'"' + b',""' * 900_000 + b"]}"  # terabytes as an array
    ragged, halves, truth = ([[[n] * 8] * 8] for n in ([1], 0.5, True))
    others = [json.dumps({"pixels": other}).encode() for other in (ragged, halves, truth)]
    small = (b"{", b"[]", b'{"pixels": 3}', b'{"pixels": [[[256]]]}', b"[" * 100000)
    for wrong in (*small, words, *others):
        assert "drawing is" in client.refusal("/api/drawn", wrong)[1]
    taken = json.loads(client.open("/api/picture", png.getvalue())[2])
    assert pixels(taken["picture"]).shape == (8, 8, 3)


def test_a_picture_survives_its_link():
    for shape in ((1, 8, 8), (3, 9, 7)):
        picture = torch.randint(0, 256, (1, *shape), dtype=torch.uint8)
        text = uploads.encode_start(picture)
        torch.testing.assert_close(uploads.decode_start(text, shape), picture.float() / 127.5 - 1)
        with pytest.raises(pm.InputError, match="other images"):
            uploads.decode_start(text, (shape[0], 5, 5))


def test_pages_elsewhere_cannot_ask_and_the_page_asks_nowhere_else(client):
    status, headers, _ = client.open("/")
    assert status == 200
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert client.open("/api/setup", headers={"Host": "evil.example"})[0] == 400
    assert client.open("/static/../server.py")[0] == 404
    assert client.open("/nowhere")[0] == 404


# ------------------------------------------------------------------------------------------ company


def test_long_work_never_holds_up_short_work():
    """The long job's piece ends only after the short job has ended."""
    short_is_done = threading.Event()

    def long():
        assert short_is_done.wait(20)
        yield {"result": "long"}

    def short():
        yield {"result": "short"}

    async def everyone():
        workshop, order = work.Workshop(), []

        async def ask(job, pairs):
            async for line in workshop.lines(lambda: (job(), pairs)):
                message = json.loads(line)
                if "result" in message:
                    order.append(message["result"])
            if job is short:
                short_is_done.set()

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(ask, long, 1e12)
            await anyio.sleep(0.05)
            group.start_soon(ask, short, 0)
        return order

    assert anyio.run(everyone) == ["short", "long", "long", "long"]


def test_jobs_take_turns_and_end_when_nobody_listens():
    made, begun = [], threading.Semaphore(0)

    def job(name):
        if name == "a":
            assert begun.acquire(timeout=20), "the other has asked, too"
        for k in range(4):
            time.sleep(0.02)
            made.append(name)
            yield {"progress": k}

    def begin(name):
        if name == "b":
            begun.release()
        return job(name), 1e12

    async def everyone():
        workshop = work.Workshop()

        async def ask(name, lines):
            stream = workshop.lines(lambda: begin(name))
            seen = 0
            async for line in stream:
                seen += "progress" in json.loads(line) and json.loads(line)["progress"] != {"waiting": True}
                if seen == lines:
                    break
            await stream.aclose()

        async with anyio.create_task_group() as group:
            group.start_soon(ask, "a", 9)
            group.start_soon(ask, "b", 9)
        turns = "".join(made)
        made.clear()
        await ask("c", 2)
        return turns, "".join(made), workshop

    turns, cut, workshop = anyio.run(everyone)
    assert sorted(turns) == list("aaaabbbb")
    assert turns not in ("aaaabbbb", "bbbbaaaa")
    assert cut == "cc"
    assert workshop._jobs == 0


def test_a_picture_to_keep_is_not_drawn_for_nobody(client, monkeypatch):
    advance, taken = Flow.advance, []

    def slow(flow):
        taken.append(flow)
        time.sleep(0.05)
        advance(flow)

    monkeypatch.setattr(Flow, "advance", slow)
    with socket.create_connection(client.address.removeprefix("http://").split(":")) as raw:
        raw.sendall(b"GET /api/export.png?seed=77&steps=100 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        while not taken:
            time.sleep(0.01)
    time.sleep(0.5)
    before = len(taken)
    time.sleep(0.5)
    assert len(taken) == before < 50


@pytest.mark.parametrize(
    ("fails", "told"),
    [(lambda: torch.empty(1 << 50), "out of memory"), (lambda: [][1], "itself failed")],
)
def test_what_a_job_fails_of_is_told(fails, told):
    async def ask():
        return [json.loads(line) async for line in work.Workshop().lines(fails)]

    [message] = anyio.run(ask)
    assert told in message["error"]


def test_the_queue_is_bounded(monkeypatch):
    monkeypatch.setattr(work, "_MOST_JOBS", 0)

    async def ask():
        return [line async for line in work.Workshop().lines(lambda: (iter(()), 0))]

    assert b"try again" in anyio.run(ask)[0]


def test_many_ask_for_one_flow_and_each_step_is_taken_once(data):
    calls = []

    class Counting(pm.Denoiser):
        def denoise(self, x, alpha_bar, labels=None):
            calls.append(alpha_bar)
            return x / 2

    schedule = pm.CosineSchedule()
    flow = Flow(Counting(), torch.ones(1, 1, 4, 4), schedule.times(6), schedule, None)

    def drive():
        while not flow.done:
            flow.advance()

    threads = [threading.Thread(target=drive) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == len(set(calls)) == 6
    expected = pm.sample(Counting(), torch.ones(1, 1, 4, 4), 6).images
    assert torch.equal(flow.picture, expected)


def test_a_flow_that_is_no_longer_kept_still_gives_its_answer(data):
    studio = Studio(data, memory=1 << 20)  # one flow
    api = _Api(studio, str)
    alone = [list(api._pixel(View(seed=seed, steps=3, row=2, col=2)))[-1] for seed in (1, 2)]
    jobs = [api._pixel(View(seed=seed, steps=3, row=2, col=2)) for seed in (1, 2)]
    assert list(zip(*jobs, strict=True))[-1] == tuple(alone)


def test_small_flows_take_memory_too(data):
    studio = Studio(data, memory=8 << 20)
    flows = [weakref.ref(studio.flow(View(seed=seed))) for seed in range(50)]
    assert sum(flow() is not None for flow in flows) <= 8


def test_no_link_asks_for_the_flow_of_a_network(data):
    studio = Studio(data, pm.load_network())
    drawn = studio.network_flow(View(steps=3))
    assert studio.network_flow(View(steps=3, machine="els", locality="3")) is drawn
    assert studio.flow(View(steps=3, machine="is", locality="network")) is not drawn


def test_what_was_used_last_is_kept():
    cache: Cache[str] = Cache(10, len)
    assert cache.get(1, lambda: "aaaa") == "aaaa"
    cache.get(2, lambda: "bbbb")
    assert cache.get(1, lambda: "again") == "aaaa"
    cache.get(3, lambda: "cccc")
    assert cache.get(1, lambda: "again") == "aaaa"
    assert cache.get(2, lambda: "anew") == "anew"
    assert cache.get(4, lambda: "more than fits") == "more than fits"
    assert cache.get(3, lambda: "gone") == "gone"


def test_ten_at_once_get_what_one_gets(client):
    queries = [f"/api/run?seed={seed}&steps=5" for seed in range(100, 105)]
    answers: dict[int, object] = {}

    def ask(i):
        answers[i] = client.result(queries[i % 5])

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answers[i] == answers[i + 5] == client.result(queries[i]) for i in range(5))


# ------------------------------------------------------------------------------------------ command


def test_ctrl_c_stops_the_server_and_a_taken_port_is_told(capsys):
    command = [
        sys.executable,
        "-m",
        "patchmosaic",
        "explore",
        "--limit",
        "20",
        "--port",
        "0",
        "--no-browser",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        address = server.stdout.readline().split()[-1]
        try:
            assert Client(address.rstrip("/")).open("/api/setup")[0] == 200
            warned_of = io.BytesIO()
            Image.new("1", (10000, 10000)).save(warned_of, "PNG")
            assert Client(address.rstrip("/")).open("/api/picture", warned_of.getvalue())[0] == 400
            port = address.rstrip("/").rsplit(":", 1)[1]
            assert main(["explore", "--limit", "20", "--port", port, "--no-browser"]) == 1
            told = capsys.readouterr().err
            assert told.count("\n") == 1
            assert "give another --port" in told
            server.send_signal(signal.SIGINT)
            out, err = server.communicate(timeout=30)
        finally:
            server.kill()
    assert server.returncode == 0
    assert "stopped" in out
    assert err == ""


def test_ctrl_c_does_not_wait_for_a_long_step(tmp_path):
    np.save(tmp_path / "many.npy", np.random.default_rng(0).integers(0, 256, (20000, 1, 32, 32), np.uint8))
    command = [sys.executable, "-m", "patchmosaic", "explore", "--port", "0", "--no-browser"]
    with subprocess.Popen(
        [*command, "--data", str(tmp_path / "many.npy")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        address = server.stdout.readline().split()[-1]
        try:
            query = "machine=els&locality=15&steps=1"
            with urllib.request.urlopen(f"{address}api/run?{query}") as answer:
                assert json.loads(answer.readline())["progress"]["done"] == 0
                server.send_signal(signal.SIGINT)
                _, err = server.communicate(timeout=10)
        finally:
            server.kill()
    assert server.returncode == 0
    assert err == ""


@pytest.mark.parametrize("link", ["http://127.0.0.1:8017/", "http://127.0.0.1:8017/?tab=draw#top"])
def test_a_link_of_the_page_is_a_view(tmp_path, link):
    command = ["explore", "--limit", "20", "--save", str(tmp_path / "view.png")]
    assert main([*command, "--view", link]) == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--view", "machine=x"], "machine must be one of"),
        (["--view", "label=x"], "label must be a number"),
        (["--view", "sed=3"], "does not know 'sed': it may hold machine,"),
        (["--view", "http://127.0.0.1:8017/?seed=3&colour"], "does not know 'colour'"),
        (["--network", "nowhere"], "holds no network"),
        (["--data", "two-tone", "--network", str(BUNDLED)], "use --size 8"),
        (["--view", "http://127.0.0.1:8017/?machine=x"], "machine must be one of"),
        (["--view", "http://127.0.0.1:8017/?label=x#top"], "not 'x'"),
        (["--host", "a" * 300], "cannot listen on"),
        (["--port", "99999"], "give another --port"),
        (["--host", "300.1.1.1"], "cannot listen on"),
    ],
)
def test_mistakes_take_one_line(arguments, told, capsys):
    assert main(["explore", "--no-browser", *arguments]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
