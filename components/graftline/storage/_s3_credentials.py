"""Credentials that boto fetches before its first request: for a role, a pod or a profile.

Whatever goes wrong there is not S3's answer, and the advice is another one. Boto reads a web page
from the token service as a ``KeyError``, and would wait for a silent one for minutes.
"""

import os
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from graftline.errors import StoreAccessDenied, StoreError, StoreUnreachable
from graftline.redaction import excerpt
from graftline.storage._s3_errors import CONNECTION, RETRIES, code_of, status_of, worth_retrying

TOKEN_FILE, ROLE, STS = "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL_STS"
CONTAINER = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
EXPIRED = ("ExpiredTokenException", "ExpiredToken")


class NoKeys(boto.BotoCoreError):  # type: ignore[misc]  # boto ships no types
    """Boto could not fetch credentials.

    Attributes:
        cause: What it raised.
    """

    fmt = "{said}"

    def __init__(self, cause: Exception) -> None:
        super().__init__(said=str(cause))
        self.cause = cause


def fetch_keys(client: Any) -> None:
    """Let boto fetch or renew its credentials now, apart from the request that needs them.

    Raises:
        NoKeys: It could not.
    """
    found = getattr(getattr(client, "_request_signer", None), "_credentials", None)
    if found is None:
        return  # boto says so itself
    try:
        found.get_frozen_credentials()
    except OSError:
        raise  # of a file, or of the network
    except Exception as error:
        raise NoKeys(error) from error


def no_keys(error: Exception, what: str) -> StoreError:
    """The error for credentials that could not be fetched.

    Args:
        error: :class:`NoKeys`, or what boto raised.
        what: What cannot be done.
    """
    cause = error.cause if isinstance(error, NoKeys) else error
    said = excerpt(" ".join(RETRIES.sub("", str(cause)).split()), 500)
    if isinstance(cause, KeyError):
        said = "an answer without credentials"
    name, path = os.environ.get("AWS_PROFILE"), os.environ.get(TOKEN_FILE)
    if name is None and path is not None:
        return _of_web_identity(cause, what, said, path)
    if name is None and any(os.environ.get(variable) for variable in CONTAINER):
        return StoreAccessDenied(
            what,
            why=f"The pod's agent gave no credentials: {said}",
            fix="Check that this service account is associated with a role (EKS Pod Identity, or "
            "the task's role on ECS), and that the agent runs on the node.",
        )
    return StoreAccessDenied(
        what,
        why=f"No credentials could be fetched: {said}",
        fix=f"Check the profile {name or 'default'} in ~/.aws/config, and log in again (`aws sso "
        "login`), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    )


def _of_web_identity(cause: Exception, what: str, said: str, path: str) -> StoreError:
    role = os.environ.get(ROLE, "")
    service = os.environ.get(STS) or "the region's STS (sts.REGION.amazonaws.com)"
    why = f"The token in {path} could not be exchanged for credentials at {service}: {said}"
    if isinstance(cause, boto.ParamValidationError):
        fix = (
            f"The file that {TOKEN_FILE} names is empty, or {ROLE} is no role's ARN: see that the "
            "pod's service account has the web identity."
        )
    elif code_of(cause) in EXPIRED:
        fix = (
            "The token is too old. In a pod Kubernetes renews the file: start the pod again. "
            "Elsewhere write a fresh token into it."
        )
    elif isinstance(cause, CONNECTION) or worth_retrying(cause):
        fix = f"Check that this machine reaches {service}; behind a proxy, check HTTPS_PROXY."
        return StoreUnreachable(what, why=why, fix=fix)
    elif isinstance(cause, KeyError | ResponseParserError) or code_of(cause) in ("", "Unknown"):
        status = f" (status {status_of(cause)})" if status_of(cause) else ""
        return StoreUnreachable(
            what,
            why=f"{service} does not answer as STS does{status}: {said}",
            fix=f"Check {STS}, and that no proxy or login page answers in its place.",
        )
    else:
        fix = (
            f"Let the trust policy of the role {role} name this cluster's OIDC provider, and this "
            "namespace and service account."
        )
    return StoreAccessDenied(what, why=why, fix=fix)
