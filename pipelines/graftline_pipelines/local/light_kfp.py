"""KFP's compiler and local runner without its client, which is half of what `import kfp` takes."""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

CLIENT = "kfp.client"


def import_light() -> None:
    """Import KFP so that its client, and with it Kubernetes' own, is imported when it is used.

    `kfp.client` and `kfp.Client` mean the same as ever afterwards. Where KFP is imported already,
    nothing changes.
    """
    if "kfp" in sys.modules or importlib.util.find_spec("kfp") is None:
        return
    absent = ModuleType(CLIENT)
    absent.Client = None  # type: ignore[attr-defined]
    sys.modules[CLIENT] = absent
    try:
        kfp = importlib.import_module("kfp")
    finally:
        del sys.modules[CLIENT]
    for name in ("client", "Client"):
        vars(kfp).pop(name, None)

    def later(name: str) -> Any:
        if name in ("client", "Client"):
            client = importlib.import_module(CLIENT)
            kfp.Client = client.Client  # type: ignore[attr-defined]
            return vars(kfp)[name]
        raise AttributeError(f"module 'kfp' has no attribute {name!r}")

    kfp.__getattr__ = later  # type: ignore[method-assign]
