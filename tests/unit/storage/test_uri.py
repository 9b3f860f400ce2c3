"""One meaning of a URI or path, everywhere: the store's, the source's, the weights'."""

from pathlib import Path

import pytest

from graftline.data.sources import open_source
from graftline.errors import ConfigurationError
from graftline.models.weights import location
from graftline.storage import open_store, uri
from graftline_pipelines.local import run
from graftline_pipelines.runfile.settings import RunSettings


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///a%20b/c", "/a b/c"),
        ("file:/a%20b", "/a b"),
        ("FILE:///a", "/a"),
        ("file://localhost/a", "/a"),
        ("file:///%C3%A4", "/ä"),
        ("/a%20b", "/a%20b"),
        ("a b", "a b"),
        ("~/a", str(Path.home() / "a")),
        ("s3://bucket/a", None),
        ("S3://bucket/a", None),
        ("gs://bucket/a", None),
    ],
)
def test_the_path_of_a_uri_is_decoded_and_a_plain_path_is_not(text: str, path: str | None) -> None:
    assert uri.local_path(text) == (None if path is None else Path(path))
    if path is not None:
        assert open_store(text).uri == Path(path).resolve().as_uri()
        assert location.parse(text).path == Path(path)


@pytest.mark.parametrize("text", ["file://host/a", "file://a", "file://"])
def test_a_file_uri_of_another_machine_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Write it as file:///path"):
        uri.local_path(text)


def test_a_table_is_found_by_its_encoded_uri_and_finds_images_by_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "my images"
    folder.mkdir()
    (folder / "one 1.png").write_bytes(b"1")
    (folder / "two%202.png").write_bytes(b"2")
    one = (folder / "one 1.png").as_uri()
    local = one.replace("file:///", "file://localhost/")
    (folder / "the table.csv").write_text(f"image,label\n{one},a\ntwo%202.png,b\n{local},a\n")
    source = open_source((folder / "the table.csv").as_uri())
    entries = source.entries()
    found = {entry.path: source.read(entry) for entry in entries if entry.problem is None}
    assert found == {"one 1.png": b"1", "two%202.png": b"2"}
    assert [entry.problem for entry in entries if entry.problem] == ["duplicate row"]


def test_paths_are_made_absolute_and_uris_stay(tmp_path: Path) -> None:
    settings = RunSettings.model_validate(
        {
            "name": "x",
            "data": {"source": "file:/a%20b"},
            "store": "store",
            "weights": "~/w.pt#sha256=01234567",
        }
    )
    resolved = run.with_absolute_paths(settings)
    assert resolved.data.source == "file:/a%20b"
    assert resolved.store == str(Path.cwd() / "store")
    assert resolved.weights == str(Path.home() / "w.pt#sha256=01234567")
