//! Whose states a store takes up.

use crate::config::OnModelChange;
use crate::model::Session;

/// The models whose states are taken up, and what is done with those of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPolicy {
    /// Fingerprint of the model in production.
    pub fingerprint: String,
    /// Of the model before it, whose streams go on with it until they end: `on_model_change = "drain"`.
    pub previous: Option<String>,
    pub on_model_change: OnModelChange,
}

/// Who made a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    Current,
    Previous,
    /// A model that is not there.
    Other,
}

impl ModelPolicy {
    /// Whether there is a model here that goes on from states with this fingerprint.
    pub fn accepts(&self, fingerprint: &str) -> bool {
        self.fingerprint == fingerprint || self.previous.as_deref() == Some(fingerprint)
    }

    /// By which model a session was made, of which these are the bytes.
    pub fn maker(&self, session: &[u8]) -> Maker {
        if Session::is_made_by(session, &self.fingerprint) {
            Maker::Current
        } else if self.previous.as_deref().is_some_and(|previous| Session::is_made_by(session, previous)) {
            Maker::Previous
        } else {
            Maker::Other
        }
    }

    /// The models that there are, for people.
    pub fn given(&self) -> String {
        match &self.previous {
            None => format!("the model given is {:.12}…", self.fingerprint),
            Some(previous) => {
                format!("the model given is {:.12}…, previous_model is {previous:.12}…", self.fingerprint)
            }
        }
    }
}
