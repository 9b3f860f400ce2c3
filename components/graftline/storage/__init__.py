"""Where bytes live: an S3 prefix or a folder, behind one interface."""

from graftline.errors import ConfigurationError
from graftline.storage.base import Store
from graftline.storage.local import FileStore
from graftline.storage.uri import local_path, scheme


def open_store(uri: str) -> Store:
    """Open ``s3://bucket/prefix``, ``file:///path`` or a plain path. Touches nothing yet.

    The S3 endpoint and the credentials come from the standard AWS chain.

    Raises:
        ConfigurationError: Another scheme, or an S3 URI without a bucket.
    """
    text = str(uri).strip()
    if scheme(text) == "s3":
        from graftline.storage.s3 import S3Store

        bucket, _, prefix = text[len("s3:") :].lstrip("/").partition("/")
        if not bucket or not text.lower().startswith("s3://"):
            raise ConfigurationError(
                f"{text!r} names no bucket", fix="Write it as s3://bucket/prefix."
            )
        return S3Store(bucket, prefix.strip("/"))
    path = local_path(text) if text else None
    if path is None:
        raise ConfigurationError(
            f"{text!r} is not a location that Graftline can open",
            fix="Use s3://bucket/prefix, file:///path or a folder. Images, but no store, can be in "
            "Google Cloud Storage: AWS_ENDPOINT_URL_S3=https://storage.googleapis.com.",
        )
    return FileStore(path)
