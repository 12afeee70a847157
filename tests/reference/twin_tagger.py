#!/usr/bin/env python3
"""PyTorch twin of `strand train` for taggers: the same recipe, the same network, the same way of training.

    python twin_tagger.py --recipe ner-en.toml --data-root . --out runs/twin-ner --threads 1 \
        --test data/ner-uner-ewt/test.tsv.gz --test data/ner-wnut17/test.tsv.gz --map person=PER,location=LOC,'*=O'

The network is strictly online: table embeddings ++ character encoder ++ dense columns -> recurrent layers -> linear
head, and the label of a step is the argmax at that step. It is trained by truncated back-propagation through time on
running text: an epoch shuffles blocks of sentences, lays them end to end and deals the tokens to `batch` parallel
streams, whose state is carried from chunk to chunk and set to zero at a sentence start with `reset_probability`.

How resets inside a chunk keep PyTorch's own kernels: a chunk is cut at its resets into segments, each with its own
initial state (carried or zero), and the segments run as one packed batch.

Of characters (`encoder.kind = "chars"`) a step is a character of a word, and `white_space` is added as strand adds it. With
`decode.kind = "legal"` labels are chosen from the left among the legal ones.

Weights are written as safetensors: tables.{word,shape,char,class,bigram,trigram,k3..}.weight, chars.embed.weight, chars.{fwd,bwd}.*_l0,
rnn.*_l{k} (layers may differ in size), head.weight, head.bias. Each --map belongs to the --test in the same place.
"""
import argparse, collections, copy, gzip, json, math, os, random, time, tomllib, unicodedata

for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(v, "1")
import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
MAX_CHARS = 32


# ------------------------------------------------------------------ reading
def located(path, root):
    """Where a path of a recipe lies: under the data root, but for those that start with ./"""
    return path if path.startswith(("./", "/")) else os.path.join(root, path)


def opened(path):
    return gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")


def read_conll(path):
    """Sentences as (words, labels)."""
    out, words, tags = [], [], []
    with opened(path) as f:
        for line in f:
            line = line.rstrip("\r\n")
            if line.strip():
                word, _, tag = line.partition("\t")
                words.append(word)
                tags.append(tag.split("\t")[0])
            elif words:
                out.append((words, tags))
                words, tags = [], []
    return out + ([(words, tags)] if words else [])


def map_label(label, mapping):
    """Maps the type of a label; the prefix stays, except when the type becomes O. '*' is every type not named."""
    if not mapping or label == "O" and "O" not in mapping:
        return label
    prefix, dash, kind = label.partition("-") if label[:2] in ("B-", "I-") else ("", "", label)
    kind = mapping.get(kind, mapping.get("*", kind))
    return "O" if kind == "O" else prefix + dash + kind


def as_scheme(labels, scheme):
    """Repairs spans to the scheme: bio (first token of a span is B-) or io (all I-); plain labels stay."""
    if scheme in ("plain", "runs"):
        return labels
    out, last = [], "O"
    for label in labels:
        kind = label[2:]
        if label == "O":
            out.append("O")
        elif scheme == "io":
            out.append("I-" + kind)
        else:
            out.append(("I-" if label[0] == "I" and last[2:] == kind else "B-") + kind)
        last = label
    return out


def read_fasta(path):
    """The bases of all records end to end, and where each record begins."""
    bases, start, n = [], {}, 0
    with opened(path) as f:
        for line in f:
            if line.startswith(">"):
                start[line[1:].split()[0]] = n
            else:
                bases.append(line.strip().upper())
                n += len(bases[-1])
    return "".join(bases), start


