#!/usr/bin/env python3
"""Spoken digits made by espeak-ng, as WAV files with transcripts, for `models/digits-en`.

    apt-get install espeak-ng        # 1.51; numpy for the noise
    python3 models/scripts/spoken_digits.py runs/digits
    for part in train quiet dev test-strings test-voices; do
        cargo run --release --example frames -- runs/digits/$part.tsv > runs/digits/$part.jsonl
    done

Each file is one utterance of 1 to 8 digits ("zero" is sometimes "oh"), by a voice (accent and timbre), speed, pitch and
loudness drawn by chance, with pauses here and there, silence around it, and white or coloured noise 12 to 40 dB below it.
In `quiet`, for training, there is nothing but such noise, and the transcripts are empty: so a model that cannot see ahead learns
to wait for a word, and not to guess the first one.
`PART.tsv` has lines of file<TAB>transcript. Which part a string of digits is in follows from the string itself, so that
no string of two or more digits is in two parts (there are too few of one digit); the voices of `test-voices` are heard in no
other part: neither their accents nor their timbres. The same seed gives the same files.
"""
import argparse, concurrent.futures, hashlib, io, random, subprocess, wave
from pathlib import Path
import numpy as np

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
ACCENTS = ["en-us", "en-gb", "en-gb-x-rp", "en-gb-x-gbclan", "en-029", "en-us-nyc"]
TIMBRES = ["", "m1", "m2", "m3", "m4", "m5", "m6", "f1", "f2", "f3", "Michael", "linda", "klatt", "klatt2", "Andy", "Alicia", "steph", "adam"]
UNSEEN_ACCENTS = ["en-gb-scotland", "en-gb-x-gbcwmd"]
UNSEEN_TIMBRES = ["m7", "m8", "f4", "f5", "klatt4", "Denis"]
PARTS = {"train": 5000, "dev": 400, "test-strings": 600, "test-voices": 600}
QUIET = 1500


def part_of(digits):
    """train (8 in 10), dev or test."""
    number = int(hashlib.sha256(bytes(digits)).hexdigest(), 16) % 10
    return "dev" if number == 0 else "test" if number == 1 else "train"


def draw(rng, part):
    """Digits that belong to the part."""
    wanted = part.split("-")[0]
    while True:
        digits = [rng.randrange(10) for _ in range(rng.randint(1, 8))]
        if len(digits) == 1 or part_of(digits) == wanted:
            return digits


def spoken(rng, digits, accents, timbres):
    """Words, the text that is read and espeak's options."""
    words = ["oh" if d == 0 and rng.random() < 0.3 else WORDS[d] for d in digits]
    text = "".join(w + (", " if rng.random() < 0.2 else " ") for w in words)
    timbre = rng.choice(timbres)
    voice = rng.choice(accents) + ("+" + timbre if timbre else "")
    return words, text, ["-v", voice, "-s", str(rng.randint(120, 220)), "-p", str(rng.randint(25, 75)), "-a", str(rng.randint(40, 160))]


def noise(rng, samples):
    """White, or with a spectrum that falls as 1/f^(slope/2)."""
    x = rng.standard_normal(samples)
    spectrum = np.fft.rfft(x)
    spectrum /= np.maximum(np.arange(len(spectrum)), 1) ** (rng.uniform(0, 2) / 2)
    x = np.fft.irfft(spectrum, samples)
    return x / x.std()


def make(job):
    path, seed, text, options = job
    wav = subprocess.run(["espeak-ng", *options, "--stdout", text], check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(wav)) as f:
        rate = f.getframerate()
    speech = np.frombuffer(wav[44:], dtype="<i2").astype(np.float64)
    loud = np.abs(speech) > 200
    speech = speech[loud.argmax() : len(loud) - loud[::-1].argmax()]
    rng = np.random.default_rng(seed)
    x = np.concatenate([np.zeros(int(rate * rng.uniform(0.05, 0.4))), speech, np.zeros(int(rate * rng.uniform(0.35, 0.5)))])
    x += noise(rng, len(x)) * speech.std() * 10 ** (-rng.uniform(12, 40) / 20)
    write(path, rate, x)


def write(path, rate, x):
    with wave.open(str(path), "wb") as f:
        f.setnchannels(1), f.setsampwidth(2), f.setframerate(rate)
        f.writeframes(np.clip(np.round(x), -32768, 32767).astype("<i2").tobytes())


def make_quiet(out, count, seed):
    rng, lines = np.random.default_rng([seed, 7]), []
    (out / "quiet").mkdir(parents=True, exist_ok=True)
    for k in range(count):
        x = noise(rng, int(22050 * rng.uniform(0.3, 2.5))) * 3000 * rng.uniform(0.3, 1.5) * 10 ** (-rng.uniform(12, 40) / 20)
        path = out / "quiet" / f"{k:05}.wav"
        write(path, 22050, x)
        lines.append(f"{path}\t\n")
    (out / "quiet.tsv").write_text("".join(lines))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=Path)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--share", type=float, default=1.0, help="make only this share of each part")
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    for part, count in PARTS.items():
        rng, jobs, lines = random.Random(f"{a.seed} {part}"), [], []
        accents, timbres = (UNSEEN_ACCENTS, UNSEEN_TIMBRES) if part == "test-voices" else (ACCENTS, TIMBRES)
        folder = a.out / part
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(round(count * a.share)):
            words, text, options = spoken(rng, draw(rng, part), accents, timbres)
            path = folder / f"{k:05}.wav"
            jobs.append((path, rng.randrange(1 << 32), text, options))
            lines.append(f"{path}\t{' '.join(words)}\n")
        with concurrent.futures.ThreadPoolExecutor(a.threads) as pool:
            list(pool.map(make, jobs))
        (a.out / f"{part}.tsv").write_text("".join(lines))
        print(part, len(jobs), flush=True)
    make_quiet(a.out, round(QUIET * a.share), a.seed)


if __name__ == "__main__":
    main()
