"""The rules of the Dockerfile that can be read off it; tests/containers builds and runs it."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
IMAGES = ("cpu", "gpu", "mlflow")
Stage = list[tuple[str, str]]


def _stages() -> dict[str, Stage]:
    """Each stage's instructions, with what `FROM` said first; "" holds what stands before."""
    text = (REPOSITORY / "docker" / "Dockerfile").read_text()
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", " ", text)
    stages: dict[str, Stage] = {"": []}
    current = stages[""]
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = stages[name] = []
            current.append((word, base))
        else:
            current.append((word, rest))
    return stages


def _chain(name: str) -> Stage:
    """The instructions that make the file system of a stage: its own and those it stands on."""
    stages = _stages()
    own = stages[name]
    base = own[0][1]
    return [*(_chain(base) if base in stages else []), *own]


def _all(name: str, word: str) -> list[str]:
    return [rest for instruction, rest in _chain(name) if instruction == word]


def test_bases_are_arguments_with_a_digest() -> None:
    stages = _stages()
    arguments = dict(rest.split("=", 1) for word, rest in stages[""] if word == "ARG")
    assert re.fullmatch(r"docker\.io/.+:.+@sha256:[0-9a-f]{64}", arguments["PYTHON_IMAGE"])
    bases = {stage[0][1] for name, stage in stages.items() if name}
    assert {base for base in bases if base not in stages} == {"${PYTHON_IMAGE}"}


@pytest.mark.parametrize("image", IMAGES)
def test_the_last_stage_copies_and_installs_nothing(image: str) -> None:
    assert _all(image, "ADD") == []
    for copied in _all(image, "COPY"):
        assert copied.startswith("--from="), f"{copied}: the last stage takes from others only"
    for command in _all(image, "RUN"):
        assert not re.search(
            r"\b(pip|apt-get|apk|uv)\s+(install|update)|\bcurl\b|\bwget\b", command
        )


@pytest.mark.parametrize("image", IMAGES)
def test_nobody_is_root(image: str) -> None:
    assert _all(image, "USER") == ["10001:10001"]
    words = [word for word, _ in _chain(image)]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))


@pytest.mark.parametrize("image", IMAGES)
def test_all_that_is_written_goes_to_tmp(image: str) -> None:
    environment = dict(
        pair.split("=", 1) for rest in _all(image, "ENV") for pair in rest.split() if "=" in pair
    )
    for variable in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TORCH_HOME", "HF_HOME"):
        assert environment[variable].startswith("/tmp"), variable
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert _all(image, "WORKDIR") == ["/tmp"]
    assert _all(image, "VOLUME") == []


@pytest.mark.parametrize("image", IMAGES)
def test_labels_say_version_and_revision(image: str) -> None:
    (labels,) = _all(image, "LABEL")
    assert 'org.opencontainers.image.version="${VERSION}"' in labels
    assert 'org.opencontainers.image.revision="${REVISION}"' in labels
    assert f'org.opencontainers.image.title="graftline-{image}"' in labels


def test_packages_come_from_the_constraints_and_leave_no_cache() -> None:
    for name, stage in _stages().items():
        for _, command in (item for item in stage if item[0] == "RUN"):
            for installed in re.findall(r"pip [^&|]*\binstall\b[^&|]*", command):
                assert "-c /constraints.txt" in installed or "--no-deps" in installed, installed
                environment = " ".join(_all(name, "ENV"))
                assert "PIP_NO_CACHE_DIR=1" in environment


def test_every_requirement_has_an_exact_version() -> None:
    def name(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~!; ]", requirement)[0]).lower()

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^=\s;]+", pin) for pin in pins)
    names = [name(pin) for pin in pins]
    assert len(names) == len(set(names))
    asked = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {name(requirement) for requirement in asked} <= set(names)


def test_the_steps_cannot_install_anything() -> None:
    stages = _stages()
    assert any("venv --without-pip /opt/graftline" in rest for _, rest in stages["environment"])


