#!/usr/bin/env bash
# install_custom_nodes.sh LIST FOLDER PYTHON PREFIX: puts the custom nodes of LIST (see custom_nodes.txt) into FOLDER, and
# what their requirements.txt ask for into PREFIX. Nothing that PYTHON has already is changed; a node that wants another
# version of it fails here, in the build, and not in the pod.
set -euo pipefail

list=$1
folder=$2
python=$3
prefix=$4
registry=${COMFY_REGISTRY_URL:-https://api.comfy.org}

constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
"$python" -m pip freeze --all >"$constraints"
mkdir -p "$folder" "$prefix"

fail() {
    echo "$list: $*" >&2
    exit 1
}

packages_path() {
    find "$prefix" -type d \( -name site-packages -o -name dist-packages \) | paste -sd: -
}

fetch_git() {
    local url=$1 commit=$2 place=$3
    [[ $url =~ ^(https|file):// ]] || fail "$url: only https addresses are fetched"
    [[ $commit =~ ^[0-9a-f]{40}$ ]] || fail "$url: $commit is no full commit id"
    git init --quiet "$place"
    git -C "$place" fetch --quiet --depth 1 "$url" "$commit"
    git -C "$place" -c advice.detachedHead=false checkout --quiet FETCH_HEAD
    [ "$(git -C "$place" rev-parse HEAD)" = "$commit" ] || fail "$url answered with another commit than $commit"
    if [ -f "$place/.gitmodules" ]; then git -C "$place" submodule --quiet update --init --recursive --depth 1; fi
    rm -rf "$place/.git"
}

fetch_registry() {
    local id=$1 version=$2 place=$3 address archive
    address=$(curl --fail --silent --show-error "$registry/nodes/$id/install?version=$version" \
        | "$python" -c 'import json, sys; print(json.load(sys.stdin)["downloadUrl"])')
    [[ $address =~ ^https?:// ]] || fail "$id $version: no download address"
    archive=$(mktemp)
    curl --fail --silent --show-error --location --output "$archive" "$address"
    mkdir "$place"
    "$python" -m zipfile -e "$archive" "$place"
    rm -f "$archive"
}

while read -r kind source version name rest; do
    case $kind in '' | '#'*) continue ;; esac
    [ -z "$rest" ] || fail "more words than expected: $rest"
    [ -n "$version" ] || fail "$kind $source: a version is missing"
    if [ -z "$name" ]; then name=$(basename -- "$source" .git); fi
    [[ $source != -* ]] || fail "$source cannot be a source"
    [[ $name =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] || fail "$name cannot be a folder's name"
    place=$folder/$name
    [ ! -e "$place" ] || fail "$name is listed twice"
    echo "== $name ($version)"
    case $kind in
        git) fetch_git "$source" "$version" "$place" ;;
        registry)
            [[ $source$version =~ ^[A-Za-z0-9._+-]+$ ]] || fail "$source $version: not a registry id and version"
            fetch_registry "$source" "$version" "$place"
            ;;
        *) fail "$kind is neither git nor registry" ;;
    esac
    if [ -f "$place/requirements.txt" ]; then
        PYTHONPATH=$(packages_path) "$python" -m pip install --prefix "$prefix" --constraint "$constraints" \
            -r "$place/requirements.txt"
    fi
    if [ -f "$place/install.py" ]; then
        (cd "$place" && PYTHONPATH=$(packages_path) "$python" install.py)
    fi
done <"$list"
