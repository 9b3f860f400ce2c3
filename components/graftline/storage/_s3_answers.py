"""Is it S3 that answers? Every answer is looked at before boto reads it.

boto takes any 200 for success: a web page in place of a listing is an empty listing to it, and an
object without an ETag a ``KeyError`` of whoever reads it. A redirect without a region sends it
round in a circle.
"""

import html
import re
from typing import Any

import botocore.handlers
from botocore.exceptions import BotoCoreError

from graftline.redaction import excerpt, without_query

REDIRECTS = (301, 302, 303, 307, 308)
PROXY_LOGIN = 407
GATEWAY = (408, 429, 500, 502, 503, 504)  # often a page of a load balancer: tried again
# Requests whose success S3 always answers with an ETag, in a header.
_WITH_ETAG = {"GetObject", "HeadObject", "PutObject", "UploadPart"}
# Requests whose success has a body, and its root element.
_ROOTS = {
    "ListObjectsV2": b"ListBucketResult",
    "CreateMultipartUpload": b"InitiateMultipartUploadResult",
    "CompleteMultipartUpload": b"CompleteMultipartUploadResult",
}


_WITH_LENGTH = {"GetObject", "HeadObject"}
_WITHOUT_BODY = {"DeleteObject", "PutObject", "UploadPart"}
_PART, _GONE = (200, 206), (200, 202, 204)
_STATUS: dict[str, tuple[int, ...]] = {"GetObject": _PART, "HeadObject": _PART}
_STATUS |= {"PutObject": (200, 201), "DeleteObject": _GONE, "AbortMultipartUpload": _GONE}
MOST_BYTES = 2**50  # no object is larger anywhere
_DECLARATION = re.compile(rb"<!(DOCTYPE\b(?!\s+html)|ENTITY\b)", re.I)


class NotS3(BotoCoreError):  # type: ignore[misc]  # noqa: N818 -- boto ships no types; inner
    """Something else than S3 answered.

    Attributes:
        status: HTTP status.
        said: What it said, or where it points to.
    """

    fmt = "{said}"

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said=said)
        self.status = status
        self.said = said


def unreadable(error: Exception) -> NotS3:
    """What boto could not read, once it had passed :func:`check_answer`."""
    return NotS3(200, f"its answer cannot be read: {excerpt(' '.join(str(error).split()), 200)}")


class CutShort(BotoCoreError):  # type: ignore[misc]  # noqa: N818
    """A document ended before its end: a broken connection, worth another try."""

    fmt = "the answer, an XML document, is cut short"


def look_at_answers(client: Any) -> None:
    """Let :func:`check_answer` see every answer that a boto client gets."""
    own = getattr(botocore.handlers, "_handle_200_error", None)
    if own is not None:  # it makes a status 500 of what is no XML, so that the cause is lost
        client.meta.events.unregister("before-parse.s3.*", own)
    client.meta.events.register("before-parse.s3", check_answer)


def check_answer(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:
    """Look at an answer: a handler of boto's ``before-parse``.

    Raises:
        NotS3: The answer is none that S3 gives to this request.
        CutShort: It is the beginning of one.
    """
    status, headers = int(response_dict["status_code"]), response_dict["headers"]
    body = response_dict.get("body")
    data = body if isinstance(body, bytes) else b""  # a stream: an object's own bytes
    if _DECLARATION.search(data[:2000]):  # entities that grow, or that name files
        raise NotS3(status, "its XML holds a document type declaration")
    if status in REDIRECTS:
        if operation_model.name == "HeadBucket" and "x-amz-bucket-region" not in headers:
            # Boto's own question for the region: redirected again, it would ask for ever. Without
            # an answer to it the first redirect stands, which may name an address.
            response_dict["status_code"] = 404
        elif operation_model.name != "HeadObject" or "location" in headers:  # else a GET is told
            _check_redirect(status, headers, data)
    elif status >= 300:
        _check_refusal(status, headers, data)
    elif b"<Error" in data[:500]:
        response_dict["status_code"] = 500  # S3 may notice an error after it has said 200
    else:
        _check_success(str(operation_model.name), status, headers, data)


def _check_redirect(status: int, headers: Any, data: bytes) -> None:
    # S3 itself names the bucket's region; boto then asks there.
    if "x-amz-bucket-region" in headers or b"<Endpoint>" in data or b"<Region>" in data:
        return
    target = without_query(headers.get("location") or "no address")
    raise NotS3(status, f"it redirects (status {status}) to {target}")


def _check_refusal(status: int, headers: Any, data: bytes) -> None:
    text = data.strip()
    if status == PROXY_LOGIN:
        raise NotS3(status, "the proxy before it wants a login (status 407)")
    if not text or status in GATEWAY:
        return  # without a body (HEAD) the status says all
    if text.startswith((b"<?xml", b"<Error")) and b"<Error" in text[:2000]:
        return
    raise NotS3(status, f"it answers with status {status} and {_described(headers, data)}")


def _check_success(name: str, status: int, headers: Any, data: bytes) -> None:
    root = _ROOTS.get(name)
    if status not in _STATUS.get(name, (200,)):
        raise NotS3(status, f"it answers with status {status}")
    length = str(headers.get("content-length", "" if name in _WITH_LENGTH else 0))
    if not (length.isascii() and length.isdigit() and int(length) <= MOST_BYTES):
        raise NotS3(status, f"it answers with the content length {length[:40]!r}")
    if name in _WITH_ETAG and "etag" not in headers:
        said = f"it answers with status {status} without an ETag: {_described(headers, data)}"
        raise NotS3(status, said)
    if name in _WITHOUT_BODY and data.strip():
        raise NotS3(status, f"it answers with status {status} and {_described(headers, data)}")
    if root is None:
        return
    if not re.search(rb"<(\w+:)?" + root, data[:1000]):
        raise NotS3(status, f"it answers with status {status} and {_described(headers, data)}")
    if not re.search(rb"</(\w+:)?" + root + rb">\s*\Z", data) and b"/>" not in data[-100:]:
        raise CutShort


def _described(headers: Any, data: bytes) -> str:
    """What came instead, in a few words."""
    kind = str(headers.get("content-type") or "").partition(";")[0]
    text = html.unescape(re.sub(r"<[^>]*>|\s+", " ", data[:2000].decode(errors="replace")))
    words = excerpt(" ".join(text.split()), 200)
    what = "a web page" if "html" in kind or b"<html" in data[:500].lower() else kind or "no type"
    if not data and not kind:
        what = "an empty body"
    return f"{what}: {words!r}" if words else what
