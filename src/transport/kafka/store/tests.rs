//! The store alone: partitions, figures, whose states are in it, and what goes on while it is saved.

use super::*;
use proptest::prelude::*;

fn store(dir: &Path) -> Result<Store, StoreError> {
    let policy = ModelPolicy { fingerprint: "f".to_string(), previous: None, on_model_change: OnModelChange::Refuse };
    Store::open(dir, 1 << 20, "changelog", policy, Events::new(&[]).unwrap())
}

fn change(partition: i32, key: &str, seen: i64, ended: bool) -> Change<'_> {
    let entry = StreamEntry { seen, ended, active_ms: 5, ..StreamEntry::default() };
    let state = StreamState { entry, session: (!ended).then(|| vec![1, 2, 3]) };
    Change { partition, key: key.as_bytes(), value: Some(Cow::Owned(state.encode())) }
}

/// A partition that was read to its end.
fn serve(store: &Store, partition: i32) {
    assert!(store.read_to(partition, 0, store.opened()));
    assert!(store.serve(partition));
}

/// As a commit does, whatever is served.
fn put(store: &Store, changes: &[Change<'_>]) {
    store.put(changes, &BTreeMap::new(), 0).unwrap();
}

#[test]
fn the_same_key_in_two_partitions_is_two_streams() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).unwrap();
    put(&store, &[change(0, "a", 3, false), change(1, "a", 9, false)]);
    let keys: Vec<_> = [0, 1, 2].map(|p| StreamId::within(p, b"a").unwrap()).into();
    (0..3).for_each(|partition| serve(&store, partition));
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
    serve(&store, 1);
    assert_eq!(store.idle(10, None, 10).unwrap().streams, [StreamId::within(1, b"b").unwrap()]);
    serve(&store, 0);
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
    store.restore(0, &[record(5), record(9), record(7)], None, 0).unwrap();
    assert_eq!((store.held(0).live, store.held(0).seen), (0, 9));
    serve(&store, 0);
    let state = store.load(&[StreamId::within(0, b"a").unwrap()]).unwrap().remove(0).unwrap();
    assert_eq!(state.entry.seen, 9);
}

#[test]
fn an_ended_stream_is_forgotten_only_when_none_of_its_records_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).unwrap();
    put(&store, &[change(0, "a", 7, true), change(0, "b", 8, true), change(0, "c", 1, false)]);
    let forgettable = |before, labelled| store.forgettable(before, &[(0, labelled)], None, 9).unwrap().streams;
    assert_eq!(forgettable(10, 7), []);
    assert_eq!(forgettable(5, 8), []);
    let found = forgettable(10, 8);
    assert_eq!(found, [StreamId::within(0, b"a").unwrap()]);
    put(&store, &[Change { partition: 0, key: found[0].as_bytes(), value: None }]);
    serve(&store, 0);
    assert_eq!(store.load(&found).unwrap(), [None]);
}

#[test]
fn a_damaged_changelog_is_never_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).unwrap();
    let good = change(0, "a", 1, true).value.unwrap().into_owned();
    let mut bad = good.clone();
    bad[10] ^= 1;
    store.restore(0, &[(b"a".to_vec(), Some(good))], None, 0).unwrap();
    let error = store.restore(0, &[(b"b".to_vec(), Some(bad))], None, 0).unwrap_err();
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
    store.restore(0, &states_of_two_models(), None, 0).unwrap();
    let found = RestoreError::OtherModel { live: 2, found: fingerprint(1), given: store.models().given() };
    assert_eq!((counts(&store), store.refusal(0)), ((3, 0, 2), Some(found)));
    store.restore(0, &ends, None, 0).unwrap();
    assert_eq!((counts(&store), store.refusal(0)), ((1, 0, 0), None));

    let dir = tempfile::tempdir().unwrap();
    let store = store_of(dir.path(), Some(1), OnModelChange::Drain);
    store.restore(0, &states_of_two_models(), None, 0).unwrap();
    assert_eq!((counts(&store), store.refusal(0)), ((3, 2, 0), None));
    // Only what is served is counted: the rest may be another instance's.
    let draining = || store.events.metrics().streams_draining.get();
    assert_eq!(draining(), 0);
    serve(&store, 0);
    assert_eq!(draining(), 2);
    store.restore(0, &ends, None, 0).unwrap();
    assert_eq!((counts(&store), draining()), ((1, 0, 0), 0));

    let dir = tempfile::tempdir().unwrap();
    let store = store_of(dir.path(), Some(3), OnModelChange::Drain);
    store.restore(0, &states_of_two_models(), None, 0).unwrap();
    assert!(matches!(store.refusal(0), Some(RestoreError::OtherModel { live: 2, .. })), "a third one's");
}

