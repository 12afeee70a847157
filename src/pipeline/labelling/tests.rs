//! Streams of two models in the same batches.

use super::*;
use crate::encode::InputFormat;
use crate::model::testing::{TEXT, chars_spec, layers, random_model, words_spec};
use crate::model::{Model, StateError};
use crate::rnn::Cell;
use crate::state::StreamEntry;
use crate::state::StreamState;
use std::collections::BTreeMap;

/// A record: stream, piece, event.
type Sent<'a> = (&'a str, &'a str, Option<Event>);

/// A model that differs from the other in everything: what a step is, labels, cells.
fn model(name: &str) -> Arc<Model> {
    let dir = tempfile::tempdir().unwrap();
    let spec = match name {
        "old" => words_spec(name, layers(&[Cell::Lstm], 8)),
        _ => chars_spec(name, layers(&[Cell::Gru, Cell::Rnn], 5)),
    };
    random_model(dir.path(), &spec, TEXT, 7).unwrap();
    Arc::new(Model::load(dir.path()).unwrap())
}

/// An engine thread's labeller, with the states that are committed.
struct World {
    taggers: Taggers,
    labeller: Labeller,
    states: BTreeMap<String, StreamState>,
    events: Events,
    /// Outputs by stream.
    outputs: BTreeMap<String, Vec<OutputRecord>>,
}

impl World {
    fn new(current: &Arc<Model>, previous: Option<&Arc<Model>>) -> World {
        let labels = [current].into_iter().chain(previous).flat_map(|model| model.spec().labels.clone());
        let events = Events::new(&labels.collect::<Vec<_>>()).unwrap();
        let tagger = |model: &Arc<Model>| Arc::new(Tagger::new(model.clone(), InputFormat::Text, &events));
        let taggers =
            Taggers { current: tagger(current), previous: previous.map(tagger), precision: Default::default() };
        let decoder = Decoder { max_record_bytes: 1000, pointer: None };
        let labeller = Labeller::new(&taggers, decoder, false, events.clone());
        World { taggers, labeller, states: BTreeMap::new(), events, outputs: BTreeMap::new() }
    }

