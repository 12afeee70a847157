#!/usr/bin/env python3
"""Writes tests/golden/seqeval.json: label sequences and what seqeval makes of them.

    pip install seqeval==1.2.2
    python tests/reference/seqeval_golden.py > tests/golden/seqeval.json

The sequences are random, so that odd ones (I-X after O, I-X after B-Y, types with a dash) are among them. Figures are
those of seqeval's default mode, which counts as conlleval does.
"""

import json
import random
import warnings

from seqeval.metrics import accuracy_score, classification_report

warnings.filterwarnings("ignore")
TYPES = ["PER", "ORG", "LOC", "creative-work"]


def sequence(rng, length):
    labels = ["O"] + [prefix + kind for kind in TYPES for prefix in ("B-", "I-")]
    return rng.choices(labels, weights=[4] + [1, 2] * len(TYPES), k=length)


def disturbed(rng, labels, noise):
    return [rng.choice(["O", "B-PER", "I-PER", "B-LOC", "I-creative-work"]) if rng.random() < noise else label
            for label in labels]


def case(rng, sentences, noise):
    gold = [sequence(rng, rng.randint(1, 15)) for _ in range(sentences)]
    predicted = [disturbed(rng, labels, noise) for labels in gold]
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    figures = {name: {"precision": float(row["precision"]), "recall": float(row["recall"]),
                      "f1": float(row["f1-score"]), "support": int(row["support"])}
               for name, row in report.items() if name not in ("macro avg", "weighted avg")}
    return {"gold": gold, "predicted": predicted, "accuracy": float(accuracy_score(gold, predicted)),
            "overall": figures.pop("micro avg"), "by_type": figures}


rng = random.Random(3)
cases = [case(rng, sentences, noise) for sentences, noise in ((1, 0.5), (3, 0.0), (5, 1.0), (8, 0.2), (30, 0.3))]
print("[\n" + ",\n".join(json.dumps(one) for one in cases) + "\n]")
