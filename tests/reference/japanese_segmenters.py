#!/usr/bin/env python3
"""Words of UD Japanese GSD as other systems cut them: precision, recall and F1 of words, and with their UPOS where a system
gives it. Each sentence is given as raw text, without spaces, as `strand eval` gives it to a model of characters.

    pip install fugashi unidic-lite janome sudachipy sudachidict_small ginza ja-ginza
    python japanese_segmenters.py data/pos-ja-gsd-r2.8/test.tsv.gz

What is not installed is left out. Dictionaries differ in what a word is: UniDic's short units are those of the treebank, IPADIC's
(janome) are not.
"""
import gzip, sys, time


def sentences(path):
    out, words = [], []
    with gzip.open(path, "rt", encoding="utf-8") as f:
        for line in f:
            if line.strip():
                words.append(tuple(line.rstrip("\n").split("\t")))
            elif words:
                out.append(words)
                words = []
    return out + ([words] if words else [])


def fugashi():
    import fugashi as f

    tagger = f.Tagger()
    return lambda text: [(w.surface, None) for w in tagger(text)]


def janome():
    from janome.tokenizer import Tokenizer

    tokenizer = Tokenizer()
    return lambda text: [(t.surface, None) for t in tokenizer.tokenize(text)]


def sudachi():
    from sudachipy import Dictionary, SplitMode

    tokenizer = Dictionary(dict="small").create()
    return lambda text: [(m.surface(), None) for m in tokenizer.tokenize(text, SplitMode.A)]


def ginza():
    import spacy

    nlp = spacy.load("ja_ginza")
    return lambda text: [(t.text, t.pos_) for t in nlp(text)]


def places(words):
    at, out = 0, set()
    for word, kind in words:
        out.add((at, at + len(word), kind))
        at += len(word)
    return out


def f1(gold, given):
    right = sum(len(a & b) for a, b in zip(gold, given))
    p, r = right / max(1, sum(map(len, given))), right / max(1, sum(map(len, gold)))
    return f"P {100 * p:.2f}  R {100 * r:.2f}  F1 {100 * 2 * p * r / max(1e-9, p + r):.2f}"


def main():
    gold = sentences(sys.argv[1])
    bare = lambda words: places((w, None) for w, _ in words)
    for name, load in (("fugashi, unidic-lite", fugashi), ("sudachi, small, mode A", sudachi), ("janome, ipadic", janome),
                       ("ginza, ja_ginza", ginza)):
        try:
            cut = load()
        except Exception as error:
            print(f"{name}: left out ({str(error).strip().splitlines()[0]})")
            continue
        begin = time.time()
        given = [cut("".join(w for w, _ in s)) for s in gold]
        seconds = time.time() - begin
        print(f"{name:24s} words {f1([bare(s) for s in gold], [bare(s) for s in given])}  ({seconds:.1f} s)")
        if any(kind for s in given for _, kind in s):
            print(f"{'':24s} words with UPOS {f1([places(s) for s in gold], [places(s) for s in given])}")


if __name__ == "__main__":
    main()
