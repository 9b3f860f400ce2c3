"""What S3 and the network answer, sorted: try again, or an error that names the remedy."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from graftline.errors import (
    NoSpace,
    PreconditionFailed,
    StoreAccessDenied,
    StoreError,
    StoreNotFound,
    StoreUnreachable,
)
from graftline.redaction import excerpt
from graftline.storage._s3_answers import (
    PROXY_LOGIN,
    REDIRECTS,
    CutShort,
    NotS3,
    unreadable,
)
from graftline.storage._s3_environment import endpoint_variable, proxy_variable

ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
REFUSED = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "MethodNotAllowed"})
UNKNOWN_KEYS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidSecurity"}
)
SKEWED = frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"})
ELSEWHERE = frozenset(
    {
        *("PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307"),
        *("IllegalLocationConstraintException", "InvalidRegion"),
    }
)
# Alibaba's and Tencent's: the bucket must be part of the host's name.
VIRTUAL_HOST = frozenset(
    {"SecondLevelDomainForbidden", "VirtualHostDomainRequired", "PathStyleDomainForbidden"}
)
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507"})
ARCHIVED = frozenset({"InvalidObjectState"})
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


_CONFIGURATION = (
    boto.ProfileNotFound,
    boto.NoRegionError,
    boto.InvalidConfigError,
    boto.ConfigParseError,
    boto.InvalidRegionError,
)


MOST_LETTERS = 1000  # of what a server says
RETRIES = re.compile(r" \(reached max retries: \d+\)")  # ours are counted elsewhere


class Truncated(Exception):  # noqa: N818 -- never leaves the S3 modules
    """A body ended before its announced length."""


class NoSuchBucket(StoreNotFound):
    """The bucket itself is not there."""


# What :meth:`S3Store.attempt` sorts; anything else is a fault of ours and keeps its traceback.
OURS = (boto.ClientError, boto.BotoCoreError, ResponseParserError, *CONNECTION, Truncated)


def no_bucket(uri: str, endpoint: str) -> NoSuchBucket:
    """The error for a bucket that is not there."""
    bucket = "/".join(uri.split("/", 3)[:3])  # of an object that may mean nothing to the user
    return NoSuchBucket(
        f"{bucket}: there is no such bucket at {endpoint}",
        fix="Create the bucket, or correct its name. For another S3 server set "
        "AWS_ENDPOINT_URL_S3.",
    )


def answer_of(error: BaseException | None) -> dict[str, Any]:
    """The response's metadata: status and headers; empty for an error of another kind."""
    if not isinstance(error, boto.ClientError):
        return {}
    found: dict[str, Any] = error.response.get("ResponseMetadata", {})
    return found


def status_of(error: BaseException | None) -> int:
    """The HTTP status of an answer; 0 for an error of another kind."""
    return int(answer_of(error).get("HTTPStatusCode", 0))


def status_of_answer(answer: dict[str, Any]) -> int:
    """The HTTP status of a success."""
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


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
        status = status_of(error)
        if code_of(error) in FULL or status in (501, 505):
            return False
        return status in (429, 408) or status >= 500 or code_of(error) in TRY_AGAIN
    if isinstance(error, boto.SSLError | boto.ProxyConnectionError):
        return False
    if _bad_header(error):
        return False
    return isinstance(error, (*CONNECTION, Truncated, CutShort))


def not_understood(error: Exception) -> bool:
    """Whether the server reports success and its answer cannot be understood.

    Another server than S3 says the same again; a bit that flipped on the way does not.
    """
    if isinstance(error, NotS3):
        return error.status == 200
    return isinstance(error, ResponseParserError)


def _bad_header(error: Exception) -> bool:
    """A credential that no header takes: urllib3 refuses it, and boto calls that a connection."""
    return "Invalid header value" in str(error)


def store_error(error: Exception, uri: str, action: str, endpoint: str) -> StoreError:
    """The :class:`StoreError` for what boto raised while it did ``action`` on ``uri``."""
    if isinstance(error, StoreError):
        return error
    what = f"Cannot {action} {uri}"
    code = code_of(error)
    why = excerpt(RETRIES.sub("", str(error)[: 50 * MOST_LETTERS]), MOST_LETTERS)
    if isinstance(error, ResponseParserError):
        error = unreadable(error)
    if code in ABSENT:
        return StoreNotFound(f"{uri} does not exist", fix="Check the name for typos.")
    if code == "NoSuchBucket":
        return no_bucket(uri, endpoint)
    if code in ("PreconditionFailed", "412"):
        return PreconditionFailed(f"{uri} was changed by another writer", fix="Run again.")
    denied = _denied(error, what, why, endpoint)
    if denied is not None:
        return denied
    if code in FULL:
        return NoSpace(what, why=why, fix="Raise the bucket's quota or remove what is not needed.")
    return _other(error, what, why, endpoint)


