#!/bin/sh
# Shows what Strand publishes, as it comes, with kcat: stream, headers, output record.
#
#     examples/kafka/consume.sh          # all there is, then what comes
#     examples/kafka/consume.sh -e       # all there is
#     TOPIC=strand-dead-letters examples/kafka/consume.sh -e      # what could not be labelled, and why
#
# BROKERS (localhost:9092) and TOPIC (strand-labels) may be set; arguments go to kcat.
set -eu
exec kcat -C -b "${BROKERS:-localhost:9092}" -t "${TOPIC:-strand-labels}" -o beginning -q -u -f '%k\t%h\t%s\n' "$@"
