"""An S3 store over a bad network: a proxy between boto3 and a real S3 server spoils requests."""

import os
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from graftline.errors import (
    IntegrityError,
    PreconditionFailed,
    StoreAccessDenied,
    StoreNotFound,
    StoreUnreachable,
)
from graftline.storage import open_store
from graftline.storage._s3_client import PATIENCE_VARIABLE, SHA256
from graftline.storage.base import Store

SPOILING = ["503", "reset", "truncate", "lost"]


@pytest.fixture
def store(proxy: Any, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv(PATIENCE_VARIABLE, "10")
    return open_store(f"{s3_bucket}/store")


@pytest.mark.parametrize("fault", SPOILING)
def test_every_request_survives_what_a_network_does(
    store: Store, proxy: Any, fault: str, tmp_path: Path
) -> None:
    data = os.urandom(50_000)
    (tmp_path / "file").write_bytes(data)

    def struck(action, *arguments):
        proxy.faults = [(fault, 2)]
        answer = action(*arguments)
        assert proxy.faults == [], "the fault did not strike"
        return answer

    struck(store.write, "k", data)
    assert struck(store.read, "k") == data
    assert struck(store.read_range, "k", 100, 40_000) == data[100:40_100]
    assert struck(store.size, "k") == len(data)
    assert [info.key for info in struck(lambda: list(store.list()))] == ["k"]
    struck(store.upload, tmp_path / "file", "up")
    struck(store.download, "up", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == data
    struck(store.delete, "k")
    assert not struck(store.exists, "k")


def test_own_write_whose_acknowledgement_was_lost_counts_as_done(store: Store, proxy: Any) -> None:
    """The server did it; asked again it answers 412, for what is one's own object."""
    proxy.faults = [("lost", 1)]
    assert store.write_if_absent("k", b"mine")
    proxy.faults = [("lost", 1)]
    assert not store.write_if_absent("k", b"mine")  # equal bytes, and yet another's object
    proxy.faults = [("lost", 1)]
    version = store.write_if_match("pointer", b"1", None)
    proxy.faults = [("lost", 1)]
    second = store.write_if_match("pointer", b"2", version)
    assert store.read_versioned("pointer") == (b"2", second)
    proxy.faults = [("lost", 1)]
    with pytest.raises(PreconditionFailed):
        store.write_if_match("pointer", b"3", version)
    assert store.read("pointer") == b"2"


def test_large_upload_in_parts_survives_each_lost_acknowledgement(
    store: Store, proxy: Any, tmp_path: Path
) -> None:
    (tmp_path / "big").write_bytes(os.urandom(2**20) * 33)
    # A part; the beginning, which has no upload's name yet; and the end, asked for twice.
    for number, (method, target) in enumerate(
        [("PUT", "partNumber="), ("POST", "?uploads"), ("POST", "?uploadId=")]
    ):
        proxy.only, proxy.path, proxy.faults = method, target, [("lost", 1)]
        assert store.upload(tmp_path / "big", f"big-{number}", if_absent=True)
        assert proxy.faults == []
        store.download(f"big-{number}", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()
    assert not store.upload(tmp_path / "big", "big-0", if_absent=True)


@pytest.mark.parametrize("name", ["read", "download"])
def test_flipped_bit_is_noticed_and_the_bytes_fetched_again(
    store: Store, proxy: Any, name: str, tmp_path: Path
) -> None:
    data = os.urandom(200_000)
    store.write("k", data)
    (tmp_path / "file").write_bytes(data)
    proxy.only, proxy.faults = "GET", [("flip", 1)]
    if name == "read":
        assert store.read("k") == data
    else:
        store.download("k", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == data
    assert proxy.faults == [] and proxy.requests["GET"] == 2


def test_flipped_bit_in_an_object_that_others_wrote_is_noticed_by_its_etag(
    proxy: Any, s3_bucket: str
) -> None:
    data = os.urandom(200_000)
    bucket = s3_bucket.removeprefix("s3://")
    plain = Config(request_checksum_calculation="when_required")  # as older clients wrote
    boto3.client("s3", config=plain).put_object(Bucket=bucket, Key="image.png", Body=data)
    proxy.faults = [("flip", 1)]
    assert open_store(s3_bucket).read("image.png") == data
    assert proxy.faults == []


def test_object_that_is_damaged_in_the_store_is_an_error_that_says_so(
    store: Store, proxy: Any, s3_bucket: str, tmp_path: Path
) -> None:
    boto3.client("s3").put_object(
        Bucket=s3_bucket.removeprefix("s3://"),
        Key="store/k",
        Body=b"not these bytes",
        Metadata={SHA256: "0" * 64},
    )
    for action in (store.read, lambda key: store.download(key, tmp_path / "back")):
        proxy.requests.clear()
        with pytest.raises(IntegrityError, match="does not have the sha256") as caught:
            action("k")
        assert caught.value.fix
        assert proxy.requests["GET"] == 2  # and no more, for what cannot get better
    assert not (tmp_path / "back").exists()


@pytest.mark.timeout(60)  # half of the patience that is not asked for here
def test_patience_ends_and_the_error_names_endpoint_and_remedy(
    store: Store, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("k", b"1")
    for fault in ("503", "reset", "stall"):
        monkeypatch.setenv(PATIENCE_VARIABLE, "1.5")
        slow = open_store(store.uri)  # its client reads the timeouts anew
        proxy.faults = [(fault, 1000)]
        with pytest.raises(StoreUnreachable) as caught:
            slow.read("k")
        assert f"{store.uri}/k" in caught.value.what
        assert caught.value.why and caught.value.fix


def test_download_goes_on_where_the_connection_broke(
    store: Store, proxy: Any, tmp_path: Path
) -> None:
    data = os.urandom(4_000_000)
    (tmp_path / "file").write_bytes(data)
    store.upload(tmp_path / "file", "k")
    proxy.only, proxy.faults = "GET", [("truncate", 3)]
    store.download("k", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert proxy.requests["GET"] == 4


def test_store_that_may_not_be_written_to(store: Store, proxy: Any) -> None:
    proxy.only, proxy.faults = "PUT", [("403", 1)]
    with pytest.raises(StoreAccessDenied, match="write") as caught:
        store.check_writable()
    assert "s3:PutObject" in str(caught.value)


@pytest.mark.timeout(60)
def test_endpoint_where_nobody_answers_is_given_up_early(
    monkeypatch: pytest.MonkeyPatch, s3_bucket: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr("graftline.storage._s3_client.FIRST_CONTACT", 0.5)
    with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1:9") as caught:
        open_store(s3_bucket).check_writable()
    assert "AWS_ENDPOINT_URL_S3" in str(caught.value)


def test_bucket_that_is_absent_is_told_from_an_object_that_is(store: Store, s3_bucket: str) -> None:
    with pytest.raises(StoreNotFound, match="store/gone does not exist"):
        store.read("gone")
    absent = open_store(f"{s3_bucket}-not/there")
    for action in (
        absent.check_writable,
        lambda: list(absent.list()),
        lambda: absent.read("k"),
        lambda: absent.size("k"),
        lambda: absent.exists("k"),
    ):
        with pytest.raises(StoreNotFound, match="no such bucket at http"):
            action()


def test_no_credentials_at_all(s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreAccessDenied, match="No AWS credentials") as caught:
        list(open_store(s3_bucket).list())
    assert "AWS_ACCESS_KEY_ID" in str(caught.value.fix)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreAccessDenied, match="nobody"):
        list(open_store(s3_bucket).list())


def test_patience_that_is_no_number(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from graftline.errors import ConfigurationError

    for text in ("soon", "-1", "nan"):
        monkeypatch.setenv(PATIENCE_VARIABLE, text)
        with pytest.raises(ConfigurationError, match=PATIENCE_VARIABLE):
            store.read("k")


def test_stores_share_a_connection_until_the_variables_change(
    store: Store, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_store(s3_bucket).client is store.client is store.child("x").client  # type: ignore[attr-defined]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    other = open_store(s3_bucket)
    assert other.client is not store.client  # type: ignore[attr-defined]
