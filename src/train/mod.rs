//! Training: truncated backpropagation through time with the state carried from chunk to chunk.
//!
//! [`recipe`] says what to do; [`corpus`] and [`plan`] bring the data; [`network`] computes loss and gradients, a
//! [`network::Worker`] a shard of the streams; [`optimizer`] steps; [`trainer`] is the loop around them. The same seed
//! gives the same weights bit for bit, whatever the number of threads.

pub mod ahead;
pub mod beside;
pub mod calibration;
pub mod card;
pub mod checkpoint;
pub mod corpus;
pub mod crf;
pub mod ctc;
pub mod dev;
pub mod dropout;
pub mod language;
pub mod log;
pub mod network;
pub mod optimizer;
pub mod parallel;
pub mod pictures;
pub mod plan;
pub mod pool;
pub mod recipe;
pub mod sequences;
pub mod trainer;
pub mod transcripts;
pub mod transduce;
pub mod units;
pub mod words;

pub use recipe::Recipe;
pub use trainer::{TrainReport, train};

use std::path::PathBuf;

/// Why a training could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("{0}")]
    Recipe(String),
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    #[error(transparent)]
    Model(#[from] crate::model::ModelError),
    #[error("{}: {detail}", path.display())]
    Checkpoint { path: PathBuf, detail: String },
    #[error("cannot write the log in {}: {source}", path.display())]
    Log { path: PathBuf, source: std::io::Error },
    #[error("cannot write the log: {0}")]
    Csv(#[from] csv::Error),
    #[error("cannot draw in {}: {detail}", path.display())]
    Picture { path: PathBuf, detail: String },
    #[error("the gradient is not finite any more (step {step}, learning rate {lr}): lower train.lr or train.clip_norm")]
    Diverged { step: u64, lr: f64 },
}

impl TrainError {
    /// A recipe that cannot be followed.
    pub fn recipe(detail: impl Into<String>) -> TrainError {
        TrainError::Recipe(detail.into())
    }
}

#[cfg(test)]
mod tests;
