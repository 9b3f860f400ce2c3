"""Metadata services of clouds, in the ways of writing their addresses."""

import pytest
from pydantic import ValidationError

from graftline.addresses import is_metadata_address
from graftline_pipelines.runfile.settings import RunSettings

FORBIDDEN = [
    "http://169.254.169.254/latest/meta-data/",
    "HTTP://169.254.169.254#@mlflow/",
    "http://2852039166/",
    "http://0xA9FEA9FE/",
    "http://0xa9.0xfe.0xa9.0xfe",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://169.254.170.2/v2/credentials",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]:80/",
    "http://[::a9fe:a9fe]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[2002:a9fe:a9fe::1]",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1%25eth0]/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://Metadata.Google.Internal.:80/",
    "http://100.100.100.200/",
    "http://１６９.254.169.254/",
    "http://169。254。169。254/",
    "http://%31%36%39.254.169.254/",
    "http://169.254.169.254.nip.io/",
    "http://169-254-169-254.sslip.io",
]
ALLOWED = [
    *("http://mlflow:5000", "http://10.0.0.5:5000", "http://[::1]:5000", "http://127.0.0.1"),
    *("sqlite:///x.db", "s3://bucket/169.254.169.254", "file:///x", "databricks"),
    *("http://metadata.example.com", "http://192.168.1.1.nip.io", "https://mlflow.example.com/a"),
]


@pytest.mark.parametrize("uri", FORBIDDEN)
def test_a_run_file_leads_to_no_metadata_service(uri: str) -> None:
    assert is_metadata_address(uri)
    values = {"name": "a", "data": {"source": "x"}, "store": "y", "tracking": {"uri": uri}}
    with pytest.raises(ValidationError, match=r"metadata service|password"):
        RunSettings.model_validate(values)


@pytest.mark.parametrize("uri", ALLOWED)
def test_other_servers_are_reached(uri: str) -> None:
    assert not is_metadata_address(uri)
