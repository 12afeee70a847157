//! The workload checker: reads what was published, and decides what was lost, repeated, reordered or wrong, against one
//! offline pass over each stream.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use strand::encode::InputFormat;
use strand::model::{Model, Output, Session, Span, Stepper};
use strand::state::StreamState;
use strand::transport::{EVENT_HEADER, Event, Origin, RawRecord};

/// A stream: its partition and its key.
pub type Stream = (i32, Option<Vec<u8>>);

/// A label record or a dead letter, as a reader of committed records sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    pub stream: Stream,
    pub value: Vec<u8>,
    /// `strand-source`: which record led to it, or `strand`.
    pub source: String,
    /// `strand-error`; nothing for labels.
    pub code: String,
}

/// What a run made of its input, against what an undisturbed pass makes of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub records: usize,
    pub streams: usize,
    pub labels: usize,
    pub letters: usize,
    /// Input records of which neither labels nor a dead letter was published.
    pub lost: usize,
    /// Labels, dead letters or states that differ from the undisturbed pass's.
    pub wrong: usize,
    /// Published again with another content.
    pub contradicted: usize,
    /// Published after what a later record of the stream led to.
    pub disordered: usize,
    /// Published again, the same in every respect.
    pub repeated: usize,
    pub letters_repeated: usize,
    /// The first thing that is not as it should be.
    pub example: String,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        (self.lost, self.wrong, self.contradicted, self.disordered) == (0, 0, 0, 0)
    }

    pub fn is_exactly_once(&self) -> bool {
        self.is_good() && (self.repeated, self.letters_repeated) == (0, 0)
    }

    pub fn add(&mut self, other: &Verdict) {
        self.records += other.records;
        self.streams += other.streams;
        self.labels += other.labels;
        self.letters += other.letters;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.contradicted += other.contradicted;
        self.disordered += other.disordered;
        self.repeated += other.repeated;
        self.letters_repeated += other.letters_repeated;
    }

    fn blame(&mut self, what: impl FnOnce() -> String) {
        if self.example.is_empty() {
            self.example = what();
        }
    }
}

/// What may differ from the pass over the input alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Nothing: streams end by their own records.
    Own,
    /// Streams were ended by the daemon too; each time it says so in an output whose source is `strand`.
    Told,
    /// The same, but after a crash such an output may stand though the stream went on: only that nothing is lost and that
    /// all is in order can be said.
    Untold,
}

#[derive(Serialize)]
struct Json<'a> {
    stream: &'a str,
    seq: u64,
    model: &'a str,
    labels: Vec<Label<'a>>,
    spans: &'a [Span],
    r#final: bool,
}

#[derive(Serialize)]
struct Label<'a> {
    start: u64,
    end: u64,
    text: &'a str,
    label: &'a str,
    score: f32,
}

/// One stream, labelled record by record and without anything around it.
struct Offline<'a> {
    model: &'a Arc<Model>,
    stepper: Stepper,
    name: String,
    session: Option<Session>,
    next_seq: u64,
    seen: i64,
}

/// What a record leads to.
#[derive(Default)]
struct Made {
    output: Option<Vec<u8>>,
    code: Option<&'static str>,
}

