//! One batch of one shard, labelled: the records of a stream one after the other, different streams together.
//!
//! In each round every stream that has records left takes one. A record's events are applied, its piece is pushed,
//! then all streams' waiting steps run through the network at once (those of each model, if there are two), then what
//! became final is written down.

use super::decode::{Decoder, Record, reject};
use super::output::render;
use super::residents::{Held, Slot};
use super::tagger::{Live, Tagger, Taggers};
use crate::encode::InputError;
use crate::events::{Events, Stage, Tally};
use crate::model::{Output, Session, Stepper, Task};
use crate::state::StreamId;
use crate::transport::{DeadLetter, Event, Origin, OutputRecord, RawRecord};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is asked of a stream.
#[derive(Debug)]
pub enum Job {
    /// Take a record.
    Record(RawRecord),
    /// End the stream if its last record came before this (Unix milliseconds).
    EndIdle { before_ms: u64 },
}

/// A stream with its jobs in this batch.
pub struct Active {
    pub stream: StreamId,
    pub slot: Slot,
    pub jobs: VecDeque<Job>,
    /// Its state is not what it was before the batch.
    pub changed: bool,
    current: Option<Current>,
}

/// The record that a stream takes in this round.
struct Current {
    record: Record,
    expires: bool,
    new_life: bool,
    /// What the stream was, to go back to if the piece is bad.
    before: Option<Held>,
    output: Output,
    /// The unfinished unit could not be completed.
    trouble: Option<InputError>,
}

/// What a batch leads to, beside changed states.
#[derive(Debug)]
pub struct Outcome {
    pub outputs: Vec<OutputRecord>,
    pub letters: Vec<DeadLetter>,
    pub tally: Tally,
}

/// An engine thread's means to label.
pub struct Labeller {
    taggers: Taggers,
    steppers: Vec<(Arc<Tagger>, Stepper)>,
    decoder: Decoder,
    /// Records at or below a stream's `seen` were taken before: [`crate::transport::Transport::replays`].
    replays: bool,
    events: Events,
}

impl Active {
    pub fn new(stream: StreamId, slot: Slot, jobs: VecDeque<Job>) -> Active {
        Active { stream, slot, jobs, changed: false, current: None }
    }
}

impl Labeller {
    pub fn new(taggers: &Taggers, decoder: Decoder, replays: bool, events: Events) -> Labeller {
        Labeller { steppers: taggers.steppers(), taggers: taggers.clone(), decoder, replays, events }
    }

    /// Does all jobs of `actives`; `now_ms` is written down as the streams' last activity.
    pub fn label(&mut self, actives: &mut [Active], now_ms: u64) -> Outcome {
        let mut outcome = Outcome { outputs: Vec::new(), letters: Vec::new(), tally: self.events.tally() };
        // Streams with most records first: those that take part in a round are always the first ones.
        actives.sort_by_key(|active| std::cmp::Reverse(active.jobs.len()));
        let mut taking = actives.len();
        let (mut decoding, mut rendering) = (Duration::ZERO, Duration::ZERO);
        loop {
            while taking > 0 && actives[taking - 1].jobs.is_empty() {
                taking -= 1;
            }
            if taking == 0 {
                break;
            }
            let [decode, render] = self.round(&mut actives[..taking], now_ms, &mut outcome);
            decoding += decode;
            rendering += render;
        }
        self.events.spent(Stage::Decode, decoding);
        self.events.spent(Stage::Render, rendering);
        outcome
    }

    /// One record of each stream. Returns the time for decoding and for rendering.
    fn round(&mut self, actives: &mut [Active], now_ms: u64, outcome: &mut Outcome) -> [Duration; 2] {
        let opening = Instant::now();
        for active in &mut *actives {
            self.open(active, now_ms, outcome);
        }
        let opening = opening.elapsed();
        self.step(actives);
        let feeding = Instant::now();
        for active in &mut *actives {
            self.feed(active, outcome);
        }
        let feeding = feeding.elapsed();
        self.step(actives);
        self.write(actives);
        let closing = Instant::now();
        for active in &mut *actives {
            self.close(active, now_ms, outcome);
        }
        [opening + feeding, closing.elapsed()]
    }