def _denied(error: Exception, what: str, why: str, endpoint: str) -> StoreAccessDenied | None:
    """The error where the server, or the search for credentials, says no; with its remedy."""
    code = code_of(error)
    fix = None
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        why = "No AWS credentials were found"
        fix = (
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; on a cluster "
            "give the pod's service account a web identity."
        )
    elif code in SKEWED:
        fix = f"Set this machine's clock, by NTP for example{_skew(error)}."
    elif code.startswith("KMS.") or "kms:" in why:
        fix = (
            "The bucket is encrypted with a KMS key: give this account kms:GenerateDataKey and "
            "kms:Decrypt on that key, and check that the key is enabled."
        )
    elif code in ELSEWHERE:
        fix = f"Set AWS_REGION to the bucket's region{_region(error)}."
        if told := _endpoint_told(error):
            fix += f" The server names {told} as the bucket's address."
        if endpoint_variable():
            fix += f" Check that {endpoint} is the endpoint of that region."
    elif code in VIRTUAL_HOST:
        fix = (
            "This server takes the bucket's name only as the first part of the host's name. Write "
            "`s3 =` and, on the next line, indented, `addressing_style = virtual` under "
            "[default], or your profile, in ~/.aws/config."
        )
    elif code in UNKNOWN_KEYS | EXPIRED or isinstance(error, boto.CredentialRetrievalError):
        fix = (
            "Renew the credentials and check that they belong to this endpoint "
            f"({endpoint}): AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, "
            "AWS_PROFILE."
        )
    elif _bad_header(error):
        why = "A credential holds a line break or a character that no HTTP header takes"
        fix = "Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN again."
    elif code in ARCHIVED:
        fix = "The object is archived (Glacier): restore it, or move it to a class read at once."
    elif code in REFUSED:
        fix = (
            "The credentials are valid but lack the permission. Graftline needs s3:GetObject "
            "and s3:ListBucket to read, and s3:PutObject and s3:DeleteObject on its store."
        )
    return StoreAccessDenied(what, why=why, fix=fix) if fix else None


def _skew(error: Exception) -> str:
    """By how much this machine's clock differs from the server's, as far as both are told."""
    headers = answer_of(error).get("HTTPHeaders", {})
    try:
        theirs = parsedate_to_datetime(headers["date"])
        theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
    except (KeyError, ValueError, TypeError):
        return ""
    minutes = (datetime.now(UTC) - theirs).total_seconds() / 60
    return (
        f": it is {abs(minutes):.0f} minutes {'ahead of' if minutes > 0 else 'behind'} the server's"
    )


def _region(error: Exception) -> str:
    found = answer_of(error).get("HTTPHeaders", {}).get("x-amz-bucket-region")
    if not found and isinstance(error, boto.ClientError):
        found = error.response.get("Error", {}).get("Region")
    return f", {found}" if found else ""


def _endpoint_told(error: Exception) -> str:
    """The address that a server says a bucket has."""
    if not isinstance(error, boto.ClientError):
        return ""
    return excerpt(str(error.response.get("Error", {}).get("Endpoint") or ""), 200)


def not_s3(error: NotS3, what: str, endpoint: str) -> StoreUnreachable:
    """The error for an answer that is not S3's."""
    name = endpoint_variable()
    fix = (
        f"Check {name}: it must be the address of the S3 API itself, not of a console or a web "
        "page, with the right scheme and port."
        if name
        else "Set AWS_ENDPOINT_URL_S3 to the address of your S3 server."
    )
    if error.status == PROXY_LOGIN:
        fix = (
            f"Write the login into {proxy_variable() or 'the proxy variable'} "
            "(as user:password before the host), or list the endpoint in NO_PROXY."
        )
    elif error.status in REDIRECTS:
        fix = f"If that is the right server, set {name or 'AWS_ENDPOINT_URL_S3'} to it. {fix}"
    if proxy_variable() and error.status != PROXY_LOGIN:
        fix += (
            f" A proxy is set ({proxy_variable()}): list the endpoint in NO_PROXY if it is local."
        )
    return StoreUnreachable(
        what, why=f"{endpoint} does not answer as S3 does: {error.said}", fix=fix
    )


def _unsupported(operation: str) -> str:
    """What to do about a server that lacks a request."""
    if operation.startswith("List"):
        needed = "listings by ListObjectsV2"
    elif operation == "PutObject":
        needed = "conditional writes (If-None-Match, If-Match)"
    elif "Multipart" in operation or operation == "UploadPart":
        needed = "uploads in parts"
    else:
        needed = f"the request {operation or 'that failed'}"
    return (
        f"Graftline needs {needed}: use another server or a newer version of it. `graftline "
        "doctor` says all that a server lacks."
    )


def _other(error: Exception, what: str, why: str, endpoint: str) -> StoreError:
    if isinstance(error, NotS3):
        return not_s3(error, what, endpoint)
    if isinstance(error, boto.ParamValidationError):
        return StoreError(what, why=why, fix="Correct the bucket's name: letters, digits, . and -.")
    if isinstance(error, boto.ProxyConnectionError):
        return StoreUnreachable(
            what,
            why=why,
            fix=f"Check {proxy_variable() or 'the proxy'}, or list the endpoint in NO_PROXY.",
        )
    if isinstance(error, _CONFIGURATION):
        return StoreAccessDenied(what, why=why, fix="Correct ~/.aws/config or the AWS_ variables.")
    if isinstance(error, boto.SSLError):
        return StoreUnreachable(
            what, why=why, fix="For a server with its own certificate set AWS_CA_BUNDLE."
        )
    if isinstance(error, (*CONNECTION, Truncated, CutShort)):
        source = endpoint_variable() or "AWS"
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
            fix=_unsupported(getattr(error, "operation_name", "")),
        )
    if code_of(error).startswith("5") or worth_retrying(error):
        return StoreUnreachable(
            what, why=why, fix="The server is overloaded or failing; run again later."
        )
    return StoreError(what, why=why, fix=f"The endpoint was {endpoint}; look for the cause there.")
