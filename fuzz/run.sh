#!/usr/bin/env bash
# Runs one fuzz target, or all of them one after the other: fuzz/run.sh [SECONDS] [TARGET…]
# Needs a nightly toolchain and cargo-fuzz (`cargo install cargo-fuzz`).
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-600}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(config formats lines states models files http)

for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    # What is found grows in corpus/, which is not committed; seeds/ is only read.
    cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -max_len=8192 -print_final_stats=1
done
