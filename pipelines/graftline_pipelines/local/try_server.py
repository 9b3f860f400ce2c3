"""A page on this machine that classifies the picture somebody drops on it.

It listens on the loopback address only. A page of another origin cannot use it: the ``Host`` must
be this very address (no DNS rebinding), and a request must carry the token that only our own page
knows (no cross-site request). No path leads to a file. What is uploaded is bounded in bytes, pixels
and time, and is kept nowhere.
"""

import base64
import io
import json
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from graftline.errors import DataError
from graftline.images import decode
from graftline.images.decode import Decoded, decode_image
from graftline.onnx_model.predict import OnnxClassifier, doubt_of
from graftline.onnx_model.saliency import occlusion, overlay

ADDRESS = "127.0.0.1"
MAX_BYTES = 32 * 2**20
# The graph takes up to 40 bytes for a pixel while it resizes: 0.5 GB for a picture of this size.
# A larger JPEG, as of some phones, is decoded at a half, a quarter or an eighth of its sides.
MAX_PIXELS = 12_600_000
MAX_JPEG_PIXELS = decode.MAX_PIXELS
READ_SECONDS = 20.0  # for a request to arrive
TOP = 10  # classes that are shown
SHOWN_SIDE = 512  # of the pictures that are sent back
MOST_CONNECTIONS = 16
TOKEN_HEADER = "X-Graftline-Token"  # noqa: S105 -- a header's name


class TryServer(ThreadingHTTPServer):
    """The server; ``url`` is where its page is.

    Args:
        model: The exported file.
        port: 0 for any free one.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, model: OnnxClassifier, port: int = 0) -> None:
        super().__init__((ADDRESS, port), _Handler)
        self.model = model
        self.token = secrets.token_urlsafe(24)
        self.nonce = secrets.token_urlsafe(12)
        self.one_at_a_time = threading.Lock()  # the model takes all cores anyway
        self._room = threading.BoundedSemaphore(MOST_CONNECTIONS)

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{ADDRESS}:{self.server_port}/"

    @property
    def hosts(self) -> set[str]:
        """What the ``Host`` of a request may be."""
        return {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}

    def page(self) -> bytes:
        """The page, with this server's token and the model's name."""
        source = (files("graftline_pipelines.local") / "templates" / "try.html").read_text("utf-8")
        facts = {
            "token": self.token,
            "header": TOKEN_HEADER,
            "maxBytes": MAX_BYTES,
            "model": self.model.path.name,
            "classes": len(self.model.classes),
            "backbone": self.model.metadata.backbone,
        }
        text = json.dumps(facts).replace("<", "\\u003c")
        return source.replace("{{nonce}}", self.nonce).replace("{{told}}", text).encode()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection, if there are not too many."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: TryServer
    protocol_version = "HTTP/1.1"
    timeout = READ_SECONDS
    server_version, sys_version = "graftline", ""

    def do_GET(self) -> None:
        """The page, and nothing else."""
        if not self._is_ours():
            return
        if self.path != "/":
            self._send_error(HTTPStatus.NOT_FOUND, "There is only one page here.")
            return
        policy = (
            f"default-src 'none'; script-src 'nonce-{self.server.nonce}'; style-src "
            f"'nonce-{self.server.nonce}'; img-src data: blob:; connect-src 'self'; "
            "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )
        headers = {"Content-Security-Policy": policy}
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.page(), headers)

    def do_POST(self) -> None:
        """A picture, to be classified."""
        if not self._is_ours():
            return
        if self.path != "/predict":
            self._send_error(HTTPStatus.NOT_FOUND, "Pictures go to /predict.")
            return
        if not secrets.compare_digest(
            self.headers.get(TOKEN_HEADER, "").encode(), self.server.token.encode()
        ):
            self._send_error(HTTPStatus.FORBIDDEN, "The request did not come from this page.")
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or self.headers.get("Transfer-Encoding"):
            self._send_error(HTTPStatus.LENGTH_REQUIRED, "The size of the picture is not said.")
            return
        if len(length) > 12 or int(length) > MAX_BYTES:
            limit = f"{MAX_BYTES // 2**20} MiB"
            self._send_error(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The file is larger than {limit}."
            )
            return
        data = self.rfile.read(int(length))
        try:
            with self.server.one_at_a_time:
                answer = classify(self.server.model, data)
        except DataError as error:
            why = f": {error.why}" if error.why else ""
            self._send_error(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error.what}{why}")
            return
        except MemoryError:
            self._send_error(HTTPStatus.UNPROCESSABLE_ENTITY, "There is not enough memory for it.")
            return
        self._send(HTTPStatus.OK, "application/json", json.dumps(answer).encode())

    def _is_ours(self) -> bool:
        """Refuse a request that names another host or comes from another origin."""
        origin = self.headers.get("Origin")
        origins = {f"http://{host}" for host in self.server.hosts}
        if self.headers.get("Host") in self.server.hosts and (origin is None or origin in origins):
            return True
        self._send_error(HTTPStatus.FORBIDDEN, f"Open {self.server.url} instead.")
        return False

    def _send_error(self, status: HTTPStatus, text: str) -> None:
        self.close_connection = True  # what it still sends is not read
        self._send(status, "application/json", json.dumps({"error": text}).encode())

    def _send(
        self, status: HTTPStatus, kind: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        common = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        for name, value in {**common, **(headers or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: the page says what there is to say."""


