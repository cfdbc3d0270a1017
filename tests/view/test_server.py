"""The viewer's answers, to whom it gives them, and what it does not do."""

import http.client
import io
import json
import os
import shutil
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from progan.data.store.pyramid import ImagePyramid
from progan.images import make_grid
from progan.sampling.images import load_generator, one_hot, sample, seed_latents
from progan.sampling.walk import round_trip
from progan.view.runs import run_id
from tests.command import refused
from tests.view.conftest import viewing


def ask(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    """Status and content of an answer; path: below the secret, or from the root when it begins with a slash."""
    where = urlsplit(address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port or 0, timeout=60)
    connection.putrequest(method, path if path.startswith("/") else where.path + path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def told(address: str, path: str) -> Any:
    status, content = ask(address, path)
    assert status == 200, content
    return json.loads(content)


def seen(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.fixture(scope="module")
def one(folder: Path) -> str:
    return f"runs/{run_id(folder / 'runs' / 'one')}"


@pytest.fixture(scope="module")
def two(folder: Path) -> str:
    return f"runs/{run_id(folder / 'runs' / 'two')}"


# What it answers.


def test_facts(address: str, folder: Path, one: str, two: str) -> None:
    run = told(address, one)
    assert (run["name"], run["nimg"], run["dataId"]) == ("runs/one", 96, run_id(folder / "data"))
    assert told(address, f"differences?runs={one[5:]},{two[5:]}")[0][0] == "g.label_dim"
    data = told(address, f"data/{run['dataId']}")
    assert data["labels"] == [["class0", 14], ["class1", 13], ["class2", 13]]
    study = told(address, f"studies/{run_id(folder / 'study')}")
    assert study["table"].startswith("# Table")
    assert study["pictures"] == ["grid.png"]
    assert ask(address, f"studies/{run_id(folder / 'study')}/pictures/grid.png")[0] == 200


def test_news(address: str) -> None:
    where = urlsplit(address)
    with socket.create_connection((where.hostname, where.port), timeout=30) as line:
        line.sendall(f"GET {where.path}events HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
        heard = b""
        while b"\n\n" not in heard.partition(b"data: ")[2]:
            heard += line.recv(65536)
    overview = json.loads(heard.partition(b"data: ")[2].partition(b"\n\n")[0])
    assert [run["name"] for run in overview["runs"]] == ["runs/one", "runs/two"]
    assert [run["state"] for run in overview["runs"]] == ["done", "done"]
    assert ([one["name"] for one in overview["data"]], [one["name"] for one in overview["studies"]]) == (
        ["data"],
        ["study"],
    )


def test_pictures_that_are_there(address: str, folder: Path, one: str) -> None:
    run = folder / "runs" / "one"
    assert ask(address, f"{one}/fakes/96") == (200, (run / "fakes-000000096.png").read_bytes())
    assert ask(address, f"{one}/reals") == (200, (run / "reals.png").read_bytes())
    small = seen(ask(address, f"{one}/thumbnail/96")[1])
    assert np.array_equal(small, seen((run / "fakes-000000096.png").read_bytes())[: len(small), : len(small)])
    data = run_id(folder / "data")
    image = seen(ask(address, f"data/{data}/images/16/7")[1])
    assert np.array_equal(image.transpose(2, 0, 1), ImagePyramid.open(folder / "data").read(np.array([7]), 16)[0])
    assert seen(ask(address, f"data/{data}/sheet")[1]).ndim == 3


@pytest.mark.parametrize(("resolution", "alpha"), [(4, 1.0), (8, 0.25), (16, 0.5), (16, 1.0)])
def test_pictures_that_are_drawn(address: str, folder: Path, two: str, resolution: int, alpha: float) -> None:
    g, _ = load_generator(folder / "runs" / "two")
    stage = {"resolution": resolution, "alpha": alpha}
    z = seed_latents([3, 4], g.config.z_dim)
    base = f"{two}/generators/96"
    fields = f"points=3,4&columns=2&resolution={resolution}&alpha={alpha}"
    wanted = make_grid(sample(g, z, one_hot([0, 1], 3), **stage), 2, 1)
    assert np.array_equal(seen(ask(address, f"{base}/picture?{fields}")[1]), wanted)
    wanted = make_grid(sample(g, z, one_hot([2, 2], 3), **stage), 2, 1)
    assert np.array_equal(seen(ask(address, f"{base}/picture?{fields}&label=2")[1]), wanted)
    parts = seen(ask(address, f"{base}/branches?points=3&resolution={resolution}&alpha={alpha}")[1])
    older, newer, blend = np.split(parts.astype(int), 3, axis=1)
    if resolution > 4:
        inner = (older > 0) & (older < 255) & (newer > 0) & (newer < 255)  # clipping comes after the blend
        assert np.abs(blend - ((1 - alpha) * older + alpha * newer))[inner].max() <= 1
    assert np.array_equal(
        blend, seen(ask(address, f"{base}/picture?points=3&{fields.partition('&')[2]}")[1])[:, :resolution]
    )


def test_walks_and_directions(address: str, folder: Path, two: str) -> None:
    base = f"{two}/generators/96/picture?points="
    g, stage = load_generator(folder / "runs" / "two")
    z = round_trip(seed_latents([3, 5, 9], g.config.z_dim), 6)
    labels = one_hot([0, 2, 0], 3)
    labels = torch.stack([labels[0], (labels[0] + labels[1]) / 2, labels[1], (labels[1] + labels[2]) / 2])  # type: ignore[index]
    for frame, image in enumerate(sample(g, z[:4], labels, **stage)):
        shown = seen(ask(address, f"{base}3~5~9~{frame / 6}")[1])
        assert np.abs(shown.astype(int) - image.transpose(1, 2, 0)).max() <= 1
    assert ask(address, f"{base}3~5~9~0")[1] == ask(address, f"{base}3")[1]
    moved = [ask(address, f"{base}3&moves={moves}")[1] for moves in ("", "0,0,0", "2", "0,2")]
    assert moved[0] == moved[1]
    assert len(set(moved)) == 3


def test_nearest_training_images(address: str, folder: Path, one: str) -> None:
    found = told(address, f"{one}/generators/96/neighbours?points=3")
    g, stage = load_generator(folder / "runs" / "one")
    image = sample(g, seed_latents([3], g.config.z_dim), **stage)[0].astype(float)
    pixels = ImagePyramid.open(folder / "data").read(np.arange(40), 16).astype(float)
    distances = np.sqrt(((pixels - image) ** 2).mean((1, 2, 3)))
    assert (found["images"], found["at"]) == (40, 16)
    assert [one["number"] for one in found["found"]] == np.argsort(distances)[:8].tolist()
    assert [one["distance"] for one in found["found"]] == pytest.approx(np.sort(distances)[:8], abs=0.01)


@pytest.mark.parametrize(
    "wish", ["points=x", "points=3~5", "points=3~5~2", "points=-1", "points=" + ",".join(["1"] * 65), "resolution=32",
             "resolution=5", "alpha=2", "alpha=nan", "moves=x", "moves=1e9", "moves=" + ",".join(["1"] * 99), "label=3",
             "label=x", "points=" + "3~" * 9 + "0", "points=" + "9" * 40, "columns=x", "turn=x"],
)  # fmt: skip
def test_wishes_that_cannot_be_granted(address: str, two: str, wish: str) -> None:
    status, content = ask(address, f"{two}/generators/96/picture?{wish}")
    assert status in (400, 404)
    assert content.decode().isprintable()
    assert 5 < len(content) < 200


def test_what_a_snapshot_has_not_learned_is_not_drawn(address: str, two: str) -> None:
    status, content = ask(address, f"{two}/generators/32/picture?resolution=16&alpha=1")
    assert (status, content) == (404, b"resolution: 16 has not been learned yet; use 8 or less")


# To whom.


@pytest.mark.parametrize("path", ["/", "/x/", "/x/events", "/pages/viewer.js", "/../etc/passwd", "//", "/%00"])
def test_without_the_secret_nothing_is_read(address: str, path: str) -> None:
    assert ask(address, path) == (404, b"")
    secret = urlsplit(address).path
    for wrong in (secret[:-2] + "/", secret[:-1] + "x/", secret.swapcase()):
        assert ask(address, wrong) == (404, b"")


@pytest.mark.parametrize(
    "host", ["example.org", "example.org:80", "127.0.0.1", "127.0.0.1:1", "", "localhost.example.org"]
)
def test_another_host_is_refused(address: str, host: str) -> None:
    assert ask(address, "", Host=host) == (403, b"")


@pytest.mark.parametrize("origin", ["http://example.org", "null", "http://127.0.0.1", "http://127.0.0.1:1"])
def test_another_origin_is_refused(address: str, one: str, origin: str) -> None:
    assert ask(address, one, Origin=origin) == (403, b"")
    where = urlsplit(address)
    assert ask(address, one, Origin=f"http://{where.netloc}")[0] == 200
    assert ask(address, one, Host=f"localhost:{where.port}", Origin=f"http://localhost:{where.port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_nothing_can_be_written_or_started(address: str, folder: Path, one: str, method: str) -> None:
    before = sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*"))
    assert ask(address, one, method)[0] == 405
    assert sorted((str(path), path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


@pytest.mark.parametrize(
    "path",
    ["../config.json", "pages/../server.py", "pages/%2e%2e/server.py", "pages/..%2fserver.py", "pages/%2Fetc%2Fpasswd",
     "pages/page.html", "pages/nothing.js", "pages/__init__.py", "runs/../../etc/passwd", "runs/{one}/fakes/../x",
     "runs/{one}/fakes/7", "runs/{one}/fakes/x", "runs/{one}/fakes/-1", "runs/{one}/generators/1/picture", "runs/x",
     "data/nothing", "data/{one}", "studies/nothing/pictures/x.png", "nothing"],
)  # fmt: skip
def test_what_is_not_there(address: str, one: str, path: str) -> None:
    status, content = ask(address, path.format(one=one[5:]))
    assert status == 404
    assert b"root:" not in content
    assert len(content) < 200


def test_links_that_lead_out_are_not_followed(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (8, 8)).save(outside / "secret.png")
    shutil.copytree(folder / "runs" / "one", tmp_path / "in" / "run")
    shutil.copytree(folder / "study", tmp_path / "in" / "study")
    run = tmp_path / "in" / "run"
    (run / "fakes-000000097.png").symlink_to(outside / "secret.png")
    (run / "reals.png").unlink()
    (run / "reals.png").symlink_to("/etc/passwd")
    (run / "snapshots" / "generator-000000097.safetensors").symlink_to(
        folder / "runs" / "one" / "generator.safetensors"
    )
    (tmp_path / "in" / "study" / "link.png").symlink_to(outside / "secret.png")
    os.mkfifo(run / "fakes-000000098.png")
    with viewing(tmp_path / "in") as (address, _):
        base = f"runs/{run_id(run)}"
        for path in ("fakes/97", "thumbnail/97", "fakes/98", "thumbnail/98", "reals", "generators/97/picture"):
            assert ask(address, f"{base}/{path}")[0] == 404, path
        study = f"studies/{run_id(tmp_path / 'in' / 'study')}"
        assert ask(address, f"{study}/pictures/link.png")[0] == 404
        assert told(address, study)["pictures"] == ["grid.png"]


# What it bears.


def test_a_crowd_and_one_who_reads_nothing(folder: Path, one: str) -> None:
    with viewing(folder) as (address, process):
        where = urlsplit(address)
        deaf = [socket.create_connection((where.hostname, where.port)) for _ in range(20)]
        for line in deaf:
            line.sendall(f"GET {where.path}events HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
        with ThreadPoolExecutor(50) as crowd:
            paths = [f"{one}/fakes/96", f"{one}/generators/96/picture?points=1", one, "pages/viewer.js"]
            answers = list(crowd.map(lambda i: ask(address, paths[i % 4])[0], range(1000)))
        assert set(answers) == {200}
        process.send_signal(signal.SIGTERM)  # with twenty who still listen
        process.wait(timeout=10)
        for line in deaf:
            line.close()


def test_what_happens_to_a_run_is_seen(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "runs" / "one", tmp_path / "run")
    base = f"runs/{run_id(tmp_path / 'run')}"
    with viewing(tmp_path) as (address, _):
        assert told(address, base)["pictures"][-1] == 96
        shutil.copy(tmp_path / "run" / "fakes-000000096.png", tmp_path / "run" / "fakes-000000112.png")
        (tmp_path / "run" / "fakes-000000120.png").write_bytes(b"\x89PNG half of one")
        (tmp_path / "run" / "reals.png").write_bytes(b"no picture")
        assert ask(address, f"{base}/reals") == (404, b"this picture cannot be read")
        assert told(address, base)["pictures"][-2:] == [112, 120]
        assert ask(address, f"{base}/thumbnail/120") == (404, b"this picture cannot be read")
        (tmp_path / "run").rename(tmp_path / "moved")
        assert ask(address, base)[0] == 404


# How it begins.


def test_what_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no folder; give one that holds runs" in refused(capsys, "view", tmp_path / "nothing")
    assert "--port: 70000 is not allowed" in refused(capsys, "view", tmp_path, "--port", 70000)
    assert "dataset.json" in refused(capsys, "view", tmp_path, "--data", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port: {port} is taken on 127.0.0.1" in refused(capsys, "view", tmp_path, "--port", port)


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_packages_that_are_not_installed(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith(("progan.view", package))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert (
        refused(capsys, "view", tmp_path) == f"progan: view: {package} is not installed; pip install 'progan[view]'\n"
    )
