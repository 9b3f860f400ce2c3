"""Answers that no S3 server gives: each ends in time, in a typed error that says what to do.

Sent as raw bytes, since HTTP libraries do not write such answers.
"""

import gzip
import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.service.raw_server import Answer, RawServer, http

from graftline.errors import GraftlineError, StoreError
from graftline.storage import open_store
from graftline.storage._s3_client import PATIENCE_VARIABLE

SECRET = "planted-secret-value"
XML = {"Content_Type": "application/xml"}
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
COUNT = itertools.count()


def listing(
    keys: tuple[str, ...],
    *,
    more: str = "",
    truncated: str = "false",
    size: str = "<Size>3</Size>",
    tag: str = "<ETag>&quot;x&quot;</ETag>",
    modified: str = "<LastModified>2026-01-01T00:00:00.000Z</LastModified>",
) -> bytes:
    items = "".join(f"<Contents><Key>{k}</Key>{modified}{tag}{size}</Contents>" for k in keys)
    return (
        f"<?xml version='1.0'?><ListBucketResult xmlns='{NAMESPACE}'><Name>b</Name>"
        f"<IsTruncated>{truncated}</IsTruncated>{more}{items}</ListBucketResult>"
    ).encode()


def lists(*keys: str, **told: str) -> Answer:
    return lambda *_: http(listing(keys, **told), **XML)


def endless(*_: object) -> bytes:
    """Another page, and another token, at each request."""
    token = f"<NextContinuationToken>{next(COUNT)}</NextContinuationToken>"
    return http(listing((), more=token, truncated="true"), **XML)


def chunked(body: bytes) -> Answer:
    head = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nTransfer-Encoding: chunked\r\nConnection: close'
    return lambda *_: head + b"\r\n\r\n" + body


def said(error: bytes, status: str = "400 Bad Request", **headers: str) -> Answer:
    return lambda *_: http(b"<?xml version='1.0'?>" + error, status, **XML, **headers)


def entities(root: str) -> bytes:
    """Nine levels of ten entities each: a billion letters."""
    names = "abcdefghi"
    levels = "".join(
        f'<!ENTITY {name} "{f"&{below};" * 10}">' for below, name in itertools.pairwise(names)
    )
    declared = f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{levels}]>'
    return f"<?xml version='1.0'?>{declared}<{root}><Name>&i;</Name></{root}>".encode()


ANSWERS: dict[str, Answer] = {
    "301 loop": lambda *_: http(b"", "301 Moved Permanently", Location="/loop"),
    "307 loop region": said(
        b"<Error><Code>TemporaryRedirect</Code><Endpoint>127.0.0.1</Endpoint></Error>",
        "307 Temporary Redirect",
        Location="http://127.0.0.1:1/",
        x_amz_bucket_region="eu-west-1",
    ),
    "301 region loop": said(
        b"<Error><Code>PermanentRedirect</Code><Region>eu-west-1</Region></Error>",
        "301 Moved Permanently",
        x_amz_bucket_region=f"eu-west-{next(COUNT)}",
    ),
    "308": lambda *_: http(b"", "308 Permanent Redirect", Location="/"),
    "300": lambda *_: http(b"", "300 Multiple Choices"),
    "304": lambda *_: http(b"", "304 Not Modified"),
    "100 forever": lambda *_: b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    "html 200": lambda *_: http(b"<html>login</html>", Content_Type="text/html", ETag=""),
    "html 200 with etag": lambda *_: http(b"<html>login</html>", Content_Type="text/html"),
    "empty 200": lambda *_: http(b""),
    "empty 200 no etag": lambda *_: http(b"", ETag=""),
    "204": lambda *_: http(b"", "204 No Content", length=None),
    "206 no range": lambda *_: http(b"abc", "206 Partial Content"),
    "206 wrong range": lambda *_: http(
        b"abc", "206 Partial Content", Content_Range="bytes 10-12/100"
    ),
    "chunked truncated": chunked(b"5\r\nab"),
    "chunked bad size": chunked(b"zz\r\nab"),
    "chunked ok no length": chunked(b"3\r\nabc\r\n0\r\n\r\n"),
    "no length": lambda *_: b'HTTP/1.1 200 OK\r\nETag: "x"\r\nConnection: close\r\n\r\nabc',
    "length too long": lambda *_: http(b"abc", length=100),
    "length too short": lambda *_: http(b"abcdef", length=2),
    "length negative": lambda *_: http(b"abc", Content_Length="-5"),
    "length text": lambda *_: http(b"abc", Content_Length="many"),
    "length huge": lambda *_: http(b"abc", Content_Length=str(2**62)),
    "two lengths": lambda *_: http(b"abc", Content_length="7"),
    "100KB header": lambda *_: http(b"abc", X_long="y" * 100_000),
    "10000 headers": lambda *_: (
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(10000)) + b"\r\n"
    ),
    "garbage": lambda *_: random.Random(0).randbytes(500),
    "ssh": lambda *_: b"SSH-2.0-OpenSSH_9.2\r\n",
    "status 999": lambda *_: http(b"abc", "999 Odd"),
    "status text": lambda *_: b"HTTP/1.1 OK\r\n\r\n",
    "close": lambda *_: None,
    "gzip": lambda *_: http(gzip.compress(listing(("p/a",))), Content_Encoding="gzip", **XML),
    "gzip object": lambda *_: http(gzip.compress(b"abc"), Content_Encoding="gzip"),
    "gzip broken": lambda *_: http(b"abc", Content_Encoding="gzip"),
    "gzip bomb": lambda *_: http(gzip.compress(b"\0" * 2**24), Content_Encoding="gzip"),
    "entity bomb": lambda *_: http(entities("ListBucketResult"), **XML),
    "xxe": lambda *_: http(
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"
        + listing(("p/&a;",))[21:],
        **XML,
    ),
    "error entity bomb": lambda *_: http(entities("Error"), "400 Bad Request", **XML),
    "error html": lambda *_: http(b"<html>" * 10000, "403 Forbidden", Content_Type="text/html"),
    "error huge": said(
        b"<Error><Code>X</Code><Message>" + b"m" * 500_000 + b"</Message></Error>", "400 Bad"
    ),
    "error no code": said(b"<Error></Error>", "400 Bad"),
    "error secret": said(
        b"<Error><Code>SignatureDoesNotMatch</Code><Message>m</Message><StringToSign>"
        + SECRET.encode()
        + b"</StringToSign></Error>",
        "403 Bad",
    ),
    "endless same token": lists(
        "p/a", more="<NextContinuationToken>t</NextContinuationToken>", truncated="true"
    ),
    "endless new token": endless,
    "truncated no token": lists("p/a", truncated="true"),
    "truncated maybe": lists("p/a", truncated="maybe"),
    "urlencoded keys": lists("p/a%20b", "p/c%2Fd", more="<EncodingType>url</EncodingType>"),
    "key ..": lists("p/../../etc/passwd"),
    "key /abs": lists("/etc/passwd"),
    "key outside prefix": lists("other/a"),
    "key empty": lists(""),
    "key control": lists("a&#10;b", "a\tb"),
    "duplicate": lists("p/a", "p/a"),
    "unsorted": lists("p/c", "p/a", "p/b"),
    "no size": lists("p/a", size=""),
    "size text": lists("p/a", size="<Size>big</Size>"),
    "size negative": lists("p/a", size="<Size>-3</Size>"),
    "size huge": lists("p/a", size="<Size>99999999999999999999999</Size>"),
    "no etag": lists("p/a", tag=""),
    "modified garbage": lists("p/a", modified="<LastModified>yesterday</LastModified>"),
    "modified none": lists("p/a", modified=""),
    "list no key": lambda *_: http(
        b"<ListBucketResult><Contents><Size>3</Size></Contents></ListBucketResult>", **XML
    ),
    "list not utf8": lambda *_: http(listing(("p/@",)).replace(b"@", b"\xff\xfe"), **XML),
    "list utf16": lambda *_: http(
        listing(("p/a",))
        .decode()
        .replace("<?xml version='1.0'?>", "<?xml version='1.0' encoding='utf-16'?>")
        .encode("utf-16"),
        **XML,
    ),
    "list json": lambda *_: http(b'{"Contents": []}', Content_Type="application/json"),
    "list v1": lambda *_: http(
        b"<ListBucketResult><Marker/><IsTruncated>true</IsTruncated></ListBucketResult>", **XML
    ),
}
# What is an answer all the same: names of lists, whose content the test states.
LISTED = {
    "urlencoded keys": ["a b", "c/d"],
    "duplicate": ["a"],
    "unsorted": ["c", "a", "b"],
    "truncated maybe": ["a"],
    "key ..": ["../../etc/passwd"],
}


