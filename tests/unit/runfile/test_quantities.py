"""Amounts as Kubernetes writes them, against its own parser."""

import pytest
from kubernetes.utils.quantity import parse_quantity

from graftline_pipelines.runfile.quantities import to_bytes, to_cores


@pytest.mark.parametrize(
    "text",
    ["0", "7", "1.5", "500m", "2k", *(f"3{unit}" for unit in "MGTPE"), "1e3", "12E6", "100u"]
    + [f"{number}{unit}i" for number in (1, 512) for unit in "KMGTPE"],
)
def test_amounts_are_those_of_the_kubernetes_client(text: str) -> None:
    assert to_bytes(text) == int(parse_quantity(text))
    assert to_cores(text) == float(parse_quantity(text))