    /// Takes up the stream's next job and does what its event asks before the piece.
    fn open(&self, active: &mut Active, now_ms: u64, outcome: &mut Outcome) {
        let Some(job) = active.jobs.pop_front() else { return };
        let (record, expires) = match job {
            Job::EndIdle { before_ms } => {
                if !matches!(active.slot.held, Held::Live(_)) || active.slot.entry.active_ms >= before_ms {
                    return;
                }
                (self.decoder.decode(end_of(&active.stream, now_ms)), true)
            }
            Job::Record(raw) => {
                // Its labels were published before its stream's state said so.
                if self.replays && raw.origin.offset().is_some_and(|offset| offset <= active.slot.entry.seen) {
                    outcome.tally.skipped += 1;
                    return;
                }
                (self.decoder.decode(raw), false)
            }
        };
        let record = match record {
            Ok(record) => record,
            Err(letter) => return outcome.letters.push(*letter),
        };
        let mut current =
            Current { record, expires, new_life: false, before: None, output: Output::default(), trouble: None };
        let starts = current.record.event == Some(Event::Start);
        match &mut active.slot.held {
            Held::Damaged(reason) if !starts => {
                let detail = format!("the stream's state cannot be read ({reason}); \"start\" begins it anew");
                return outcome.letters.push(*reject(current.record.raw, "state_damaged", detail));
            }
            Held::Live(live) if !starts => {
                if current.record.event == Some(Event::Reset) {
                    current.before = Some(Held::Live(live.clone()));
                    current.trouble = live.finish_unit().err();
                }
            }
            held => {
                current.new_life = true;
                current.before = Some(std::mem::replace(held, Held::Live(self.taggers.begin())));
            }
        }
        active.current = Some(current);
    }

    /// Pushes the piece; what the event asks after it.
    fn feed(&self, active: &mut Active, outcome: &mut Outcome) {
        let Some(mut current) = active.current.take() else { return };
        let Held::Live(live) = &mut active.slot.held else { return };
        let event = current.record.event;
        if event == Some(Event::Reset) && !current.new_life {
            live.session.conclude(&live.tagger.model, &mut current.output);
            current.output.spans.extend(live.session.reset());
        }
        let piece = current.record.piece();
        if live.generates() {
            // An end or a reset without a prompt asks for nothing.
            let asks = !(piece.is_empty() && matches!(event, Some(Event::End | Event::Reset)));
            if let Err(error) = if asks { live.ask(piece) } else { Ok(()) } {
                if let Some(before) = current.before {
                    active.slot.held = before;
                }
                return outcome.letters.push(*reject(current.record.raw, error.code(), error.to_string()));
            }
            active.current = Some(current);
            return;
        }
        if !(piece.is_empty() && event.is_some())
            && let Err(error) = live.push(piece)
        {
            match without_pending(live, piece) {
                Some((healed, trouble)) => {
                    *live = healed;
                    current.trouble = Some(trouble);
                }
                None => {
                    if let Some(before) = current.before {
                        active.slot.held = before;
                    }
                    return outcome.letters.push(*reject(current.record.raw, error.code(), error.to_string()));
                }
            }
        }
        if matches!(event, Some(Event::Flush | Event::End))
            && let Err(trouble) = live.finish_unit()
        {
            current.trouble = Some(trouble);
        }
        active.current = Some(current);
    }

    /// Runs everything that waits through the network, together.
    fn step(&mut self, actives: &mut [Active]) {
        self.together(actives, Session::ready, Stepper::step);
    }

    /// Writes what prompts asked for, all streams together. What was given is no label.
    fn write(&mut self, actives: &mut [Active]) {
        for active in actives.iter_mut() {
            if let (Some(current), Held::Live(live)) = (&mut active.current, &active.slot.held)
                && live.generates()
            {
                current.output.labels.clear();
                current.output.surprises.clear();
            }
        }
        self.together(actives, Session::to_write, Stepper::generate);
    }

