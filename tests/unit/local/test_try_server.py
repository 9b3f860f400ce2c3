"""The page that takes pictures: what it answers, and what it refuses to whom."""

import http.client
import io
import json
import re
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from graftline.errors import ConfigurationError
from graftline.onnx_model.predict import OnnxClassifier
from graftline_pipelines.cli.main import app
from graftline_pipelines.local import try_server
from graftline_pipelines.local.try_server import TOKEN_HEADER, TryServer


def png(width: int = 40, height: int = 30) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def bomb(side: int = 60_000) -> bytes:
    """A PNG of a few bytes that claims 3.6 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 10_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def model(exported_model: tuple) -> OnnxClassifier:
    return OnnxClassifier(exported_model[2].onnx)


@pytest.fixture
def server(model: OnnxClassifier) -> Iterator[TryServer]:
    with TryServer(model) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: TryServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    reply = connection.getresponse()
    found = reply.status, dict(reply.getheaders()), reply.read()
    connection.close()
    return found


def predict(server: TryServer, body: bytes, **headers: str) -> tuple[int, dict]:
    status, _, data = ask(
        server, "POST", "/predict", body, **{TOKEN_HEADER: server.token, **headers}
    )
    return status, json.loads(data)


def test_a_picture_is_answered_as_by_predict(
    server: TryServer, model: OnnxClassifier, tmp_path: Path
) -> None:
    status, told = predict(server, png())
    assert status == 200
    (tmp_path / "a.png").write_bytes(png())
    (expected,) = model.predict([tmp_path / "a.png"], top=3)
    assert [one["label"] for one in told["top"]] == [label for label, _ in expected.top]
    assert told["top"][0]["probability"] == pytest.approx(expected.probability, abs=1e-6)
    assert (told["width"], told["height"], told["others"]) == (40, 30, 0)
    assert told["known"] == expected.known
    assert told["saliency"].startswith("data:image/png;base64,")


def test_the_page_is_whole_and_allows_only_itself(server: TryServer) -> None:
    status, headers, page = ask(server, "GET", "/")
    assert status == 200 and server.token in page.decode()
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    (nonce,) = re.findall(r"script-src 'nonce-([^']+)'", policy)
    scripts = re.findall(r"<(?:script|style)[^>]*>", page.decode())
    assert scripts and all(f'nonce="{nonce}"' in tag for tag in scripts)
    assert not re.search(r"(src|href)=\"?https?:", page.decode()) and "{{" not in page.decode()


def test_the_name_of_a_model_is_no_markup(
    server: TryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.model, "path", Path("</script><script>alert(1)<"))
    assert b"<script>alert" not in server.page()


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/etc/passwd", "//etc/passwd", "/index.html", "/?x=1"]
)
def test_no_path_leads_anywhere(server: TryServer, path: str) -> None:
    assert ask(server, "GET", path)[0] == 404
    assert ask(server, "POST", path, png(), **{TOKEN_HEADER: server.token})[0] == 404


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Host": "localhost:{port}"}, True),
        ({"Origin": "http://127.0.0.1:{port}"}, True),
        ({"Host": "evil.example:{port}"}, False),
        ({"Host": "127.0.0.1.evil.example:{port}"}, False),
        ({"Host": "127.0.0.1"}, False),
        ({"Host": ""}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({TOKEN_HEADER: "guess"}, False),
        ({TOKEN_HEADER: ""}, False),
    ],
)
def test_only_our_own_page_is_served(
    server: TryServer, headers: dict[str, str], allowed: bool
) -> None:
    given = {name: value.format(port=server.server_port) for name, value in headers.items()}
    assert predict(server, png(), **given)[0] == (200 if allowed else 403)
    if TOKEN_HEADER not in given:
        status, _, page = ask(server, "GET", "/", **given)
        assert (status == 200, server.token in page.decode()) == (allowed, allowed)


def test_it_listens_on_loopback_only(server: TryServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture", b"GIF89a", b"\xff\xd8\xff\xe0", png()[:200], bomb(), b"\0" * 100_000],
    ids=["empty", "text", "gif", "jpeg", "cut", "bomb", "zeros"],
)
def test_what_is_no_picture_is_said_and_the_server_lives(server: TryServer, data: bytes) -> None:
    status, told = predict(server, data)
    assert status == 422 and told["error"]
    assert predict(server, png())[0] == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"Content-Length: {try_server.MAX_BYTES + 1}", 413),
        ("Content-Length: 99999999999999999999999999", 413),
        ("Content-Length: -1", 411),
        ("Content-Length: 1e3", 411),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 411),
        ("X-None: 1", 411),
    ],
)
def test_uploads_are_bounded_before_they_are_read(
    server: TryServer, head: str, status: int
) -> None:
    port = server.server_port
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        raw.sendall(
            f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{TOKEN_HEADER}: {server.token}"
            f"\r\n{head}\r\n\r\n".encode()
        )
        reply = b"".join(iter(lambda: raw.recv(65536), b""))  # until it closes
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())


def test_an_upload_that_stops_is_given_up(
    server: TryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(try_server._Handler, "timeout", 0.2)
    port = server.server_port
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        raw.sendall(
            f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{TOKEN_HEADER}: {server.token}"
            "\r\nContent-Length: 1000\r\n\r\nabc".encode()
        )
        assert b"".join(iter(lambda: raw.recv(65536), b"")) == b""
    assert predict(server, png())[0] == 200


def test_a_crowd_is_turned_away_and_the_server_lives(server: TryServer) -> None:
    port = server.server_port
    crowd = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(40)]
    closed = 0
    for one in crowd[try_server.MOST_CONNECTIONS :]:
        one.settimeout(20)
        closed += one.recv(1) == b""
    assert closed == 40 - try_server.MOST_CONNECTIONS
    for one in crowd:
        one.close()
    for _ in range(100):
        try:
            assert predict(server, png())[0] == 200
            break
        except (OSError, http.client.HTTPException):
            threading.Event().wait(0.1)  # those that left are noticed one by one
    else:
        pytest.fail("the server no longer answers")


def test_mistakes_of_the_command(model: OnnxClassifier, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["try", str(tmp_path / "none.onnx"), "--no-browser"])
    assert isinstance(done.exception, ConfigurationError)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        arguments = ["try", str(model.path), "--no-browser", "--port"]
        done = CliRunner().invoke(app, [*arguments, str(taken.getsockname()[1])])
    assert isinstance(done.exception, ConfigurationError) and "Port" in str(done.exception)


def picture(width: int, height: int, kind: str, **options: object) -> bytes:
    """A plain picture; what it holds does not matter to the memory that it takes."""
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 30)).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(("width", "height"), [(8000, 5000), (5000, 8000)])
def test_a_large_jpeg_is_read_reduced_and_the_page_says_so(
    model: OnnxClassifier, monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    seen: list[tuple[int, ...]] = []
    classify = model.classify

    def noted(images: list, top: int = 1) -> list:
        seen.extend(pixels.shape for _, pixels in images)
        return classify(images, top)

    monkeypatch.setattr(model, "classify", noted)
    told = try_server.classify(model, picture(width, height, "JPEG"))
    ((rows, columns, _),) = seen
    assert rows * columns <= try_server.MAX_PIXELS and (rows > columns) == (height > width)
    assert (told["width"], told["height"]) == (width, height)
    assert f"{columns:,} x {rows:,} pixels" in told["warning"]


def test_a_large_picture_of_another_format_is_refused_with_what_to_do(server: TryServer) -> None:
    status, told = predict(server, picture(5000, 4000, "PNG"))
    assert status == 422
    assert "5,000 x 4,000 pixels" in told["error"] and "graftline predict" in told["error"]
    assert "13 million" in told["error"] and "JPEG" in told["error"]


def test_a_turned_jpeg_keeps_its_upright_size(model: OnnxClassifier) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    told = try_server.classify(model, picture(5200, 3900, "JPEG", exif=exif))
    assert (told["width"], told["height"]) == (3900, 5200)