#[test]
fn a_saved_copy_is_judged_anew_by_the_models_that_there_are_now() {
    let dir = tempfile::tempdir().unwrap();
    let mark = Mark::new(3, b"c", None);
    let store = store_of(dir.path(), Some(1), OnModelChange::Drain);
    store.restore(0, &states_of_two_models(), Some(mark), 0).unwrap();
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
    store.restore(0, &states_of_two_models(), Some(mark), 0).unwrap();
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

/// The next of a partition's records, as a commit has it.
fn commit(store: &Store, partition: i32, key: &str, offset: i64) -> Result<(), redb::Error> {
    let change = change(partition, key, offset, false);
    let mark = Mark::new(offset, change.key, change.value.as_deref());
    store.store(&[change], &[(partition, Written { first: offset, records: 1, mark })].into(), false)
}

fn seen(store: &Store, partition: i32, keys: &[&str]) -> Vec<Option<i64>> {
    let keys: Vec<_> = keys.iter().map(|key| StreamId::within(partition, key.as_bytes()).unwrap()).collect();
    store.load(&keys).unwrap().into_iter().map(|state| state.map(|state| state.entry.seen)).collect()
}

/// Would hang if anything waited for the disk.
#[test]
fn commits_and_loads_go_on_while_the_copy_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).unwrap();
    (0..2).for_each(|partition| serve(&store, partition));
    commit(&store, 0, "filed", 0).unwrap();
    store.save().unwrap();
    commit(&store, 0, "aside", 1).unwrap();
    commit(&store, 0, "both", 2).unwrap();
    // The disk is slow: another's transaction is in the way.
    let slow = store.with(|file| Ok(file.database().begin_write()?)).unwrap();
    std::thread::scope(|scope| {
        let saving = scope.spawn(|| store.save());
        while !store.unwritten().is_being_written() {
            std::thread::yield_now();
        }
        commit(&store, 0, "both", 3).unwrap();
        commit(&store, 0, "later", 4).unwrap();
        commit(&store, 1, "later", 0).unwrap();
        let keys = ["filed", "aside", "both", "later", "none"];
        let expected = [Some(0), Some(1), Some(3), Some(4), None];
        assert_eq!(seen(&store, 0, &keys), expected);
        let idle = store.idle(10, None, 3).unwrap();
        assert_eq!(idle.streams.iter().map(StreamId::as_bytes).collect::<Vec<_>>(), [&b"aside"[..], b"both", b"filed"]);
        assert_eq!(store.held(0).rows, 4);
        assert!(!saving.is_finished());
        slow.abort().unwrap();
        saving.join().unwrap().unwrap();
        assert_eq!(seen(&store, 0, &keys), expected);
    });
    // A crash now: what was committed before it was set aside is there, and the mark says so.
    let crashed = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("states.redb"), crashed.path().join("states.redb")).unwrap();
    let after = super::tests::store(crashed.path()).unwrap();
    let held = [0, 1].map(|partition| (after.held(partition).rows, after.held(partition).mark.map(|mark| mark.next)));
    assert_eq!(held, [(3, Some(3)), (0, None)]);
    serve(&after, 0);
    assert_eq!(seen(&after, 0, &["filed", "aside", "both", "later"]), [Some(0), Some(1), Some(2), None]);
    // And the rest with the next save.
    store.save().unwrap();
    drop(store);
    let after = super::tests::store(dir.path()).unwrap();
    let held = [0, 1].map(|partition| (after.held(partition).rows, after.held(partition).mark.map(|mark| mark.next)));
    assert_eq!(held, [(4, Some(5)), (1, Some(1))]);
}

#[test]
fn what_could_not_be_saved_is_saved_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).unwrap();
    serve(&store, 0);
    commit(&store, 0, "a", 0).unwrap();
    let file = store.file.write().unwrap().take();
    assert!(store.save().is_err());
    assert!(store.is_unsaved());
    *store.file.write().unwrap() = file;
    commit(&store, 0, "b", 1).unwrap();
    assert_eq!(seen(&store, 0, &["a", "b"]), [Some(0), Some(1)]);
    store.save().unwrap();
    drop(store);
    let after = super::tests::store(dir.path()).unwrap();
    assert_eq!((after.held(0).rows, after.held(0).mark.map(|mark| mark.next)), (2, Some(2)));
}

