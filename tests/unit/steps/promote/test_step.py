"""Registering and promoting on MLflow with sqlite: evidence, idempotence, conflicts, rollback."""

import dataclasses
import json
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest

from graftline.errors import ConfigurationError, IntegrityError, PromotionConflict, TrackingError
from graftline.files import sha256_of
from graftline.onnx_model.predict import OnnxClassifier
from graftline.records.verdict import GateTest, Verdict, write_verdict
from graftline.steps.promote import model_card
from graftline.steps.promote import step as promote_step
from graftline.storage import open_store
from graftline.tracking.champion_alias import ALIAS
from graftline.tracking.champion_log import ChampionLog, Entry
from graftline.tracking.client import connect
from graftline.tracking.mlflow_run import start_run
from graftline.tracking.registry import open_registry

NAME = "animals"


@pytest.fixture
def exported(exported_model):
    return exported_model


@pytest.fixture
def place(exported, tmp_path, mlflow_sqlite):
    """Promote the exported model: `place(promote=True, against=None)`."""
    folder, snapshot, _ = exported
    store = str(tmp_path / "store")

    def run(*, promote: bool = True, against: str | None = None, run_id: str | None = None, **more):
        verdict = Verdict(
            promote=promote,
            reasons=["It is better." if promote else "It is worse."],
            tests=[GateTest(name="not_worse", passed=promote, reason="It was measured.")],
            snapshot_id=snapshot.id,
            champion_name=NAME,
            champion_version=against,
            figures={"challenger": {"accuracy": 0.9}, "champion": {"accuracy": 0.8}},
        )
        write_verdict(tmp_path / "verdict.json", verdict)
        (tmp_path / "report.html").write_text("<html></html>")
        arguments = {
            "onnx_folder": folder / "onnx",
            "verdict_file": tmp_path / "verdict.json",
            "report_file": tmp_path / "report.html",
            "classifier_folder": folder / "classifier",
            "snapshot_folder": folder / "snapshot",
            "store": store,
            "tracking_uri": mlflow_sqlite,
            "tracking_run_id": run_id or start_run(mlflow_sqlite, "test", "run"),
            "registered_model": NAME,
        }
        return promote_step.run(**{**arguments, **more})

    run.uri, run.store = mlflow_sqlite, store
    return run


def other_model(exported, tmp_path, number: int) -> Path:
    """The same file under another digest, as another training would give."""
    folder, _, _ = exported
    target = tmp_path / f"onnx-{number}"
    target.mkdir()
    data = (folder / "onnx" / "model.onnx").read_bytes()
    import onnx

    model = onnx.load_from_string(data)
    model.doc_string = str(number)
    onnx.save_model(model, target / "model.onnx")
    record = json.loads((folder / "onnx" / "export.json").read_text())
    record["sha256"] = sha256_of(target / "model.onnx")
    record["content_sha256"] = record["sha256"]
    (target / "export.json").write_text(json.dumps(record))
    return target


def test_export_step_proves_the_file_on_the_whole_test_split(exported):
    _, snapshot, result = exported
    assert result.parity["images"] == len(snapshot.rows("test")) == 12
    assert result.parity["label_agreement"] == 1.0
    assert result.parity["max_probability_difference"] < 1e-3
    assert result.parity["odd_sizes_difference"] < 1e-3
    metadata = OnnxClassifier(result.onnx).metadata
    assert (metadata.snapshot_id, metadata.run_id) == (snapshot.id, "made-by-run")
    assert result.metrics()["parity_label_agreement"] == 1.0


def test_a_model_is_signed_where_a_key_is_configured(place, tmp_path, monkeypatch):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from graftline.steps.promote.signature import KEY_VARIABLE, check_signature

    key = ec.generate_private_key(ec.SECP256R1())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    text = key.private_bytes(pem, pkcs8, serialization.NoEncryption()).decode()
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    monkeypatch.setenv(KEY_VARIABLE, text)
    assert place().version == "1"
    version = open_registry(place.uri).champion(NAME)
    folder = version.download(tmp_path / "signed")
    assert check_signature(folder, tmp_path / "key.pub") > 5
    assert version.tags["graftline.signature_sha256"] == sha256_of(folder / "model.sig")


