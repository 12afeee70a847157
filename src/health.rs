//! What the daemon still waits for, or has trouble with: the words behind `/readyz`.

use crate::events::Events;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared by the parts of the daemon; each says for itself whether it is ready. Ready when none has a reason not to be.
#[derive(Clone)]
pub struct Health {
    /// Part and reason.
    troubles: Arc<Mutex<BTreeMap<&'static str, String>>>,
    events: Events,
}

impl Health {
    /// Not ready until [`Health::fine`] was called for each of `parts`.
    pub fn new(events: Events, parts: &[&'static str]) -> Health {
        let troubles = parts.iter().map(|part| (*part, "starting".to_string())).collect();
        Health { troubles: Arc::new(Mutex::new(troubles)), events }
    }

    pub fn fine(&self, part: &'static str) {
        let mut troubles = self.lock();
        if troubles.remove(part).is_some() && troubles.is_empty() {
            self.events.ready();
        }
    }

    pub fn trouble(&self, part: &'static str, reason: String) {
        let mut troubles = self.lock();
        if troubles.get(part) != Some(&reason) {
            self.events.not_ready(part, &reason);
            troubles.insert(part, reason);
        }
    }

    /// Every part that is not ready, with its reason. Empty: ready.
    pub fn troubles(&self) -> BTreeMap<&'static str, String> {
        self.lock().clone()
    }

    /// The map is changed by single inserts and removals, so that a panic elsewhere leaves it whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
