#!/usr/bin/env bash
# Instructions of a task, from its spawn to its end, by callgrind: one worker, difference of two sizes, so that start and
# end do not count. Beside what `counts.baseline` says; ends with 1 if one is more than 10 % above it under the same compiler.
#
#   benches/counts.sh            compare
#   benches/counts.sh --write    make the baseline anew
set -euo pipefail
cd "$(dirname "$0")/.."
small=4000 large=12000 allowed=10
compiler=$(rustc --version)
cargo build -q --release -p dagger-benches --bin counts
counts=${CARGO_TARGET_DIR:-target}/release/counts
out=$(mktemp)
trap 'rm -f "$out"' EXIT

instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$counts" "$1" "$2" 2>&1 | awk '/Collected/ { print $NF }'
}

for case in spawn named priority options await chain write random replay; do
    few=$(instructions $case $small)
    many=$(instructions $case $large)
    echo "$case $(((many - few) / (large - small)))" >>"$out"
done

if [ "${1:-}" = --write ]; then
    { echo "# $compiler"; cat "$out"; } >benches/counts.baseline
    cat benches/counts.baseline
    exit
fi

same=no
[ "$(head -n 1 benches/counts.baseline)" = "# $compiler" ] && same=yes
echo "instructions a task; baseline: $(head -n 1 benches/counts.baseline | cut -c 3-)"
awk -v same=$same -v allowed=$allowed '
    FNR == NR { if ($1 != "#") base[$1] = $2; next }
    {
        change = 100 * ($2 - base[$1]) / base[$1]
        printf "  %-8s %6d  baseline %6d  %+.1f %%\n", $1, $2, base[$1], change
        if (change > allowed) worse = worse " " $1
    }
    END {
        if (worse == "") exit 0
        if (same == "no") { print "more than " allowed " % above, under another compiler:" worse; exit 0 }
        print "more than " allowed " % above:" worse; exit 1
    }' benches/counts.baseline "$out"