impl<'a> Offline<'a> {
    fn new(model: &'a Arc<Model>, key: &[u8]) -> Offline<'a> {
        let name = String::from_utf8_lossy(key).into_owned();
        Offline { model, stepper: Stepper::new(model.clone()), name, session: None, next_seq: 0, seen: -1 }
    }

    fn take(&mut self, record: &RawRecord) -> Made {
        let header = record.headers.iter().find(|(name, _)| name == EVENT_HEADER);
        let event = match header.map(|(_, value)| String::from_utf8_lossy(value.as_deref().unwrap()).parse::<Event>()) {
            None => None,
            Some(Ok(event)) => Some(event),
            Some(Err(_)) => return Made { code: Some("unknown_event"), ..Made::default() },
        };
        let before = self.session.clone();
        let (mut output, mut trouble) = (Output::default(), None);
        let continued = self.session.take().filter(|_| event != Some(Event::Start));
        let continues = continued.is_some();
        let mut session = continued.unwrap_or_else(|| Session::new(self.model));
        if continues && event == Some(Event::Reset) {
            trouble = session.finish_unit(self.model).err();
            self.stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
            session.conclude(self.model, &mut output);
            output.spans.extend(session.reset());
        }
        if !(record.value.is_empty() && event.is_some())
            && let Err(error) = session.push(self.model, InputFormat::Text, &record.value)
        {
            // Half a character before it may be to blame: without that, once more.
            let blames_pending = std::str::from_utf8(session.pending()).is_err();
            let dropped = if blames_pending { session.drop_unit(self.model).err() } else { None };
            match dropped {
                Some(error) if session.push(self.model, InputFormat::Text, &record.value).is_ok() => {
                    trouble = Some(error);
                }
                _ => {
                    self.session = before;
                    return Made { code: Some(error.code()), ..Made::default() };
                }
            }
        }
        let ends = event == Some(Event::End);
        if ends || event == Some(Event::Flush) {
            trouble = session.finish_unit(self.model).err().or(trouble);
        }
        self.stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
        if event == Some(Event::Flush) {
            session.settle(self.model, &mut output);
        }
        if ends {
            session.conclude(self.model, &mut output);
            output.spans.extend(session.end());
        } else {
            self.session = Some(session);
        }
        self.seen = record.origin.offset().unwrap_or(self.seen);
        Made { output: Some(self.render(&output, ends)), code: trouble.map(|error| error.code()) }
    }

    /// The daemon ends the stream.
    fn expire(&mut self) -> Option<Vec<u8>> {
        let mut session = self.session.take()?;
        let mut output = Output::default();
        // What is unfinished and no whole character is dropped.
        let _ = session.finish_unit(self.model);
        self.stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
        session.conclude(self.model, &mut output);
        output.spans.extend(session.end());
        Some(self.render(&output, true))
    }

    fn render(&mut self, output: &Output, ends: bool) -> Vec<u8> {
        let spec = self.model.spec();
        let labels = output.labels.iter().map(|step| Label {
            start: step.start,
            end: step.end,
            text: &step.text,
            label: &spec.labels[step.label],
            score: step.score,
        });
        let (labels, spans, seq) = (labels.collect(), &output.spans[..], self.next_seq);
        self.next_seq += 1;
        serde_json::to_vec(&Json { stream: &self.name, seq, model: &spec.name, labels, spans, r#final: ends }).unwrap()
    }

    /// Whether this is what is kept of the stream.
    fn is_state(&self, state: Option<&StreamState>) -> bool {
        let Some(state) = state else { return self.next_seq == 0 };
        let session = self.session.as_ref().map(|session| {
            let mut bytes = Vec::new();
            session.encode(self.model, &mut bytes);
            bytes
        });
        (state.entry.next_seq, state.entry.seen, &state.session) == (self.next_seq, self.seen, &session)
    }
}

/// A stream's records, labels and dead letters.
type OfStream<'a> = (Vec<&'a RawRecord>, Vec<&'a Published>, Vec<&'a Published>);

/// Judges what was published of `records` (each stream's in order), in the order in which it can be read. `states`: what
/// is kept of the streams in the end.
pub fn judge(
    model: &Arc<Model>,
    records: &[RawRecord],
    published: &[Published],
    states: &BTreeMap<Stream, StreamState>,
    ends: Ends,
) -> Verdict {
    let mut streams: BTreeMap<Stream, OfStream<'_>> = BTreeMap::new();
    for record in records {
        let Origin::Record { partition, .. } = record.origin else { continue };
        streams.entry((partition, record.key.clone())).or_default().0.push(record);
    }
    let mut verdict = Verdict { records: records.len(), streams: streams.len(), ..Verdict::default() };
    for one in published {
        // The daemon ended a stream within a character: told in partition 0 whatever the stream's.
        if one.source == "strand" && !one.code.is_empty() && ends != Ends::Own {
            continue;
        }
        match streams.get_mut(&one.stream) {
            Some((_, labels, _)) if one.code.is_empty() => labels.push(one),
            Some((.., letters)) => letters.push(one),
            None => {
                verdict.wrong += 1;
                verdict.blame(|| format!("of no stream: {one:?}"));
            }
        }
    }
    for (stream, (records, labels, letters)) in &streams {
        verdict.judge_stream(model, stream, records, labels, letters, states.get(stream), ends);
    }
    verdict
}

impl Verdict {
    #[expect(clippy::too_many_arguments, reason = "all that there is of a stream")]
    fn judge_stream(
        &mut self,
        model: &Arc<Model>,
        stream: &Stream,
        records: &[&RawRecord],
        labels: &[&Published],
        letters: &[&Published],
        state: Option<&StreamState>,
        ends: Ends,
    ) {
        let (labels, repeated) = self.first_of_each(labels, ends);
        let (letters, letters_repeated) = self.first_of_each(letters, ends);
        (self.repeated, self.letters_repeated) = (self.repeated + repeated, self.letters_repeated + letters_repeated);
        (self.labels, self.letters) = (self.labels + labels.len(), self.letters + letters.len());
        let is_there = |source: &String| labels.iter().chain(&letters).any(|one| one.source == *source);
        for source in records.iter().map(|record| record.origin.to_string()) {
            if !is_there(&source) {
                self.lost += 1;
                self.blame(|| format!("lost: {source} of {stream:?}"));
            }
        }
        if ends == Ends::Untold {
            return;
        }
        let mut offline = Offline::new(model, stream.1.as_deref().unwrap_or_default());
        let mut labels = labels.into_iter().peekable();
        let mut letters: BTreeMap<&str, &str> = letters.iter().map(|l| (l.source.as_str(), l.code.as_str())).collect();
        for record in records {
            while let Some(told) = labels.next_if(|one| one.source == "strand") {
                self.compare(stream, Some(told), offline.expire());
            }
            let source = record.origin.to_string();
            let made = match &record.key {
                Some(_) => offline.take(record),
                None => Made { code: Some("missing_key"), ..Made::default() },
            };
            let given = labels.next_if(|one| one.source == source);
            // That it is not there was counted already.
            if given.is_some() || made.output.is_none() {
                self.compare(stream, given, made.output);
            }
            let code = letters.remove(source.as_str());
            if code != made.code {
                self.wrong += 1;
                self.blame(|| format!("{source} of {stream:?}: dead letter {code:?}, expected {:?}", made.code));
            }
        }
        while let Some(told) = labels.next_if(|one| one.source == "strand") {
            self.compare(stream, Some(told), offline.expire());
        }
        for left in labels {
            self.compare(stream, Some(left), None);
        }
        for (source, code) in letters {
            self.wrong += 1;
            self.blame(|| format!("{source} of {stream:?}: dead letter {code}"));
        }
        if !offline.is_state(state) {
            self.wrong += 1;
            let entry = state.map(|state| state.entry);
            let expected = (offline.next_seq, offline.seen, offline.session.is_some());
            self.blame(|| format!("state of {stream:?}: {entry:?}, expected next_seq, seen, live: {expected:?}"));
        }
    }

    fn compare(&mut self, stream: &Stream, given: Option<&Published>, expected: Option<Vec<u8>>) {
        if given.map(|given| &given.value) != expected.as_ref() {
            self.wrong += 1;
            let text = |bytes: Option<&Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            let source = given.map(|given| given.source.clone());
            let (given, expected) = (text(given.map(|given| &given.value)), text(expected.as_ref()));
            self.blame(|| format!("{source:?} of {stream:?}: {given:?}, expected {expected:?}"));
        }
    }

    /// Each source's first, and how many came again; those must be equal.
    fn first_of_each<'a>(&mut self, all: &[&'a Published], ends: Ends) -> (Vec<&'a Published>, usize) {
        let mut first: Vec<&Published> = Vec::new();
        let (mut latest, mut repeated) = (-1, 0);
        for one in all {
            let offset = one.source.rsplit('/').next().and_then(|offset| offset.parse::<i64>().ok());
            let Some(offset) = offset else {
                if ends != Ends::Untold {
                    first.push(one);
                }
                continue;
            };
            match first.iter().find(|before| before.source == one.source) {
                Some(before) if before == one => {
                    repeated += 1;
                    self.blame(|| format!("repeated: {one:?}"));
                }
                // A stream that the daemon ended, or not, goes on in another way.
                Some(_) if ends == Ends::Untold => repeated += 1,
                Some(before) => {
                    self.contradicted += 1;
                    self.blame(|| format!("contradicted: {before:?} then {one:?}"));
                }
                None => {
                    if offset < latest {
                        self.disordered += 1;
                        self.blame(|| format!("after a later one: {one:?}"));
                    }
                    latest = offset;
                    first.push(one);
                }
            }
        }
        (first, repeated)
    }
}
