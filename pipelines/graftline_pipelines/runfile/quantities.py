"""Amounts and names as Kubernetes writes them: CPU, memory, durations, labels."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from graftline.errors import ConfigurationError

_CPU = re.compile(r"^(\d+(\.\d{1,3})?|\d+m)$")
_MEMORY = re.compile(r"^\d+(Ei|Pi|Ti|Gi|Mi|Ki|E|P|T|G|M)?$")
_DURATION = re.compile(r"^(\d+)(s|m|h|d)$")
_AMOUNT = re.compile(r"^(\d+(?:\.\d+)?)(m|[KMGTPE]i|[kMGTPE])?$")
_FACTORS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(1000),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("MGTPE", 2)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"^([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_LABEL_NAME}$")
_LABEL_VALUE = re.compile(rf"^({_LABEL_NAME})?$")
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


def _cpu(value: Any) -> Any:
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if isinstance(text, str) and not _CPU.match(text):
        raise ValueError(f"{text!r} is not an amount of CPU; write for example 2, 0.5 or 500m")
    return text


def _memory(value: Any) -> Any:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and not _MEMORY.match(text):
        raise ValueError(f"{text!r} is not an amount of memory; write for example 512Mi or 16Gi")
    return text


def _duration(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value}s"
    if isinstance(value, str) and not _DURATION.match(value):
        raise ValueError(f"{value!r} is not a duration; write for example 90s, 45m, 6h or 2d")
    return value


def is_label_key(value: str) -> bool:
    """Whether this is a label key, such as example.com/pool."""
    return _LABEL_KEY.match(value) is not None


def is_name(value: str) -> bool:
    """Whether Kubernetes takes this as the name of an object: a DNS label."""
    return _NAME.match(value) is not None


def is_object_name(value: str) -> bool:
    """Whether Kubernetes takes this as the name of a secret, an account or the like."""
    return len(value) <= 253 and all(is_name(part) for part in value.split("."))


def _label_key(value: str) -> str:
    if not is_label_key(value):
        raise ValueError(f"{value!r} is not a Kubernetes label key, such as example.com/pool")
    return value


def _label_value(value: Any) -> Any:
    if isinstance(value, bool):  # YAML's true, where Kubernetes wants "true"
        value = str(value).lower()
    text = str(value) if isinstance(value, int | float) else value
    if isinstance(text, str) and not _LABEL_VALUE.match(text):
        raise ValueError(
            f"{text!r} is not a Kubernetes label value: at most 63 letters, digits, '-', '_' "
            "and '.'"
        )
    return text


def _env_name(value: str) -> str:
    if not _ENV_NAME.match(value):
        raise ValueError(f"{value!r} is not the name of an environment variable")
    return value


Cpu = Annotated[str, BeforeValidator(_cpu)]
Memory = Annotated[str, BeforeValidator(_memory)]
Duration = Annotated[str, BeforeValidator(_duration)]
LabelKey = Annotated[str, AfterValidator(_label_key)]
LabelValue = Annotated[str, BeforeValidator(_label_value)]
EnvName = Annotated[str, AfterValidator(_env_name)]


def to_seconds(duration: str) -> int:
    """A duration such as 90s, 45m, 6h or 2d in seconds."""
    match = _DURATION.match(duration)
    if match is None:
        raise ConfigurationError(f"{duration!r} is not a duration", fix="Write 90s, 45m, 6h or 2d.")
    return int(match[1]) * _SECONDS[match[2]]


def to_bytes(memory: str) -> int:
    """An amount such as 512Mi or 16G in bytes; a node may also state 1.5e9 or thousandths."""
    return int(_quantity(memory))


def to_cores(cpu: str) -> float:
    """An amount such as 500m or 2 in cores."""
    return float(_quantity(cpu))


def _quantity(text: str) -> Decimal:
    found = _AMOUNT.match(text)
    if found is not None:
        return Decimal(found[1]) * _FACTORS[found[2] or ""]
    # A node may write 1e3. Not at the top: it imports the client of every Kubernetes API.
    from kubernetes.utils.quantity import parse_quantity

    amount: Decimal = parse_quantity(text)
    return amount
