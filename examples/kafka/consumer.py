#!/usr/bin/env python3
"""Prints the entities that Strand finds, one a line: stream, kind, text, and the input record that completed it.

    python3 consumer.py
    news    PER    Angela Merkel    strand-input/3/17

Strand publishes at least once: after a crash some records come again, with the same bytes and the same strand-source
header (topic/partition/offset of the input record). Whoever counts or stores results takes each source once, as here.
"""

import argparse
import json
import signal
import sys

from confluent_kafka import Consumer, KafkaError


class Streams:
    """What must be known of each stream from one record to the next."""

    def __init__(self):
        self.words = {}  # stream: words of the entity that has begun
        self.seen = {}  # stream: offset of the last input record whose output was taken

    def is_news(self, stream, source):
        """Whether no output of this input record was taken before. Offsets of a stream only grow."""
        if source == "strand":  # No input record: Strand ended a stream that was silent for long.
            return True
        offset = int(source.rsplit("/", 1)[1])
        if offset <= self.seen.get(stream, -1):
            return False
        self.seen[stream] = offset
        return True

    def entities(self, stream, output):
        """(kind, text) of the entities that this record completes. They may have begun in an earlier one."""
        words = self.words.pop(stream, []) + [label for label in output["labels"] if label["label"] != "O"]
        for span in output["spans"]:
            text, end = "", None
            for word in (word for word in words if span["start"] <= word["start"] < span["end"]):
                text += (" " if end is not None and word["start"] > end else "") + word["text"]
                end = word["end"]
            yield span["label"], text
            words = [word for word in words if word["start"] >= span["end"]]
        if words and not output["final"]:
            self.words[stream] = words


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", default="localhost:9092")
    parser.add_argument("--topic", default="strand-labels")
    parser.add_argument("--group", default="strand-example", help="goes on where this group has stopped")
    parser.add_argument("-X", metavar="KEY=VALUE", action="append", default=[], dest="properties",
                        help="property of librdkafka, such as security.protocol=SASL_SSL")
    args = parser.parse_args()

    consumer = Consumer({
        "bootstrap.servers": args.brokers,
        "group.id": args.group,
        "auto.offset.reset": "earliest",
        # Committed is what was handled, not what was fetched: store_offsets below.
        "enable.auto.offset.store": False,
        **dict(pair.split("=", 1) for pair in args.properties),
    })
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # Leaves the group in order, below.
    streams = Streams()
    try:
        consumer.subscribe([args.topic])
        while True:
            message = consumer.poll(1)
            if message is None:
                continue
            if error := message.error():
                if error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:  # Not there yet.
                    print(f"consumer.py: {error}", file=sys.stderr)
                continue
            stream = message.key().decode(errors="replace")
            source = dict(message.headers())["strand-source"].decode()
            if streams.is_news(stream, source):
                for kind, text in streams.entities(stream, json.loads(message.value())):
                    print(stream, kind, text, source, sep="\t", flush=True)
            consumer.store_offsets(message)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
