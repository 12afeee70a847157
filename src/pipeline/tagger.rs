//! The models that label: the one in production and, while its streams drain, the one before it.
//!
//! A live stream goes on with the model that made its state; every stream that begins is the production model's.

use crate::encode::{InputError, InputFormat};
use crate::events::Events;
use crate::model::generate::Prompt;
use crate::model::{Model, Session, StateError, StatePrecision, Stepper};
use std::sync::Arc;

/// A model, and how the pieces of its streams are read.
#[derive(Debug)]
pub struct Tagger {
    pub model: Arc<Model>,
    pub format: InputFormat,
    /// For output records.
    pub name: Arc<str>,
    /// For each of its labels, the place among those that are counted.
    places: Vec<Option<usize>>,
}

impl Tagger {
    pub fn new(model: Arc<Model>, format: InputFormat, events: &Events) -> Tagger {
        let places = model.spec().labels.iter().map(|label| events.place_of_label(label)).collect();
        Tagger { name: model.spec().name.as_str().into(), model, format, places }
    }

    /// Where the model's label with this number is counted.
    pub fn place(&self, label: usize) -> Option<usize> {
        self.places.get(label).copied().flatten()
    }
}

/// A live stream: its session, and the model that goes on with it.
#[derive(Debug, Clone)]
pub struct Live {
    pub tagger: Arc<Tagger>,
    pub session: Box<Session>,
}

impl Live {
    /// Whether the stream is written, so that its records are prompts.
    pub fn generates(&self) -> bool {
        self.tagger.model.spec().generate.is_some()
    }

    /// Takes a prompt; on an error nothing is changed.
    pub fn ask(&mut self, prompt: &[u8]) -> Result<(), InputError> {
        self.session.ask(&self.tagger.model, &Prompt::parse(prompt)?)
    }

    /// Takes a piece; on an error nothing is changed.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), InputError> {
        self.session.push(&self.tagger.model, self.tagger.format, piece)
    }

    pub fn finish_unit(&mut self) -> Result<(), InputError> {
        self.session.finish_unit(&self.tagger.model)
    }

    /// Drops an unfinished unit that is in the way of the next piece.
    pub fn drop_unit(&mut self) -> Result<(), InputError> {
        self.session.drop_unit(&self.tagger.model)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.session.memory());
        self.session.encode(&self.tagger.model, &mut bytes);
        bytes
    }
}

/// The models that there are. Cheap to clone; shared by the shards.
#[derive(Debug, Clone)]
pub struct Taggers {
    pub current: Arc<Tagger>,
    pub previous: Option<Arc<Tagger>>,
    /// How streams' h and c are kept between records, of whatever precision a stored state is.
    pub precision: StatePrecision,
}

impl Taggers {
    /// A stream that has seen nothing.
    pub fn begin(&self) -> Live {
        let session = Session::kept(&self.current.model, self.precision);
        Live { tagger: self.current.clone(), session: Box::new(session) }
    }

    /// A stream from its state, with the model that made it.
    pub fn decode(&self, bytes: &[u8]) -> Result<Live, StateError> {
        let found = Session::fingerprint(bytes)?;
        let previous = self.previous.as_ref().filter(|previous| previous.model.fingerprint() == found);
        // A state of neither is refused by the current one, which says so.
        let tagger = previous.unwrap_or(&self.current).clone();
        let session = Box::new(Session::decode(&tagger.model, bytes)?.kept_as(self.precision));
        Ok(Live { tagger, session })
    }

    /// Each of the models with what it needs to step.
    pub fn steppers(&self) -> Vec<(Arc<Tagger>, Stepper)> {
        let all = std::iter::once(&self.current).chain(&self.previous);
        all.map(|tagger| (tagger.clone(), Stepper::new(tagger.model.clone()))).collect()
    }
}
