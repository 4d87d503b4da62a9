#!/bin/sh
# Installs claudemesh for one user. Fetches the archive of this machine, compares its SHA-256 with SHA256SUMS, and unpacks it.
# Nothing is written before the checksum fits.
#
#   sh install.sh [--prefix FOLDER]        default: ~/.local
#
# CLAUDEMESH_VERSION and CLAUDEMESH_BASE_URL choose another release and another place; file:// works, too.
set -eu

VERSION=${CLAUDEMESH_VERSION:-}
BASE_URL=${CLAUDEMESH_BASE_URL:-}
PREFIX=${HOME:-}/.local

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --prefix) [ $# -ge 2 ] || fail "--prefix needs a folder"; PREFIX=$2; shift 2 ;;
        --prefix=*) PREFIX=${1#--prefix=}; shift ;;
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "unknown argument $1; see --help" ;;
    esac
done
[ -n "$VERSION" ] || fail "set CLAUDEMESH_VERSION: this script is not from a release"
[ -n "$BASE_URL" ] || fail "set CLAUDEMESH_BASE_URL: this script is not from a release"

case $(uname -s) in
    Linux) ;;
    *) fail "there is no archive for $(uname -s); build it with: cargo build --release -p claudemesh" ;;
esac
case $(uname -m) in
    x86_64 | amd64) target=x86_64-unknown-linux-gnu ;;
    aarch64 | arm64) target=aarch64-unknown-linux-gnu ;;
    *) fail "there is no archive for $(uname -m); build it with: cargo build --release -p claudemesh" ;;
esac
name=claudemesh-$VERSION-$target

fetch() {
    case $1 in
        file://*) cp -- "${1#file://}" "$2" ;;
        *)
            if command -v curl >/dev/null; then
                curl --fail --silent --show-error --location --proto '=https' --tlsv1.2 --output "$2" "$1"
            elif command -v wget >/dev/null; then
                wget --quiet --https-only --output-document="$2" "$1"
            else
                fail "neither curl nor wget is here"
            fi
            ;;
    esac || fail "$1 cannot be fetched"
}

checksum() {
    if command -v sha256sum >/dev/null; then
        sha256sum "$1" | cut -d ' ' -f 1
    elif command -v shasum >/dev/null; then
        shasum -a 256 "$1" | cut -d ' ' -f 1
    else
        fail "neither sha256sum nor shasum is here"
    fi
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
fetch "$BASE_URL/SHA256SUMS" "$folder/SHA256SUMS"
fetch "$BASE_URL/$name.tar.gz" "$folder/archive"
wanted=$(awk -v name="$name.tar.gz" '$2 == name || $2 == "*" name { print $1 }' "$folder/SHA256SUMS")
[ -n "$wanted" ] || fail "SHA256SUMS does not name $name.tar.gz"
found=$(checksum "$folder/archive")
[ "$wanted" = "$found" ] || fail "the checksum of $name.tar.gz does not fit: expected $wanted, found $found. Nothing was installed."

tar -xzf "$folder/archive" -C "$folder" || fail "$name.tar.gz cannot be unpacked"
"$folder/$name/bin/claudemesh" --version >/dev/null || fail "claudemesh does not start here: it needs glibc 2.34 or later"
mkdir -p "$PREFIX/bin" "$PREFIX/share"
for program in claudemesh claudemesh-broker; do
    # A program that runs is replaced, not written into.
    cp "$folder/$name/bin/$program" "$PREFIX/bin/.$program.new"
    mv -f "$PREFIX/bin/.$program.new" "$PREFIX/bin/$program"
done
cp -R "$folder/$name/share/." "$PREFIX/share/"
echo "claudemesh $VERSION is in $PREFIX/bin"
case :$PATH: in
    *:"$PREFIX/bin":*) ;;
    *) echo "It is not on your PATH yet. Add to your shell's start file: export PATH=\"$PREFIX/bin:\$PATH\"" ;;
esac
