//! What labels are worth: figures from gold and predicted labels. Pure counting; no model, no files.
//!
//! Labels come from [`crate::model`]; gold labels from [`crate::data`].

pub mod bleu;
pub mod calibration;
pub mod edits;
pub mod genes;
pub mod roc;
pub mod spans;
pub mod tags;

pub use bleu::{Bleu, bleu};
pub use calibration::calibration_error;
pub use edits::{Edits, words};
pub use genes::{BaseScore, GeneScore, run_genes, runs};
pub use roc::roc_auc;
pub use spans::{SpanScore, spans_of};
pub use tags::Confusion;

use serde::Serialize;

/// Counts behind precision and recall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Predicted and gold.
    pub right: u64,
    pub predicted: u64,
    pub gold: u64,
}

/// Precision, recall and their harmonic mean, each 0…1; 0 where nothing was predicted or nothing was to be found.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Figures {
    pub precision: f64,
    pub recall: f64,
    pub f1: f64,
    /// How many there are in the gold data.
    pub support: u64,
}

impl Counts {
    pub fn figures(self) -> Figures {
        let (precision, recall) = (share(self.right, self.predicted), share(self.right, self.gold));
        let sum = precision + recall;
        let f1 = if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 };
        Figures { precision, recall, f1, support: self.gold }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        self.right += more.right;
        self.predicted += more.predicted;
        self.gold += more.gold;
    }
}

/// `part / whole`, 0 where `whole` is 0.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