def read_dna(spec, task, root):
    """One 'sentence' a range (0-based, half-open) of a genome: bases and labels, as strand labels them: where genes overlap
    the one that starts first keeps the base; with frames the codon position is told too."""
    genome, start = read_fasta(located(spec["genome"], root))
    framed = task.get("dna_labels") == "strand+frame"
    label = np.full(len(genome), "none", dtype="U8")
    with opened(located(spec["intervals"], root)) as f:
        rows = [l.rstrip("\n").split("\t") for l in f if not l.startswith("#")]
    genes = sorted((start[r[0]] + int(r[1]) - 1, -(start[r[0]] + int(r[2])), r[3]) for r in rows if r[0] in start)
    free = 0
    for a, minus_b, strand in genes:
        b = -minus_b
        at = np.arange(max(a, free), b)
        frame = (at - a if strand == "+" else b - 1 - at) % 3
        name = "forward" if strand == "+" else "reverse"
        label[at] = [f"{name}{k}" for k in frame] if framed else name
        free = max(free, b)
    out = []
    for a, b in spec.get("ranges") or [[0, len(genome)]]:
        bases, labels = genome[a:b], label[a:b]
        out.append((list(bases), list(labels)))
        if spec.get("reverse_complement"):
            other = str.maketrans("ACGTRYKMBDHV", "TGCAYRMKVHDB")
            swap = lambda l: l.replace("forward", "x").replace("reverse", "forward").replace("x", "reverse")
            out.append((list(bases.translate(other)[::-1]), [swap(str(l)) for l in labels[::-1]]))
    return out


def spaced(words, labels, number):
    """White space as strand's data.white_space adds it to sentence `number` of a file."""
    out, tags = [], []
    latin = lambda c: c.isascii() and c.isalpha()
    for w, t in zip(words, labels):
        if number % 2 == 0 and out and latin(out[-1][-1]) and latin(w[0]):
            out.append(" ")
            tags.append(t if t.startswith("I-") else "O")
        out.append(w)
        tags.append(t)
    return (out + ["\n"], tags + ["O"]) if number % 4 < 2 else (out, tags)


def spread(words, labels):
    """Characters with labels of words: B-NOUN I-NOUN for a word of label NOUN, B-PER I-PER for one of B-PER."""
    chars, tags = [], []
    for w, t in zip(words, labels):
        kind = t if t == "O" else t[2:] if t[1:2] == "-" else t
        first = t if t == "O" or t[1:2] == "-" else "B-" + t
        chars += list(w)
        tags += [first] + ["O" if t == "O" else "I-" + kind] * (len(w) - 1)
    return chars, tags


def read_part(entries, task, root, data=None, enc=None):
    """[(words, labels, weight)] groups, one a file, after maps and repeats."""
    groups = []
    for e in entries:
        spec = {"path": e} if isinstance(e, str) else e
        if "genome" in spec:
            sents = read_dna(spec, task, root)
        else:
            sents = read_conll(located(spec["path"], root))
        if enc and enc.get("kind") == "chars":
            if data and data.get("white_space"):
                sents = [spaced(w, ts, k) for k, (w, ts) in enumerate(sents)]
            sents = [spread(w, ts) for w, ts in sents]
        scheme = task.get("scheme", "bio")
        sents = [(w, as_scheme([map_label(t, spec.get("map")) for t in ts], scheme)) for w, ts in sents]
        for _ in range(spec.get("repeat", 1)):
            groups.append([(w, t, float(spec.get("weight", 1.0))) for w, t in sents])
    return groups


# ------------------------------------------------------------------ encoder
def normal(word):
    return "".join("0" if c.isdigit() else c for c in word.lower())


def shape(word):
    letters = [c for c in word if c.isalpha()]
    if not letters:
        return 6 if any(c.isdigit() for c in word) else 8
    if any(c.isdigit() for c in word):
        return 7
    if "-" in word[1:-1]:
        return 9
    if len(word) == 1 and word.isupper():
        return 4
    if all(c.isupper() for c in letters):
        return 3
    if all(c.islower() for c in letters):
        return 1
    if letters[0].isupper() and all(c.islower() for c in letters[1:]):
        return 2
    return 5 if any(c.isupper() for c in letters) else 0


def normal_char(c):
    """A character alone in form NFKC, where that is one character; any white space is a space."""
    if c.isspace():
        return " "
    form = unicodedata.normalize("NFKC", c)
    return form if len(form) == 1 else c


def looked_up(chars, nfkc):
    """What each character is looked up as, and the last two and three characters with it ("" where there are fewer)."""
    last, out = [], []
    for c in chars:
        c = normal_char(c) if nfkc else c
        both = unicodedata.normalize("NFC", last[-1] + c) if nfkc and last else "12"
        if len(both) == 1:  # a mark that makes one character of both
            last[-1] = c = both
        else:
            last = (last + [c])[-3:]
        out.append((c, "".join(last[-2:]) if len(last) > 1 else "", "".join(last) if len(last) > 2 else ""))
    return out


