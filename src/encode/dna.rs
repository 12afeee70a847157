//! Bases as steps: four probabilities and the k-mers that end at the base.
//!
//! Codes are those of IUPAC (Cornish-Bowden, Nucleic Acids Research 13, 1985): R, Y, S, W, K, M, B, D, H, V and N stand
//! for several bases, each as likely as the others; U of RNA reads as T.

use super::{DnaSpec, InputError, Layout, ReaderState, Rows, TableShape};

/// Bits of a base set: A, C, G, T.
const SETS: [u8; 256] = {
    let codes = *b"ACGTURYSWKMBDHVN";
    let sets = [1, 2, 4, 8, 8, 5, 10, 6, 9, 12, 3, 14, 13, 11, 7, 15];
    let mut table = [0; 256];
    let mut k = 0;
    while k < codes.len() {
        table[codes[k] as usize] = sets[k];
        table[codes[k].to_ascii_lowercase() as usize] = sets[k];
        k += 1;
    }
    table
};

/// The bases that an IUPAC code stands for, one bit each: A, C, G, T; none for what is no code.
pub(crate) fn base_set(code: u8) -> u8 {
    SETS[usize::from(code)]
}

/// What stands for an ambiguous base in a stream's context.
const AMBIGUOUS: u8 = b'N';

const TABLES: [&str; 10] = ["kmer1", "kmer2", "kmer3", "kmer4", "kmer5", "kmer6", "kmer7", "kmer8", "kmer9", "kmer10"];

/// One table for each k, of 4^k + 1 rows.
pub(super) fn layout(spec: &DnaSpec) -> Layout {
    let tables = spec.kmers.iter().zip(&spec.kmer_dims);
    let tables = tables.map(|(&k, &dim)| TableShape { name: TABLES[k - 1], rows: 1 + (1 << (2 * k)), dim }).collect();
    Layout { tables, chars: None, dense: 4 }
}

#[derive(Debug, Clone)]
pub(super) struct Dna {
    kmers: Vec<usize>,
    /// Bases that the next base's k-mers need of the past.
    context: usize,
}

/// The last bases as a number, and for how many of them that holds.
#[derive(Default)]
struct Window {
    /// Base-4 number of the last 16 bases.
    code: u32,
    /// Bases since the stream's start or since the last ambiguous one.
    known: usize,
}

impl Window {
    /// The window behind a stream's last bases.
    fn after(context: &[u8]) -> Window {
        let mut window = Window::default();
        context.iter().for_each(|&base| window.push(SETS[base as usize]));
        window
    }

    /// `set` is the next base's.
    fn push(&mut self, set: u8) {
        if set.count_ones() == 1 {
            self.code = (self.code << 2) | set.trailing_zeros();
            self.known += 1;
        } else {
            *self = Window::default();
        }
    }

    /// 0 if the last `k` bases aren't all known, else 1 + their base-4 number, first base most significant.
    fn kmer(&self, k: usize) -> u32 {
        if self.known < k { 0 } else { 1 + (self.code & ((1 << (2 * k)) - 1)) }
    }
}

impl Dna {
    pub fn new(spec: &DnaSpec) -> Dna {
        Dna { kmers: spec.kmers.clone(), context: spec.kmers.iter().max().map_or(0, |&k| k - 1) }
    }

    pub fn push(&self, state: &mut ReaderState, bytes: &[u8], rows: &mut Rows) -> Result<(), InputError> {
        let mut window = Window::after(&state.context);
        for (at, &code) in bytes.iter().enumerate() {
            match SETS[code as usize] {
                0 if code.is_ascii_whitespace() => {}
                0 => return Err(InputError::InvalidBase { at, found: character(&bytes[at..]) }),
                set => self.row(state, set, (code as char).to_string(), &mut window, rows),
            }
        }
        self.forget(state);
        Ok(())
    }

