#!/usr/bin/env bash
# Renders the Kustomize base from the Helm chart: render.sh HELM [DIRECTORY]. DIRECTORY is this one by default.
set -euo pipefail
helm=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
out=${2:-$here}
mkdir -p "$out/base" "$out/pool" "$out/proxy"
render() { "$helm" template headroom "$here/../charts/headroom" --namespace headroom --kube-version 1.36.0 "$@" | grep -v '^# Source:'; }
# The order of files in a chart is Helm's own; the documents of one file stay together.
render --values "$here/base/values.yaml" | sed 's/managed-by: Helm/managed-by: Kustomize/' >"$out/base/controller.yaml"
render --values "$here/pool/values.yaml" --set poolDefaults.proxy.enabled=false --set pools[0].proxy.enabled=false |
  sed 's/managed-by: Helm/managed-by: Kustomize/' >"$out/pool/picker.yaml"
render --values "$here/pool/values.yaml" --show-only templates/proxy/proxy.yaml |
  sed 's/managed-by: Helm/managed-by: Kustomize/' >"$out/proxy/proxy.yaml"
