//! The readers of files: CoNLL, FASTA, intervals, JSON lines; plain and packed.
//!
//! Bytes: the format, how much a read gives, whether the rest is packed, to be packed, or plain.

use super::{Choices, memory};
use std::io::{Cursor, Read, Write};
use strand::data::{
    ConllReader, DataError, DnaScheme, FastaReader, JsonlReader, LabelMap, Lines, Source, conll, detokenize,
    dna_labels, read_intervals, read_sentences, read_sequences,
};
use strand::model::Scheme;

/// Buffers of a source and of what unpacks it.
const FIXED: usize = 512 << 10;
const FACTOR: usize = 64;

/// Gives at most so many bytes a read, as a slow pipe may.
struct Drip(Cursor<Vec<u8>>, usize);

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let end = buffer.len().min(self.1);
        self.0.read(&mut buffer[..end])
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// What a reader makes of a file is the same however slowly it comes and whether it is packed; what is wrong is told.
pub fn check(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let format = choices.below(5);
    let at_once = [1, 2, 3, 17, 4096][choices.below(5)];
    let packing = choices.below(3);
    let body = choices.rest();
    let read = match format {
        0 => sentences,
        1 => sequences,
        2 => records,
        3 => tokens,
        _ => lines,
    };
    // A packed body's size is not known beforehand; what it unpacks to is bounded by what deflate can do.
    let mut limit = FACTOR * body.len() + FIXED;
    let mut plain = body.to_vec();
    if packing == 1 {
        limit += FACTOR * 1032 * body.len();
        plain = [b"\x1f\x8b", body].concat();
    }
    let whole = memory::within(limit, || all(&plain, usize::MAX, read));
    // A file may be packed or not only where it doesn't look packed.
    if packing == 2 && plain.first() != Some(&0x1f) && !plain.is_empty() {
        let packed = packed(&plain);
        assert_eq!(all(&packed, usize::MAX, read), whole);
        assert_eq!(all(&packed, at_once, read), whole);
    }
    let dripped = all(&plain, at_once, read);
    match (plain.starts_with(b"\x1f\x8b"), &whole.1, &dripped.1) {
        // How much is unpacked before the damage shows depends on how much is asked for at once.
        (true, Some(_), Some(_)) => {}
        _ => assert_eq!(dripped, whole),
    }
    if packing == 0 {
        by_path(format, &plain);
    }
}

/// Everything that a reader gives, and its error.
fn all(
    bytes: &[u8],
    at_once: usize,
    read: fn(Source, &mut Vec<String>) -> Result<(), DataError>,
) -> (Vec<String>, Option<String>) {
    let mut found = Vec::new();
    let result =
        Source::new("x", Drip(Cursor::new(bytes.to_vec()), at_once)).and_then(|source| read(source, &mut found));
    (found, result.err().map(|error| error.to_string()))
}

fn sentences(source: Source, found: &mut Vec<String>) -> Result<(), DataError> {
    let mut reader = ConllReader::new(source);
    while let Some(mut sentence) = reader.sentence()? {
        assert!(!sentence.tokens.is_empty());
        assert_eq!(sentence.tokens.len(), sentence.labels.len());
        conll::to_iob2(&mut sentence.labels);
        let again = sentence.labels.clone();
        conll::to_iob2(&mut sentence.labels);
        assert_eq!(sentence.labels, again);
        found.push(format!("{sentence:?} {}", reader.line()));
        // In the text that they could come from the tokens are where it says.
        let (text, places) = detokenize(&sentence.tokens);
        let text: Vec<char> = text.chars().collect();
        for (token, place) in sentence.tokens.iter().zip(places) {
            assert!(token.chars().eq(text[place.start as usize..place.end as usize].iter().copied()));
        }
    }
    Ok(())
}

fn tokens(source: Source, found: &mut Vec<String>) -> Result<(), DataError> {
    let mut reader = ConllReader::new(source);
    while let Some(tokens) = reader.tokens()? {
        found.push(format!("{tokens:?}"));
    }
    Ok(())
}

/// Pieces of all sizes; how many bases a read gives depends on what is at hand, so that they are put together.
fn sequences(source: Source, found: &mut Vec<String>) -> Result<(), DataError> {
    let mut reader = FastaReader::new(source);
    while let Some(name) = reader.next_sequence()? {
        found.push(name);
        let mut bases = Vec::new();
        // Every third sequence is skipped.
        let mut result = Ok(1);
        while !found.len().is_multiple_of(3) && matches!(result, Ok(1..)) {
            let before = bases.len();
            result = reader.read(&mut bases, 1 + before % 7);
            if let Ok(count) = result {
                assert_eq!(bases.len(), before + count);
            }
        }
        if let Some(last) = found.last_mut() {
            last.push_str(&String::from_utf8_lossy(&bases));
        }
        result?;
    }
    Ok(())
}

fn records(source: Source, found: &mut Vec<String>) -> Result<(), DataError> {
    let mut reader = JsonlReader::new(source);
    while let Some(record) = reader.record()? {
        found.push(format!("{record:?} {}", reader.line()));
    }
    Ok(())
}

fn lines(source: Source, found: &mut Vec<String>) -> Result<(), DataError> {
    let (mut lines, mut line) = (Lines::new(source), String::new());
    while lines.next_into(&mut line)? {
        found.push(format!("{line} {}", lines.line()));
    }
    Ok(())
}

/// What is read whole.
fn by_path(format: usize, bytes: &[u8]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let map: LabelMap = "a=b,*=O".parse().unwrap();
    match format {
        0 => [Scheme::Bio, Scheme::Plain].into_iter().for_each(|scheme| {
            if let Ok(sentences) = read_sentences(file.path(), scheme, &map) {
                assert!(!sentences.is_empty());
            }
        }),
        1 => drop(read_sequences(file.path())),
        _ => {
            for intervals in read_intervals(file.path()).unwrap_or_default().into_values() {
                for scheme in [DnaScheme::Strand, DnaScheme::StrandFrame] {
                    let labels = dna_labels(&intervals, 100, scheme);
                    assert!(labels.iter().all(|&label| usize::from(label) < scheme.classes().len()));
                }
                intervals.iter().for_each(|interval| assert!(interval.three_prime() < interval.end));
            }
        }
    }
}