def test_first_model_is_registered_with_its_evidence_and_promoted(place, tmp_path, exported):
    result = place()
    assert (result.version, result.alias, result.reused) == ("1", ALIAS, False)
    registry = open_registry(place.uri)
    champion = registry.champion(NAME)
    assert champion is not None
    assert champion.version == "1"
    assert champion.snapshot_id == exported[1].id
    found = champion.download(tmp_path / "down")
    names = {path.name for path in found.iterdir()}
    evidence = {"report.html", "verdict.json", "MODEL_CARD.md", "manifest.json", "export.json"}
    assert evidence | {"MLmodel", "model.onnx", "reference.npz", "requirements.txt"} <= names
    assert (found / "model.onnx").read_bytes() == Path(exported[2].onnx).read_bytes()
    manifest = json.loads((found / "manifest.json").read_text())
    assert {f["path"]: f["sha256"] for f in manifest["files"]} == {
        path.name: sha256_of(path) for path in found.iterdir() if path.name != "manifest.json"
    }
    assert champion.tags["graftline.manifest_sha256"] == sha256_of(found / "manifest.json")
    card_digest = sha256_of(found / "MODEL_CARD.md")
    assert champion.tags["graftline.model_card_sha256"] == card_digest
    card = (found / "MODEL_CARD.md").read_text()
    for expected in ("cat", "Intended use", "Limits", "0.9000", exported[1].id, "It was measured."):
        assert expected in card
    assert champion.tags["graftline.verdict"] == "passed"
    assert champion.tags["graftline.parity_label_agreement"] == "1.000000"
    aliases = connect(place.uri).get_registered_model(NAME).aliases
    assert {alias: str(version) for alias, version in aliases.items()} == {ALIAS: "1"}


def test_registered_model_is_mlflow_s_own_and_answers(place, tmp_path):
    place()
    import mlflow.pyfunc

    folder = open_registry(place.uri).champion(NAME).download(tmp_path / "down")
    model = mlflow.pyfunc.load_model(str(folder))
    answer = model.predict({"images": np.zeros((2, 40, 50, 3), np.uint8)})
    assert answer["probabilities"].shape == (2, 3)
    assert model.metadata.get_input_schema().input_names() == ["images"]
    assert (folder / "input_example.json").exists()


def test_requirements_are_the_stated_ones_and_no_installed_package_is_searched(
    place, tmp_path, monkeypatch
):
    from mlflow.utils import requirements_utils

    searches = []

    def search():  # MLflow may swallow an error
        searches.append(True)
        return {}

    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    monkeypatch.setattr(requirements_utils.importlib_metadata, "packages_distributions", search)
    place()
    assert not searches
    assert requirements_utils._MODULES_TO_PACKAGES is None  # as it was, for others in the process
    folder = open_registry(place.uri).champion(NAME).download(tmp_path / "down")
    lines = (folder / "requirements.txt").read_text().splitlines()
    names = {line.partition("=")[0] for line in lines}
    assert names == {"mlflow", "numpy", "onnxruntime"}


def test_verdict_not_passed_registers_without_alias(place):
    result = place(promote=False)
    assert (result.version, result.alias) == ("1", None)
    assert "It is worse." in result.reason
    assert open_registry(place.uri).champion(NAME) is None


def test_equal_model_is_not_registered_twice(place):
    first = place()
    again = place(promote=False, against="1")
    assert (again.version, again.alias, again.reused) == (first.version, None, True)
    assert open_registry(place.uri).champion(NAME).version == "1"
    assert len(connect(place.uri).search_model_versions(f"name='{NAME}'")) == 1


def test_second_call_of_the_same_run_repeats_nothing(place):
    run_id = start_run(place.uri, "test", "run")
    first, second = place(run_id=run_id), place(run_id=run_id)
    assert first.alias == second.alias == ALIAS
    assert first.version == second.version
    assert len(open_registry(place.uri).history(NAME)) == 1


def test_verdict_on_another_champion_is_not_applied(place, exported, tmp_path):
    place()
    second = place(against=None, onnx_folder=other_model(exported, tmp_path, 2))
    assert (second.version, second.alias) == ("2", None)
    assert "compared with no champion" in second.reason
    third = place(against="1", onnx_folder=other_model(exported, tmp_path, 3))
    assert (third.version, third.alias) == ("3", ALIAS)
    history = open_registry(place.uri).history(NAME)
    assert [(e.version, e.replaced, e.kind) for e in history] == [
        ("1", None, "promotion"),
        ("3", "1", "promotion"),
    ]
    assert history[1].figures["challenger"]["accuracy"] == 0.9
    assert history[1].when.endswith("+00:00")


def test_a_run_that_made_the_champion_too_and_ended_later_says_so(place):
    first, second = place(), place(against=None, run_id=start_run(place.uri, "test", "beside"))
    assert (second.version, second.alias) == (first.version, ALIAS)
    assert "made the same model" in second.reason
    assert len(open_registry(place.uri).history(NAME)) == 1


