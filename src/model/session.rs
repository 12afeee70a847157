//! One stream's life: [`Session`] holds everything that is carried from record to record; [`Stepper`] runs the
//! network over the waiting steps of many sessions at once. A session as bytes is in [`super::state`].

use super::decode::{DecodeScratch, Decoding};
use super::generate::Generation;
use super::genes::{Gene, Genes};
use super::language::{Likelihood, Weighing};
use super::lookahead::AheadLane;
use super::network::{Lane, MAX_NUMBERS, Scratch};
use super::numbers::{Numbers, StatePrecision, round, widen};
use super::transcribe::{Found, Transcript};
use super::{Model, Span, SpanDecoder, Translation};
use crate::encode::{Features, InputError, InputFormat, ReaderState, Unit};
use crate::rnn::ahead::Window;
use std::ops::Range;
use std::sync::Arc;

/// Everything a stream carries: unfinished input, steps that wait for the network or for those that it looks ahead to, h
/// and c of every layer, what is pooled, the open span, steps that wait for their label, positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    pub(super) reader: ReaderState,
    pub(super) state: Numbers,
    /// What a classifier has pooled so far, always exact; of a language model whether there was a unit (1 or 0), and the
    /// last output, of which the next unit is told. Empty for other tasks.
    pub(super) pool: Box<[f32]>,
    /// Of a language model; else none.
    pub(super) likelihood: Likelihood,
    /// How it is written, for the task `generate`.
    pub(super) generation: Generation,
    pub(super) spans: SpanDecoder,
    pub(super) decoding: Decoding,
    /// Of a transcriber: symbols that are not final.
    pub(super) transcript: Transcript,
    pub(super) genes: Genes,
    pub(super) steps: u64,
    pub(super) units: Vec<Unit>,
    pub(super) features: Features,
    /// What the model's bidirectional layers see.
    pub(super) window: Option<Window>,
    /// What waits is labelled without what may follow.
    pub(super) closing: bool,
}

/// The label of one step; from a classifier that of the stretch `start..end`, without text.
#[derive(Debug, Clone, PartialEq)]
pub struct StepLabel {
    pub start: u64,
    pub end: u64,
    pub text: String,
    /// Index into [`super::ModelSpec::labels`].
    pub label: usize,
    /// Probability of the label, 0..=1.
    pub score: f32,
}

/// What became final: labels in order of the stream, and spans that closed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output {
    pub labels: Vec<StepLabel>,
    pub spans: Vec<Span>,
    /// Steps that went through the network.
    pub steps: usize,
    /// Steps whose word or event was not in the vocabulary.
    pub unknown: usize,
    /// From a classifier: the probabilities of all labels for each of `labels`, `[labels, model's labels]`.
    pub probabilities: Vec<f32>,
    /// From a language model: -ln P, in nats, of each of `labels`.
    pub surprises: Vec<f32>,
    /// From a language model: how likely the stream was so far.
    pub likelihood: Option<Likelihood>,
    /// From a translator, in the place of labels.
    pub translations: Vec<Translation>,
    /// Where the model finds genes: more of each of `spans`.
    pub genes: Vec<Gene>,
}

impl Session {
    /// A stream that has seen nothing.
    pub fn new(model: &Model) -> Session {
        Session::kept(model, StatePrecision::F32)
    }

    /// A stream that has seen nothing, whose h and c are kept with this precision between two steps of [`Stepper`].
    pub fn kept(model: &Model, precision: StatePrecision) -> Session {
        Session {
            reader: ReaderState::default(),
            state: Numbers::zeros(model.network.state_len(), precision),
            pool: vec![0.0; model.network.pool_len()].into(),
            likelihood: Likelihood::default(),
            generation: Generation::default(),
            spans: SpanDecoder::default(),
            decoding: Decoding::default(),
            transcript: Transcript::default(),
            genes: Genes::default(),
            steps: 0,
            units: Vec::new(),
            features: Features::default(),
            window: model.network.shape().window,
            closing: false,
        }
    }

    /// The same stream with its h and c kept with this precision: rounded now, if they were kept more exactly.
    pub fn kept_as(self, precision: StatePrecision) -> Session {
        Session { state: self.state.kept_as(precision), ..self }
    }

    /// Takes a piece of the stream; whole units wait for [`Stepper::step`]. On an error the session is unchanged.
    pub fn push(&mut self, model: &Model, format: InputFormat, bytes: &[u8]) -> Result<(), InputError> {
        model.encoder.push(&mut self.reader, format, bytes, &mut self.units, &mut self.features)
    }

    /// Takes tokens that are cut already (from CoNLL files).
    pub fn push_tokens(&mut self, model: &Model, tokens: &[impl AsRef<str>]) {
        model.encoder.push_tokens(&mut self.reader, tokens, &mut self.units, &mut self.features);
    }

    /// The unfinished unit (a word without its end) is complete as it stands; the stream goes on (`flush`) or ends.
    /// Labels no longer wait for steps to come: all are final after the next [`Stepper::step`].
    /// On an error (the pending bytes are no whole character, say) what was pending is dropped.
    pub fn finish_unit(&mut self, model: &Model) -> Result<(), InputError> {
        let finished = self.drop_unit(model);
        self.closing = self.features.steps > 0;
        finished
    }