# The classes of src/encode/char_class.rs in its order, as far as a regular expression says them simply.
CLASSES = [
    (4, "a", "z"), (5, "A", "Z"), (6, "0", "9"), (2, "\u3041", "\u3096"), (2, "\u309d", "\u309f"),
    (3, "\u30a1", "\u30fa"), (3, "\u30fc", "\u30ff"), (3, "\u31f0", "\u31ff"), (1, "々", "々"), (1, "〆", "〆"),
    (1, "\u3400", "\u4dbf"), (1, "\u4e00", "\u9fff"), (1, "\uf900", "\ufaff"), (1, "\U00020000", "\U000323af"),
    (15, "\u0300", "\u036f"), (15, "\u3099", "\u309c"), (13, "\uac00", "\ud7af"),
]
SINGLE = {c: k for k, cs in ((7, "〇一二三四五六七八九十百千万億兆"), (10, "([{「『【〈《〔〖“‘"), (11, ")]}」』】〉》〕〗”’"),
                             (9, "!\"#%&'*,-./:;?@\\_、。・〜…‥‐‑‒–—―"), (8, " ")) for c in cs}


def char_class(c):
    if c in SINGLE:
        return SINGLE[c]
    for k, a, b in CLASSES:
        if a <= c <= b:
            return k
    category = unicodedata.category(c)
    return {"Lu": 5, "Ll": 4, "Cc": 16}.get(category, 12 if category[0] == "S" else 14 if category[0] == "L" else 0)


def by_count(counter, least, most=None):
    return [w for w, n in sorted(counter.items(), key=lambda x: (-x[1], x[0])) if n >= least][:most]


BASES = {"A": "A", "C": "C", "G": "G", "T": "T", "U": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
         "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT"}


