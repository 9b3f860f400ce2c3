"""Asks an image registry whether an image exists, before a pod waits for it in vain.

The OCI distribution protocol: HEAD on the manifest, with a token where the registry sends one
for. Credentials are those that ``docker login`` or ``podman login`` left behind.
"""

import base64
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from graftline_pipelines.cluster.package import split_image

TIMEOUT_SECONDS = 8
DOCKER_HUB = "registry-1.docker.io"
ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


@dataclass(frozen=True)
class Found:
    """What a registry said of an image.

    Attributes:
        state: ``unknown`` where it could not be asked or does not tell us.
        why: Its words, or ours.
    """

    image: str
    state: Literal["exists", "missing", "unknown"]
    why: str = ""


def look_up(image: str) -> Found:
    """Ask the registry of an image whether it has it."""
    import requests  # type: ignore[import-untyped]  # ships no types

    host, repository, reference = address(image)
    scheme = "http" if re.match(r"(localhost|127\.0\.0\.1)(:|$)", host) else "https"
    url = f"{scheme}://{host}/v2/{repository}/manifests/{reference}"
    login = _login(host)
    session = requests.Session()
    session.headers["Accept"] = ACCEPT
    try:
        answer = session.head(url, timeout=TIMEOUT_SECONDS, auth=login, allow_redirects=True)
        if answer.status_code == 401:
            token = _token(session, answer.headers.get("WWW-Authenticate", ""), login)
            if token:
                headers = {"Authorization": f"Bearer {token}"}
                answer = session.head(
                    url, timeout=TIMEOUT_SECONDS, headers=headers, allow_redirects=True
                )
    except (requests.RequestException, ValueError) as error:
        return Found(image, "unknown", f"{host} cannot be asked from here: {_short(error)}")
    if answer.ok:
        return Found(image, "exists")
    if answer.status_code == 404:
        return Found(image, "missing", f"{host} has no {repository} with {reference!r}")
    if answer.status_code in (401, 403):
        who = "as the user that is logged in here" if login else "without a login"
        return Found(image, "unknown", f"{host} does not tell {who} (status {answer.status_code})")
    return Found(image, "unknown", f"{host} answers with status {answer.status_code}")


def address(image: str) -> tuple[str, str, str]:
    """Registry host, repository and reference of an image's name."""
    name, tag, digest = split_image(image)
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, repository = first, rest
    else:
        host, repository = DOCKER_HUB, name if slash else f"library/{name}"
    if host == "docker.io":
        host = DOCKER_HUB
    return host, repository, digest or tag or "latest"


def _token(session: Any, challenge: str, login: tuple[str, str] | None) -> str | None:
    kind, _, rest = challenge.partition(" ")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    if kind.lower() != "bearer" or "realm" not in fields:
        return None
    query = {key: fields[key] for key in ("service", "scope") if key in fields}
    answer = session.get(fields["realm"], params=query, timeout=TIMEOUT_SECONDS, auth=login)
    if not answer.ok:
        return None
    body = answer.json()
    return body.get("token") or body.get("access_token")


def _login(host: str) -> tuple[str, str] | None:
    """User and password for a registry, from the files that container tools keep."""
    hub = "https://index.docker.io/v1/"
    names = (host, f"https://{host}", *((hub, "docker.io") if host == DOCKER_HUB else ()))
    for path in _login_files():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        for name in names:
            entry = config.get("auths", {}).get(name, {})
            if entry.get("auth"):
                user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
                return user, password
            helper = config.get("credHelpers", {}).get(name) or config.get("credsStore")
            if helper and (found := _ask_helper(helper, name)):
                return found
    return None


def _login_files() -> list[Path]:
    docker = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "config.json"
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    podman = os.environ.get("REGISTRY_AUTH_FILE") or (
        f"{runtime}/containers/auth.json" if runtime else None
    )
    return [docker, *([Path(podman)] if podman else [])]


def _ask_helper(helper: str, host: str) -> tuple[str, str] | None:
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=host,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
        answer = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return answer.get("Username", ""), answer.get("Secret", "")


def _short(error: Exception) -> str:
    text = str(error)
    known = re.search(
        r"(Name or service not known|Temporary failure in name resolution|"
        r"Connection refused|timed out|CERTIFICATE_VERIFY_FAILED)",
        text,
    )
    return known[1] if known else text[:200]