    /// As [`Session::finish_unit`], for an unfinished unit that is in the way: labels wait as they did.
    pub fn drop_unit(&mut self, model: &Model) -> Result<(), InputError> {
        model.encoder.finish(&mut self.reader, &mut self.units, &mut self.features)
    }

    /// The input of the steps that wait.
    pub(crate) fn into_features(self) -> Features {
        self.features
    }

    /// Steps without a label: they wait for the network, or for steps that it looks ahead to.
    pub fn waiting(&self) -> usize {
        self.features.steps
    }

    /// Steps that the next [`Stepper::step`] labels.
    pub fn ready(&self) -> usize {
        self.window.map_or(self.waiting(), |window| window.ready(self.waiting(), self.closing))
    }

    /// Steps that went through the network since the stream's start.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Position of the next unit since the stream's start, in characters, bases or steps.
    pub fn position(&self) -> u64 {
        self.reader.position
    }

    /// Bytes of an unfinished unit that wait for their end.
    pub fn pending(&self) -> &[u8] {
        &self.reader.pending
    }

    /// Sets h and c to zero and closes the open span (returned); positions go on. Call with nothing waiting, after
    /// [`Session::conclude`].
    pub fn reset(&mut self) -> Option<Span> {
        assert_eq!((self.waiting(), self.undecided()), (0, 0), "a session is concluded, then reset");
        self.state.clear();
        self.pool.fill(0.0);
        self.likelihood = Likelihood::default();
        self.generation = Generation::default();
        self.reader.context.clear();
        self.spans.finish()
    }

    /// Closes the open span: the stream is over. Call with nothing waiting, after [`Session::conclude`].
    pub fn end(&mut self) -> Option<Span> {
        assert_eq!((self.waiting(), self.undecided()), (0, 0), "a session is concluded, then ends");
        self.spans.finish()
    }

    /// Drops the first steps, which have their labels.
    fn forget(&mut self, steps: usize, model: &Model) {
        self.closing = false;
        if steps == self.features.steps {
            self.units = Vec::new();
            self.features = Features::default();
            return;
        }
        if steps == 0 {
            return;
        }
        self.units.drain(..steps);
        let mut rest = Features::default();
        rest.append_range(&self.features, steps, self.features.steps, model.encoder.layout());
        self.features = rest;
    }

    /// Bytes of memory this session holds, about.
    pub fn memory(&self) -> usize {
        let waiting = self.units.capacity() * size_of::<Unit>()
            + 4 * (self.features.ids.capacity() + self.features.dense.capacity() + self.features.chars.capacity());
        size_of::<Session>()
            + self.state.precision().bytes() * self.state.len()
            + 4 * self.pool.len()
            + self.decoding.memory()
            + self.transcript.memory()
            + self.genes.memory()
            + self.reader.pending.capacity()
            + self.reader.context.capacity()
            + waiting
    }
}

/// One engine thread: the model and the scratch space of its steps.
pub struct Stepper {
    pub(super) model: Arc<Model>,
    pub(super) scratch: Scratch,
    pub(super) probabilities: Vec<Vec<f32>>,
    by_label: Vec<f32>,
    decode: DecodeScratch,
    found: Vec<Found>,
    /// h and c of the sessions that keep them rounded, one after the other.
    wide: Vec<f32>,
    pub(super) weighing: Weighing,
}

impl Stepper {
    pub fn new(model: Arc<Model>) -> Stepper {
        Stepper {
            model,
            scratch: Scratch::default(),
            probabilities: Vec::new(),
            by_label: Vec::new(),
            decode: DecodeScratch::default(),
            found: Vec::new(),
            wide: Vec::new(),
            weighing: Weighing::default(),
        }
    }

    /// How many threads a lone long stream may take: this one, and another if more than 1. The labels are the same.
    pub fn spread(&mut self, threads: usize) {
        self.scratch.threads = threads;
    }

