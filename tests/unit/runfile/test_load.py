"""The run file: every mistake at once, with its line, in the user's own key names."""

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from graftline.settings import descriptions
from graftline_pipelines.runfile import reference
from graftline_pipelines.runfile.load import RunFileError, load

ROOT = Path(__file__).parents[3]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def problems(path: Path, overrides: tuple[str, ...] = ()) -> dict[str, tuple[int | None, str]]:
    with pytest.raises(RunFileError) as caught:
        load(path, overrides)
    return {problem.key: (problem.line, str(problem)) for problem in caught.value.problems}


def test_minimal_file_gets_the_documented_defaults(tmp_path: Path) -> None:
    settings = load(write(tmp_path, "name: a\ndata:\n  source: images\n"))
    assert settings.strategy == "auto"
    assert settings.experiment == settings.registered_model == "a"
    assert settings.data.split.train == 0.7


def test_three_mistakes_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    text = "name: a\nstratgy: probe\ndata:\n  source: x\nseed: many\ngate:\n  margin: 2\n"
    found = problems(write(tmp_path, text))
    assert set(found) == {"stratgy", "seed", "gate.margin"}
    assert found["stratgy"][0] == 2 and "`strategy`" in found["stratgy"][1]
    assert found["seed"][0] == 5 and "'many'" in found["seed"][1]
    assert found["gate.margin"][0] == 7


def test_a_key_of_several_types_has_one_mistake(tmp_path: Path) -> None:
    text = "name: a\ndata:\n  source: x\nfine_tune:\n  unfreeze: 1.5\n  epochs: 0\n"
    found = problems(write(tmp_path, text))
    assert set(found) == {"fine_tune.unfreeze", "fine_tune.epochs"}
    line, said = found["fine_tune.unfreeze"]
    assert line == 5
    for part in ("1.5", "whole number, or less", "equal to 1, or 'auto' or 'all'.", "upper blocks"):
        assert part in said
    said = problems(write(tmp_path, text.replace("1.5", "-1")))["fine_tune.unfreeze"][1]
    assert said.count("greater than or equal to 0") == 1  # both numbers have that limit


def test_contradiction_is_reported_with_wrong_set_option(tmp_path: Path) -> None:
    text = "name: a\ndata: {source: x}\nassign:\n  fine_tune: gpus\n"
    found = problems(write(tmp_path, text), ("strategy",))
    assert set(found) == {"assign.fine_tune", "--set strategy"}
    assert found["assign.fine_tune"][0] == 4


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("", "the file", "no keys"),
        ("- a\n", "the file", "not a mapping"),
        ("name: [\n", "the file", "not valid YAML"),
        ("name: a\n", "data", "missing"),
        ("name: a\nname: b\ndata: {source: x}\n", "name", "twice"),
        ("name: A b\ndata: {source: x}\n", "name", "'A b'"),
        ("name: a\ndata: {source: x, split: {train: 0.9}}\n", "data.split", "sum to 1.2"),
        ("name: a\ndata: {source: 's3://k:s@b/p'}\n", "data.source", "user or password"),
        (
            "name: a\ndata: {source: x}\ntracking: {uri: 'postgresql://h/d?user=a&password=b'}\n",
            *("tracking.uri", "or a token"),
        ),
        (
            "name: a\ndata: {source: x}\n"
            "cluster: {variables: {HTTPS_PROXY: 'http://me:hunter2@proxy:3128'}}\n",
            *("cluster.variables", "HTTPS_PROXY"),
        ),
        (
            "name: a\ndata: {source: x}\n"
            "cluster: {variables: {AWS_ENDPOINT_URL_S3: 'http://169.254.169.254'}}\n",
            *("cluster.variables", "metadata service"),
        ),
        ("name: a\ndata: {source: x}\nstrategy: best\n", "strategy", "'best'"),
    ],
)
def test_each_mistake_names_its_key_and_value(
    tmp_path: Path, text: str, key: str, said: str
) -> None:
    found = problems(write(tmp_path, text))
    assert said in found[key][1]


