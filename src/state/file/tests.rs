//! Whose states a file takes up, in all orders in which models may follow one another.

use super::*;

const OLD: u8 = 1;
const NEW: u8 = 2;
const THIRD: u8 = 3;

fn fingerprint(model: u8) -> String {
    format!("{model:02x}").repeat(32)
}

/// A session as far as the file looks at it: version, fingerprint, the rest.
fn session(model: u8) -> Vec<u8> {
    [&[1], &[model; 32][..], b"the rest"].concat()
}

fn policy(model: u8, previous: Option<u8>, on_model_change: OnModelChange) -> ModelPolicy {
    ModelPolicy { fingerprint: fingerprint(model), previous: previous.map(fingerprint), on_model_change }
}

fn alone(model: u8) -> ModelPolicy {
    policy(model, None, OnModelChange::Refuse)
}

fn drain(model: u8, previous: u8) -> ModelPolicy {
    policy(model, Some(previous), OnModelChange::Drain)
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    /// Opens the file anew under this policy.
    fn open(&self, policy: &ModelPolicy) -> Result<StateFile, StoreError> {
        let file = StateFile::open(&self.dir.path().join("states.redb"), 1 << 20, Events::new(&[]).unwrap())?;
        file.check_model(policy).map(|()| file)
    }

    /// How many live streams it is refused for, and what is said.
    fn refused(&self, policy: &ModelPolicy) -> (u64, String) {
        match self.open(policy) {
            Err(error @ StoreError::OtherModel { live, .. }) => (live, error.to_string()),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it is taken up"),
        }
    }
}

/// Brings streams to where they are: live with the state of a model, or ended.
fn put(file: &StateFile, streams: &[(&str, Option<u8>)]) -> Figures {
    let change = |(key, model): &(&str, Option<u8>)| {
        let entry = StreamEntry { ended: model.is_none(), next_seq: 7, ..StreamEntry::default() };
        let state = StreamState { entry, session: model.map(session) };
        StateChange { stream: StreamId::new(key.as_bytes()).unwrap(), state }
    };
    let changes: Vec<StateChange> = streams.iter().map(change).collect();
    let figures = file.write(|txn| write_states(txn, &changes)).unwrap();
    assert_eq!(file.read(read_figures).unwrap(), figures);
    figures
}

fn counts(file: &StateFile) -> (u64, u64) {
    let figures = file.read(read_figures).unwrap();
    (figures.live, figures.draining)
}

#[test]
fn a_model_is_drained_and_then_left_out() {
    let place = Place::new();
    put(&place.open(&alone(OLD)).unwrap(), &[("a", Some(OLD)), ("b", Some(OLD)), ("c", Some(OLD)), ("d", None)]);
    let (live, said) = place.refused(&alone(NEW));
    assert_eq!(live, 3);
    for part in ["3 live streams", "010101010101…", "--on-model-change drain --previous-model DIR", "reset"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    // Without the model that made them, draining is no way either.
    assert_eq!(place.refused(&policy(NEW, None, OnModelChange::Drain)).0, 3);

    let file = place.open(&drain(NEW, OLD)).unwrap();
    assert_eq!(counts(&file), (3, 3));
    // One goes on, one ends, one begins anew, and two new ones come.
    put(&file, &[("a", Some(OLD)), ("b", None), ("c", Some(NEW)), ("e", Some(NEW)), ("f", Some(NEW))]);
    assert_eq!(counts(&file), (4, 1));
    drop(file);
    let (live, said) = place.refused(&alone(NEW));
    assert!(live == 1 && said.contains("1 live streams") && said.contains("010101010101…"), "{said}");
    let file = place.open(&drain(NEW, OLD)).unwrap();
    assert_eq!(counts(&file), (4, 1));
    assert_eq!(put(&file, &[("a", None)]).draining, 0);
    drop(file);
    let file = place.open(&alone(NEW)).unwrap();
    assert_eq!(counts(&file), (3, 0));
    drop(file);
    assert_eq!(place.refused(&alone(OLD)).0, 3);
}

#[test]
fn one_can_go_back_while_it_drains() {
    let place = Place::new();
    put(&place.open(&alone(OLD)).unwrap(), &[("a", Some(OLD)), ("b", Some(OLD))]);
    let file = place.open(&drain(NEW, OLD)).unwrap();
    put(&file, &[("c", Some(NEW))]);
    drop(file);
    // The old one alone cannot go on with what the new one has begun.
    assert_eq!(place.refused(&alone(OLD)).0, 1);
    let file = place.open(&drain(OLD, NEW)).unwrap();
    assert_eq!(counts(&file), (3, 1));
    put(&file, &[("d", Some(OLD)), ("c", None)]);
    assert_eq!(counts(&file), (3, 0));
    drop(file);
    assert_eq!(counts(&place.open(&alone(OLD)).unwrap()), (3, 0));
}

#[test]
fn a_third_model_waits_until_the_first_is_drained() {
    let place = Place::new();
    put(&place.open(&alone(OLD)).unwrap(), &[("a", Some(OLD))]);
    let file = place.open(&drain(NEW, OLD)).unwrap();
    put(&file, &[("b", Some(NEW)), ("c", Some(NEW))]);
    drop(file);
    let (live, said) = place.refused(&drain(THIRD, NEW));
    assert!(live == 1 && said.contains("one such model at a time"), "{said}");
    assert!(said.contains("previous_model is 020202020202…"), "{said}");
    assert_eq!(place.refused(&drain(THIRD, OLD)).0, 2);
    let (live, said) = place.refused(&alone(THIRD));
    assert!(live == 3 && said.contains("020202020202… and 010101010101…"), "{said}");
    put(&place.open(&drain(NEW, OLD)).unwrap(), &[("a", None)]);
    assert_eq!(counts(&place.open(&drain(THIRD, NEW)).unwrap()), (2, 2));
}

#[test]
fn reset_ends_the_streams_of_other_models_and_no_others() {
    let place = Place::new();
    put(&place.open(&alone(OLD)).unwrap(), &[("a", Some(OLD)), ("b", Some(OLD))]);
    let file = place.open(&drain(NEW, OLD)).unwrap();
    put(&file, &[("c", Some(NEW))]);
    drop(file);
    let file = place.open(&policy(NEW, None, OnModelChange::Reset)).unwrap();
    assert_eq!(counts(&file), (1, 0));
    assert_eq!(file.read(read_figures).unwrap().state_bytes, session(NEW).len() as u64);
    let keys = ["a", "b", "c"].map(|key| StreamId::new(key.as_bytes()).unwrap());
    let states: Vec<_> = file.load(&keys).unwrap().into_iter().flatten().collect();
    let found: Vec<_> = states.iter().map(|state| (state.entry.ended, state.entry.next_seq)).collect();
    assert_eq!(found, [(true, 7), (true, 7), (false, 7)], "the numbering goes on");
    assert!(states[0].session.is_none() && states[2].session == Some(session(NEW)));
    drop(file);
    assert_eq!(counts(&place.open(&policy(THIRD, None, OnModelChange::Reset)).unwrap()), (0, 0));
}

#[test]
fn a_creation_that_was_killed_is_begun_anew() {
    let place = Place::new();
    let new = place.dir.path().join("states.redb-new");
    // Laid out, but not yet with redb's first bytes.
    std::fs::write(&new, vec![0; 1 << 20]).unwrap();
    let file = place.open(&alone(1)).unwrap();
    put(&file, &[("a", Some(1))]);
    drop(file);
    assert!(!new.exists());
    assert_eq!(counts(&place.open(&alone(1)).unwrap()), (1, 0));
}