@pytest.fixture
def requests(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a store can be asked, by name; against the server of this URL."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv(PATIENCE_VARIABLE, "0.3")
    (tmp_path / "file").write_bytes(b"abc")

    def at(url: str) -> dict[str, Callable[[], Any]]:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", url)
        store = open_store("s3://bucket/p")
        return {
            "list": lambda: [info.key for info in store.list()],
            "names": store.names,
            "read": lambda: store.read("a"),
            "read_range": lambda: store.read_range("a", 0, 3),
            "write": lambda: store.write("a", b"abc"),
            "write_if_absent": lambda: store.write_if_absent("a", b"abc"),
            "write_if_match": lambda: store.write_if_match("a", b"abc", '"v"'),
            "exists": lambda: store.exists("a"),
            "size": lambda: store.size("a"),
            "delete": lambda: store.delete("a"),
            "download": lambda: store.download("a", tmp_path / "down"),
            "upload": lambda: store.upload(tmp_path / "file", "a"),
        }

    return at


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_is_met_by_a_traceback_or_without_end(
    name: str, requests: Any, record_property: Any
) -> None:
    with RawServer(ANSWERS[name]) as server:
        for method, request in requests(server.url).items():
            before = len(server.lines)
            try:
                found = request()
            except GraftlineError as error:
                assert error.fix, (method, str(error))
                assert len(str(error)) < 3000 and SECRET not in str(error), (method, str(error))
            else:
                if method == "list":
                    assert found == LISTED[name]
            assert len(server.lines) - before < 1100, method
    record_property("points", 1)


@pytest.mark.parametrize("name", ["204", "html 200", "chunked truncated", "206 wrong range"])
def test_what_is_no_answer_to_a_request_is_never_taken_for_one(name: str, requests: Any) -> None:
    with RawServer(ANSWERS[name]) as server:
        asked = requests(server.url)
        for method in ("list", "names", "read", "read_range", "write", "upload", "download"):
            with pytest.raises(StoreError):
                asked[method]()


def test_a_key_that_climbs_out_is_never_a_file(requests: Any, tmp_path: Path) -> None:
    with RawServer(ANSWERS["key .."]) as server:
        requests(server.url)
        store = open_store("s3://bucket/p")
        (climbing,) = store.list()
        for ask in (store.read, store.size, store.delete):
            with pytest.raises(StoreError, match="not a relative object name"):
                ask(climbing.key)
        with pytest.raises(StoreError):
            store.download(climbing.key, tmp_path / "down")
