#!/bin/sh
# Installs what Strand is built with on Debian 12 or later (and Ubuntu 22.04 or later), beside Rust: a C compiler and
# cmake for librdkafka, which is compiled from the sources in the rdkafka crate, and the libraries that it uses.
set -eu
packages="build-essential cmake pkg-config libssl-dev libcurl4-openssl-dev zlib1g-dev"
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update
# shellcheck disable=SC2086 # one word a package
$as_root apt-get install -y --no-install-recommends $missing