def test_secret_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    text = "name: a\ndata: {source: x}\ntracking: {uri: 'https://me:hunter2@mlflow'}\n"
    with pytest.raises(RunFileError) as caught:
        load(write(tmp_path, text))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tracking: {registered_model: a/b}", "tracking.registered_model (line 3)"),
        ("tracking: {experiment: ' '}", "the name is empty"),
        ("gate: {slices: [bright]}", "`brightness`"),
        ("gate: {slices: ['camra=a']}\ndata: {source: x.csv, attributes: [camera]}", "`camera`"),
    ],
)
def test_what_a_later_step_would_refuse_is_refused_now(
    tmp_path: Path, text: str, said: str
) -> None:
    path = tmp_path / "run.yaml"
    data = "" if "data:" in text else "data: {source: x}\n"
    path.write_text(f"name: a\n{data}{text}\n")
    with pytest.raises(RunFileError) as caught:
        load(path)
    assert said in str(caught.value)


def test_absent_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, "name: a\n")
    with pytest.raises(RunFileError, match=r"runs\.yaml: there is no such file") as caught:
        load(tmp_path / "runs.yaml")
    assert "Did you mean" in str(caught.value) and "run.yaml?" in str(caught.value)
    with pytest.raises(RunFileError, match="is a folder, not a run file"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name: a\n".encode("utf-16"), "it is UTF-16 text. Save it as UTF-8."),
        ("name: é\n".encode("latin-1"), "it is not UTF-8 text. Save it as UTF-8."),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "is no text, so it is not a run file. `graftline init"),
    ],
)
def test_a_file_of_another_encoding_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(RunFileError) as caught:
        load(tmp_path / "run.yaml")
    assert said in str(caught.value)


