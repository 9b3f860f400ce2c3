"""OpenSSF model signatures: who vouches for the files of a registered model.

A signature in the OpenSSF Model Signing format (a Sigstore bundle with the sha256 of every file) is
written as ``model.sig`` into the folder that is registered. The key is an elliptic curve's, as PEM:
in the variable ``GRAFTLINE_SIGNING_KEY``, as a Kubernetes secret gives it, or in the file that
``GRAFTLINE_SIGNING_KEY_FILE`` names. Anybody checks it with
``graftline verify --signature`` or OpenSSF's own ``model_signing verify key``.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from graftline.errors import ConfigurationError, IntegrityError

KEY_VARIABLE = "GRAFTLINE_SIGNING_KEY"
FILE_VARIABLE = "GRAFTLINE_SIGNING_KEY_FILE"
PASSWORD_VARIABLE = "GRAFTLINE_SIGNING_KEY_PASSWORD"  # noqa: S105 -- the name of a variable
SIGNATURE_FILE = "model.sig"
MLFLOWS_OWN = "registered_model_meta"  # which MLflow adds to what it hands out


def signing_key() -> str | None:
    """The configured private key; None where models are not signed.

    Raises:
        ConfigurationError: It is named and not there, or the library is not installed.
    """
    text = os.environ.get(KEY_VARIABLE, "").strip()
    name = os.environ.get(FILE_VARIABLE, "").strip()
    if not text and not name:
        return None
    _require_library()
    if text:
        return text
    try:
        return Path(name).read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{FILE_VARIABLE}: the key in {name} cannot be read",
            why=getattr(error, "strerror", None) or "it is no PEM",
            fix="Mount the key, or unset the variable: then models are not signed.",
        ) from error


def sign(folder: Path, key: str) -> Path:
    """Sign every file of a model's folder; the signature's file.

    Raises:
        ConfigurationError: The key cannot be used.
    """
    from model_signing import hashing, signing

    signature = folder / SIGNATURE_FILE
    signature.unlink(missing_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="ascii") as private:  # 0600
        private.write(key + "\n")
        private.flush()
        try:
            config = signing.Config().use_elliptic_key_signer(  # type: ignore[no-untyped-call]
                private_key=Path(private.name), password=os.environ.get(PASSWORD_VARIABLE)
            )
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"{KEY_VARIABLE}: the key cannot be used",
                why=str(error),
                fix="It must be a private key of an elliptic curve, as PEM: openssl ecparam -name "
                f"prime256v1 -genkey -noout. Its password is in {PASSWORD_VARIABLE}.",
            ) from error
    config.set_hashing_config(_everything_but_itself(hashing))
    config.sign(folder, signature)
    return signature


def _everything_but_itself(hashing: Any) -> Any:
    # Paths are relative to the model's folder.
    return hashing.Config().set_ignored_paths(
        paths=[SIGNATURE_FILE, MLFLOWS_OWN], ignore_git_paths=False
    )


def check_signature(folder: Path, public_key: Path) -> int:
    """Compare every file of a model's folder with its signature; how many there are.

    Raises:
        IntegrityError: A file was changed, added or removed, or another key signed.
        ConfigurationError: There is no signature, or the key cannot be used.
    """
    _require_library()
    from model_signing import hashing, verifying

    signature = folder / SIGNATURE_FILE
    if not signature.is_file():
        raise ConfigurationError(
            f"{folder} holds no {SIGNATURE_FILE}: the model is not signed",
            fix=f"Set {KEY_VARIABLE} where `promote` runs; or verify without --signature.",
        )
    if not public_key.is_file():
        raise ConfigurationError(f"--signature: there is no file {public_key}")
    try:
        config = verifying.Config().use_elliptic_key_verifier(  # type: ignore[no-untyped-call]
            public_key=public_key
        )
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"--signature: {public_key} is not a public key of an elliptic curve",
            why=str(error),
            fix="Write it from the private key: openssl ec -in key.pem -pubout -out key.pub",
        ) from error
    config.set_hashing_config(_everything_but_itself(hashing))
    try:
        config.verify(folder, signature)
    except Exception as error:
        raise IntegrityError(
            f"{folder} is not what was signed",
            why=str(error)[:1000],
            fix="Do not use it. Download the model again; if that differs too, somebody changed it "
            "in the registry.",
        ) from error
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(path.name not in (SIGNATURE_FILE, MLFLOWS_OWN) for path in files)


def _require_library() -> None:
    try:
        import model_signing  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            "Models cannot be signed or verified: the package model-signing is not installed",
            fix="pip install 'graftline[signing]'",
        ) from error