class Columns:
    """Turns steps into integer columns (one per table), dense columns and, for words, the word itself."""

    def __init__(self, enc, groups, root):
        self.enc, self.kind = enc, enc.get("kind", "words")
        sents = {id(s[0]): s[0] for g in groups for s in g}.values()  # repeats count once
        self.sizes, self.words, self.chars, self.lexicon = {}, [], [], {}
        if self.kind == "words":
            count = collections.Counter(normal(w) for s in sents for w in s)
            self.words = by_count(count, enc.get("min_count", 1), enc.get("max_words"))
            self.word_id = {w: i + 1 for i, w in enumerate(self.words)}
            if enc.get("word_dim", 0):
                self.sizes["word"] = (len(self.words) + 1, enc["word_dim"])
            if enc.get("shape_dim", 0):
                self.sizes["shape"] = (10, enc["shape_dim"])
            if enc.get("lexicon"):
                with opened(located(enc["lexicon"], root)) as f:
                    self.lexicon = {w: int(b) for w, b in (l.rstrip("\n").rsplit("\t", 1) for l in f)}
        if self.kind == "chars":
            text = looked_up([c for s in sents for c in s], enc.get("nfkc", False))
            self.chars = by_count(collections.Counter(t[0] for t in text), enc.get("min_count", 2))
            self.char_id = {c: i + 1 for i, c in enumerate(self.chars)}
            self.sizes["char"] = (len(self.chars) + 1, enc["dim"])
            if enc.get("class_dim", 0):
                self.sizes["class"] = (17, enc["class_dim"])
            self.ngrams = {}
            for n, name in ((1, "bigram"), (2, "trigram")):
                if enc.get(name + "_dim", 0):
                    count = collections.Counter(t[n] for t in text if t[n] and "\n" not in t[n])
                    kept = by_count(count, enc.get("ngram_min_count", 3), enc.get("max_ngrams", 20000))
                    self.ngrams[name] = (n, {g: i + 1 for i, g in enumerate(kept)})
                    self.sizes[name] = (len(kept) + 1, enc[name + "_dim"])
        elif enc.get("char_hidden", 0):
            count = collections.Counter(c for s in sents for w in s for c in w)
            self.chars = by_count(count, 3)
            self.char_id = {c: i + 1 for i, c in enumerate(self.chars)}
        if self.kind == "dna":
            for k, dim in zip(enc.get("kmers", []), enc.get("kmer_dims", [])):
                self.sizes[f"k{k}"] = (4**k + 1, dim)
        self.bits = enc.get("lexicon_bits", 8) if enc.get("lexicon") else 0
        self.dense = 4 if self.kind == "dna" else self.bits

    def tables(self, words, lengths=()):
        """words: all steps; lengths: of the sentences, before each of which nothing is known (characters only)."""
        if self.kind == "words":
            both = {"word": [self.word_id.get(normal(w), 0) for w in words] if "word" in self.sizes else [],
                    "shape": [shape(w) for w in words] if "shape" in self.sizes else []}
            cols = [both[name] for name in self.sizes]
        elif self.kind == "chars":
            ends = np.cumsum(lengths)
            text = [t for a, b in zip([0, *ends], ends) for t in looked_up(words[a:b], self.enc.get("nfkc", False))]
            cols = [[self.char_id.get(t[0], 0) for t in text]]
            if "class" in self.sizes:
                cols.append([char_class(t[0]) for t in text])
            cols += [[ids.get(t[n], 0) for t in text] for n, ids in self.ngrams.values()]
        else:
            base = np.array(["ACGT".find(b if b != "U" else "T") for b in words])
            cols = []
            for k in self.enc.get("kmers", []):
                run = np.zeros(len(base), dtype=np.int64)
                good = np.zeros(len(base), dtype=np.int64)
                for j in range(k):  # j steps back
                    run[j:] += np.where(base[: len(base) - j] >= 0, base[: len(base) - j], 0) * 4**j
                    good[j:] += base[: len(base) - j] >= 0
                cols.append(np.where(good == k, run + 1, 0))
        return np.stack([np.asarray(c, dtype=np.int64) for c in cols], 1) if cols else np.zeros((len(words), 0), np.int64)

    def dense_of(self, words):
        if self.kind == "dna":
            rows = {b: [(x in s) / len(s) for x in "ACGT"] for b, s in BASES.items()}
            return np.array([rows.get(b, rows["N"]) for b in words], dtype=np.float32)
        flags = np.array([self.lexicon.get(w, 0) for w in words], dtype=np.int64)
        return ((flags[:, None] >> np.arange(self.bits)) & 1).astype(np.float32)


class CharEncoder(nn.Module):
    def __init__(self, n_chars, enc):
        super().__init__()
        self.embed = nn.Embedding(n_chars, enc["char_dim"])
        cell = CELLS[enc.get("char_cell", "lstm")]
        self.fwd = cell(enc["char_dim"], enc["char_hidden"])
        self.bwd = cell(enc["char_dim"], enc["char_hidden"]) if enc.get("char_bidirectional", False) else None
        self.width = enc["char_hidden"] * (2 if self.bwd is not None else 1)

    def forward(self, words):
        """Final hidden states for a list of 1-d id tensors."""
        out = []
        for rnn, seqs in ((self.fwd, words), (self.bwd, [w.flip(0) for w in words] if self.bwd is not None else None)):
            if rnn is not None:
                packed = pack_sequence(seqs, enforce_sorted=False)
                packed = packed._replace(data=self.embed(packed.data))
                _, h = rnn(packed)
                out.append((h[0] if isinstance(h, tuple) else h)[0])
        return torch.cat(out, -1)