def test_windows_line_ends_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    text = "name: a\ndata:\n  source: x\nstore: s\ntracking:\n  uri: sqlite:///m.db\n"
    path = tmp_path / "run.yaml"
    path.write_text(text)
    wanted = load(path)
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load(path) == wanted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: 5", "name (line 1): 5 does not fit: it has to be text. Write it in quotes: '5'."),
        ("name: Small Flowers", "at both ends. For example small-flowers."),
        ("name: a\nstrategy: fine-tune", "Did you mean fine_tune?"),
        ("name: a\nsplit: {train: 0.8}", "Did you mean `data.split`?"),
        ("name: a\nfine_tune: {lr: 0.1}", "Did you mean `learning_rate`?"),
        ("name: a\nmodel: resnet50", "Did you mean `backbone`?"),
        ("name: a\nsource: pictures", "Did you mean `data.source` or"),
        ("name: a\nseed: 1.5", "it has to be a whole number."),
        ("name: a\nauto: {min_gain: 1%}", "it has to be a number. Write 0.01 for 1%."),
        ("name: a\ngate: yes", "true does not fit: it has to be keys with values, indented below"),
        ("name: a\ngate: {min_accuracy: yes}", "true does not fit: it has to be a number."),
        ("name: a\nseed: on", "true does not fit: it has to be a whole number."),
        ("name: a\nauto: {max_hours: yes}", "true does not fit: it has to be a number."),
        ("name: a\nschedule: {enabled: maybe}", "it has to be true or false."),
        ("name: a\nimage_size: 3", "it has to be greater than or equal to 16."),
        ("name: a\ndata:\n\tsource: x", "not valid YAML: a tab in place of spaces."),
        ("name: a\ndata: {source: a}\ndata: {source: b}", "data (line 3): appears twice"),
        ("name: a\ndata: {source: a, source: b}", "data.source (line 2): appears twice"),
    ],
)
def test_mistakes_are_said_without_a_programmers_words(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(RunFileError) as caught:
        load(tmp_path / "run.yaml")
    assert said in str(caught.value)
    assert not re.search("Settings|pattern|valid (?!YAML)|parse|instance", str(caught.value))


def test_all_kinds_of_mistakes_are_reported_together_from_the_top_down(tmp_path: Path) -> None:
    text = "name: A\nseed: x\nseed: y\ndata: {sorce: x, source: y}\n"
    with pytest.raises(RunFileError) as caught:
        load(write(tmp_path, text), ["strategy=best", "data.format=zip"])
    keys = [problem.key for problem in caught.value.problems]
    assert keys[:4] == ["name", "seed", "seed", "data.sorce"]
    assert sorted(keys[4:]) == ["--set data.format", "--set strategy"]


def test_set_replaces_and_creates_keys(tmp_path: Path) -> None:
    path = write(tmp_path, "name: a\ndata: {source: x}\n")
    settings = load(path, ("fine_tune.epochs=3", "seed=7", "weights=null"))
    assert settings.fine_tune.epochs == 3
    assert settings.seed == 7
    assert settings.weights is None


def test_reference_and_schema_are_up_to_date() -> None:
    assert (ROOT / "docs/run-file.md").read_text() == reference.reference(), "make docs"
    schema = json.loads((ROOT / "run.schema.json").read_text())
    assert schema == reference.schema(), "run `make docs`"


def test_every_key_is_documented() -> None:
    schema = reference.schema()
    models = [schema, *schema["$defs"].values()]
    bare = [
        f"{model.get('title')}.{key}"
        for model in models
        for key, field in model.get("properties", {}).items()
        if not field.get("description")
    ]
    assert not bare


class _Whole(BaseModel, use_attribute_docstrings=True):
    share: float = 0.5
    """A share of all.

        Indented further.
    """
    bare: int = 1
    named: str


class _Part(_Whole):
    share: float = 0.2
    """Another share."""
    last: int = 2
    "One line."


@pytest.mark.parametrize("section", [_Whole, _Part])
def test_texts_below_keys_are_read_as_pydantic_reads_them(section: type[BaseModel]) -> None:
    theirs = {key: field.description for key, field in section.model_fields.items()}
    assert descriptions(section) == {key: text for key, text in theirs.items() if text}


def test_what_argo_would_replace_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: a\ndata:\n  source: s3://b/{{workflow.name}}\n")
    with pytest.raises(RunFileError) as caught:
        load(path, ["tracking.experiment=a {{b"])
    first, second = sorted(str(problem) for problem in caught.value.problems)
    assert first.startswith("data.source (line 3): holds '{{'") and "escape" in first
    assert second.startswith("tracking.experiment: holds '{{'")


GPU_POOL = "pools: {gpu: {accelerator: nvidia.com/gpu%s}}\nassign: {fine_tune: gpu}\n"


def test_a_limit_in_money_needs_a_price(tmp_path: Path) -> None:
    start = "name: a\ndata: {source: x}\nauto: {max_cost: 5}\n"
    found = problems(write(tmp_path, start + GPU_POOL % ""))
    line, said = found["auto.max_cost"]
    assert line == 3 and "pools.gpu.hourly_price" in said and "auto.max_hours" in said
    assert load(write(tmp_path, start + GPU_POOL % ", hourly_price: 2.5")).auto.max_cost == 5
    assert "'default'" in problems(write(tmp_path, start))["auto.max_cost"][1]


def test_an_option_for_a_text_is_taken_as_it_was_typed(tmp_path: Path) -> None:
    """A shell has eaten the quotes by then; `null` is still the absence of a value."""
    path = write(tmp_path, "name: a\ndata: {source: x, group_column: patient}\n")
    given = ["predict.version=7", "images.tag=1.10", "tracking.experiment=@nightly"]
    settings = load(path, [*given, "name=on", "data.group_column=null", "data.label_column='2'"])
    assert settings.predict.version == "7" and settings.images.tag == "1.10"
    assert settings.experiment == "@nightly"  # no YAML
    assert (settings.name, settings.data.group_column) == ("on", None)
    assert settings.data.label_column == "2"
    found = problems(path, ("data.exclude=[x", "seed=on"))
    assert "is not a YAML value. Check brackets" in found["--set data.exclude"][1]
    assert "has to be a whole number" in found["--set seed"][1]
