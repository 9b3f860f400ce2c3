"""What `check` prints."""

from graftline.errors import StoreAccessDenied
from graftline_pipelines.preflight.report import PreflightError


def test_each_reason_is_said_once() -> None:
    reason = {"why": "No credentials were found", "fix": "Set AWS_PROFILE."}
    problems = [
        ("store", StoreAccessDenied("Cannot write s3://b/x", **reason)),
        ("data.source", StoreAccessDenied("Cannot list s3://c", **reason)),
    ]
    told = str(PreflightError([*problems]))
    assert told.count("No credentials") == told.count("Set AWS_PROFILE") == 1
    assert "data.source: Cannot list s3://c\nWhy: as store." in told