class Tagger(nn.Module):
    def __init__(self, recipe, columns, labels):
        super().__init__()
        t = recipe.get("train", {})
        self.tables = nn.ModuleDict({n: nn.Embedding(*s) for n, s in columns.sizes.items()})
        enc = recipe["encoder"]
        self.chars = None
        if columns.kind == "words" and enc.get("char_hidden", 0):
            self.chars = CharEncoder(len(columns.chars) + 1, enc)
        width = sum(d for _, d in columns.sizes.values()) + (self.chars.width if self.chars else 0) + columns.dense
        self.rnn = nn.ModuleList()
        for layer in recipe["layers"]:
            self.rnn.append(CELLS[layer["cell"]](width, layer["hidden"]))
            width = layer["hidden"]
        self.head = nn.Linear(width, len(labels))
        for m in self.modules():
            if isinstance(m, nn.Embedding):
                nn.init.normal_(m.weight, 0, 0.1)
        self.drop_in, self.drop = nn.Dropout(t.get("dropout_input", 0.0)), nn.Dropout(t.get("dropout_layers", 0.0))
        self.word_dropout = t.get("word_dropout", 0.0)

    def input(self, ids, dense, spelled):
        """ids [n, tables], dense [n, k], spelled [n, chars] or None -> [n, width]"""
        parts = []
        for i, (name, table) in enumerate(self.tables.items()):
            col = ids[:, i]
            if i == 0 and self.training and self.word_dropout:
                col = col.masked_fill(torch.rand(col.shape) < self.word_dropout, 0)
            parts.append(table(col))
        if spelled is not None:
            parts.append(spelled)
        if dense.shape[1]:
            parts.append(dense)
        return self.drop_in(torch.cat(parts, -1))

    def run(self, x, segments, state):
        """x [steps, width] in the order of the packed segments; segments: a PackedSequence of step numbers;
        state: one per layer, rows in the order of the segments. Returns logits (packed order) and new states."""
        new = []
        data = x[segments.data]
        for rnn, s in zip(self.rnn, state):
            out, s = rnn(segments._replace(data=data), s)
            data = self.drop(out.data)
            new.append(s)
        return self.head(data), new

    def zeros(self, n):
        one = lambda r: torch.zeros(1, n, r.hidden_size)
        return [(one(r), one(r)) if isinstance(r, nn.LSTM) else one(r) for r in self.rnn]

    def named(self):
        """Weights under strand's names."""
        out = {}
        for name, p in self.state_dict().items():
            if name.startswith("rnn."):
                _, k, rest = name.split(".")
                name = "rnn." + rest.replace("_l0", f"_l{k}")
            out[name] = p.detach().clone().contiguous()
        return out


def state_map(state, f):
    return [tuple(f(x) for x in s) if isinstance(s, tuple) else f(s) for s in state]


class Corpus:
    """Flat arrays over all sentences of a part."""

    def __init__(self, groups, columns, labels):
        sents = [s for g in groups for s in g]
        words = [w for s in sents for w in s[0]]
        where = {l: i for i, l in enumerate(labels)}
        self.tags = [s[1] for s in sents]
        self.y = torch.tensor([where.get(t, 0) for s in sents for t in s[1]])
        self.weight = torch.tensor([s[2] for s in sents for _ in s[0]])
        self.length = np.array([len(s[0]) for s in sents])
        self.start = np.concatenate([[0], np.cumsum(self.length)[:-1]])
        self.group = [len(g) for g in groups]
        self.ids = torch.from_numpy(columns.tables(words, self.length))
        self.dense = torch.from_numpy(columns.dense_of(words))
        self.form = None
        if columns.kind == "words" and columns.chars:
            forms = {}
            self.form = torch.tensor([forms.setdefault(w, len(forms)) for w in words])
            self.spelling = [torch.tensor([columns.char_id.get(c, 0) for c in w[:MAX_CHARS]] or [0]) for w in forms]  # "" is one unknown


# ------------------------------------------------------------------ training
def epoch_streams(corpus, block, batch, rng):
    """Token order of an epoch as [batch, steps] (-1: nothing) and sentence-start flags of the same form."""
    blocks, at = [], 0
    for n in corpus.group:
        blocks += [range(at + k, min(at + k + block, at + n)) for k in range(0, n, block)]
        at += n
    rng.shuffle(blocks)
    order = [i for b in blocks for i in b]
    tokens = np.concatenate([np.arange(corpus.start[i], corpus.start[i] + corpus.length[i]) for i in order])
    first = np.zeros(len(tokens), dtype=bool)
    first[np.cumsum([0] + [corpus.length[i] for i in order[:-1]])] = True
    steps = math.ceil(len(tokens) / batch)
    pad = steps * batch - len(tokens)
    turn = rng.randrange(len(tokens))  # streams start at other places every epoch
    tokens, first = np.roll(tokens, -turn), np.roll(first, -turn)
    tokens = np.concatenate([tokens, np.full(pad, -1)]).reshape(batch, steps)
    return tokens, np.concatenate([first, np.zeros(pad, dtype=bool)]).reshape(batch, steps)


