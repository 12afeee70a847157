//! The store as the pipeline's sink: a transaction is handed to the writer whole.

use super::writer::Write;
use crate::transport::{Sink, Transaction, TransportError};
use std::sync::mpsc::sync_channel;
use tokio::sync::mpsc;

pub struct StoreSink {
    writes: mpsc::Sender<Write>,
}

impl StoreSink {
    pub fn new(writes: mpsc::Sender<Write>) -> StoreSink {
        StoreSink { writes }
    }
}

impl Sink for StoreSink {
    /// What fails was rolled back by the writer.
    fn commit(&mut self, transaction: Transaction) -> Result<(), TransportError> {
        let gone = || TransportError::Fatal("the store's thread ended unexpectedly; this is a defect".to_string());
        let (reply, answer) = sync_channel(1);
        let write = Write::Commit { transaction: Box::new(transaction), reply };
        self.writes.blocking_send(write).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}
