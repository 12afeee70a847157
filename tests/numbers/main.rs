//! Numbers against references: PyTorch, finite differences, seqeval, sacrebleu; and that batches do not change them.

mod batching;
mod bleu;
mod cells;
mod language_parity;
mod notes_parity;
mod parity;
mod precision;
mod score_seqeval;
mod training;
mod transduce_parity;
