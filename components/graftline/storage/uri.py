"""URIs and paths of stores, sources and weights: what each names, decided in one place."""

import re
from pathlib import Path
from urllib.parse import unquote

from graftline.addresses import split_address
from graftline.errors import ConfigurationError

# RFC 3986, 3.1. Whatever follows it: a table may hold what no library takes for an address.
_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]*):", re.IGNORECASE)


def scheme(uri: str) -> str:
    """The scheme in lower case: ``s3``, ``file``, ...; empty for a plain path."""
    found = _SCHEME.match(uri) if ":/" in uri else None
    return found[1].lower() if found else ""


def local_path(uri: str) -> Path | None:
    """The path on this machine that a plain path or a ``file:`` URI means.

    The path of a URI is percent-encoded, so ``file:///a%20b`` is the folder ``/a b``; a plain
    path is taken as it stands, but for ``~``.

    Returns:
        None for a URI of another scheme.

    Raises:
        ConfigurationError: A ``file:`` URI of another machine, or without a path.
    """
    named = scheme(uri)
    if named == "file":
        parts = split_address(uri)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise ConfigurationError(
                f"{uri!r} is not a local path", fix="Write it as file:///path (three slashes)."
            )
        return Path(unquote(parts.path))
    if named:
        return None
    try:
        return Path(uri).expanduser()
    except RuntimeError as error:  # no HOME, no such user
        raise ConfigurationError(
            f"{uri!r}: the home folder is not known", why=str(error), fix="Write the whole path."
        ) from error


def shown(uri: str) -> str:
    """A URI for a person: of this machine, the path as it is typed."""
    path = local_path(uri)
    return uri if path is None else str(path)


def parent_and_name(uri: str) -> tuple[str, str]:
    """The folder or prefix that holds a file, as :func:`open_store` takes it, and its key there."""
    path = local_path(uri)
    if path is not None:
        return str(path.parent), path.name
    folder, _, name = uri.rpartition("/")
    return folder, name


def absolute(uri: str) -> str:
    """A plain path made absolute; a URI as it is."""
    path = None if scheme(uri) else local_path(uri)
    return uri if path is None else str(path.absolute())
