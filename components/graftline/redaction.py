"""No secret is ever printed: what the environment and the credential files hold is masked by value.

A value is masked in every form that a library may print it in: as it is, as ``repr``, in JSON, in a
URL, in HTML, in base64 (alone, or within ``user:password``), with either kind of hexadecimal
digits, and folded over lines. :class:`graftline.errors.GraftlineError` masks its texts when it is
made; :func:`guard_process` does so for the log, warnings and tracebacks.
"""

import base64
import configparser
import functools
import html
import logging
import os
import re
import sys
import threading
import traceback
import urllib.parse
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

MASK = "***"
SHORTEST = 6  # characters; masking a shorter value would spoil ordinary words
# A name that ends like a secret's. `MLFLOW_TRACKING_TOKEN` is one, `KF_PIPELINES_SA_TOKEN_PATH`
# names a file that holds one.
_SECRET_NAME = re.compile(
    r"(SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|COOKIE|CREDENTIALS?|API_?KEY|SECRET_ACCESS_KEY|"
    r"PRIVATE_?KEY|SIGNING_?KEY|WEBHOOK(_URL)?|AUTH|AUTHORIZATION)$"
)
_SECRET_FILE = re.compile(r"(TOKEN|PASSWORD|SECRET|KEY)_(FILE|PATH)$")
_URL_PASSWORD = re.compile(r"(?<=://)[^/@\s'\"<>]+(?=@)")
# A slash in a password should be %2F, and often is not; `host:5000/path@x` has no password.
_URL_ODD_PASSWORD = re.compile(r"(?<=://)[^/@\s'\"<>:]+:(?!\d+/)[^@\s'\"<>]+(?=@)")
# What lets its bearer in without being a value of ours: a presigned address, a header.
_SIGNED = re.compile(
    r"((?:\bX-(?:Amz|Goog)-(?:Signature|Security-Token|Credential)|\b(?:Credential|Signature|"
    r"AWSAccessKeyId|access_token|id_token|refresh_token)|[?&;]sig)(?:=|%3D))[^&\s,'\"<>]{6,}",
    re.I,
)
_HEADER = re.compile(r"(\bauthorization\W{1,6}(?:basic|bearer|token)\s+)[^\s'\"<>,]+", re.I)
_FILE_BYTES = 16 * 2**10
# Where a long word is broken: at white space, an escaped line break, the border of a table.
_BREAK = r"(?:\s|│|\\+(?:[nrt]|\r?\n)|=\r?\n)"
_FOLD = f"{_BREAK}*"
_BREAKS = re.compile(f"{_BREAK}+")

_learned: set[str] = set()
_lock = threading.Lock()
_format_warning = warnings.formatwarning


def learn(*values: str | None) -> None:
    """Mask these values too from now on: secrets that are in no variable."""
    with _lock:
        _learned.update(value for value in values if value)


def redacted(text: str, *more: str | None) -> str:
    """The text with every secret that this process knows of replaced by ``***``.

    Args:
        text: What is to be printed.
        more: Further secrets, of whatever length.
    """
    if not text:
        return text
    if "://" in text:
        text = _URL_ODD_PASSWORD.sub(MASK, _URL_PASSWORD.sub(MASK, text))
    text = _HEADER.sub(rf"\1{MASK}", _SIGNED.sub(rf"\1{MASK}", text))
    compact = ""
    for secret in [*(_secret(value) for value in more if value), *_secrets()]:
        compact = compact or _BREAKS.sub("", text)
        # A run of letters and digits is written alike in every form but base64: a search for it
        # is fast, and spares the slow pattern on megabytes of a page.
        if secret.run in compact or secret.run in text:
            text = secret.spelled.sub(MASK, text)
        if any(inner in compact for inner in secret.base64_inner):
            text = secret.encoded.sub(MASK, text)
    return text


def excerpt(text: str, most: int) -> str:
    """The masked text, cut: a secret that is cut in two could not be recognised any more."""
    return redacted(text)[:most]


def without_query(address: str) -> str:
    """An address without what follows its ``?``: where a redirect leads, logins are kept there."""
    return address.partition("?")[0]


def holds_secret(text: str) -> bool:
    """Whether :func:`redacted` would change the text."""
    return redacted(text) != text


class _Secret:
    """One value, and the patterns of its forms."""

    def __init__(self, value: str) -> None:
        runs = re.findall(r"[A-Za-z0-9]+", value)
        self.run = max(runs, key=len, default="")
        self.spelled = re.compile(_FOLD.join(_spellings(char) for char in value))
        self.base64_inner = _base64_inner(value)
        folded = (_FOLD.join(re.escape(c) for c in inner) for inner in self.base64_inner)
        self.encoded = re.compile(rf"[A-Za-z0-9+/_\-]*(?:{'|'.join(folded)})[A-Za-z0-9+/_=\-]*")


