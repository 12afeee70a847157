"""Dates as people write them, with the same date in ISO 8601: data for models/dates-iso.toml.

    python models/scripts/dates.py --out runs/dates-iso

Writes train.tsv, dev.tsv and test.tsv, lines of `human date<TAB>YYYY-MM-DD`. Years are 1900 to 2099; two digits with an
apostrophe are 1950 to 2049. Where day and month are numbers parted by slashes the order is American, parted by dots it is European;
with dashes the year comes first, or a month has a name. Every form is in all three parts, but a date that a form has in dev or
test it has not in train: what is asked is the form, not the date. No reference to today (`next Friday`).
"""

import argparse
import datetime
import pathlib
import random

MONTHS = (
    "January February March April May June July August September October November December".split()
)
SHORT = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
ONES = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth"
).split()


def ordinal(day):
    suffix = "th" if 10 <= day % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{suffix}"


def in_words(day):
    if day <= 20:
        return ONES[day - 1]
    if day == 30:
        return "thirtieth"
    return ("twenty-" if day < 30 else "thirty-") + ONES[day % 10 - 1]


def short(rng, d):
    name = SHORT[d.month - 1]
    if d.month == 9 and rng.random() < 0.4:
        name = "Sept"
    return name + ("." if rng.random() < 0.3 and d.month != 5 else "")


def weekday(rng, d):
    name = DAYS[d.weekday()]
    return name if rng.random() < 0.5 else name[:3] + ("." if rng.random() < 0.3 else "")


def number(rng, n):
    return f"{n:02d}" if rng.random() < 0.5 else str(n)


def apostrophe(rng, d):
    return rng.choice(["'", "’"]) + f"{d.year % 100:02d}"


MONTH = lambda d: MONTHS[d.month - 1]

# Each form: its name, and what it makes of a date.
FORMS = {
    "day month year": lambda r, d: f"{number(r, d.day)} {MONTH(d)} {d.year}",
    "ordinal month year": lambda r, d: f"{ordinal(d.day)} {MONTH(d)} {d.year}",
    "ordinal of month": lambda r, d: f"{r.choice(['', 'the '])}{ordinal(d.day)} of {MONTH(d)}{r.choice([' ', ', '])}{d.year}",
    "month day, year": lambda r, d: f"{MONTH(d)} {number(r, d.day)}, {d.year}",
    "month ordinal, year": lambda r, d: f"{MONTH(d)} {r.choice(['', 'the '])}{ordinal(d.day)}{r.choice([',', ''])} {d.year}",
    "day mon year": lambda r, d: f"{number(r, d.day)} {short(r, d)} {d.year}",
    "mon day, year": lambda r, d: f"{short(r, d)} {number(r, d.day)}{r.choice([',', ''])} {d.year}",
    "day-mon-year": lambda r, d: f"{number(r, d.day)}-{SHORT[d.month - 1]}-{d.year}",
    "weekday, day month year": lambda r, d: f"{weekday(r, d)}{r.choice([',', ''])} {number(r, d.day)} {MONTH(d)} {d.year}",
    "weekday, month day, year": lambda r, d: f"{weekday(r, d)}, {r.choice([MONTH(d), short(r, d)])} {number(r, d.day)}, {d.year}",
    "weekday the ordinal": lambda r, d: f"{r.choice(['', 'on '])}{weekday(r, d)} the {ordinal(d.day)} of {MONTH(d)} {d.year}",
    "american": lambda r, d: f"{number(r, d.month)}/{number(r, d.day)}/{d.year}",
    "european": lambda r, d: f"{number(r, d.day)}.{r.choice(['', ' '])}{number(r, d.month)}.{r.choice(['', ' '])}{d.year}",
    "year first": lambda r, d: r.choice([f"{d.year}/{d.month:02d}/{d.day:02d}", f"{d.year}.{d.month:02d}.{d.day:02d}",
                                         f"{d.year}-{d.month}-{d.day}"]),
    "compact": lambda r, d: f"{d.year}{d.month:02d}{d.day:02d}",
    "year month day": lambda r, d: f"{d.year} {r.choice([MONTH(d), short(r, d)])} {number(r, d.day)}",
    "year, month ordinal": lambda r, d: f"{d.year}, {MONTH(d)} {ordinal(d.day)}",
    "apostrophe": lambda r, d: f"{r.choice([MONTH(d), short(r, d)])} {r.choice([number(r, d.day), ordinal(d.day)])} {apostrophe(r, d)}",
    "day apostrophe": lambda r, d: f"{number(r, d.day)} {r.choice([MONTH(d), short(r, d)])} {apostrophe(r, d)}",
    "in words": lambda r, d: f"{r.choice(['', 'the '])}{in_words(d.day)} of {MONTH(d)} {d.year}",
    "month in words": lambda r, d: f"{MONTH(d)} {r.choice(['', 'the '])}{in_words(d.day)}, {d.year}",
}


def date(rng, form):
    two_digits = "apostrophe" in form
    first, last = (1950, 2049) if two_digits else (1900, 2099)
    start = datetime.date(first, 1, 1)
    return start + datetime.timedelta(days=rng.randrange((datetime.date(last, 12, 31) - start).days + 1))


def typo(rng, text):
    """Two letters of a month's or weekday's name change places, one is left out or doubled; never the first two."""
    places = [k for k in range(2, len(text) - 1) if text[k - 2 : k + 2].isalpha()]
    # Short names are left alone: they would become others.
    words = [k for k in places if len(next(w for w in text.replace(",", " ").split() if text[k - 1 : k + 1] in w)) > 5]
    if not words:
        return text
    k = rng.choice(words)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:k] + text[k + 1] + text[k] + text[k + 2 :]
    return text[:k] + (text[k] * 2 if kind == 1 else "") + text[k + 1 :]


def varied(rng, text):
    case = rng.random()
    if case < 0.15:
        text = text.lower()
    elif case < 0.25:
        text = text.upper()
    if rng.random() < 0.06:
        text = typo(rng, text)
    if rng.random() < 0.05:
        text = text.replace(" ", "  ", 1)
    if rng.random() < 0.05:
        text = text.replace(", ", ",", 1)
    if rng.random() < 0.05 and not text.endswith("."):
        text += "."
    return text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--train", type=int, default=60000)
    parser.add_argument("--held", type=int, default=2100)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    taken = set()
    for part, seed, count in [("test", 3, args.held), ("dev", 2, args.held), ("train", 1, args.train)]:
        rng = random.Random(seed)
        lines = []
        while len(lines) < count:
            form = list(FORMS)[len(lines) % len(FORMS)]
            d = date(rng, form)
            if (form, d) in taken:
                continue
            if part != "train":
                taken.add((form, d))
            lines.append(f"{varied(rng, FORMS[form](rng, d))}\t{d.isoformat()}\n")
        (args.out / f"{part}.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