def test_rollback_and_history(place, exported, tmp_path):
    place()
    place(against="1", onnx_folder=other_model(exported, tmp_path, 2))
    place(against="2", onnx_folder=other_model(exported, tmp_path, 3))
    registry = open_registry(place.uri)
    assert registry.rollback(NAME, reason="bad night").version == "2"
    assert registry.champion(NAME).version == "2"
    assert registry.rollback(NAME).version == "1"  # not back to the one just left
    with pytest.raises(ConfigurationError, match="no earlier champion"):
        registry.rollback(NAME)
    with pytest.raises(ConfigurationError, match="champion already"):
        registry.rollback(NAME, "1")
    with pytest.raises(ConfigurationError, match="no version 9"):
        registry.rollback(NAME, "9")
    assert registry.rollback(NAME, "3").replaced == "1"
    kinds = [e.kind for e in registry.history(NAME)]
    assert kinds == ["promotion"] * 3 + ["rollback"] * 3
    assert registry.history(NAME)[3].reasons == ("bad night",)


def test_replaced_promotion_is_not_applied_again(place, exported, tmp_path):
    run_id = start_run(place.uri, "test", "run")
    place(run_id=run_id)
    place(against="1", onnx_folder=other_model(exported, tmp_path, 2))
    open_registry(place.uri).rollback(NAME, "1")
    open_registry(place.uri).rollback(NAME, "2")
    late = place(run_id=run_id)
    assert late.alias is None
    assert "replaced since" in late.reason
    assert open_registry(place.uri).champion(NAME).version == "2"


def test_alias_moved_by_hand_is_respected_and_recorded(place, exported, tmp_path, monkeypatch):
    monkeypatch.setattr("graftline.tracking.champion_alias.PATIENCE_SECONDS", 0.2)
    place()
    place(against="1", onnx_folder=other_model(exported, tmp_path, 2))
    connect(place.uri).set_registered_model_alias(NAME, ALIAS, "1")
    registry = open_registry(place.uri)
    assert registry.champion(NAME).version == "1"
    assert registry.history(NAME)[-1].kind == "moved by hand"
    third = place(against="1", onnx_folder=other_model(exported, tmp_path, 3))
    assert third.alias == ALIAS


def test_interrupted_promotion_is_finished_by_whoever_comes_next(place, monkeypatch):
    monkeypatch.setattr("graftline.tracking.champion_alias.PATIENCE_SECONDS", 0.2)
    place(promote=False)
    log = ChampionLog(open_store(place.store), NAME)
    assert log.append(Entry(number=1, kind="promotion", version="1", replaced=None))
    assert not log.append(Entry(number=1, kind="promotion", version="7", replaced=None))
    assert open_registry(place.uri).champion(NAME).version == "1"
    assert log.is_settled(1)


def test_model_verdict_and_snapshot_must_belong_together(place, exported, tmp_path):
    folder = other_model(exported, tmp_path, 5)
    (folder / "model.onnx").write_bytes(b"changed")
    with pytest.raises(IntegrityError, match="not the file that was compared"):
        place(onnx_folder=folder)
    passed = [GateTest(name="a", passed=True, reason="b")]
    verdict = Verdict(promote=True, reasons=["x"], tests=passed, snapshot_id="another")
    write_verdict(tmp_path / "other.json", verdict)
    with pytest.raises(ConfigurationError, match="do not belong together"):
        place(verdict_file=tmp_path / "other.json")
    verdict = dataclasses.replace(
        verdict, snapshot_id=exported[1].id, champion_name="plants", champion_version="1"
    )
    write_verdict(tmp_path / "other.json", verdict)
    with pytest.raises(ConfigurationError, match="champion of 'plants'"):
        place(verdict_file=tmp_path / "other.json")


def test_changed_artifact_is_noticed_on_download(place, tmp_path):
    place()
    champion = open_registry(place.uri).champion(NAME)
    with sqlite3.connect(place.uri.removeprefix("sqlite:///")) as database:
        source = database.execute("select storage_location from model_versions").fetchone()[0]
    path = Path(source.removeprefix("file://")) / "model.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match="has changed"):
        champion.download_onnx(tmp_path / "down")


def test_promotion_conflict_names_both(place, exported, tmp_path):
    place()
    registry = open_registry(place.uri)
    with pytest.raises(PromotionConflict, match="with version 9, but the champion is version 1"):
        registry.promote(
            registry.version(NAME, "1"),
            compared_with="9",
            verdict="v",
            store=open_store(place.store),
        )
    with pytest.raises(TrackingError, match="no registered model 'nobody'"):
        registry.history("nobody")


