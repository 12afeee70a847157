#!/bin/sh
# Draws where the time of a command goes, as a flame graph: width is the share of all samples, what is called stands above
# what calls it.
#
#   benches/flamegraph.sh OUT.svg TITLE COMMAND ...            a command, from its start to its end
#   benches/flamegraph.sh OUT.svg TITLE -p PID -- sleep 5      a process that runs, for five seconds
#
# Needs perf and inferno (cargo install inferno). Stacks are unwound by the tables of the binary, so that nothing need be
# built with frame pointers. FREQUENCY: samples a second of each thread's time (499). MIN_WIDTH: per cent below which
# frames are left out (0.2).
set -eu
if [ $# -lt 3 ]; then
    sed -n '/^#!/d;s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
out=$1 title=$2
shift 2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
perf record --quiet --freq "${FREQUENCY:-499}" --call-graph dwarf,32768 --output "$dir/samples" "$@" > /dev/null \
    || test -s "$dir/samples" # However the command ended.
perf script --no-inline --input "$dir/samples" > "$dir/stacks" 2> /dev/null
# perf gives each sample the nanoseconds that it stands for.
inferno-collapse-perf "$dir/stacks" | awk '{n = $NF; sub(/[0-9]+$/, ""); printf "%s%d\n", $0, n / 1000}' > "$dir/folded"
seconds=$(awk '{n += $NF} END {printf "%.1f", n / 1e6}' "$dir/folded")
inferno-flamegraph --title "$title" --subtitle "$seconds seconds of processor time" --countname µs \
    --minwidth "${MIN_WIDTH:-0.2}" --hash "$dir/folded" > "$out"
