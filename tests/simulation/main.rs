//! The daemon's real pipeline in a simulated world: one seed is one run, with delays, crashes at every step, lost answers,
//! rebalances and zombies; what was published in the end is compared with one offline pass.
//!
//! A seed that fails prints how to run it again, and what happened in it. `STRAND_SEEDS` sets how many seeds are run,
//! `STRAND_FIRST_SEED` from which on, `STRAND_SEED` runs one and prints its trace.

#[path = "../checker/mod.rs"]
mod checker;
mod cluster;
mod counts;
mod embedded;
#[path = "../fault_report/mod.rs"]
mod fault_report;
mod group;
mod happenings;
mod instance;
mod plan;
mod restore;
mod runtime;
mod scheduler;
mod sink;
mod source;
mod store;
mod world;

use checker::{Ends, Published, Verdict};
use cluster::Topic;
use counts::Counts;
use plan::{Plan, Transport};
use scheduler::Sim;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use strand::events::Events;
use strand::model::LookAhead;
use strand::model::Model;
use strand::model::testing::{TEXT, layers, look_ahead_spec, random_model, tiny_model};
use strand::rnn::Cell;
use strand::state::StreamState;
use world::World;

struct Ground {
    /// A strictly online model for even seeds, one that looks ahead for odd ones.
    models: [Arc<Model>; 2],
    events: Events,
}

/// What became of a seed.
struct Outcome {
    transport: Transport,
    counts: Counts,
    verdict: Verdict,
    failure: Option<String>,
    hash: u64,
    trace: String,
}

impl Ground {
    fn new() -> Ground {
        let (online, ahead) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tiny_model(online.path()).unwrap();
        let look_ahead = Some(LookAhead { steps: 3, block: Some(2) });
        let spec = look_ahead_spec("ahead", layers(&[Cell::Lstm], 8), look_ahead);
        random_model(ahead.path(), &spec, TEXT, 7).unwrap();
        let models = [&online, &ahead].map(|dir| Arc::new(Model::load(dir.path()).unwrap()));
        let events = Events::new(&models[0].spec().labels).unwrap();
        Ground { models, events }
    }

    fn run(&self, seed: u64, traced: bool) -> Outcome {
        let plan = Plan::new(seed);
        let model = &self.models[usize::from(seed % 2 == 1)];
        let transport = plan.transport;
        let ends = match (plan.state.stream_ttl.on(), transport) {
            (None, _) => Ends::Own,
            (Some(_), Transport::AtLeastOnce) => Ends::Untold,
            (Some(_), _) => Ends::Told,
        };
        let world = World::new(plan, traced, &self.events);
        let sim = Sim::new(world, model.clone(), self.events.clone());
        sim.run();
        let mut world = sim.world();
        let mut failure = world.failure.take();
        let mut verdict = Verdict::default();
        if failure.is_none() {
            verdict = checker::judge(model, &world.plan.records, &published(&world), &states(&world), ends);
            let is_good =
                if transport == Transport::AtLeastOnce { verdict.is_good() } else { verdict.is_exactly_once() };
            failure = (!is_good).then(|| format!("{verdict:?}"));
        }
        let counts = world.counted();
        let (hash, trace) = (world.trace_hash(), world.trace.take().unwrap_or_default());
        Outcome { transport, counts, verdict, failure, hash, trace }
    }

    /// Runs a seed; panics with its trace if it fails.
    fn check(&self, seed: u64) -> Outcome {
        let outcome = self.run(seed, false);
        if let Some(reason) = &outcome.failure {
            let again = self.run(seed, true);
            let same = if again.hash == outcome.hash { "" } else { " (which does not replay!)" };
            println!("{}", again.trace);
            panic!(
                "seed {seed}, {:?}: {reason}{same}\nagain: STRAND_SEED={seed} cargo test --release --test simulation",
                outcome.transport
            );
        }
        outcome
    }
}

