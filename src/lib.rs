//! Strand labels endless streams with stacked recurrent networks whose hidden state is carried per stream.
//!
//! The layers, from the bottom: [`rnn`] (numerics), [`encode`] (bytes to network input), [`model`] (a trained model,
//! sessions), [`train`], [`data`] and [`score`] (files and figures), then the daemon on top of them.

pub mod bench;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod data;
pub mod encode;
pub mod events;
pub mod health;
pub mod http;
pub mod inbox;
pub mod model;
pub mod pipeline;
pub mod rnn;
pub mod score;
pub mod shutdown;
pub mod state;
pub mod train;
pub mod transport;
