#!/usr/bin/env python3
"""Makes the files of models/sentiment-en.toml: a fixed split of two public sets, and a lexicon of loaded words.

    python models/scripts/sentiment_data.py --data data --out runs/sentiment

What goes in, and under which licence:
  sentiment-rt-polarity   Pang and Lee 2005, film-review snippets, CC BY 4.0
  sentiment-uci           Kotzias et al. 2015, sentences of reviews (imdb, yelp, amazon), believed CC BY 4.0
  vaderSentiment 3.3.2    Hutto and Gilbert 2014, MIT: words rated by people      } lexicon
  textblob                en-sentiment.xml, De Smedt and Daelemans, PDDL: adjectives } lexicon
Needs: pip install vaderSentiment==3.3.2 textblob==0.20.1 (their word lists only).

The Stanford Sentiment Treebank was made of the rt-polarity snippets, so the split follows it: a snippet that has a
sentence of SST's test part in it is test, one of its dev part dev, all others train. So a model trained on train.tsv
has seen no sentence of SST's dev and test parts; the script checks that afterwards. SST itself (no licence known) is only
read for this split. Of sentiment-uci, of each ten lines one is dev and two are test.

What comes out (label<TAB>text, UTF-8, gzip): train dev test-rt test-uci (.tsv.gz), and lexicon.tsv: word<TAB>bit mask.
"""
import argparse, collections, gzip, importlib.util, os, re, xml.etree.ElementTree

GRAM = 12  # letters in a row that two texts are compared by


def opened(*path, encoding="utf-8"):
    return gzip.open(os.path.join(*path), "rt", encoding=encoding)


def letters(text):
    """What is compared: letters and digits only."""
    return re.sub(r"[^a-z0-9]+", "", text.lower().replace("-lrb-", "").replace("-rrb-", ""))


def grams(text):
    return {text[k : k + GRAM] for k in range(max(1, len(text) - GRAM + 1))}


def snippets(data):
    """(label, text) of rt-polarity, negative and positive in turn."""
    parts = []
    for label, end in (("negative", "neg"), ("positive", "pos")):
        with opened(data, f"sentiment-rt-polarity/rt-polarity.{end}.gz", encoding="latin-1") as f:
            parts.append([(label, " ".join(line.split())) for line in f if line.strip()])
    return [row for pair in zip(*parts) for row in pair]


def treebank(data, part):
    with opened(data, f"sentiment-sst/fine.{part}.txt.gz") as f:
        return [line.split(" ", 1)[1].strip() for line in f if line.strip()]


def holders(sentences, texts):
    """The numbers of the texts that one of these sentences is in: half of its grams, or all of a short one."""
    index = collections.defaultdict(set)
    for k, text in enumerate(texts):
        for gram in grams(letters(text)):
            index[gram].add(k)
    pieces = collections.defaultdict(set)
    for k, text in enumerate(texts):
        for piece in re.split(r"[.?!;:]", text):
            pieces[letters(piece)].add(k)
    found = set()
    for sentence in sentences:
        mine = grams(letters(sentence))
        counts = collections.Counter(k for gram in mine for k in index.get(gram, ()))
        found.update(k for k, n in counts.items() if 2 * n >= len(mine))
        if len(letters(sentence)) < GRAM and letters(sentence):
            found.update(pieces.get(letters(sentence), ()))
    return found


def split(data):
    rows = snippets(data)
    texts = [text for _, text in rows]
    test = holders(treebank(data, "test"), texts)
    dev = holders(treebank(data, "dev"), texts) - test
    parts = {"train": [], "dev": [], "test-rt": [], "test-uci": []}
    for k, row in enumerate(rows):
        parts["test-rt" if k in test else "dev" if k in dev else "train"].append(row)
    left = holders(treebank(data, "test") + treebank(data, "dev"), [text for _, text in parts["train"]])
    assert not left, f"{len(left)} training snippets have a sentence of SST's test or dev part"
    for source in ("amazon_cells", "imdb", "yelp"):
        with opened(data, f"sentiment-uci/{source}_labelled.txt.gz") as f:
            lines = [line.rstrip("\n") for line in f if line.strip()]
        for k, line in enumerate(lines):
            text, _, label = line.rpartition("\t")
            row = ({"0": "negative", "1": "positive"}[label.strip()], " ".join(text.split()))
            parts["dev" if k % 10 == 7 else "test-uci" if k % 10 > 7 else "train"].append(row)
    return parts


def package_file(package, path):
    return os.path.join(os.path.dirname(importlib.util.find_spec(package).origin), path)


def lexicon():
    """Word to bit mask. Bits 0 to 3: VADER's valence strongly positive, positive, negative, strongly negative; 4 to 7: the
    same of TextBlob's mean polarity. Each word in lower case, with a capital, and in capitals."""
    masks = collections.defaultdict(int)

    def add(word, value, strong, first):
        bit = (0 if value >= strong else 1) if value > 0 else (3 if value <= -strong else 2)
        for form in {word, word.capitalize(), word.upper()}:
            masks[form] |= 1 << (first + bit)

    with open(package_file("vaderSentiment", "vader_lexicon.txt"), encoding="utf-8") as f:
        for line in f:
            word, valence = line.split("\t")[:2]
            if re.fullmatch(r"[a-z][a-z'-]+", word):
                add(word, float(valence), 1.8, 0)
    senses = collections.defaultdict(list)
    for word in xml.etree.ElementTree.parse(package_file("textblob", "en/en-sentiment.xml")).getroot():
        senses[word.get("form").lower()].append(float(word.get("polarity")))
    for word, values in senses.items():
        mean = sum(values) / len(values)
        if re.fullmatch(r"[a-z][a-z'-]+", word) and abs(mean) >= 0.05:
            add(word, mean, 0.4, 4)
    return masks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data")
    parser.add_argument("--out", default="runs/sentiment")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    for name, rows in split(args.data).items():
        with gzip.GzipFile(os.path.join(args.out, f"{name}.tsv.gz"), "wb", mtime=0) as f:
            f.write("".join(f"{label}\t{text}\n" for label, text in rows).encode())
        print(name, len(rows), dict(collections.Counter(label for label, _ in rows)))
    masks = lexicon()
    with open(os.path.join(args.out, "lexicon.tsv"), "w", encoding="utf-8") as f:
        f.write("".join(f"{word}\t{mask}\n" for word, mask in sorted(masks.items())))
    print("lexicon", len(masks))


if __name__ == "__main__":
    main()