/// What readers of committed records see of labels and dead letters.
fn published(world: &World) -> Vec<Published> {
    let logs = world.cluster.logs.iter().filter(|((topic, _), _)| *topic != Topic::Changelog);
    let messages = logs.flat_map(|((_, partition), log)| log.committed(0).map(|(_, message)| (*partition, message)));
    let published = messages.map(|(partition, message)| Published {
        stream: (partition, message.key.clone()),
        value: message.value.clone(),
        source: message.source.clone(),
        code: message.code.to_string(),
    });
    published.collect()
}

/// What whoever comes next would read of the streams.
fn states(world: &World) -> BTreeMap<checker::Stream, StreamState> {
    let mut tables: BTreeMap<i32, store::Rows> = BTreeMap::new();
    if world.plan.transport == Transport::Embedded {
        tables.insert(0, world.durable.rows(0));
    }
    for ((_, partition), log) in world.cluster.logs.iter().filter(|((topic, _), _)| *topic == Topic::Changelog) {
        for (_, message) in log.committed(0) {
            let key = message.key.as_deref().unwrap_or_default();
            store::put(tables.entry(*partition).or_default(), key, message.value.clone());
        }
    }
    let rows = tables.into_iter().flat_map(|(partition, rows)| rows.into_iter().map(move |row| (partition, row)));
    rows.map(|(partition, (key, state))| ((partition, Some(key)), StreamState::decode(&state).unwrap())).collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    counts: Counts,
    verdict: Verdict,
    by_transport: BTreeMap<&'static str, (u64, Verdict)>,
}

#[test]
fn whatever_happens_labels_are_those_of_an_undisturbed_pass() {
    let ground = Ground::new();
    if let Some(seed) = number("STRAND_SEED") {
        let outcome = ground.run(seed, true);
        println!("{}", outcome.trace);
        println!("seed {seed}, {:?}: {:?} {:?}", outcome.transport, outcome.counts, outcome.verdict);
        assert_eq!(outcome.failure, None);
        return;
    }
    let (first, count) = (number("STRAND_FIRST_SEED").unwrap_or(0), number("STRAND_SEEDS").unwrap_or(4000));
    let (begun, next, totals) = (Instant::now(), AtomicU64::new(first), Mutex::new(Totals::default()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    let outcome = ground.check(seed);
                    totals.lock().unwrap().add(&outcome);
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap();
    println!("{} seeds in {:.1} s", totals.seeds, begun.elapsed().as_secs_f64());
    println!("{:?}, {:.2} virtual hours", totals.counts, totals.counts.virtual_us as f64 / 3.6e9);
    for (transport, (seeds, verdict)) in &totals.by_transport {
        println!("{transport}: {seeds} seeds, {verdict:?}");
    }
    totals.report();
    if count >= 1000 {
        let Counts { crashes, zombies, rebalances, aborted, lost_answers, .. } = totals.counts;
        assert!([crashes, zombies, rebalances, aborted, lost_answers].iter().all(|some| *some > count / 10));
        assert!(totals.verdict.repeated > 0 && totals.verdict.letters > 0);
    }
}

impl Totals {
    /// One row of the table of faults for each transport.
    fn report(&self) {
        for (transport, (seeds, verdict)) in &self.by_transport {
            fault_report::report(&fault_report::Row {
                fault: "simulated: crashes at every step, freezes, lost answers, rebalances",
                transport,
                runs: *seeds,
                records: verdict.records as u64,
                lost: verdict.lost as u64,
                repeated: (verdict.repeated + verdict.letters_repeated) as u64,
                wrong: (verdict.wrong + verdict.contradicted + verdict.disordered) as u64,
                note: "each run a seed".to_string(),
            });
        }
    }

    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.counts.add(&outcome.counts);
        self.verdict.add(&outcome.verdict);
        let (seeds, verdict) = self.by_transport.entry(outcome.transport.name()).or_default();
        *seeds += 1;
        verdict.add(&outcome.verdict);
    }
}

/// A failing seed is of use only if it fails again.
#[test]
fn a_seed_is_one_run() {
    let ground = Ground::new();
    for seed in 0..60 {
        let (one, other) = (ground.run(seed, true), ground.run(seed, true));
        assert!(one.trace == other.trace, "seed {seed}:\n{}\n----\n{}", one.trace, other.trace);
        assert_eq!(one.hash, other.hash);
        assert!(one.trace.len() > 1000);
    }
}
