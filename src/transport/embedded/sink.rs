//! The store as the pipeline's sink: a transaction is gathered here and handed to the writer whole.

use super::writer::{Pending, Write};
use crate::transport::{DeadLetter, OutputRecord, Position, Sink, StateChange, TransportError};
use std::sync::mpsc::sync_channel;
use tokio::sync::mpsc;

pub struct StoreSink {
    writes: mpsc::Sender<Write>,
    pending: Pending,
}

impl StoreSink {
    pub fn new(writes: mpsc::Sender<Write>) -> StoreSink {
        StoreSink { writes, pending: Pending::default() }
    }
}

impl Sink for StoreSink {
    fn begin(&mut self) -> Result<(), TransportError> {
        self.pending = Pending::default();
        Ok(())
    }

    fn outputs(&mut self, outputs: Vec<OutputRecord>) -> Result<(), TransportError> {
        self.pending.outputs.extend(outputs);
        Ok(())
    }

    fn states(&mut self, states: Vec<StateChange>) -> Result<(), TransportError> {
        self.pending.states.extend(states);
        Ok(())
    }

    fn dead_letters(&mut self, letters: Vec<DeadLetter>) -> Result<(), TransportError> {
        self.pending.letters.extend(letters);
        Ok(())
    }

    fn commit(&mut self, positions: Vec<Position>) -> Result<(), TransportError> {
        let gone = || TransportError::Fatal("the store's thread ended unexpectedly; this is a defect".to_string());
        let transaction = Box::new(Pending { positions, ..std::mem::take(&mut self.pending) });
        let (reply, answer) = sync_channel(1);
        self.writes.blocking_send(Write::Commit { transaction, reply }).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    fn abort(&mut self) -> Result<(), TransportError> {
        // What was not handed over was never written; what was handed over and failed was rolled back.
        self.pending = Pending::default();
        Ok(())
    }
}
