//! `[train]`: epochs, batches, optimiser, regularisation.

use crate::train::optimizer::{OptimizerSpec, Rule};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    Constant,
    /// Straight down to `min_lr_ratio`.
    Linear,
    /// Down to `min_lr_ratio` along half a cosine.
    Cosine,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSpec {
    pub seed: u64,
    pub epochs: usize,
    /// Streams side by side.
    pub batch: usize,
    /// Steps of one truncated backpropagation; the state is carried from chunk to chunk.
    pub chunk: usize,
    /// At a sentence's start, the chance that the state is set to zero.
    pub reset_probability: f64,
    /// Sentences that stay together, in order, when an epoch is shuffled.
    pub block: usize,
    pub optimizer: Rule,
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub schedule: Schedule,
    pub min_lr_ratio: f64,
    /// Steps over which the learning rate rises from zero.
    pub warmup: u64,
    /// 0 = off.
    pub clip_norm: f64,
    /// 0 = off.
    pub clip_value: f64,
    pub dropout_input: f64,
    pub dropout_layers: f64,
    pub word_dropout: f64,
    pub label_smoothing: f64,
    pub class_weights: BTreeMap<String, f32>,
    pub ema: f64,
    /// Epochs without a better dev score after which training stops; 0 = never.
    pub early_stop: usize,
    /// 0 = one a core.
    pub threads: usize,
}

impl Default for TrainSpec {
    fn default() -> Self {
        TrainSpec {
            seed: 1,
            epochs: 20,
            batch: 32,
            chunk: 35,
            reset_probability: 0.5,
            block: 8,
            optimizer: Rule::Adamw,
            lr: 0.002,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            momentum: 0.9,
            weight_decay: 0.01,
            schedule: Schedule::Cosine,
            min_lr_ratio: 0.05,
            warmup: 100,
            clip_norm: 1.0,
            clip_value: 0.0,
            dropout_input: 0.3,
            dropout_layers: 0.3,
            word_dropout: 0.05,
            label_smoothing: 0.0,
            class_weights: BTreeMap::new(),
            ema: 0.0,
            early_stop: 0,
            threads: 0,
        }
    }
}

impl TrainSpec {
    pub fn optimizer(&self) -> OptimizerSpec {
        let on = |x: f64| (x > 0.0).then_some(x);
        OptimizerSpec {
            rule: self.optimizer,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay: self.weight_decay,
            momentum: self.momentum,
            clip_norm: on(self.clip_norm),
            clip_value: on(self.clip_value),
            ema: self.ema,
        }
    }

    /// The learning rate of step `step` of `total`.
    pub fn lr_at(&self, step: u64, total: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        let through = (step - self.warmup) as f64 / (total.saturating_sub(self.warmup)).max(1) as f64;
        let down = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - through,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * through).cos()),
        };
        self.lr * (self.min_lr_ratio + (1.0 - self.min_lr_ratio) * down.max(0.0)).min(1.0)
    }

    /// Threads to use.
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        }
    }

    /// Says what is out of range.
    pub fn check(&self) -> Result<(), String> {
        let chance = |name: &str, x: f64| {
            if (0.0..1.0).contains(&x) {
                Ok(())
            } else {
                Err(format!("train.{name} = {x}: must be at least 0 and below 1"))
            }
        };
        chance("dropout_input", self.dropout_input)?;
        chance("dropout_layers", self.dropout_layers)?;
        chance("word_dropout", self.word_dropout)?;
        chance("label_smoothing", self.label_smoothing)?;
        chance("ema", self.ema)?;
        if !(0.0..=1.0).contains(&self.reset_probability) {
            return Err(format!("train.reset_probability = {}: must be 0 to 1", self.reset_probability));
        }
        for (name, n) in [("epochs", self.epochs), ("batch", self.batch), ("chunk", self.chunk), ("block", self.block)]
        {
            if n == 0 {
                return Err(format!("train.{name} = 0: must be at least 1"));
            }
        }
        if self.lr <= 0.0 || !self.lr.is_finite() {
            return Err(format!("train.lr = {}: must be above 0", self.lr));
        }
        Ok(())
    }
}
