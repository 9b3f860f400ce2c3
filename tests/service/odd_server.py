"""A server that gives one and the same answer to every request, as a test asks for it."""

import contextlib
import http.server
import threading
from collections.abc import Mapping

XML = {"Content-Type": "application/xml"}
HTML = {"Content-Type": "text/html"}


class OddServer:
    """Answers on ``url``; what was asked is in ``lines`` as "GET /path"."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 200, dict[str, str](), b""
        self.lines: list[str] = []
        self.seen: list[dict[str, str]] = []  # the headers of each
        odd = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                odd.lines.append(f"{self.command} {self.path}")
                odd.seen.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response_only(odd.status)
                for name, value in odd.headers.items():
                    self.send_header(name, value)
                if odd.status != 204:
                    self.send_header("Content-Length", str(len(odd.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(odd.body)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = answer

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def log_message(self, *_: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answers(
        self, status: int, headers: Mapping[str, str] | None = None, body: str = ""
    ) -> None:
        self.status, self.headers, self.body = status, dict(headers or {}), body.encode()
        self.lines.clear()
        self.seen.clear()

    def __enter__(self) -> "OddServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def s3_error(code: str, message: str = "by the server", **more: str) -> str:
    extra = "".join(f"<{name}>{value}</{name}>" for name, value in more.items())
    said = f"<Code>{code}</Code><Message>{message}</Message>{extra}"
    return f"<?xml version='1.0'?><Error>{said}</Error>"