    /// Steps everything that waits in `sessions`, together; what became final is appended to `outputs[k]` for
    /// `sessions[k]`. Bit for bit the same however the sessions are batched and their input was cut; where h and c are
    /// kept rounded, which they are at the end of each call, however they are batched.
    pub fn step(&mut self, sessions: &mut [&mut Session], outputs: &mut [Output]) {
        assert_eq!(sessions.len(), outputs.len(), "one output a session");
        let model = self.model.clone();
        if model.spec.decoder.is_some() {
            super::transduce::step(&model, sessions, outputs);
            for (session, output) in sessions.iter_mut().zip(outputs) {
                let sentences = session.ready();
                output.steps += sentences;
                session.steps += sentences as u64;
                session.forget(sentences, &model);
            }
            return;
        }
        let longest = sessions.iter().map(|session| session.ready()).max().unwrap_or(0);
        self.wide.clear();
        for session in sessions.iter() {
            if let Numbers::Bf16(numbers) = &session.state {
                self.wide.extend(numbers.iter().map(|x| widen(*x)));
            }
        }
        // So many steps of every session that their probabilities stay within bounds, however long a record is.
        let width = match model.network.pool_len() {
            0 => model.class_label.len(),
            _ => model.network.shape().top(),
        };
        let at_once = (MAX_NUMBERS / (width * sessions.len().max(1))).max(1);
        let at_once = model.network.shape().window.map_or(at_once, |window| at_once.next_multiple_of(window.block));
        for from in (0..longest).step_by(at_once) {
            self.step_range(&model, from..from.saturating_add(at_once), sessions, outputs);
        }
        let mut wide = &self.wide[..];
        for (session, output) in sessions.iter_mut().zip(outputs) {
            let ready = session.ready();
            output.steps += ready;
            if let Numbers::Bf16(numbers) = &mut session.state {
                let (own, rest) = wide.split_at(numbers.len());
                numbers.iter_mut().zip(own).for_each(|(kept, x)| *kept = round(*x));
                wide = rest;
            }
            session.steps += ready as u64;
            session.forget(ready, &model);
        }
    }

    /// Those of the steps that are ready.
    fn step_range(
        &mut self,
        model: &Model,
        steps: Range<usize>,
        sessions: &mut [&mut Session],
        outputs: &mut [Output],
    ) {
        self.probabilities.resize_with(self.probabilities.len().max(sessions.len()), Vec::new);
        let window = model.network.shape().window;
        let mut lanes: Vec<Lane<'_>> = Vec::with_capacity(sessions.len());
        // Of each lane, where the network looks ahead; elsewhere all steps are.
        let mut are_ready = Vec::new();
        let mut wide = &mut self.wide[..];
        for (session, probabilities) in sessions.iter_mut().zip(&mut self.probabilities) {
            probabilities.clear();
            let ready = session.ready();
            let Session { features, state, .. } = &mut **session;
            let state = match state {
                Numbers::F32(numbers) => &mut numbers[..],
                Numbers::Bf16(numbers) => {
                    let (own, rest) = wide.split_at_mut(numbers.len());
                    wide = rest;
                    own
                }
            };
            if ready > steps.start {
                lanes.push(Lane { features, state, probabilities });
                are_ready.extend(window.map(|_| ready));
            }
        }
        if let Some(window) = window {
            let lanes = lanes.into_iter().zip(are_ready);
            let mut lanes: Vec<AheadLane<'_>> = lanes.map(|(lane, ready)| AheadLane { lane, ready }).collect();
            let blocks = steps.start / window.block..steps.end.div_ceil(window.block);
            model.network.forward_ahead(&mut lanes, blocks, &mut self.scratch);
        } else {
            if let Some(classify) = &model.spec.classify {
                model.network.outputs_range(&mut lanes, steps.clone(), &mut self.scratch);
                for ((session, output), outputs) in sessions.iter_mut().zip(outputs).zip(&self.probabilities) {
                    session.pool(model, classify, steps.clone(), outputs, output);
                }
                return;
            }
            if model.network.shape().tells_next() {
                model.network.outputs_range(&mut lanes, steps.clone(), &mut self.scratch);
                return self.weigh(model, steps, sessions, outputs);
            }
            model.network.forward_range(&mut lanes, steps.clone(), &mut self.scratch);
        }
        let classes = model.class_label.len();
        let tables = model.encoder.layout().tables.len();
        for ((session, output), probabilities) in sessions.iter_mut().zip(outputs).zip(&self.probabilities) {
            for (k, p) in steps.clone().zip(probabilities.chunks_exact(classes)) {
                let unit = &mut session.units[k];
                let unit = Unit { start: unit.start, end: unit.end, text: std::mem::take(&mut unit.text) };
                output.unknown +=
                    usize::from(model.encoder.is_unknown(&session.features.ids[k * tables..(k + 1) * tables]));
                if model.transcriber.is_some() {
                    session.hear(model, p, &unit, &mut self.found, output);
                    continue;
                }
                if let Some(finder) = &model.genes {
                    finder.push(&mut session.genes, p, &unit.text, unit.start, output);
                }
                let decided = match &model.decoder {
                    Some(decoder) => decoder.push(&mut session.decoding, p, unit, &mut self.decode),
                    None => {
                        let (label, score) = best(p, &model.class_label, model.spec.labels.len(), &mut self.by_label);
                        let Unit { start, end, text } = unit;
                        Some(StepLabel { start, end, text, label, score })
                    }
                };
                if let Some(step) = decided {
                    session.publish(model, step, output);
                }
            }
        }
    }
}

/// The likeliest label (the first of equals) and its probability; classes of one label are added up.
pub(crate) fn best(p: &[f32], class_label: &[usize], labels: usize, sums: &mut Vec<f32>) -> (usize, f32) {
    sums.clear();
    sums.resize(labels, 0.0);
    for (&p, &label) in p.iter().zip(class_label) {
        sums[label] += p;
    }
    let mut top = 0;
    for label in 1..labels {
        if sums[label] > sums[top] {
            top = label;
        }
    }
    (top, sums[top].min(1.0))
}
