//! Steps that are sets of notes sounding together: a dense column for each pitch, 1 where it sounds.

use super::{InputError, NoteSpec, ReaderState, Rows};
use serde::{Deserialize, Serialize};

const EXPECTED: &str = "an array of steps, each an array of MIDI pitches, such as [[60, 64, 67], []]";

/// Notes sounding together: a bit for each MIDI pitch, 0 to 127; none is silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Chord(pub u128);

impl Chord {
    pub fn has(self, pitch: u8) -> bool {
        self.0 >> pitch & 1 == 1
    }

    pub fn with(self, pitch: u8) -> Chord {
        Chord(self.0 | 1 << pitch)
    }

    /// The pitches, lowest first.
    pub fn pitches(self) -> impl Iterator<Item = u8> {
        (0..128).filter(move |&pitch| self.has(pitch))
    }

    /// `[60,64,67]`
    pub fn json(self) -> String {
        let pitches: Vec<String> = self.pitches().map(|pitch| pitch.to_string()).collect();
        format!("[{}]", pitches.join(","))
    }

    /// The chord whose columns these are, `[pitches]`, from `lowest` up.
    pub fn of_columns(columns: &[f32], lowest: u8) -> Chord {
        let sounding = (lowest..).zip(columns).filter(|(_, x)| **x > 0.5);
        sounding.fold(Chord::default(), |chord, (pitch, _)| chord.with(pitch))
    }

    /// So many semitones higher, or none where a pitch would leave these.
    pub fn transposed(self, by: i32, pitches: std::ops::RangeInclusive<u8>) -> Option<Chord> {
        self.pitches().try_fold(Chord::default(), |chord, pitch| {
            let moved = u8::try_from(i32::from(pitch) + by).ok().filter(|moved| pitches.contains(moved))?;
            Some(chord.with(moved))
        })
    }
}

impl Serialize for Chord {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.pitches())
    }
}

impl<'de> Deserialize<'de> for Chord {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Chord, D::Error> {
        struct Reading;
        impl<'de> serde::de::Visitor<'de> for Reading {
            type Value = Chord;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array of MIDI pitches, 0 to 127")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Chord, A::Error> {
                let mut chord = Chord::default();
                while let Some(pitch) = items.next_element::<u8>()? {
                    if pitch > 127 {
                        let found = serde::de::Unexpected::Unsigned(u64::from(pitch));
                        return Err(serde::de::Error::invalid_value(found, &self));
                    }
                    chord = chord.with(pitch);
                }
                Ok(chord)
            }
        }
        deserializer.deserialize_seq(Reading)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Notes {
    lowest: u8,
    highest: u8,
}

impl Notes {
    pub fn new(spec: &NoteSpec) -> Notes {
        Notes { lowest: spec.lowest, highest: spec.highest }
    }

    pub fn push(&self, state: &mut ReaderState, bytes: &[u8], rows: &mut Rows) -> Result<(), InputError> {
        let chords: Vec<Chord> = serde_json::from_slice(bytes).map_err(|error| {
            let detail = error.to_string();
            match error.is_data() {
                true => InputError::WrongShape { detail: format!("expected {EXPECTED}: {detail}") },
                false => InputError::InvalidJson { expected: EXPECTED, detail },
            }
        })?;
        self.push_chords(state, &chords, rows)
    }

    /// Takes steps that are read already.
    pub fn push_chords(&self, state: &mut ReaderState, chords: &[Chord], rows: &mut Rows) -> Result<(), InputError> {
        let (low, high) = (self.lowest, self.highest);
        for (step, chord) in chords.iter().enumerate() {
            if let Some(pitch) = chord.pitches().find(|pitch| !(low..=high).contains(pitch)) {
                let detail = format!("step {step} has pitch {pitch}; this model's pitches are {low} to {high}");
                return Err(InputError::WrongShape { detail });
            }
        }
        for chord in chords {
            let features = rows.unit(state.position, state.position + 1, chord.json());
            features.dense.extend((low..=high).map(|pitch| f32::from(u8::from(chord.has(pitch)))));
            state.position += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{Encoder, EncoderSpec, Features, InputFormat};

    fn push(bytes: &[u8]) -> Result<(Vec<String>, Vec<f32>), InputError> {
        let spec = EncoderSpec::Notes(NoteSpec { lowest: 60, highest: 64 });
        let encoder = Encoder::load(&spec, "".as_ref()).unwrap();
        let (mut state, mut units, mut features) = (ReaderState::default(), Vec::new(), Features::default());
        encoder.push(&mut state, InputFormat::Notes, bytes, &mut units, &mut features)?;
        assert_eq!((state.position, units.len()), (features.steps as u64, features.steps));
        Ok((units.into_iter().map(|unit| unit.text).collect(), features.dense))
    }

    #[test]
    fn a_step_has_a_column_for_each_pitch() {
        let (texts, columns) = push(b"[[64, 60], [], [61, 61]]").unwrap();
        assert_eq!(texts, ["[60,64]", "[]", "[61]"]);
        assert_eq!(columns, [[1., 0., 0., 0., 1.], [0.; 5], [0., 1., 0., 0., 0.]].concat());
        assert_eq!(Chord::of_columns(&columns[..5], 60).json(), "[60,64]");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |bytes: &[u8]| push(bytes).unwrap_err();
        assert_eq!(error(b"[[60], [65]]").to_string(), "step 1 has pitch 65; this model's pitches are 60 to 64");
        assert_eq!(error(b"[[60], [65").code(), "invalid_json");
        for wrong in [&b"[60]"[..], b"{}", b"[[128]]", b"[[-1]]", b"[[60.5]]", b"[[\"C4\"]]"] {
            assert_eq!(error(wrong).code(), "wrong_shape", "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn a_chord_is_transposed_as_a_whole_or_not_at_all() {
        let chord = Chord::default().with(60).with(64);
        assert_eq!(chord.transposed(-3, 57..=64).unwrap().json(), "[57,61]");
        assert_eq!((chord.transposed(1, 57..=64), chord.transposed(-61, 0..=127)), (None, None));
        assert_eq!(Chord::default().transposed(99, 60..=60), Some(Chord::default()));
    }
}
