"""A server that sends raw bytes, as no HTTP library would."""

import socket
import threading
from collections.abc import Callable

from tests.service.fault_proxy import read_message

Answer = Callable[[str, str, bytes], bytes | None]  # method, target, head: None closes at once


def http(
    body: bytes = b"", status: str = "200 OK", length: int | None = None, **more: str
) -> bytes:
    """An answer; ``more`` are headers, with ``_`` for ``-``."""
    size = len(body) if length is None else length
    headers = {"Content-Length": str(size), "Connection": "close", "ETag": '"x"'}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    lines = [
        f"HTTP/1.1 {status}",
        *(f"{name}: {value}" for name, value in headers.items() if value),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class RawServer:
    """Answers each request with what a function says.

    Attributes:
        lines: What was asked, as "GET /path".
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.lines: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> "RawServer":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                head, _ = read_message(client)
                if not head:
                    return
                method, target, _ = head.decode("latin-1").split(" ", 2)
                self.lines.append(f"{method} {target}")
                data = self.answer(method, target, head)
                if data is not None:
                    client.sendall(data)
            except OSError:
                return