    /// A token that is no base code counts as N.
    pub fn push_tokens(&self, state: &mut ReaderState, tokens: &[impl AsRef<str>], rows: &mut Rows) {
        let mut window = Window::after(&state.context);
        for token in tokens {
            let token = token.as_ref();
            let set = match token.as_bytes() {
                [code] if SETS[*code as usize] != 0 => SETS[*code as usize],
                _ => SETS[AMBIGUOUS as usize],
            };
            self.row(state, set, token.to_string(), &mut window, rows);
        }
        self.forget(state);
    }

    fn row(&self, state: &mut ReaderState, set: u8, text: String, window: &mut Window, rows: &mut Rows) {
        window.push(set);
        let features = rows.unit(state.position, state.position + 1, text);
        features.ids.extend(self.kmers.iter().map(|&k| window.kmer(k)));
        let share = 1.0 / set.count_ones() as f32;
        features.dense.extend((0..4).map(|base| if (set >> base) & 1 == 1 { share } else { 0.0 }));
        state.position += 1;
        state.context.push(if set.count_ones() == 1 { b"ACGT"[set.trailing_zeros() as usize] } else { AMBIGUOUS });
    }

    /// Keeps of the context what the next base needs.
    fn forget(&self, state: &mut ReaderState) {
        let gone = state.context.len().saturating_sub(self.context);
        // A new vector: the old one has room for the whole record.
        state.context = state.context.split_off(gone);
    }
}

/// The character that begins with the first of `bytes`, as far as it is one.
fn character(bytes: &[u8]) -> char {
    let piece = &bytes[..bytes.len().min(4)];
    String::from_utf8_lossy(piece).chars().next().unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::super::{Encoder, EncoderSpec, Features, InputFormat, Unit};
    use super::*;

    fn push(bytes: &[u8]) -> Result<(Vec<Unit>, Features), InputError> {
        let spec = EncoderSpec::Dna(DnaSpec { kmers: vec![1, 3], kmer_dims: vec![2, 2] });
        let encoder = Encoder::load(&spec, "".as_ref()).unwrap();
        assert_eq!(encoder.layout().tables[1], TableShape { name: "kmer3", rows: 65, dim: 2 });
        let (mut state, mut units, mut features) = Default::default();
        encoder.push(&mut state, InputFormat::Dna, bytes, &mut units, &mut features)?;
        Ok((units, features))
    }

    #[test]
    fn kmers_are_base_4_numbers_of_the_last_bases() {
        let (units, features) = push(b"acG\nTuNTTT").unwrap();
        let threes: Vec<_> = features.ids.chunks(2).map(|ids| ids[1]).collect();
        // ACG = 0*16 + 1*4 + 2, CGT = 16 + 8 + 3, GTT = 32 + 12 + 3, then N until three bases are known again.
        assert_eq!(threes, [0, 0, 7, 28, 48, 0, 0, 0, 64]);
        let ones: Vec<_> = features.ids.chunks(2).map(|ids| ids[0]).collect();
        assert_eq!(ones, [1, 2, 3, 4, 4, 0, 4, 4, 4]);
        assert_eq!((units[3].start, units[3].end, units[3].text.as_str()), (3, 4, "T"));
    }

    #[test]
    fn an_ambiguous_base_is_shared_evenly() {
        let (_, features) = push(b"RBNu").unwrap();
        let third = 1.0 / 3.0;
        let expected = [[0.5, 0.0, 0.5, 0.0], [0.0, third, third, third], [0.25; 4], [0.0, 0.0, 0.0, 1.0]];
        assert_eq!(features.dense, expected.concat());
    }

    #[test]
    fn other_characters_are_refused_with_their_place() {
        assert_eq!(push(b"AC-T").unwrap_err(), InputError::InvalidBase { at: 2, found: '-' });
        assert_eq!(push("Aé".as_bytes()).unwrap_err(), InputError::InvalidBase { at: 1, found: 'é' });
        assert_eq!(push(b"\xff").unwrap_err(), InputError::InvalidBase { at: 0, found: '\u{fffd}' });
    }
}
