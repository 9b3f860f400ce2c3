"""Signed models: written when a key is configured, refused once a file is changed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from graftline.errors import ConfigurationError, IntegrityError
from graftline.steps.promote import signature
from graftline.steps.promote.signature import check_signature, sign, signing_key


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A private key's text, and its public key's file."""
    private = ec.generate_private_key(ec.SECP256R1())
    text = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    ).decode()
    public = tmp_path_factory.mktemp("keys") / "key.pub"
    public.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return text, public


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "evidence").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "evidence" / "report.html").write_text("good")
    return folder


def change(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"weightz")


def add(folder: Path) -> None:
    (folder / "more.py").write_text("import os")


def remove(folder: Path) -> None:
    (folder / "evidence" / "report.html").unlink()


def rename(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "other.onnx")


@pytest.mark.parametrize("tamper", [change, add, remove, rename])
def test_any_change_is_refused(
    model: Path, keys: tuple[str, Path], tamper: Callable[[Path], None]
) -> None:
    sign(model, keys[0])
    assert check_signature(model, keys[1]) == 2
    (model / "registered_model_meta").write_text("MLflow adds this to what it hands out")
    assert check_signature(model, keys[1]) == 2
    tamper(model)
    with pytest.raises(IntegrityError, match="not what was signed"):
        check_signature(model, keys[1])


def test_another_key_is_refused(model: Path, keys: tuple[str, Path], tmp_path: Path) -> None:
    sign(model, keys[0])
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "other.pub").write_bytes(
        other.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(IntegrityError):
        check_signature(model, tmp_path / "other.pub")


def test_openssf_s_own_program_accepts_it(model: Path, keys: tuple[str, Path]) -> None:
    sign(model, keys[0])
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(model)]
    command += ["--signature", str(model / "model.sig"), "--public_key", str(keys[1])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_key_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, keys: tuple[str, Path], tmp_path: Path
) -> None:
    monkeypatch.delenv(signature.KEY_VARIABLE, raising=False)
    monkeypatch.delenv(signature.FILE_VARIABLE, raising=False)
    assert signing_key() is None
    (tmp_path / "key.pem").write_text(keys[0])
    monkeypatch.setenv(signature.FILE_VARIABLE, str(tmp_path / "key.pem"))
    assert signing_key() == keys[0]
    monkeypatch.setenv(signature.FILE_VARIABLE, str(tmp_path / "none.pem"))
    with pytest.raises(ConfigurationError, match=r"none\.pem"):
        signing_key()
    monkeypatch.setenv(signature.KEY_VARIABLE, "no key at all, but secret")
    with pytest.raises(ConfigurationError, match="cannot be used") as caught:
        sign(tmp_path, signing_key() or "")
    assert "secret" not in str(caught.value)


def test_what_is_not_signed_or_no_key_is_told(model: Path, keys: tuple[str, Path]) -> None:
    with pytest.raises(ConfigurationError, match="not signed"):
        check_signature(model, keys[1])
    sign(model, keys[0])
    with pytest.raises(ConfigurationError, match="is not a public key"):
        check_signature(model, model / "model.onnx")
    with pytest.raises(ConfigurationError, match="no file"):
        check_signature(model, model / "none")