def classify(model: OnnxClassifier, data: bytes) -> dict[str, Any]:
    """All that the page shows of one picture.

    Raises:
        DataError: It is no picture, or too large a one.
    """
    value_range = model.metadata.value_range
    decoded, size = _decoded(data, value_range)
    ((found, _),) = model.classify([("picture", decoded.pixels)], TOP)
    covered = occlusion(model, decoded.pixels, found.label)
    limit = model.metadata.thresholds.get("none_of_these", {}).get("distance")
    height, width = decoded.pixels.shape[:2]
    return {
        "top": [{"label": label, "probability": p} for label, p in found.top],
        "others": max(0, len(model.classes) - len(found.top)),
        "known": found.known,
        "distance": found.distance,
        "threshold": limit,
        "warning": doubt_of(decoded, value_range) or _reduced(size, (width, height)),
        "width": size[0],
        "height": size[1],
        "covered": covered.lowest,
        "saliency": _data_uri(overlay(covered)),
    }


def _decoded(data: bytes, value_range: Any) -> tuple[Decoded, tuple[int, int]]:
    """A picture in bounded memory, and its own width and height.

    Raises:
        DataError: It is no picture, or too large a one.
    """
    width, height, is_jpeg = _measured(data)
    if width * height <= MAX_PIXELS:
        decoded = decode_image(data, max_pixels=MAX_PIXELS, value_range=value_range)
        return decoded, (decoded.pixels.shape[1], decoded.pixels.shape[0])
    if not is_jpeg or width * height > MAX_JPEG_PIXELS:
        limit = MAX_JPEG_PIXELS if is_jpeg else MAX_PIXELS
        raise DataError(
            f"The picture has {width:,} x {height:,} pixels, and this page takes "
            f"{limit / 1e6:.0f} million{'' if is_jpeg else ', more only of a JPEG'}.",
            why="Make it smaller, or give it to `graftline predict`.",
        )
    shrink = next(each for each in (2, 4, 8) if width * height <= MAX_PIXELS * each**2)
    decoded = decode_image(
        data,
        max_pixels=MAX_JPEG_PIXELS,
        shortest=min(width, height) // shrink,
        value_range=value_range,
    )
    turned = (decoded.pixels.shape[0] > decoded.pixels.shape[1]) != (height > width)
    return decoded, (height, width) if turned else (width, height)


def _measured(data: bytes) -> tuple[int, int, bool]:
    """Width and height as they are stored, and whether it is a JPEG; zeros for no picture."""
    try:
        with Image.open(io.BytesIO(data), formats=decode.FORMATS) as image:
            return (*image.size, image.format in ("JPEG", "MPO"))
    except Exception:  # what is wrong with it is said by whoever decodes it
        return 0, 0, False


def _reduced(size: tuple[int, int], decoded: tuple[int, int]) -> str | None:
    if size == decoded:
        return None
    return (
        f"It was read at {decoded[0]:,} x {decoded[1]:,} pixels to save memory; `graftline "
        "predict` reads all of it, and its probabilities may differ a little"
    )


def _data_uri(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