def command(*arguments: str):
    from typer.testing import CliRunner

    from graftline_pipelines.cli.main import app

    return CliRunner().invoke(app, list(arguments))


def test_history_and_rollback_as_commands(place, exported, tmp_path):
    place()
    place(against="1", onnx_folder=other_model(exported, tmp_path, 2))
    place(promote=False, against="2", onnx_folder=other_model(exported, tmp_path, 3))
    at = ("--tracking", place.uri)
    done = command("rollback", NAME, "--reason", "bad night", *at)
    assert done.stdout == f"{NAME}: version 1 is champion, instead of 2.\n"
    told = command("history", NAME, *at).stdout
    assert "promotion: version 1, instead of none" in told
    assert "promotion: version 2, instead of version 1" in told
    assert "challenger accuracy 0.9000" in told and "champion accuracy 0.8000" in told
    assert "rollback: version 1, instead of version 2" in told and "bad night" in told
    record = json.loads(command("history", NAME, "--json", *at).stdout)
    assert [e["replaced"] for e in record["history"]] == [None, "1", "2"]
    assert {bool(e["when"] and e["who"]) for e in record["history"]} == {True}
    done = command("rollback", NAME, "--to", "3", "--json", *at)
    assert json.loads(done.stdout)["version"] == "3"
    command("rollback", NAME, "--to", "1", *at)
    done = command("rollback", NAME, "--to", "3", *at)
    assert "version 3 did not pass its evaluation" in done.stderr


def test_mistakes_in_the_commands_are_named(place, tmp_path, monkeypatch):
    place(promote=False)
    at = ("--tracking", place.uri)
    assert f"No version of {NAME} was champion yet" in command("history", NAME, *at).stdout
    for arguments, expected in (
        (("rollback", NAME), "no earlier champion"),
        (("rollback", NAME, "--to", "7"), "no version 7"),
        (("rollback", NAME, "--to", "first"), "no version first"),
        (("rollback", "nobody"), "no log of champions for 'nobody'"),
        (("history", "nobody"), "no registered model 'nobody'"),
    ):
        error = command(*arguments, *at).exception
        assert isinstance(error, ConfigurationError | TrackingError), arguments
        assert expected in str(error)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("history", "rollback"):  # in the wrong folder: told, and no database is made
        error = command(name, NAME).exception
        assert isinstance(error, ConfigurationError)
        assert "--tracking" in str(error)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_manifest_is_signed_and_checked_with_ordinary_tools(place, tmp_path):
    """As docs/promotion.md says: ssh-keygen signs the manifest, sha256sum checks the files."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed: signing was not tried")
    place()
    folder = open_registry(place.uri).champion(NAME).download(tmp_path / "down")
    key, manifest = tmp_path / "key", folder / "manifest.json"

    def tool(*arguments: object, **more):
        return subprocess.run(
            [str(a) for a in arguments], capture_output=True, text=True, cwd=folder, **more
        )

    tool("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key, check=True)
    tool("ssh-keygen", "-Y", "sign", "-f", key, "-n", "graftline", manifest, check=True)
    (tmp_path / "signers").write_text("ci@example.com " + key.with_suffix(".pub").read_text())
    check = ("ssh-keygen", "-Y", "verify", "-f", tmp_path / "signers", "-I", "ci@example.com")
    check = (*check, "-n", "graftline", "-s", f"{manifest}.sig")
    assert tool(*check, input=manifest.read_text()).returncode == 0
    assert tool(*check, input=manifest.read_text() + " ").returncode != 0
    listed = json.loads(manifest.read_text())["files"]
    sums = "".join(f"{each['sha256']}  {each['path']}\n" for each in listed)
    assert tool("sha256sum", "--check", "--strict", input=sums).returncode == 0
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert here == {each["path"] for each in listed} | {"manifest.json", "manifest.json.sig"}
    (folder / "MODEL_CARD.md").write_text("better than it is")
    assert tool("sha256sum", "--check", "--strict", input=sums).returncode != 0


def test_the_card_has_counts_as_counts_and_an_interval_beside_its_figure() -> None:
    figures = {"test": {"images": 45.0, "accuracy": 0.7778, "accuracy_ci": [0.6291, 0.888]}}
    verdict = Verdict(promote=True, reasons=[], tests=[], snapshot_id="s", figures=figures)
    lines = "\n".join(model_card._figures(verdict)).splitlines()
    assert lines[-2:] == ["| images | 45 |", "| accuracy | 0.7778 (95% 0.6291 to 0.8880) |"]
