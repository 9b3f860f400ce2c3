#!/bin/sh
# Makes the two secrets that the dev overlay refers to, with random passwords. A secret that is
# there already is left alone.
set -eu
namespace=${1:-graftline}
kubectl get namespace "$namespace" >/dev/null 2>&1 || kubectl create namespace "$namespace"

random() {
    head -c 24 /dev/urandom | base64 | tr -d '+/='
}

make_secret() {
    name=$1
    shift
    if kubectl -n "$namespace" get secret "$name" >/dev/null 2>&1; then
        echo "secret $name is there already"
    else
        kubectl -n "$namespace" create secret generic "$name" "$@"
    fi
}

make_secret mlflow-database \
    --from-literal=host=postgres --from-literal=port=5432 \
    --from-literal=database=mlflow --from-literal=user=mlflow \
    --from-literal=password="$(random)"
make_secret graftline-s3 \
    --from-literal=access-key="$(random)" --from-literal=secret-key="$(random)"
