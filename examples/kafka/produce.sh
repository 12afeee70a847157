#!/bin/sh
# Sends a text to Strand as one stream, a line a record, with kcat:
#
#     examples/kafka/produce.sh news < letter.txt
#
# BROKERS (localhost:9092) and TOPIC (strand-input) may be set; further arguments go to kcat, such as
# -X security.protocol=SASL_SSL.
set -eu
stream=${1:?usage: produce.sh STREAM [KCAT OPTION ...]}
shift

send() {
    # The key names the stream. murmur2_random: the partition that Java's clients give a key.
    kcat -P -b "${BROKERS:-localhost:9092}" -t "${TOPIC:-strand-input}" -k "$stream" \
        -X enable.idempotence=true -X partitioner=murmur2_random "$@"
}

# kcat takes the end of the line away. Without the space the next line would go on with its last word.
awk '{ print $0 " "; fflush() }' | send "$@"
# The stream is over: its last entity is closed, its state dropped. kcat sends no empty records, hence the space.
echo ' ' | send -H strand-event=end "$@"
