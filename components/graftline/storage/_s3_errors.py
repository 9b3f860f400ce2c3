"""What S3 and the network answer, sorted: try again, or an error that names the remedy."""

import os

from botocore import exceptions as boto

from graftline.errors import (
    NoSpace,
    PreconditionFailed,
    StoreAccessDenied,
    StoreError,
    StoreNotFound,
    StoreUnreachable,
)

ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
REFUSED = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "MethodNotAllowed"})
UNKNOWN_KEYS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity"}
)
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"})
TRY_AGAIN = frozenset(
    {
        *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BadDigest"),
        *("TooManyRequests", "RequestTimeout", "InternalError", "ServiceUnavailable"),
        *("ConditionalRequestConflict", "OperationAborted", "XMinioServerNotInitialized"),
    }
)
CONNECTION = (
    boto.ConnectionError,  # refused, reset, no name, connect and read timeouts
    boto.HTTPClientError,
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    boto.FlexibleChecksumError,
    ConnectionError,
    TimeoutError,
)


class Truncated(Exception):  # noqa: N818 -- never leaves the S3 modules
    """A body ended before its announced length."""


class NoSuchBucket(StoreNotFound):
    """The bucket itself is not there."""


# What :meth:`S3Store.attempt` sorts; anything else is a fault of ours and keeps its traceback.
OURS = (boto.ClientError, boto.BotoCoreError, *CONNECTION, Truncated)


def no_bucket(uri: str, endpoint: str) -> NoSuchBucket:
    """The error for a bucket that is not there."""
    return NoSuchBucket(
        f"{uri}: there is no such bucket at {endpoint}",
        fix="Create the bucket, or correct its name. For another S3 server set "
        "AWS_ENDPOINT_URL_S3.",
    )


def code_of(error: BaseException | None) -> str:
    """S3's error code, or an empty string for an error of another kind."""
    if not isinstance(error, boto.ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def no_connection(error: Exception) -> bool:
    """Whether nobody answered at all: no such host, a closed port."""
    return isinstance(error, boto.EndpointConnectionError | boto.ConnectTimeoutError)


def worth_retrying(error: Exception) -> bool:
    """Whether the same request may well succeed in a moment."""
    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code_of(error) in FULL or status in (501, 505):
            return False
        return status in (429, 408) or status >= 500 or code_of(error) in TRY_AGAIN
    if isinstance(error, boto.SSLError | boto.ProxyConnectionError):
        return False
    return isinstance(error, (*CONNECTION, Truncated))


def store_error(error: Exception, uri: str, action: str, endpoint: str) -> StoreError:
    """The :class:`StoreError` for what boto raised while it did ``action`` on ``uri``."""
    if isinstance(error, StoreError):
        return error
    what = f"Cannot {action} {uri}"
    code = code_of(error)
    why = str(error)
    if code in ABSENT:
        return StoreNotFound(f"{uri} does not exist", fix="Check the name for typos.")
    if code == "NoSuchBucket":
        return no_bucket(uri, endpoint)
    if code in ("PreconditionFailed", "412"):
        return PreconditionFailed(f"{uri} was changed by another writer", fix="Run again.")
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return StoreAccessDenied(
            what,
            why="No AWS credentials were found",
            fix="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; on a cluster "
            "give the pod's service account a web identity.",
        )
    if code in UNKNOWN_KEYS | EXPIRED or isinstance(error, boto.CredentialRetrievalError):
        return StoreAccessDenied(
            what,
            why=why,
            fix="Renew the credentials and check that they belong to this endpoint "
            f"({endpoint}): AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, "
            "AWS_PROFILE.",
        )
    if code in REFUSED:
        return StoreAccessDenied(
            what,
            why=why,
            fix="The credentials are valid but lack the permission. Graftline needs s3:GetObject "
            "and s3:ListBucket to read, and s3:PutObject and s3:DeleteObject on its store.",
        )
    if code in FULL:
        return NoSpace(what, why=why, fix="Raise the bucket's quota or remove what is not needed.")
    return _other(error, what, why, endpoint)


def _other(error: Exception, what: str, why: str, endpoint: str) -> StoreError:
    if isinstance(error, boto.ProfileNotFound | boto.NoRegionError | boto.InvalidConfigError):
        return StoreAccessDenied(what, why=why, fix="Correct ~/.aws/config or the AWS_ variables.")
    if isinstance(error, boto.SSLError):
        return StoreUnreachable(
            what, why=why, fix="For a server with its own certificate set AWS_CA_BUNDLE."
        )
    if isinstance(error, (*CONNECTION, Truncated)):
        source = "AWS_ENDPOINT_URL_S3" if "AWS_ENDPOINT_URL_S3" in os.environ else "AWS"
        return StoreUnreachable(
            what,
            why=f"{endpoint} (from {source}) did not answer correctly: {why}",
            fix="Check AWS_ENDPOINT_URL_S3, the network and the server, then run again: what "
            "was done is kept.",
        )
    if code_of(error) in ("NotImplemented", "501"):
        return StoreError(
            what,
            why=f"{endpoint} does not support this request: {why}",
            fix="Graftline needs conditional writes (If-None-Match); use a server that has them.",
        )
    if code_of(error).startswith("5") or worth_retrying(error):
        return StoreUnreachable(
            what, why=why, fix="The server is overloaded or failing; run again later."
        )
    return StoreError(what, why=why, fix=f"The endpoint was {endpoint}; look for the cause there.")
