//! The store alone: partitions, figures, whose states are in it.

use super::*;

fn store(dir: &Path) -> Result<Store, StoreError> {
    let policy = ModelPolicy { fingerprint: "f".to_string(), previous: None, on_model_change: OnModelChange::Refuse };
    Store::open(dir, 1 << 20, "changelog", policy, Events::new(&[]).unwrap())
}

fn change(partition: i32, key: &str, seen: i64, ended: bool) -> Change<'_> {
    let entry = StreamEntry { seen, ended, active_ms: 5, ..StreamEntry::default() };
    let state = StreamState { entry, session: (!ended).then(|| vec![1, 2, 3]) };
    Change { partition, key: key.as_bytes(), value: Some(Cow::Owned(state.encode())) }
}

/// As a commit does, whatever is served.
fn put(store: &Store, changes: &[Change<'_>]) {
    store.put(changes, &BTreeMap::new()).unwrap();
}

#[test]
fn the_same_key_in_two_partitions_is_two_streams() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).unwrap();
    put(&store, &[change(0, "a", 3, false), change(1, "a", 9, false)]);
    let keys: Vec<_> = [0, 1, 2].map(|p| StreamId::within(p, b"a").unwrap()).into();
    (0..3).for_each(|partition| store.serve(partition));
    let seen: Vec<_> = store.load(&keys).unwrap().into_iter().map(|s| s.map(|s| s.entry.seen)).collect();
    assert_eq!(seen, [Some(3), Some(9), None]);
    store.clear(1).unwrap();
    assert!(store.load(&keys).is_err(), "partition 1 is not there any more");
    let held = [0, 1].map(|partition| (store.held(partition).live, store.held(partition).seen));
    assert_eq!(held, [(1, 3), (0, -1)]);
}

#[test]
fn only_streams_of_partitions_in_charge_are_idle() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).unwrap();
    put(&store, &[change(0, "a", 1, false), change(1, "b", 1, false), change(1, "c", 1, true)]);
    assert_eq!(store.idle(10, None, 10).unwrap().streams, []);
    store.serve(1);
    assert_eq!(store.idle(10, None, 10).unwrap().streams, [StreamId::within(1, b"b").unwrap()]);
    store.serve(0);
    let page = store.idle(10, None, 1).unwrap();
    let rest = store.idle(10, page.next.as_ref(), 10).unwrap();
    assert_eq!((page.streams.len(), rest.streams.len(), rest.next), (1, 1, None));
    store.leave(1);
    assert_eq!(store.idle(10, None, 10).unwrap().streams.len(), 1);
}

#[test]
fn a_state_that_was_written_too_late_does_not_undo_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).unwrap();
    let record = |seen| (b"a".to_vec(), change(0, "a", seen, true).value.map(Cow::into_owned));
    store.restore(0, &[record(5), record(9), record(7)], None).unwrap();
    assert_eq!((store.held(0).live, store.held(0).seen), (0, 9));
    store.serve(0);
    let state = store.load(&[StreamId::within(0, b"a").unwrap()]).unwrap().remove(0).unwrap();
    assert_eq!(state.entry.seen, 9);
}

#[test]
fn an_ended_stream_is_forgotten_only_when_none_of_its_records_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).unwrap();
    put(&store, &[change(0, "a", 7, true), change(0, "b", 8, true), change(0, "c", 1, false)]);
    assert_eq!(store.forgettable(10, &[(0, 7)], 9).unwrap(), []);
    assert_eq!(store.forgettable(5, &[(0, 8)], 9).unwrap(), []);
    let found = store.forgettable(10, &[(0, 8)], 9).unwrap();
    assert_eq!(found, [StreamId::within(0, b"a").unwrap()]);
    put(&store, &[Change { partition: 0, key: found[0].as_bytes(), value: None }]);
    store.serve(0);
    assert_eq!(store.load(&found).unwrap(), [None]);
}

#[test]
fn a_damaged_changelog_is_never_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).unwrap();
    let good = change(0, "a", 1, true).value.unwrap().into_owned();
    let mut bad = good.clone();
    bad[10] ^= 1;
    store.restore(0, &[(b"a".to_vec(), Some(good))], None).unwrap();
    let error = store.restore(0, &[(b"b".to_vec(), Some(bad))], None).unwrap_err();
    assert!(matches!(error, RestoreError::Damaged { stream, .. } if stream == "b"));
}

