//! An instance of the daemon: the real pipeline on the model's transport.

use crate::embedded::{Atomic, Queue};
use crate::plan::Transport as Kind;
use crate::runtime::Virtual;
use crate::scheduler::Sim;
use crate::sink::KafkaSink;
use crate::source::KafkaSource;
use crate::store::FaultyStates;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use strand::config::InputConfig;
use strand::encode::InputFormat;
use strand::health::Health;
use strand::pipeline::{Parts, Pipeline};
use strand::state::States;
use strand::transport::{Sink, Source, Transport};

/// An instance's life on its coordinator's fiber, until it is asked to end (or crashes).
pub fn live(sim: &Arc<Sim>, instance: usize) {
    let (kind, pipeline, state, shutdown, states, next) = {
        let world = sim.world();
        let own = &world.instances[instance];
        let kind = world.plan.transport;
        let store = if kind == Kind::Embedded { world.durable.clone() } else { own.store.clone() };
        let states = FaultyStates {
            store,
            sim: sim.clone(),
            salt: world.plan.seed ^ (own.incarnation << 32) ^ ((instance as u64) << 56),
            failing_ppm: u64::from(world.plan.faults.load_ppm),
            failed: world.load_errors.clone(),
            reads: Mutex::new(HashMap::new()),
        };
        let (pipeline, state) = (world.plan.pipeline.clone(), world.plan.state.clone());
        (kind, pipeline, state, own.shutdown.clone(), states, world.durable_next)
    };
    let states: Arc<dyn States> = Arc::new(states);
    let (source, sink): (Box<dyn Source>, Box<dyn Sink>) = if kind == Kind::Embedded {
        let queue = Queue { sim: sim.clone(), instance, next, paused: false };
        (Box::new(queue), Box::new(Atomic { sim: sim.clone(), instance }))
    } else {
        (Box::new(KafkaSource::new(sim, instance)), Box::new(KafkaSink::new(sim, instance)))
    };
    let transport =
        Transport { source, sink, states: states.clone(), replays: kind != Kind::Embedded, end_streams_at_end: false };
    let parts = Parts {
        previous: None,
        model: sim.model.clone(),
        states,
        events: sim.events.clone(),
        input: &InputConfig::default(),
        format: (InputFormat::Text, None),
        pipeline: &pipeline,
        state: &state,
        runtime: Arc::new(Virtual { sim: sim.clone(), instance }),
    };
    let health = Health::new(sim.events.clone(), &["pipeline"]);
    let result = Pipeline::start(transport, &parts, health, shutdown).unwrap().run();
    let mut world = sim.world();
    if let Err(error) = result {
        return world.fail(format!("the pipeline gave up: {error}"));
    }
    world.note(Some(instance), &format_args!("ended in order"));
    world.ended(instance);
}
