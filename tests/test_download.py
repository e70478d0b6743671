"""Downloads: from a server on this machine, and from a stand-in for Kaggle's package."""

import hashlib
import inspect
import io
import socket
import struct
import sys
import threading
import types
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
from pydantic import TypeAdapter

from unet_jax.config import DataConfig
from unet_jax.datasets import DataError, ade20k
from unet_jax.datasets.download import download
from unet_jax.datasets.fetch import fetch_zip
from unet_jax.datasets.kaggle import CAMVID, CARVANA


def zipped(names: list[str]) -> bytes:
    """A zip of these files, 100 kB of noise in each."""
    noise = np.random.default_rng(0).bytes(100_000)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, noise)
    return content.getvalue()


ADE = zipped([f"ADEChallengeData2016/{name}" for name in ade20k.Ade20k.LAYOUTS[0].needed])


def config_of(dataset: str, **fields: Path) -> DataConfig:
    return TypeAdapter(DataConfig).validate_python({"dataset": dataset, **fields})


class Server(ThreadingHTTPServer):
    """Serves `content` under any path.

    Attributes:
      content: The file.
      status: Of every answer, unless a range is asked for.
      ranges: Whether it serves ranges.
      tagged: Whether it says which version of the file it sends.
      sent: How many bytes of an answer's body are sent before the connection is closed; None: all.
      reset: Whether it is closed by a reset.
      asked: The `Range` of each request; None if it had none.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.status, self.ranges, self.tagged = ADE, 200, True, True
        self.sent: int | None = None
        self.reset = False
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/data.zip"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        assert isinstance(server, Server)
        server.asked.append(asked)
        status, body = server.status, server.content
        tag = f'"{hashlib.sha256(body).hexdigest()}"'
        if asked and server.ranges and self.headers["If-Range"] in (tag, None):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            status, body = (206, body[start:]) if start < len(body) else (416, b"")
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if server.tagged:
            self.send_header("ETag", tag)
        self.end_headers()
        self.wfile.write(body[: server.sent])
        if server.reset:
            self.wfile.flush()
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# From a server.


def test_a_zip_is_fetched(server: Server, tmp_path: Path):
    path = tmp_path / "new" / "data.zip"
    fetch_zip(server.url, path)
    assert path.read_bytes() == ADE
    assert [p.name for p in path.parent.iterdir()] == ["data.zip"]
    assert server.asked == [None]


def test_a_download_that_broke_off_goes_on_where_it_stopped(server: Server, tmp_path: Path):
    path = tmp_path / "data.zip"
    server.sent = len(ADE) // 2
    with pytest.raises(DataError, match=r"broke off after [\d,]+ of [\d,]+ bytes; run this again"):
        fetch_zip(server.url, path)
    assert not path.exists()
    assert (tmp_path / "data.zip.part").read_bytes() == ADE[: len(ADE) // 2]
    server.sent = None
    fetch_zip(server.url, path)
    assert server.asked == [None, f"bytes={len(ADE) // 2}-"]
    assert path.read_bytes() == ADE
    assert [p.name for p in tmp_path.iterdir()] == ["data.zip"]


def test_a_connection_that_is_reset_leaves_a_part_to_go_on_with(server: Server, tmp_path: Path):
    server.sent, server.reset = len(ADE) // 2, True
    with pytest.raises(DataError, match="broke off"):
        fetch_zip(server.url, tmp_path / "data.zip")
    assert not (tmp_path / "data.zip").exists()
    server.sent, server.reset = None, False
    fetch_zip(server.url, tmp_path / "data.zip")
    assert (tmp_path / "data.zip").read_bytes() == ADE


@pytest.mark.parametrize("change", ["refused range", "no ranges", "a new file", "no version"])
def test_a_part_that_cannot_be_gone_on_with_is_replaced(
    server: Server, tmp_path: Path, change: str
):
    server.sent, server.tagged = len(ADE) // 2, change != "no version"
    with pytest.raises(DataError, match="broke off"):
        fetch_zip(server.url, tmp_path / "data.zip")
    server.sent, server.ranges = None, change != "no ranges"
    if change == "refused range":
        (tmp_path / "data.zip.part").write_bytes(b"x" * (len(ADE) + 7))
    if change == "a new file":
        server.content = zipped(["other", "files", "and", "more"])
    fetch_zip(server.url, tmp_path / "data.zip")
    assert (tmp_path / "data.zip").read_bytes() == server.content
    assert [p.name for p in tmp_path.iterdir()] == ["data.zip"]
    assert len(server.asked) == (3 if change == "refused range" else 2)


def test_a_missing_file_is_named(server: Server, tmp_path: Path):
    server.status = 404
    with pytest.raises(DataError) as error:
        fetch_zip(server.url, tmp_path / "data.zip")
    assert str(error.value) == f"{server.url}: 404 Not Found"
    assert not list(tmp_path.iterdir())


def test_a_page_instead_of_a_zip_is_thrown_away(server: Server, tmp_path: Path):
    server.content = b"<html>Please log in to this network.</html>"
    with pytest.raises(DataError, match="what came is not a zip"):
        fetch_zip(server.url, tmp_path / "data.zip")
    assert not list(tmp_path.iterdir())


def test_a_server_that_cannot_be_reached_is_named(tmp_path: Path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/data.zip"
        with pytest.raises(DataError) as error:
            fetch_zip(url, tmp_path / "data.zip")
    assert str(error.value).startswith(f"{url}: cannot be reached (")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [True, False], ids=["data-dir", "no-data-dir"])
def test_ade20k_is_fetched_once_and_kept_as_a_zip(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: bool,
):
    monkeypatch.setattr(ade20k, "URL", server.url)
    place = tmp_path / "ade" if given else tmp_path / "prepared" / "downloads"
    config = DataConfig(
        dataset="ade20k", data_dir=place if given else None, prepared_dir=tmp_path / "prepared"
    )
    assert download(config) == place
    assert [p.name for p in place.iterdir()] == ["data.zip"]
    assert download(config) == place
    assert len(server.asked) == 1
    assert f"ade20k is in {place} already" in capsys.readouterr().err


def test_a_file_in_the_way_is_not_overwritten(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ade20k, "URL", server.url)
    (tmp_path / "data.zip").write_text("mine")
    with pytest.raises(DataError, match=r"data\.zip is not a whole zip; remove it"):
        download(DataConfig(dataset="ade20k", data_dir=tmp_path))
    assert (tmp_path / "data.zip").read_text() == "mine"
    with pytest.raises(DataError, match="is a file; to download into, a folder is needed"):
        download(DataConfig(dataset="ade20k", data_dir=tmp_path / "data.zip"))


@pytest.mark.parametrize("dataset", ["shapes", "folder"])
def test_some_sets_have_no_download(dataset: str):
    with pytest.raises(DataError, match=f"^--download: {dataset} is "):
        download(config_of(dataset))


# From Kaggle.


class UnauthenticatedError(Exception):
    def __init__(self, message: str = "User is not authenticated") -> None:
        super().__init__(message)


class KaggleApiHTTPError(requests.HTTPError):
    def __init__(self, message: str, response: requests.Response | None = None) -> None:
        super().__init__(message, response=response)


class DataCorruptionError(Exception):
    pass


class Hub:
    """What is used of `kagglehub` 1.0, with its signatures.

    Attributes:
      cache: Where it puts what has no `output_dir`.
      error: Raised after half of a file is written.
      asked: The `path` of each download.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.error: Exception | None = None
        self.asked: list[str | None] = []

    def competition_download(
        self,
        handle: str,
        path: str | None = None,
        *,
        force_download: bool | None = False,
        output_dir: str | None = None,
    ) -> str:
        assert handle == "carvana-image-masking-challenge"
        assert path in CARVANA
        folder = path.removesuffix(".zip")
        return self._write(self._folder(output_dir) / path, path, zipped([f"{folder}/a"]))

    def dataset_download(
        self,
        handle: str,
        path: str | None = None,
        *,
        force_download: bool | None = False,
        output_dir: str | None = None,
    ) -> str:
        assert (handle, path) == (CAMVID, None)
        folder = self._folder(output_dir)
        for name in ("train/a", "train_labels/a", "val/a", "val_labels/a", "class_dict.csv"):
            self._write(folder / "CamVid" / name, None, b"content")
        return str(folder)

    def _folder(self, output_dir: str | None) -> Path:
        if output_dir and Path(output_dir).exists() and any(Path(output_dir).iterdir()):
            raise FileExistsError(f"output_dir is not empty: {output_dir}")
        return Path(output_dir or self.cache)

    def _write(self, target: Path, path: str | None, content: bytes) -> str:
        self.asked.append(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content[: len(content) // 2] if self.error else content)
        if self.error:
            raise self.error
        return str(target)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "cache")
    module, errors = types.ModuleType("kagglehub"), types.ModuleType("kagglehub.exceptions")
    vars(module).update(
        competition_download=hub.competition_download, dataset_download=hub.dataset_download
    )
    vars(errors).update(
        UnauthenticatedError=UnauthenticatedError,
        KaggleApiHTTPError=KaggleApiHTTPError,
        DataCorruptionError=DataCorruptionError,
    )
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    monkeypatch.setitem(sys.modules, "kagglehub.exceptions", errors)
    return hub


def test_the_stand_in_is_like_the_package():
    real = pytest.importorskip("kagglehub")
    errors = pytest.importorskip("kagglehub.exceptions")
    for name in ("competition_download", "dataset_download"):
        ours = inspect.signature(getattr(Hub(Path()), name))
        assert ours == inspect.signature(getattr(real, name))
    for ours in (UnauthenticatedError, KaggleApiHTTPError, DataCorruptionError):
        theirs = getattr(errors, ours.__name__)
        assert ours.__mro__[1:] == theirs.__mro__[1:]


@pytest.mark.parametrize("dataset", ["carvana", "camvid"])
def test_kaggle_fills_the_folder_that_is_given_once(hub: Hub, tmp_path: Path, dataset: str):
    place = tmp_path / "data"
    config = config_of(dataset, data_dir=place)
    assert download(config) == place
    expected = {"carvana": set(CARVANA), "camvid": {"camvid"}}[dataset]
    assert {path.name for path in place.iterdir()} == expected
    assert not hub.cache.exists()
    asked = len(hub.asked)
    assert download(config) == place
    assert len(hub.asked) == asked


@pytest.mark.parametrize("dataset", ["carvana", "camvid"])
def test_without_a_folder_kaggles_cache_holds_the_data(hub: Hub, dataset: str):
    assert download(config_of(dataset)) == hub.cache


@pytest.mark.parametrize("dataset", ["carvana", "camvid"])
def test_what_broke_off_leaves_nothing_and_can_be_run_again(hub: Hub, tmp_path: Path, dataset: str):
    config = config_of(dataset, data_dir=tmp_path / "data")
    hub.error = requests.ConnectionError("x" * 500)
    with pytest.raises(DataError) as error:
        download(config)
    assert str(error.value) == (
        "no connection to Kaggle, or it broke off (ConnectionError); run this again"
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    hub.error = None
    download(config)


def test_a_killed_download_is_begun_anew(hub: Hub, tmp_path: Path):
    (tmp_path / ".part").mkdir()
    (tmp_path / ".part" / "train.zip").write_bytes(b"half")
    download(DataConfig(dataset="carvana", data_dir=tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == set(CARVANA)


def test_only_the_missing_zip_is_fetched(hub: Hub, tmp_path: Path):
    (tmp_path / "train.zip").write_bytes(zipped(["train/a"]))
    download(DataConfig(dataset="carvana", data_dir=tmp_path))
    assert hub.asked == ["train_masks.zip"]


def test_half_a_zip_in_the_folder_is_named(hub: Hub, tmp_path: Path):
    (tmp_path / "train.zip").write_bytes(zipped(["train/a"])[:1000])
    with pytest.raises(DataError, match=r"train\.zip is not a whole zip; remove it"):
        download(DataConfig(dataset="carvana", data_dir=tmp_path))
    assert not hub.asked


def answer(status: int, reason: str) -> KaggleApiHTTPError:
    response = requests.Response()
    response.status_code, response.reason = status, reason
    return KaggleApiHTTPError("several\nlines", response)


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        pytest.param("carvana", UnauthenticatedError(), "KAGGLE_API_TOKEN", id="no-token"),
        pytest.param(
            "carvana", answer(401, "Unauthorized"), "refuses your token (401)", id="bad-token"
        ),
        pytest.param(
            "carvana",
            answer(403, "Forbidden"),
            "accept the rules first (403): "
            "https://www.kaggle.com/competitions/carvana-image-masking-challenge/rules",
            id="rules",
        ),
        pytest.param(
            "camvid",
            answer(403, "Forbidden"),
            f"Kaggle answers 403 Forbidden for https://www.kaggle.com/datasets/{CAMVID}",
            id="forbidden",
        ),
        pytest.param("camvid", answer(522, "Timed Out"), "answers 522 Timed Out", id="522"),
        pytest.param("camvid", DataCorruptionError("md5\nmd5"), "is damaged", id="damaged"),
    ],
)
def test_kaggles_errors_become_one_line(
    hub: Hub, tmp_path: Path, dataset: str, error: Exception, message: str
):
    hub.error = error
    with pytest.raises(DataError) as caught:
        download(config_of(dataset, data_dir=tmp_path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(DataError, match="pip install kagglehub"):
        download(DataConfig(dataset="carvana"))