/// The disk failed under one partition after another had been read to its end, or was served already: neither may be told of as
/// ready until it was read into the new copy.
#[test]
fn what_was_read_into_a_copy_that_was_opened_anew_since_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).unwrap();
    let before = store.opened();
    (0..2).for_each(|partition| assert!(store.read_to(partition, 0, before)));
    assert!(store.serve(1));
    *store.file.write().unwrap() = None;
    store.open_again().unwrap();
    assert!(store.serving().is_empty());
    assert!(!store.serve(0) && !store.serve(1));
    assert!(!store.read_to(0, 0, before), "that was read into the copy before");
    assert!(store.serving().is_empty());
    (0..2).for_each(|partition| serve(&store, partition));
    assert_eq!(store.serving(), [0, 1]);
}

#[derive(Debug, Clone)]
enum Step {
    /// A stream's state, or that it is forgotten: partition, key, whether it has ended, when it was active.
    Put(i32, u8, Option<(bool, u64)>),
    Save,
    /// A save begins and does not come to its end.
    SetAside,
    Clear(i32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..2, 0..12u8, prop::option::weighted(0.8, (any::<bool>(), 0..20u64)))
            .prop_map(|(partition, key, state)| Step::Put(partition, key, state)),
        2 => Just(Step::Save),
        2 => Just(Step::SetAside),
        1 => (0..2).prop_map(Step::Clear),
    ]
}

/// All pages, one after the other.
fn pages(limit: usize, next: impl Fn(Option<&StreamId>, usize) -> IdlePage) -> Vec<StreamId> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = next(after.as_ref(), limit);
        assert!(page.streams.len() <= limit);
        found.extend(page.streams);
        match page.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Wherever a state is, in the file, set aside, or neither: what is read is as of one map.
    #[test]
    fn where_a_state_lies_makes_no_difference(steps in prop::collection::vec(step(), 1..80), limit in 1..4usize) {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).unwrap();
        let mut expected: BTreeMap<(i32, Vec<u8>), StreamEntry> = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            let seen = number as i64;
            match step {
                Step::Put(partition, key, state) => {
                    let key = vec![b'a' + key];
                    let entry = state.map(|(ended, active_ms)| StreamEntry { seen, ended, active_ms, ..StreamEntry::default() });
                    let value = entry.map(|entry| StreamState { entry, session: None }.encode());
                    put(&store, &[Change { partition, key: &key, value: value.map(Cow::Owned) }]);
                    match entry {
                        Some(entry) => _ = expected.insert((partition, key), entry),
                        None => _ = expected.remove(&(partition, key)),
                    }
                }
                Step::Save => store.save().unwrap(),
                Step::SetAside => _ = store.set_aside(),
                Step::Clear(partition) => {
                    store.clear(partition).unwrap();
                    expected.retain(|(of, _), _| *of != partition);
                }
            }
        }
        (0..2).for_each(|partition| serve(&store, partition));
        let all: Vec<_> = (0..2).flat_map(|p| (b'a'..b'n').map(move |key| (p, vec![key]))).collect();
        let ids: Vec<_> = all.iter().map(|(partition, key)| StreamId::within(*partition, key).unwrap()).collect();
        let loaded: Vec<_> = store.load(&ids).unwrap().into_iter().map(|state| state.map(|state| state.entry)).collect();
        let map: Vec<_> = all.iter().map(|place| expected.get(place).copied()).collect();
        prop_assert_eq!(loaded, map);
        let those = |wanted: &dyn Fn(&StreamEntry) -> bool| -> Vec<StreamId> {
            let found = expected.iter().filter(|(_, entry)| wanted(entry));
            found.map(|((partition, key), _)| StreamId::within(*partition, key).unwrap()).collect()
        };
        let idle = pages(limit, |after, limit| store.idle(10, after, limit).unwrap());
        prop_assert_eq!(idle, those(&|entry| !entry.ended && entry.active_ms < 10));
        let labelled = [(0, 40), (1, 40)];
        let ended = pages(limit, |after, limit| store.forgettable(10, &labelled, after, limit).unwrap());
        prop_assert_eq!(ended, those(&|entry| entry.ended && entry.active_ms < 10 && entry.seen < 40));
        for partition in 0..2 {
            let of = expected.iter().filter(|((of, _), _)| *of == partition);
            let live = of.clone().filter(|(_, entry)| !entry.ended).count() as u64;
            prop_assert_eq!((store.held(partition).rows, store.held(partition).live), (of.count() as u64, live));
        }
    }
}
