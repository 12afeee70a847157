"""Golden values for tests/numbers/bleu.rs: corpus BLEU of made-up translations by sacrebleu, with its default settings (tokenizer 13a,
exponential smoothing, effective order off).

    python tests/reference/sacrebleu_golden.py > tests/golden/bleu.json
"""

import json
import random

import sacrebleu

WORDS = (
    "the a of Mr. U.S. 3.5 1,000 10-20 well-known don't (see) \"quoted\" Straße über e.g. $5 50% http://x.org/a?b=1 "
    "end. yes! no? a/b &amp; &lt;b&gt; ... -- ' ; : 2020-01-31 A.B.C. 7. .5 x,y"
).split()


def noisy(rng, sentence, rate):
    out = []
    for word in sentence:
        kind = rng.random()
        if kind < rate:
            continue
        out.append(rng.choice(WORDS) if kind < 2 * rate else word)
        if kind > 1 - rate / 2:
            out.append(word)
    return out


def main():
    rng = random.Random(3)
    cases = []
    for size, rate, cut in [(40, 0.05, 0), (40, 0.2, 0), (30, 0.1, 4), (3, 0.5, 0), (1, 0.6, 0), (2, 1.0, 0), (20, 0.0, 0)]:
        references = [[rng.choice(WORDS) for _ in range(rng.randint(1, 14))] for _ in range(size)]
        translations = [" ".join(noisy(rng, r, rate)[: len(r) - cut if cut else None]) for r in references]
        references = [" ".join(r) for r in references]
        bleu = sacrebleu.corpus_bleu(translations, [references])
        cases.append(
            {"translations": translations, "references": references, "bleu": bleu.score, "precisions": bleu.precisions,
             "brevity_penalty": bleu.bp, "lengths": [bleu.sys_len, bleu.ref_len]}
        )
    # No n-gram of a high order is right: smoothing; and none is long enough: 0.
    for translations, references in [(["a b c d e f"], ["a x c y e z"]), (["a b"], ["a b"]), ([""], ["a b"])]:
        bleu = sacrebleu.corpus_bleu(translations, [references])
        cases.append(
            {"translations": translations, "references": references, "bleu": bleu.score, "precisions": bleu.precisions,
             "brevity_penalty": bleu.bp, "lengths": [bleu.sys_len, bleu.ref_len]}
        )
    print(json.dumps({"version": sacrebleu.__version__, "cases": cases}, ensure_ascii=False, indent=1))


main()