fn fingerprint(model: u8) -> String {
    format!("{model:02x}").repeat(32)
}

/// With a model 2.
fn store_of(dir: &Path, previous: Option<u8>, on_model_change: OnModelChange) -> Store {
    let models = ModelPolicy { fingerprint: fingerprint(2), previous: previous.map(fingerprint), on_model_change };
    Store::open(dir, 1 << 20, "changelog", models, Events::new(&[]).unwrap()).unwrap()
}

/// A state that a model made, or that of an ended stream.
fn state(key: &str, seen: i64, model: Option<u8>) -> Record {
    let entry = StreamEntry { seen, ended: model.is_none(), ..StreamEntry::default() };
    let session = model.map(|model| [&[1], &[model; 32][..]].concat());
    (key.as_bytes().to_vec(), Some(StreamState { entry, session }.encode()))
}

fn counts(store: &Store) -> (u64, u64, u64) {
    let held = store.held(0);
    (held.live, held.draining, held.foreign)
}

/// As a compacted topic has them that is not compacted yet: each stream's states, one after the other.
fn states_of_two_models() -> [Record; 4] {
    [state("a", 1, Some(1)), state("b", 2, Some(1)), state("a", 3, Some(2)), state("c", 4, Some(1))]
}

#[test]
fn only_the_last_state_of_a_stream_decides_whose_partition_it_is() {
    let ends = [state("b", 5, None), (b"c".to_vec(), None)];
    let dir = tempfile::tempdir().unwrap();
    let store = store_of(dir.path(), None, OnModelChange::Refuse);
    store.restore(0, &states_of_two_models(), None).unwrap();
    let found = RestoreError::OtherModel { live: 2, found: fingerprint(1), given: store.models().given() };
    assert_eq!((counts(&store), store.refusal(0)), ((3, 0, 2), Some(found)));
    store.restore(0, &ends, None).unwrap();
    assert_eq!((counts(&store), store.refusal(0)), ((1, 0, 0), None));

    let dir = tempfile::tempdir().unwrap();
    let store = store_of(dir.path(), Some(1), OnModelChange::Drain);
    store.restore(0, &states_of_two_models(), None).unwrap();
    assert_eq!((counts(&store), store.refusal(0)), ((3, 2, 0), None));
    // Only what is served is counted: the rest may be another instance's.
    let draining = || store.events.metrics().streams_draining.get();
    assert_eq!(draining(), 0);
    store.serve(0);
    assert_eq!(draining(), 2);
    store.restore(0, &ends, None).unwrap();
    assert_eq!((counts(&store), draining()), ((1, 0, 0), 0));

    let dir = tempfile::tempdir().unwrap();
    let store = store_of(dir.path(), Some(3), OnModelChange::Drain);
    store.restore(0, &states_of_two_models(), None).unwrap();
    assert!(matches!(store.refusal(0), Some(RestoreError::OtherModel { live: 2, .. })), "a third one's");
}

#[test]
fn a_saved_copy_is_judged_anew_by_the_models_that_there_are_now() {
    let dir = tempfile::tempdir().unwrap();
    let mark = Mark::new(3, b"c", None);
    let store = store_of(dir.path(), Some(1), OnModelChange::Drain);
    store.restore(0, &states_of_two_models(), Some(mark)).unwrap();
    store.save().unwrap();
    drop(store);
    let store = store_of(dir.path(), None, OnModelChange::Refuse);
    assert_eq!((counts(&store), store.held(0).mark), ((3, 0, 2), Some(mark)));
    assert!(store.refusal(0).is_some());
    drop(store);
    let store = store_of(dir.path(), Some(1), OnModelChange::Drain);
    assert_eq!((counts(&store), store.refusal(0)), ((3, 2, 0), None));
    drop(store);
    // What is to be dropped is dropped while it is read from the changelog.
    let store = store_of(dir.path(), None, OnModelChange::Reset);
    assert_eq!((counts(&store), store.held(0).mark), ((0, 0, 0), None));
    store.restore(0, &states_of_two_models(), Some(mark)).unwrap();
    assert_eq!((counts(&store), store.refusal(0)), ((1, 0, 0), None));
}

#[test]
fn a_directory_is_for_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path()).unwrap();
    assert!(matches!(store(dir.path()), Err(StoreError::Locked(_))));
    drop(first);
    assert!(store(dir.path()).is_ok());
}