def test_no_secret_is_an_argument() -> None:
    for stage in _stages().values():
        for word, rest in stage:
            if word in ("ARG", "ENV"):
                assert not re.search(r"TOKEN|PASSWORD|SECRET|ACCESS_KEY", rest, re.IGNORECASE)


def test_the_context_holds_only_what_is_copied() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = set()
    for stage in _stages().values():
        for word, rest in stage:
            if word == "COPY" and not rest.startswith("--from="):
                copied |= set(rest.split()[:-1])
    assert copied == allowed
    assert all((REPOSITORY / path).exists() for path in allowed)


WRITES_DOWN = '#!/bin/sh\necho "$(basename "$0")" "$@"\n'


def _build(
    tmp_path: Path, *arguments: str, program: str = WRITES_DOWN, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run build.sh with engines that only write down how they were called."""
    for engine in ("docker", "podman", "buildah"):
        (tmp_path / engine).write_text(program)
        (tmp_path / engine).chmod(0o755)
    (tmp_path / "git").write_text('#!/bin/sh\n[ "$1" = rev-parse ] && echo abc123 || true\n')
    (tmp_path / "git").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin", **variables}
    return subprocess.run(
        [str(REPOSITORY / "docker" / "build.sh"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_any_engine_builds(tmp_path: Path, engine: str) -> None:
    result = _build(
        tmp_path, "cpu", BUILDER=engine, REGISTRY="r.example.com/ml/", TAG="7", TORCH_INDEX_URL=""
    )
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(engine)]
    assert "--target cpu -t r.example.com/ml/graftline-cpu:7 ." in line
    assert "--build-arg TORCH_INDEX_URL= " in line
    assert "--build-arg REVISION=abc123" in line
    assert "PYTHON_IMAGE" not in line, "what is not set keeps the Dockerfile's default"


def test_all_three_images_are_built_by_the_engine_that_is_there(tmp_path: Path) -> None:
    result = _build(tmp_path)
    assert result.returncode == 0, result.stderr
    built = re.findall(r"^built graftline-(\w+):", result.stdout, re.MULTILINE)
    assert built == list(IMAGES)
    assert "docker build" in result.stdout


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_a_push_names_the_digest_and_the_key_that_takes_it(tmp_path: Path, engine: str) -> None:
    program = r"""#!/bin/sh
here=$(basename "$0")
case "$*" in
    "image inspect"*)
        echo r.example.com/other@sha256:no
        echo r.example.com/ml/graftline-gpu@sha256:d1 ;;
    push*--digestfile*) while [ "$1" != --digestfile ]; do shift; done; printf sha256:d1 > "$2" ;;
    *) echo "$here" "$@" ;;
esac
"""
    result = _build(
        tmp_path, "gpu", program=program, BUILDER=engine, REGISTRY="r.example.com/ml", PUSH="1"
    )
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("pushed ")]
    assert re.fullmatch(r"pushed r\.example\.com/ml/graftline-gpu:[\d.]+; in .*", line)
    assert line.endswith("images.gpu_tag: sha256:d1")


def test_without_any_engine_the_remedy_is_named(tmp_path: Path) -> None:
    for program in ("bash", "dirname", "sed", "git"):
        (tmp_path / program).symlink_to(shutil.which(program) or program)
    for script in ("build.sh", "sbom.sh"):
        result = subprocess.run(
            [str(tmp_path / "bash"), str(REPOSITORY / "docker" / script), "cpu"],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert result.returncode == 1
        assert "there is no docker (with its daemon running), podman or buildah" in result.stderr


def test_an_unknown_engine_is_refused(tmp_path: Path) -> None:
    result = _build(tmp_path, BUILDER="kaniko")
    assert result.returncode == 2
    assert "take docker, podman or buildah" in result.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("script", ["docker/build.sh", "docker/sbom.sh"])
def test_the_scripts_parse(script: str) -> None:
    assert os.access(REPOSITORY / script, os.X_OK)
    subprocess.run(["bash", "-n", str(REPOSITORY / script)], check=True)
