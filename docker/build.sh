#!/usr/bin/env bash
# Builds the images with docker, podman or buildah, whichever is there.
#
#   docker/build.sh [cpu] [gpu] [mlflow]          all three where none is named
#
#   REGISTRY      registry and path, such as registry.example.com/ml (`images.registry`)
#   TAG           the tag; default: the version, and `-dev` where the working tree is changed
#   PUSH=1        push, and print the digests with the keys of the run file that take them
#   BUILDER       docker, podman or buildah; default: the first that works
#   PYTHON_IMAGE, TORCH_INDEX_URL, TORCH_CUDA_INDEX_URL    arguments of the Dockerfile; set but
#                 empty, an index means pip's own
#   BUILD_FLAGS   more options for the builder, such as `--network=host`
set -euo pipefail
cd "$(dirname "$0")/.."

find_builder() {
    if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
        echo docker
    elif command -v podman >/dev/null; then
        echo podman
    elif command -v buildah >/dev/null; then
        echo buildah
    else
        echo "docker/build.sh: there is no docker (with its daemon running), podman or buildah;" \
            "\`apt-get install podman\` is enough" >&2
        exit 1
    fi
}

push() { # prints the digest that the registry knows the image by
    local image=$1 file
    if [ "$builder" = docker ]; then
        docker push --quiet "$image" >&2
        docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" |
            sed -n "s|^${image%:*}@||p" | head -n 1
    else
        file=$(mktemp)
        "$builder" push --quiet --digestfile "$file" "$image" >&2
        cat "$file"
        rm -f "$file"
    fi
}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
tag=${TAG:-$version}
if [ -n "$(git status --porcelain -- components pipelines docker pyproject.toml constraints.txt 2>/dev/null)" ]; then
    revision=$revision-dirty
    tag=${TAG:-$version-dev}
fi
registry=${REGISTRY:+${REGISTRY%/}/}
builder=${BUILDER:-$(find_builder)}
case $builder in
    docker) build=(docker build) ;;
    podman) build=(podman build --format oci) ;;
    buildah) build=(buildah bud --format oci --layers) ;;
    *) echo "docker/build.sh: BUILDER is '$builder'; take docker, podman or buildah" >&2; exit 2 ;;
esac
arguments=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision")
for name in PYTHON_IMAGE TORCH_INDEX_URL TORCH_CUDA_INDEX_URL; do
    if [ -n "${!name+set}" ]; then
        arguments+=(--build-arg "$name=${!name}")
    fi
done
read -r -a flags <<<"${BUILD_FLAGS:-}"

for target in "${@:-cpu gpu mlflow}"; do
    for one in $target; do
        image=${registry}graftline-$one:$tag
        echo "building $image with $builder"
        "${build[@]}" "${flags[@]}" "${arguments[@]}" -f docker/Dockerfile --target "$one" -t "$image" .
        if [ "${PUSH:-}" = 1 ]; then
            digest=$(push "$image")
            case $one in
                cpu) echo "pushed $image; in the run file, images.tag: $digest" ;;
                gpu) echo "pushed $image; in the run file, images.gpu_tag: $digest" ;;
                *) echo "pushed $image; in the overlay's \`images\`, digest: $digest" ;;
            esac
        fi
        echo "built $image"
    done
done
