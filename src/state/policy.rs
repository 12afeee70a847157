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

impl ModelPolicy {
    /// Whether there is a model here that goes on from states with this fingerprint.
    pub fn accepts(&self, fingerprint: &str) -> bool {
        self.fingerprint == fingerprint || self.previous.as_deref() == Some(fingerprint)
    }

    /// Whether a session's bytes are of a stream that goes on with the previous model.
    pub fn drains(&self, session: &[u8]) -> bool {
        self.previous.as_deref().is_some_and(|previous| made_by(session, previous))
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

/// Whether the model with this fingerprint made the session that these bytes are.
pub fn made_by(session: &[u8], fingerprint: &str) -> bool {
    Session::fingerprint(session).is_ok_and(|found| found == fingerprint)
}
