//! Categorical events: one table row for each kind of event.

use super::vocab::{Counts, Vocabulary};
use super::{EncoderError, EventSpec, Layout, ReaderState, Rows, TableShape};
use sha2::Sha256;
use std::path::Path;

const FILE: &str = "events.txt";

#[derive(Debug, Clone)]
pub(super) struct Events {
    events: Vocabulary,
}

impl Events {
    pub fn learn(spec: &EventSpec, tokens: &mut dyn Iterator<Item = &str>) -> Events {
        let mut counts = Counts::default();
        tokens.for_each(|event| counts.add(event));
        Events { events: Vocabulary::learn(counts, spec.min_count, spec.max_events) }
    }

    pub fn load(dir: &Path) -> Result<Events, EncoderError> {
        Ok(Events { events: Vocabulary::load(&dir.join(FILE))? })
    }

    pub fn save(&self, dir: &Path) -> Result<(), EncoderError> {
        self.events.save(&dir.join(FILE))
    }

    pub fn unit_text(&self, row: u32) -> Option<&str> {
        self.events.entry(row)
    }

    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        self.events.fingerprint_into(hash);
    }

    pub fn layout(&self, spec: &EventSpec) -> Layout {
        let table = TableShape { name: "event", rows: self.events.rows(), dim: spec.dim };
        Layout { tables: vec![table], chars: None, dense: 0 }
    }

    pub fn push_tokens(&self, state: &mut ReaderState, tokens: &[impl AsRef<str>], rows: &mut Rows) {
        for event in tokens {
            let event = event.as_ref();
            rows.unit(state.position, state.position + 1, event.to_string()).ids.push(self.events.row(event));
            state.position += 1;
        }
    }
}