def _spellings(char: str) -> str:
    """A pattern for all ways to write one character: itself, in a URL, escaped, in HTML."""
    if char.isascii() and char.isalnum():
        return char
    code = ord(char)
    percent = "".join(f"%{byte:02X}" for byte in char.encode())
    named = html.escape(char)
    ways = {
        *(re.escape(char), rf"\\+{re.escape(char)}", f"(?i:{percent})", re.escape(named)),
        *(rf"(?i:\\+u{code:04x})", rf"&#0*{code};", rf"(?i:&#x0*{code:x};)"),
    }
    ways.add("(?i:" + "".join(rf"\\+x{byte:02x}" for byte in char.encode()) + ")")
    if code < 256:
        ways.add(rf"(?i:\\+x{code:02x})")
    if char == "'":
        ways.add("''")  # YAML
    if char == " ":  # where a line is folded there is none
        return rf"(?:{'|'.join(ways)}|\+)?"
    return f"(?:{'|'.join(sorted(ways, key=len, reverse=True))})"


def _base64_inner(value: str) -> tuple[str, ...]:
    """The parts of base64 that are the same whatever stands before and after the value.

    Three, since a group of four characters begins at every third byte; in both alphabets.
    """
    data = value.encode()
    found = []
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + data).decode()
        start = -(-shift * 8 // 6)  # the first character of no bit of what stands before
        end = (shift + len(data)) * 8 // 6  # the last of only the value's bits
        inner = text[start:end]
        if len(inner) >= SHORTEST:
            found += [inner, inner.replace("+", "-").replace("/", "_")]
    return tuple(dict.fromkeys(found))


def _secrets() -> list[_Secret]:
    values = {value.strip() for value in _values(os.environ)}
    with _lock:
        values |= {value.strip() for value in _learned}
    kept = sorted({v for v in values if len(v) >= SHORTEST}, key=lambda v: (-len(v), v))
    return [_secret(value) for value in kept]


@functools.lru_cache(maxsize=256)
def _secret(value: str) -> _Secret:
    return _Secret(value)


def _values(environment: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    for name, value in list(environment.items()):
        upper = name.upper()
        if _SECRET_NAME.search(upper):
            found.add(value)
            found.update(_parts(value))
        elif _SECRET_FILE.search(upper):
            found.add(_file_text(value))
        elif "://" in value:
            found.update(_url_passwords(value))
    found.update(_aws_file(environment))
    return found


def _parts(value: str) -> list[str]:
    """A cookie's values and a header's token are secrets on their own as well."""
    pieces = [piece.partition("=")[2] for piece in value.split(";") if "=" in piece]
    words = value.split()
    return [piece for piece in (*pieces, *words) if len(piece) >= 2 * SHORTEST]


def _url_passwords(value: str) -> list[str]:
    try:
        password = urllib.parse.urlsplit(value).password
    except ValueError:
        return []
    return [password, urllib.parse.unquote(password)] if password else []


def _file_text(path: str) -> str:
    try:
        return _stored(path, Path(path).stat().st_mtime_ns)
    except (OSError, ValueError):
        return ""


@functools.lru_cache(maxsize=64)
def _stored(path: str, changed: int) -> str:  # `changed` is the key: the file is read again then
    with Path(path).open("rb") as stream:
        return stream.read(_FILE_BYTES).decode(errors="replace")


def _aws_file(environment: Mapping[str, str]) -> set[str]:
    path = environment.get("AWS_SHARED_CREDENTIALS_FILE") or (
        f"{environment['HOME']}/.aws/credentials" if environment.get("HOME") else ""
    )
    text = _file_text(path) if path else ""
    return set(_credentials_in(text)) if text else set()


@functools.lru_cache(maxsize=8)
def _credentials_in(text: str) -> tuple[str, ...]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error:
        return ()
    return tuple(
        value
        for section in parser.sections()
        for name, value in parser.items(section)
        if _SECRET_NAME.search(name.upper())
    )


def guard_process() -> None:
    """Mask the log and the tracebacks of this process, whichever library writes them."""
    make = logging.getLogRecordFactory()
    if getattr(make, "graftline", False):
        return

    def masked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # logging reports a wrong format itself
            return record
        clean = redacted(text)
        if clean != text:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[0] is not None:
            record.exc_text = redacted("".join(traceback.format_exception(*record.exc_info)))
        return record

    masked.graftline = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(masked)
    warnings.formatwarning = _masked_warning
    sys.excepthook = _excepthook
    threading.excepthook = _thread_excepthook


def _masked_warning(*args: Any, **kwargs: Any) -> str:
    return redacted(_format_warning(*args, **kwargs))


def _excepthook(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))


def _thread_excepthook(raised: threading.ExceptHookArgs) -> None:
    if raised.exc_value is not None and raised.exc_type is not SystemExit:
        _excepthook(raised.exc_type, raised.exc_value, raised.exc_traceback)
