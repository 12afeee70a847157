#!/bin/sh
# The engine's unit tests for ARM64, under qemu, with the newest processor it knows and with one that has no dot product.
# Needs qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross (apt), and the target (rustup target add
# aarch64-unknown-linux-gnu). Arguments go to cargo test.
set -eu
cd "$(dirname "$0")"
target=aarch64-unknown-linux-gnu
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-../../target/elsewhere}"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
for processor in max cortex-a57; do
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu $processor"
    echo "# $processor"
    cargo test --release --locked --target "$target" "$@"
done
