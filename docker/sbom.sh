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
    engine=podman
    if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
        engine=docker
    fi
    "$engine" run --rm --network none --read-only "$source" \
        cat /opt/graftline/share/graftline/sbom.cdx.json >"$file.part"
    mv "$file.part" "$file"
fi
echo "$file: $(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["components"]))' "$file") components"
