//! Saved states: of a session, of a stream, of a reader.
//!
//! Bytes: which of them, then the encoding. Checksums and fingerprints are put right, for no chance finds them.

use super::{Choices, formats, memory};
use strand::encode::ReaderState;
use strand::model::generate::Prompt;
use strand::model::{Session, StateError};
use strand::state::{StreamEntry, StreamState};

/// More memory than this for a byte is not justified: a few copies, and the words of messages.
const FACTOR: usize = 8;
const FIXED: usize = 16 << 10;

/// What is read can be written again as the same bytes; what is not is refused; and neither takes much memory.
pub fn check(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let kind = choices.below(5);
    let body = choices.rest();
    match kind {
        0 => reader(body),
        1 => entry(body),
        2 => {
            stream(body);
            stream(&sealed(body));
        }
        3 => {
            let _ = Session::fingerprint(body);
            formats::with_models(|models| models.iter().for_each(|model| session(model, body)));
        }
        _ => formats::with_models(|models| {
            for model in models {
                let mut fresh = Vec::new();
                Session::new(model).encode(model, &mut fresh);
                // Version and fingerprint, then what is hostile: exact numbers, and rounded ones.
                for version in [1, 2] {
                    session(model, &sealed(&[&[version], &fresh[1..33], body].concat()));
                }
            }
        }),
    }
}

fn sealed(body: &[u8]) -> Vec<u8> {
    [body, &crc32fast::hash(body).to_le_bytes()].concat()
}

fn reader(body: &[u8]) {
    if let Ok((state, used)) = memory::within(FACTOR * body.len() + FIXED, || ReaderState::decode(body)) {
        let mut again = Vec::new();
        state.encode(&mut again);
        assert_eq!(again, body[..used]);
    }
}

fn entry(body: &[u8]) {
    let Ok(entry) = StreamEntry::decode(body) else { return };
    let again = entry.encode();
    assert_eq!(StreamEntry::decode(&again), Ok(entry));
    assert!(body[0] == 1 || again == body, "of this build's format, and not the same bytes");
}

fn stream(body: &[u8]) {
    let (entry, session) = (StreamState::entry_of(body), StreamState::session_of(body));
    let verified = StreamState::verify(body);
    assert_eq!(verified.is_ok(), StreamState::decode(body).is_ok());
    let Ok(state) = memory::within(FACTOR * body.len() + FIXED, || StreamState::decode(body)) else { return };
    assert_eq!((entry, session), (Some(state.entry), state.session.as_deref()));
    assert_eq!(verified, Ok(state.entry));
    let again = state.encode();
    assert_eq!(StreamState::decode(&again), Ok(state));
    assert!(body[2] == 1 || again == body, "of this build's format, and not the same bytes");
}

fn session(model: &std::sync::Arc<strand::model::Model>, bytes: &[u8]) {
    let limit = FACTOR * bytes.len() + FIXED;
    let mut session = match memory::within(limit, || Session::decode(model, bytes)) {
        Ok(session) => session,
        Err(StateError::Damaged(why)) => return assert!(!why.is_empty()),
        Err(StateError::OtherModel { .. } | StateError::OtherFormat { .. }) => return,
    };
    let mut again = Vec::new();
    session.encode(model, &mut again);
    assert_eq!(again, bytes);
    // It goes on, or says why not.
    let piece: &[u8] = if formats::format_of(model) == strand::encode::InputFormat::Dna { b"acgt" } else { b"[] a b" };
    let _ = session.push(model, formats::format_of(model), piece);
    let _ = session.finish_unit(model);
    formats::step(model, &mut session);
    if let Some(generate) = &model.spec().generate {
        let class = generate.classes.first().cloned();
        let prompt = Prompt { class, steps: Some(2), ..Prompt::default() };
        let _ = session.ask(model, &prompt).or_else(|_| session.ask(model, &Prompt::default()));
        let mut output = strand::model::Output::default();
        strand::model::Stepper::new(model.clone()).generate(&mut [&mut session], std::slice::from_mut(&mut output));
        assert_eq!(session.to_write(), 0);
    }
    formats::conclude(model, &mut session);
    session.end();
    assert!(session.memory() < limit + (64 << 10));
}
