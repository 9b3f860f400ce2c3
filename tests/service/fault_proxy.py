"""A TCP proxy before a real S3 server that spoils what passes through it, as a network does.

One request a connection. Each fault is a name and the requests it strikes::

    with FaultProxy(server_port) as proxy:
        proxy.faults = [("503", 2), ("flip", 1)]     # the next two, then one more

Faults: ``503``, ``403``, ``reset`` (before the server sees anything), ``lost`` (the server did
it, its answer is lost), ``twice`` (a proxy on the way asks again, and passes on the second answer),
``truncate``, ``flip`` (one bit of the answer's body), ``stall``.
"""

import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

XML = "<?xml version='1.0'?><Error><Code>{}</Code><Message>by the proxy</Message></Error>"
ANSWERS = {"503": ("503 Slow Down", "SlowDown"), "403": ("403 Forbidden", "AccessDenied")}
# Of 100 requests; one that stalls costs the client its whole timeout.
STORM = {"503": 18, "reset": 4, "truncate": 3, "flip": 3, "lost": 2, "stall": 0.1, "": 69.9}
REFUSED = (
    b"HTTP/1.1 412 Precondition Failed\r\nContent-Type: application/xml\r\nContent-Length: 67\r\n"
    b"Connection: close\r\n\r\n"
    b"<?xml version='1.0'?><Error><Code>PreconditionFailed</Code></Error>"
)


class FaultProxy:
    def __init__(self, server: str, stall_seconds: float = 60) -> None:
        self.server = ("127.0.0.1", int(server.rpartition(":")[2]))
        self.faults: list[tuple[str, int]] = []
        self.only: str | None = None  # strike requests of this method alone
        self.path = ""  # and with this in their target
        self.requests: Counter[str] = Counter()
        self.lines: list[str] = []  # "GET /bucket/key"
        self.storm: random.Random | None = None  # strikes at random, see STORM
        # Sees each request; what it answers True to never reaches the server.
        self.before: Callable[[int, str], bool | None] = lambda number, line: None
        self.after: Callable[[int, str], None] = lambda number, line: None  # once it was done
        self.careless = ""  # "ignores": conditions are dropped; "races": checked, then written
        self.released = threading.Event()
        self.stall_seconds = stall_seconds
        self.lock = threading.Lock()
        self.active = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def __enter__(self) -> "FaultProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _fault(self, method: str, target: str) -> str | None:
        with self.lock:
            self.requests[method] += 1
            self.lines.append(f"{method} {target}")
            if self.storm is not None:
                return self._by_chance(method, target)
            if not self.faults or self.only not in (None, method) or self.path not in target:
                return None
            name, left = self.faults[0]
            self.faults = ([(name, left - 1)] if left > 1 else []) + self.faults[1:]
            return name

    def _by_chance(self, method: str, target: str) -> str | None:
        names, weights = zip(*STORM.items(), strict=True)
        fault = self.storm.choices(names, weights)[0] if self.storm else ""
        # Only what carries a checksum of ours: a listing has none, nor has S3 for it.
        if fault == "flip" and (method != "GET" or "list-type" in target):
            return "503"
        return fault or None

    def wait_until_idle(self) -> None:
        """Until no request is on its way any more; a client that is gone leaves some."""
        while self.active:
            time.sleep(0.01)

    def _serve(self, client: socket.socket) -> None:
        with self.lock:
            self.active += 1
        try:
            self._serve_one(client)
        finally:
            with self.lock:
                self.active -= 1

    def _serve_one(self, client: socket.socket) -> None:
        with client:
            try:
                head, body = read_message(client)
                if not head:
                    return
                method, target, _ = head.decode("latin-1").split(" ", 2)
                fault = self._fault(method, target)
                number, line = len(self.lines), f"{method} {target}"
                if self.before(number, line):
                    return
                if fault in ANSWERS:
                    status, code = ANSWERS[fault]
                    text = XML.format(code).encode()
                    client.sendall(
                        f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close"
                        f"\r\nContent-Length: {len(text)}\r\n\r\n".encode()
                        + text
                    )
                elif fault == "reset":
                    reset(client)
                elif fault == "stall":
                    self.released.wait(self.stall_seconds)
                else:
                    self._pass_on(client, head, body, fault)
            except OSError:
                return

    def _pass_on(self, client: socket.socket, head: bytes, body: bytes, fault: str | None) -> None:
        bare = re.sub(rb"\r\n(Connection|Expect): [^\r]*", b"", head, flags=re.I)
        if self.careless and head.startswith(b"PUT"):
            conditions = rb"\r\nIf-(None-)?Match: [^\r]*"
            asked = re.search(conditions, bare, flags=re.I)
            bare = re.sub(conditions, b"", bare, flags=re.I)
            if asked and self.careless == "races" and not self._holds(bare, asked.group()):
                client.sendall(REFUSED)
                return
        request = bare[:-2] + b"Connection: close\r\n\r\n" + body
        answer = self._ask(request)
        if fault == "twice":
            answer = self._ask(request)
        self.after(len(self.lines), head.split(b"\r\n")[0].decode("latin-1"))
        start = answer.index(b"\r\n\r\n") + 4
        if fault == "lost" or (fault == "truncate" and start == len(answer)):
            reset(client)
            return
        spoilt = bytearray(answer)
        if fault == "flip" and len(answer) > start:
            spoilt[start + (len(answer) - start) // 2] ^= 1
        if fault == "truncate":
            spoilt = spoilt[: start + (len(answer) - start) // 2]
        client.sendall(spoilt)

    def _ask(self, request: bytes) -> bytes:
        with socket.create_connection(self.server) as upstream:
            upstream.sendall(request)
            return b"".join(iter(lambda: upstream.recv(2**16), b""))

    def _holds(self, head: bytes, condition: bytes) -> bool:
        """Look whether the condition holds, as a server does that then writes without a lock."""
        look = re.sub(rb"\r\n(Content-[^:]*|Transfer-[^:]*): [^\r]*", b"", head, flags=re.I)
        look = look.replace(b"PUT ", b"HEAD ", 1)[:-2] + b"Connection: close\r\n\r\n"
        found = self._ask(look)
        time.sleep(0.05)
        there = found.startswith(b"HTTP/1.1 200")
        if b"none-match" in condition.lower():
            return not there
        return condition.partition(b": ")[2].strip() in found


def read_message(stream: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of one request."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = stream.recv(2**16)
        if not piece:
            return b"", b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    if b"100-continue" in head.lower():
        stream.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    found = re.search(rb"content-length: *(\d+)", head, flags=re.I)
    length = int(found.group(1)) if found else 0
    pieces, have = [body], len(body)
    while have < length:
        piece = stream.recv(2**20)
        if not piece:
            return b"", b""
        pieces.append(piece)
        have += len(piece)
    return head + b"\r\n\r\n", b"".join(pieces)


def reset(stream: socket.socket) -> None:
    """Close with RST rather than FIN."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()
