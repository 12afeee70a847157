#!/usr/bin/env python3
"""Sends a text to Strand as one stream, piece by piece, as it comes on standard input.

    echo 'Angela Merkel met Barack Obama in Berlin.' | python3 producer.py news

A record's key is its stream's name; pieces of a stream are labelled in the order in which they were sent. They may be
cut anywhere, even within a character. The strand-event header of the last record ends the stream.
"""

import argparse
import sys

from confluent_kafka import Producer

PIECE = 64  # bytes at most


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", help="the stream's name")
    parser.add_argument("--brokers", default="localhost:9092")
    parser.add_argument("--topic", default="strand-input")
    parser.add_argument("--event", default="end", choices=["start", "flush", "reset", "end"],
                        help="event of the last record: end (the stream is over), flush (its last word is complete)")
    parser.add_argument("-X", metavar="KEY=VALUE", action="append", default=[], dest="properties",
                        help="property of librdkafka, such as security.protocol=SASL_SSL")
    args = parser.parse_args()

    producer = Producer({
        "bootstrap.servers": args.brokers,
        # What is sent again after an error arrives once, and nothing overtakes what was sent before it.
        "enable.idempotence": True,
        # The partition that Java's clients give a key: all producers of a topic should agree on it.
        "partitioner": "murmur2_random",
        **dict(pair.split("=", 1) for pair in args.properties),
    })
    errors = []

    def delivered(error, _message):
        if error is not None:
            errors.append(error)

    def send(piece, headers=None):
        while not errors:
            try:
                producer.produce(args.topic, key=args.stream, value=piece, headers=headers, on_delivery=delivered)
                producer.poll(0)
                return
            except BufferError:  # The producer has enough to do.
                producer.poll(0.1)

    # What is there is sent, without waiting for more.
    while piece := sys.stdin.buffer.read1(PIECE):
        send(piece)
    send(b"", {"strand-event": args.event})
    unsent = producer.flush(60)
    if errors or unsent:
        sys.exit(f"producer.py: not all was sent: {errors[0] if errors else f'{unsent} records are not acknowledged'}")


if __name__ == "__main__":
    main()
