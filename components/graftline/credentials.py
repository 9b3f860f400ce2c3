"""Credentials in the environment as they are often set: with a line break at the end.

A Kubernetes secret that was made with ``echo`` ends in one, and an HTTP header takes none: the
libraries then fail, and print the header.
"""

import os
from collections.abc import Iterable

from graftline.errors import ConfigurationError

AWS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    *("AWS_PROFILE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CA_BUNDLE"),
)
MLFLOW = (
    *("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_SERVER_CERT_PATH"),
)
KFP = (
    *("GRAFTLINE_KFP_TOKEN", "GRAFTLINE_KFP_COOKIE", "GRAFTLINE_KFP_CA"),
    *("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_SA_TOKEN_PATH"),
)


def tidy(names: Iterable[str]) -> None:
    """Strip white space around these variables' values, here and for the processes started here.

    Raises:
        ConfigurationError: A value holds a line break or another character that no HTTP header
            takes. The message names the variables, not their values.
    """
    wrong = []
    for name in names:
        value = os.environ.get(name)
        if value is None:
            continue
        if value != value.strip():
            os.environ[name] = value.strip()
        position = next((i for i, c in enumerate(value.strip()) if not " " <= c <= "~"), None)
        if position is not None:
            wrong.append(f"{name} (character {position + 1})")
    if wrong:
        raise ConfigurationError(
            f"Not usable as a credential or an address: {', '.join(wrong)}.",
            why="The value holds a line break or a character outside ASCII, which no HTTP header "
            "takes.",
            fix="Set it again, without the line breaks of an editor or of a folded secret.",
        )