def segments(tok, cut):
    """Cuts a chunk [batch, steps] of token numbers (-1: none) at its resets. Returns the tokens stream by stream, the
    segments as places in that list, the stream whose state each segment starts from (-1: zeros), and per stream the
    segment that ends it."""
    tokens, segs, source, last = [], [], [], {}
    row = 0
    for b in range(len(tok)):
        n = int((tok[b] >= 0).sum())
        if n == 0:
            continue
        edges = sorted({0, n, *map(int, np.flatnonzero(cut[b, :n]))})
        for lo, hi in zip(edges, edges[1:]):
            segs.append(torch.arange(row + lo, row + hi))
            source.append(-1 if cut[b, lo] else b)
        last[b] = len(segs) - 1
        tokens.append(tok[b, :n])
        row += n
    return torch.from_numpy(np.concatenate(tokens)), segs, torch.tensor(source), last


def train(recipe, model, corpus, dev, columns, labels, log):
    t = recipe["train"]
    rng = random.Random(t.get("seed", 1))
    nprng = np.random.default_rng(t.get("seed", 1))
    batch, chunk, epochs = t.get("batch", 32), t.get("chunk", 35), t["epochs"]
    args = dict(lr=t["lr"], weight_decay=t.get("weight_decay", 0.0))
    opt = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[t.get("optimizer", "adamw")](
        model.parameters(), **args)
    per_epoch = math.ceil(math.ceil(len(corpus.y) / batch) / chunk)
    total, warm, low = epochs * per_epoch, t.get("warmup", 0), t.get("min_lr_ratio", 0.0)

    def rate(step):
        if step < warm:
            return (step + 1) / warm
        done = (step - warm) / max(1, total - warm)
        if t.get("schedule", "constant") == "cosine":
            return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))
        return low + (1 - low) * (1 - done) if t.get("schedule") == "linear" else 1.0

    class_weight = torch.tensor([float(t.get("class_weights", {}).get(l, 1.0)) for l in labels])
    ema, kept = t.get("ema", 0.0), None
    mean = copy.deepcopy(model) if ema else model
    best, since, step = -1.0, 0, 0
    for epoch in range(epochs):
        model.train()
        tokens, first = epoch_streams(corpus, t.get("block", 8), batch, rng)
        reset = first & (nprng.random(first.shape) < t.get("reset_probability", 1.0))
        reset[:, 0] = True
        state = model.zeros(batch)
        loss_sum, begin = 0.0, time.time()
        for a in range(0, tokens.shape[1], chunk):
            tok, cut = tokens[:, a : a + chunk], reset[:, a : a + chunk]
            steps, segs, source, last = segments(tok, cut)
            keep = (source >= 0).float()[None, :, None]
            initial = state_map(state, lambda h: h[:, source.clamp(min=0)] * keep)
            spelled = None
            if model.chars is not None:
                forms, inverse = corpus.form[steps].unique(return_inverse=True)
                spelled = model.chars([corpus.spelling[i] for i in forms])[inverse]
            x = model.input(corpus.ids[steps], corpus.dense[steps], spelled)
            packed = pack_sequence(segs, enforce_sorted=False)
            logits, new = model.run(x, packed, initial)
            y, w = corpus.y[steps][packed.data], corpus.weight[steps][packed.data]
            w = w * class_weight[y]
            ce = nn.functional.cross_entropy(logits, y, reduction="none", label_smoothing=t.get("label_smoothing", 0.0))
            loss = (ce * w).sum() / w.sum()
            for group in opt.param_groups:
                group["lr"] = t["lr"] * rate(step)
            opt.zero_grad()
            loss.backward()
            if t.get("clip_norm"):
                nn.utils.clip_grad_norm_(model.parameters(), t["clip_norm"])
            if t.get("clip_value"):
                nn.utils.clip_grad_value_(model.parameters(), t["clip_value"])
            opt.step()
            step += 1
            loss_sum += loss.item()
            state = model.zeros(batch)
            for s, n in zip(state, new):
                for old, fresh in zip(s, n) if isinstance(s, tuple) else ((s, n),):
                    old[:, list(last)] = fresh.detach()[:, list(last.values())]
            if ema:
                decay = min(ema, step / (step + 10))
                with torch.no_grad():
                    for p, q in zip(mean.parameters(), model.parameters()):
                        p.lerp_(q, 1 - decay)
        score = evaluate(mean, dev, labels, recipe)["main"] if dev else 0.0
        log(f"epoch {epoch + 1:3d}  loss {loss_sum / per_epoch:.4f}  dev {score:.2f}  {time.time() - begin:.0f} s")
        if dev and score > best:
            best, since, kept = score, 0, copy.deepcopy(mean.state_dict())
        elif dev:
            since += 1
            if t.get("early_stop") and since >= t["early_stop"]:
                break
    if kept is not None:
        mean.load_state_dict(kept)
    return mean


