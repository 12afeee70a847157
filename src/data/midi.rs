//! Steps of notes as a standard MIDI file.

use crate::encode::Chord;
use midly::num::{u4, u7, u15, u24, u28};
use midly::{Format, Header, MetaMessage, MidiMessage, Smf, Timing, TrackEvent, TrackEventKind};

/// Ticks of a quarter note.
const TICKS: u32 = 480;
/// How hard keys are struck.
const VELOCITY: u8 = 80;

/// How fast steps go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Quarter notes a minute, 4 to 1000.
    pub tempo: f64,
    /// Steps in a quarter note, 1 to 96.
    pub steps_per_beat: u32,
}

/// The bytes of a file with one track. A pitch that sounds in several steps on end is one longer note.
///
/// # Errors
/// When the pace is out of range.
pub fn midi(steps: &[Chord], pace: Pace) -> Result<Vec<u8>, String> {
    let Pace { tempo, steps_per_beat } = pace;
    if !(4.0..=1000.0).contains(&tempo) {
        return Err(format!("tempo = {tempo}: must be 4 to 1000 quarter notes a minute"));
    }
    if !(1..=96).contains(&steps_per_beat) {
        return Err(format!("{steps_per_beat} steps in a quarter note: must be 1 to 96"));
    }
    let at = |step: usize| step as u64 * u64::from(TICKS) / u64::from(steps_per_beat);
    let event =
        |delta: u64, kind| TrackEvent { delta: u28::new(delta.min(u64::from(u28::max_value().as_int())) as u32), kind };
    let key = |on: bool, pitch: u8| {
        let (key, vel) = (u7::new(pitch), u7::new(VELOCITY));
        let message = if on { MidiMessage::NoteOn { key, vel } } else { MidiMessage::NoteOff { key, vel } };
        TrackEventKind::Midi { channel: u4::new(0), message }
    };
    let micros = u24::new((60e6 / tempo) as u32);
    let mut track = vec![event(0, TrackEventKind::Meta(MetaMessage::Tempo(micros)))];
    let (mut before, mut last) = (Chord::default(), 0);
    for (step, chord) in steps.iter().copied().chain([Chord::default()]).enumerate() {
        let ends = before.pitches().filter(|&pitch| !chord.has(pitch)).map(|pitch| (false, pitch));
        let begins = chord.pitches().filter(|&pitch| !before.has(pitch)).map(|pitch| (true, pitch));
        for (on, pitch) in ends.chain(begins) {
            track.push(event(at(step) - last, key(on, pitch)));
            last = at(step);
        }
        before = chord;
    }
    // Silence at the end counts too.
    track.push(event(at(steps.len()) - last, TrackEventKind::Meta(MetaMessage::EndOfTrack)));
    let header = Header::new(Format::SingleTrack, Timing::Metrical(u15::new(TICKS as u16)));
    let mut bytes = Vec::new();
    Smf { header, tracks: vec![track] }.write_std(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chord(pitches: &[u8]) -> Chord {
        pitches.iter().fold(Chord::default(), |chord, &pitch| chord.with(pitch))
    }

    #[test]
    fn held_notes_are_one_and_everything_that_begins_ends() {
        let steps = [chord(&[60, 64]), chord(&[60, 65]), chord(&[]), chord(&[60])];
        let bytes = midi(&steps, Pace { tempo: 120.0, steps_per_beat: 2 }).unwrap();
        let file = Smf::parse(&bytes).unwrap();
        let (mut now, mut seen) = (0, Vec::new());
        for event in &file.tracks[0] {
            now += event.delta.as_int();
            match event.kind {
                TrackEventKind::Midi { message: MidiMessage::NoteOn { key, .. }, .. } => {
                    seen.push((now, key.as_int(), true))
                }
                TrackEventKind::Midi { message: MidiMessage::NoteOff { key, .. }, .. } => {
                    seen.push((now, key.as_int(), false));
                }
                TrackEventKind::Meta(MetaMessage::Tempo(micros)) => assert_eq!(micros.as_int(), 500_000),
                _ => {}
            }
        }
        let (on, off) = (true, false);
        let wanted = [
            (0, 60, on),
            (0, 64, on),
            (240, 64, off),
            (240, 65, on),
            (480, 60, off),
            (480, 65, off),
            (720, 60, on),
            (960, 60, off),
        ];
        assert_eq!(seen, wanted);
        assert_eq!(now, 960);
    }

    #[test]
    fn nothing_is_a_file_too_and_a_bad_pace_is_refused() {
        let pace = Pace { tempo: 90.0, steps_per_beat: 1 };
        assert_eq!(Smf::parse(&midi(&[], pace).unwrap()).unwrap().tracks.len(), 1);
        for tempo in [0.0, f64::NAN, 1e9] {
            assert!(midi(&[], Pace { tempo, ..pace }).is_err());
        }
        assert!(midi(&[], Pace { steps_per_beat: 0, ..pace }).is_err());
    }
}
