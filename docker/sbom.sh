#!/usr/bin/env bash
# Writes what an image holds as a CycloneDX list: the one that was made when it was built.
#
#   docker/sbom.sh IMAGE [FILE]      FILE is sbom.json where absent
#   docker/sbom.sh --here [FILE]     of the virtual environment .venv, development tools included
set -euo pipefail
cd "$(dirname "$0")/.."
source=${1:?an image, or --here}
file=${2:-sbom.json}
if [ "$source" = --here ]; then
    .venv/bin/cyclonedx-py environment --output-format JSON --output-file "$file" .venv/bin/python
else
    list=/opt/graftline/share/graftline/sbom.cdx.json
    if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
        docker run --rm --network none --read-only "$source" cat "$list" >"$file.part"
    elif command -v podman >/dev/null; then
        podman run --rm --network none --read-only "$source" cat "$list" >"$file.part"
    elif command -v buildah >/dev/null; then
        container=$(buildah from "$source")
        trap 'buildah rm "$container" >/dev/null' EXIT
        buildah run "$container" -- cat "$list" >"$file.part"
    else
        echo "docker/sbom.sh: there is no docker (with its daemon running), podman or buildah" >&2
        exit 1
    fi
    mv "$file.part" "$file"
fi
echo "$file: $(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["components"]))' "$file") components"