# ------------------------------------------------------------------ scoring
@torch.no_grad()
def predict(model, corpus, labels, endless=False, legal=False):
    """Label ids of every token: each sentence its own stream, or the whole part as one stream."""
    model.eval()
    spelled = None
    if model.chars is not None:
        n = len(corpus.spelling)
        spelled = torch.cat([model.chars(corpus.spelling[k : k + 1024]) for k in range(0, n, 1024)])[corpus.form]
    out = torch.zeros(len(corpus.y), dtype=torch.long)
    scores = np.zeros((len(corpus.y), len(labels)), dtype=np.float32) if legal else None
    if endless:
        jobs = [[torch.arange(k, min(k + 2000, len(corpus.y)))] for k in range(0, len(corpus.y), 2000)]
    else:
        order = np.argsort(corpus.length, kind="stable")
        jobs = [[torch.arange(corpus.start[i], corpus.start[i] + corpus.length[i]) for i in order[k : k + 256]]
                for k in range(0, len(order), 256)]
    state = None
    for segs in jobs:
        steps = torch.cat(segs)
        x = model.input(corpus.ids[steps], corpus.dense[steps], None if spelled is None else spelled[steps])
        at, local = 0, []
        for s in segs:
            local.append(torch.arange(at, at + len(s)))
            at += len(s)
        packed = pack_sequence(local, enforce_sorted=False)
        logits, new = model.run(x, packed, state if endless and state is not None else model.zeros(len(segs)))
        state = new
        out[steps[packed.data]] = pick(logits, labels)
        if legal:
            scores[steps[packed.data]] = logits.numpy()
    if legal:
        begins = [0] if endless else corpus.start
        out = torch.from_numpy(legal_labels(scores, labels, set(map(int, begins))))
    return out


def legal_labels(scores, labels, begins):
    """From the left, the likeliest label that may follow the one before: I-X follows B-X or I-X."""
    goes_on = np.array([[not b.startswith("I-") or a[2:] == b[2:] for b in labels] for a in labels])
    starts = np.array([not b.startswith("I-") for b in labels])
    out, last = np.zeros(len(scores), dtype=np.int64), None
    for t, row in enumerate(scores):
        may = starts if t in begins else goes_on[last]
        last = out[t] = np.where(may, row, -np.inf).argmax()
    return out


def pick(logits, labels):
    """The likeliest label; classes that only differ in the frame (forward0, forward1, ...) are added up first."""
    kinds = [l.rstrip("012") for l in labels]
    if len(set(kinds)) == len(labels):
        return logits.argmax(-1)
    first = {k: kinds.index(k) for k in kinds}
    sums = torch.full_like(logits, -1.0)
    p = logits.softmax(-1)
    for kind, at in first.items():
        sums[:, at] = p[:, [i for i, k in enumerate(kinds) if k == kind]].sum(-1)
    return sums.argmax(-1)