    /// Labels a batch, each stream from its state as bytes.
    fn send(&mut self, records: &[Sent<'_>]) {
        let mut jobs: BTreeMap<&str, VecDeque<Job>> = BTreeMap::new();
        for (stream, piece, event) in records {
            let raw = RawRecord {
                origin: Origin::Strand,
                key: Some(stream.as_bytes().to_vec()),
                value: piece.as_bytes().to_vec(),
                headers: Event::headers(*event),
                timestamp_ms: 0,
                defect: None,
            };
            jobs.entry(stream).or_default().push_back(Job::Record(raw));
        }
        let active = |(stream, jobs): (&str, _)| {
            let slot = match self.states.get(stream) {
                None => Slot::new(StreamEntry::default(), Held::None),
                Some(state) => {
                    let live = state.session.as_deref().map(|bytes| self.taggers.decode(bytes).unwrap());
                    Slot::new(state.entry, live.map_or(Held::None, Held::Live))
                }
            };
            Active::new(StreamId::new(stream.as_bytes()).unwrap(), slot, jobs)
        };
        let mut actives: Vec<Active> = jobs.into_iter().map(active).collect();
        let outcome = self.labeller.label(&mut actives, 1);
        assert!(outcome.letters.is_empty(), "{:?}", outcome.letters);
        for active in actives.iter().filter(|active| active.changed) {
            self.states.insert(active.stream.text().into_owned(), active.slot.state());
        }
        for output in outcome.outputs {
            self.outputs.entry(output.stream.text().into_owned()).or_default().push(output);
        }
        self.events.committed(vec![outcome.tally], &[], 0, std::time::Duration::ZERO);
    }

    /// The JSON of a stream's outputs.
    fn values(&self, stream: &str) -> Vec<String> {
        let values = self.outputs[stream].iter().map(|output| String::from_utf8(output.value.clone()).unwrap());
        values.collect()
    }

    /// The model by which a stream's state was made.
    fn made_by(&self, stream: &str) -> Option<String> {
        self.states[stream].session.as_deref().map(|session| crate::model::Session::fingerprint(session).unwrap())
    }
}

/// What one model, never replaced, makes of a stream.
fn alone(model: &Arc<Model>, records: &[Sent<'_>]) -> Vec<String> {
    let mut world = World::new(model, None);
    records.iter().for_each(|record| world.send(std::slice::from_ref(record)));
    world.values(records[0].0)
}

const A: [Sent<'static>; 4] = [
    ("a", "Ada Lovelace met Charles Bab", None),
    ("a", "bage in Lon", None),
    ("a", "don . She", Some(Event::Reset)),
    ("a", " lived at Ockham Park .", Some(Event::End)),
];
const B: [Sent<'static>; 4] = [
    ("b", "The Analytical Eng", None),
    ("b", "ine was never bu", None),
    ("b", "ilt", Some(Event::Flush)),
    ("b", ", but her notes on it", None),
];

#[test]
fn live_streams_go_on_with_their_model_and_others_begin_with_the_new_one() {
    let (old, new) = (model("old"), model("new"));
    let mut before = World::new(&old, None);
    before.send(&[A[0], B[0], A[1]]);
    let mut world = World::new(&new, Some(&old));
    (world.states, world.outputs) = (before.states, before.outputs);
    let c = [("c", TEXT, None), ("c", "In Turin", Some(Event::Flush))];
    world.send(&[c[0], B[1], A[2], B[2], A[3]]);
    world.send(&[B[3], c[1]]);

    assert_eq!(world.values("a"), alone(&old, &A));
    assert_eq!(world.values("b"), alone(&old, &B));
    assert_eq!(world.values("c"), alone(&new, &c));
    for (stream, model) in [("a", "old"), ("b", "old"), ("c", "new")] {
        assert!(world.outputs[stream].iter().all(|output| &*output.model == model));
        assert!(world.values(stream).iter().all(|value| value.contains(&format!("\"model\":\"{model}\""))));
    }
    let prints = ["a", "b", "c"].map(|stream| world.made_by(stream));
    assert_eq!(prints, [None, Some(old.fingerprint().to_string()), Some(new.fingerprint().to_string())]);
}

#[test]
fn an_end_or_a_start_is_where_the_new_model_takes_over() {
    let (old, new) = (model("old"), model("new"));
    let mut before = World::new(&old, None);
    before.send(&[A[0], B[0]]);
    let mut world = World::new(&new, Some(&old));
    world.states = before.states;
    // Within one batch, so that a stream changes its model from one round to the next.
    world.send(&[A[3], B[1], A[0], ("b", "Menabrea wrote", Some(Event::Start)), A[1]]);
    let models = |stream: &str| world.outputs[stream].iter().map(|output| output.model.to_string()).collect::<Vec<_>>();
    assert_eq!(
        (models("a"), models("b")),
        (vec!["old".into(), "new".into(), "new".into()], vec!["old".into(), "new".into()])
    );
    let labels = |value: &str| serde_json::from_str::<serde_json::Value>(value).unwrap()["labels"].clone();
    let given = |values: &[String]| values.iter().map(|value| labels(value)).collect::<Vec<_>>();
    assert_eq!(given(&world.values("a")[1..]), given(&alone(&new, &[A[0], A[1]])));
    assert_eq!(given(&world.values("b")[1..]), given(&alone(&new, &[("b", "Menabrea wrote", None)])));
    assert_eq!(world.made_by("a"), world.made_by("b"));
}

#[test]
fn labels_are_counted_by_their_names_whichever_model_gave_them() {
    let (old, new) = (model("old"), model("new"));
    let mut before = World::new(&old, None);
    before.send(&[A[0], B[0]]);
    let mut world = World::new(&new, Some(&old));
    world.states = before.states;
    world.send(&[A[1], A[2], A[3], B[1], ("c", TEXT, None), ("c", TEXT, None)]);
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for value in world.outputs.keys().flat_map(|stream| world.values(stream)) {
        let value: serde_json::Value = serde_json::from_str(&value).unwrap();
        for label in value["labels"].as_array().unwrap() {
            *counted.entry(label["label"].as_str().unwrap().to_string()).or_default() += 1;
        }
    }
    let labels = &world.events.metrics().labels;
    assert!(counted.len() > 3 && counted.contains_key("I-PER") && counted.contains_key("number"), "{counted:?}");
    for (label, count) in counted {
        assert_eq!(labels.with_label_values(&[label.as_str()]).get(), count, "{label}");
    }
}

#[test]
fn the_state_of_a_third_model_is_read_by_neither() {
    let dir = tempfile::tempdir().unwrap();
    random_model(dir.path(), &words_spec("third", layers(&[Cell::Lstm], 8)), TEXT, 8).unwrap();
    let third = Arc::new(Model::load(dir.path()).unwrap());
    let mut before = World::new(&third, None);
    before.send(&[A[0]]);
    let bytes = before.states["a"].session.clone().unwrap();
    let world = World::new(&model("new"), Some(&model("old")));
    assert!(
        matches!(world.taggers.decode(&bytes), Err(StateError::OtherModel { found, .. }) if found == third.fingerprint())
    );
}