    /// Does something with all sessions that have steps to do, those of each model together.
    fn together(
        &mut self,
        actives: &mut [Active],
        to_do: fn(&Session) -> usize,
        run: fn(&mut Stepper, &mut [&mut Session], &mut [Output]),
    ) {
        for (tagger, stepper) in &mut self.steppers {
            let (mut sessions, mut outputs, mut places, mut steps) = (Vec::new(), Vec::new(), Vec::new(), 0);
            for active in actives.iter_mut() {
                if let (Some(current), Held::Live(live)) = (&mut active.current, &mut active.slot.held)
                    && to_do(&live.session) > 0
                    && Arc::ptr_eq(&live.tagger, tagger)
                {
                    steps += to_do(&live.session);
                    outputs.push(std::mem::take(&mut current.output));
                    places.push(&mut current.output);
                    sessions.push(live.session.as_mut());
                }
            }
            if sessions.is_empty() {
                continue;
            }
            let start = Instant::now();
            run(stepper, &mut sessions, &mut outputs);
            self.events.stepped(sessions.len(), steps, start.elapsed());
            for (place, output) in places.into_iter().zip(outputs) {
                *place = output;
            }
        }
    }

    /// Writes down what became final.
    fn close(&self, active: &mut Active, now_ms: u64, outcome: &mut Outcome) {
        let Some(mut current) = active.current.take() else { return };
        let Held::Live(live) = &mut active.slot.held else { return };
        let tagger = live.tagger.clone();
        let ends = current.record.event == Some(Event::End);
        if current.record.event == Some(Event::Flush) {
            live.session.settle(&tagger.model, &mut current.output);
        }
        live.session.tell(&tagger.model, &mut current.output);
        if ends {
            live.session.conclude(&tagger.model, &mut current.output);
            current.output.spans.extend(live.session.end());
            active.slot.held = Held::None;
        }
        let entry = &mut active.slot.entry;
        if current.new_life {
            (entry.records, entry.labels, entry.position) = (0, 0, 0);
        }
        entry.labels += current.output.labels.len() as u64;
        entry.position = current.output.labels.last().map_or(entry.position, |label| label.end);
        entry.position = current.output.translations.last().map_or(entry.position, |translation| translation.end);
        entry.ended = ends;
        entry.active_ms = now_ms;
        let raw = current.record.raw;
        let tally = &mut outcome.tally;
        if !current.expires {
            entry.seen = raw.origin.offset().unwrap_or(entry.seen);
            entry.records += 1;
            tally.records += 1;
            tally.bytes += raw.value.len() as u64;
        }
        tally.ended += u64::from(ends && !current.expires);
        tally.expired += u64::from(current.expires);
        tally.unknown += current.output.unknown as u64;
        for label in &current.output.labels {
            tally.label(tagger.place(label.label), label.score);
        }
        if tagger.model.spec().task == Task::LanguageModel {
            let units = current.output.labels.iter().zip(&current.output.surprises);
            units.for_each(|(unit, &nats)| tally.unit(nats, unit.label > 0));
        }
        let seq = entry.next_seq;
        entry.next_seq += 1;
        active.changed = true;
        let value = render(tagger.model.spec(), &active.stream.text(), seq, &current.output, ends);
        // The record is taken all the same; only what was unfinished before its event is lost.
        if let Some(error) = current.trouble {
            let what = "the record was taken, but what earlier records left unfinished is dropped";
            let detail = format!("{what}: it ends within a character");
            outcome.letters.push(*reject(raw.clone(), error.code(), detail));
        }
        let (stream, model) = (active.stream.clone(), tagger.name.clone());
        outcome.outputs.push(OutputRecord { stream, seq, model, input: raw, value });
    }
}

/// Where half a character of an earlier record is what makes this piece bad: the stream after dropping that unit and
/// taking the piece, and what was wrong with the unit. Otherwise it could never go on.
fn without_pending(live: &Live, piece: &[u8]) -> Option<(Live, InputError)> {
    std::str::from_utf8(live.session.pending()).err()?;
    let mut healed = live.clone();
    let trouble = healed.drop_unit().err()?;
    healed.push(piece).ok()?;
    Some((healed, trouble))
}

/// The record that stands for a stream's end by the daemon itself.
fn end_of(stream: &StreamId, now_ms: u64) -> RawRecord {
    RawRecord {
        origin: Origin::Strand,
        key: Some(stream.as_bytes().to_vec()),
        value: Vec::new(),
        headers: Event::headers(Some(Event::End)),
        timestamp_ms: now_ms,
        defect: None,
    }
}

#[cfg(test)]
mod tests;