def evaluate(model, corpus, labels, recipe, endless=False):
    out = predict(model, corpus, labels, endless, recipe.get("decode", {}).get("kind") == "legal")
    got = [[labels[i] for i in out[s : s + n]] for s, n in zip(corpus.start, corpus.length)]
    gold = corpus.tags
    framed = any(l.endswith("0") and l.startswith("forward") for l in labels)
    same = lambda a, b: a.rstrip("012") == b.rstrip("012") if framed else a == b
    right = sum(same(a, b) for g, h in zip(gold, got) for a, b in zip(g, h))
    res = {"accuracy": 100 * right / len(out)}
    res["main"] = res["accuracy"]
    if recipe["task"].get("scheme", "bio") == "bio":
        from seqeval.metrics import f1_score, precision_score, recall_score
        res |= {n: 100 * f(gold, got) for n, f in (("P", precision_score), ("R", recall_score), ("F1", f1_score))}
        res["main"] = res["F1"]
    return res


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--recipe", required=True)
    ap.add_argument("--data-root", default=".", help="the recipe's data paths start here (those with ./ in the working directory)")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--test", action="append", default=[], help="a conll file, or GENOME,INTERVALS,FIRST,LAST")
    ap.add_argument("--map", action="append", default=[], help="e.g. person=PER,*=O ; one per --test, '-' for none")
    ap.add_argument("--out", help="folder for weights.safetensors, labels.txt, words.txt, chars.txt, scores.json")
    ap.add_argument("--set", action="append", default=[], help="section.key=value over the recipe, for experiments")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    with open(a.recipe, "rb") as f:
        recipe = tomllib.load(f)
    for s in a.set:
        key, _, value = s.partition("=")
        section, _, name = key.partition(".")
        value = tomllib.loads("x = " + value)["x"]
        if name:
            recipe[section][name] = value
        else:
            recipe[section] = value
    t = recipe["train"]
    torch.manual_seed(t.get("seed", 1))
    log = lambda m: print(m, flush=True)

    groups = read_part(recipe["data"]["train"], recipe["task"], a.data_root, recipe["data"], recipe["encoder"])
    columns = Columns(recipe["encoder"], groups, a.data_root)
    count = collections.Counter(l for g in groups for s in g for l in s[1])
    labels = sorted(count, key=lambda l: (l != "O", l))
    model = Tagger(recipe, columns, labels)
    corpus = Corpus(groups, columns, labels)
    dev = Corpus(read_part(recipe["data"].get("dev", []), recipe["task"], a.data_root, None, recipe["encoder"]), columns, labels) \
        if recipe["data"].get("dev") else None
    log(f"{len(corpus.length)} sentences, {len(corpus.y)} tokens, {len(columns.words)} words, {len(columns.chars)} characters, "
        f"{len(labels)} labels, {sum(p.numel() for p in model.parameters())} parameters")
    begin = time.time()
    model = train(recipe, model, corpus, dev, columns, labels, log)
    log(f"trained in {time.time() - begin:.0f} s")

    scores = {}
    parts = [("dev", dev)] if dev else []
    for i, path in enumerate(a.test):
        spec = {"path": path}
        if "," in path:
            genome, intervals, first, last = path.split(",")
            spec = {"genome": genome, "intervals": intervals, "ranges": [[int(first), int(last)]]}
        if i < len(a.map) and a.map[i] != "-":
            spec["map"] = dict(p.split("=") for p in a.map[i].split(","))
        parts.append((path, Corpus(read_part([spec], recipe["task"], a.data_root, None, recipe["encoder"]), columns, labels)))
    for name, part in parts:
        for endless in (False, True):
            r = evaluate(model, part, labels, recipe, endless)
            way = "endless" if endless else "sentences"
            scores[f"{name} {way}"] = r
            log(f"{name:40s} {way:9s} " + "  ".join(f"{k} {v:.2f}" for k, v in r.items() if k != "main"))
    if a.out:
        from safetensors.torch import save_file
        os.makedirs(a.out, exist_ok=True)
        save_file(model.named(), os.path.join(a.out, "weights.safetensors"))
        for name, rows in (("labels", labels), ("words", columns.words), ("chars", columns.chars)):
            with open(os.path.join(a.out, name + ".txt"), "w", encoding="utf-8") as f:
                f.writelines(r + "\n" for r in rows)
        with open(os.path.join(a.out, "scores.json"), "w") as f:
            json.dump(scores, f, indent=1)


if __name__ == "__main__":
    main()
