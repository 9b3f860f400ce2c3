"""Kubernetes for tests: an API server behind the real client, and the manifests as rendered."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.http_server import Handler, serving

REPOSITORY = Path(__file__).parents[2]


@contextmanager
def api_server(handler: type[Handler], folder: Path) -> Iterator[None]:
    """The context `mine` of the default kubeconfig leads to a server with this handler."""
    import kubernetes

    with serving(handler) as address, pytest.MonkeyPatch.context() as patch:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "users": [{"name": "u", "user": {"token": "kube-token"}}],
            "contexts": [{"name": "mine", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "mine",
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        patch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        yield


def rendered(overlay: str) -> list[dict[str, Any]]:
    """The manifests of an overlay, as `kubectl kustomize` writes them."""
    kubectl = shutil.which("kubectl") or "kubectl"
    try:
        asked = [kubectl, "version", "--client", "-o", "json"]
        known = subprocess.run(asked, capture_output=True, text=True).stdout
    except FileNotFoundError:
        known = ""
    if '"kustomizeVersion": "v5' not in known:
        pytest.skip("kubectl 1.27 or later is not here: the manifest was not rendered")
    folder = str(REPOSITORY / "k8s" / "overlays" / overlay)
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, check=True)
    return list(yaml.safe_load_all(done.stdout))
