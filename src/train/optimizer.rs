//! Gradient descent: gradients of all shards added up, clipped, and Adam, AdamW or SGD.

use super::parallel::for_each;
use crate::model::params::{NetShape, Params};
use crate::rnn::kernel::AdamStep;
use crate::rnn::real::Real;
use crate::train::network::{Worker, add_table_grads};
use serde::{Deserialize, Serialize};

/// Numbers that one thread handles at a time; partial sums of the norm are formed over such blocks, in order.
const BLOCK: usize = 1 << 15;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    Sgd,
    /// Weight decay is added to the gradient.
    Adam,
    /// Weight decay shrinks the parameter (decoupled).
    Adamw,
}

/// What stays the same over the steps.
#[derive(Debug, Clone, Copy)]
pub struct OptimizerSpec {
    pub rule: Rule,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// For SGD.
    pub momentum: f64,
    /// Gradients longer than this (all parameters together) are shortened to it.
    pub clip_norm: Option<f64>,
    /// Each number of a gradient is first cut to ± this.
    pub clip_value: Option<f64>,
    /// Decay of the moving average of the parameters; 0 = none.
    pub ema: f64,
}

/// The optimiser's memory: first and second moments, and the average of the parameters.
#[derive(Debug, Clone)]
pub struct Optimizer<T> {
    pub spec: OptimizerSpec,
    pub step: u64,
    pub m: Params<T>,
    pub v: Params<T>,
    pub ema: Option<Params<T>>,
    grads: Params<T>,
}

/// What happened to the gradient.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Norm over all parameters before clipping by norm.
    pub norm: f64,
    pub clipped: bool,
    /// Numbers cut by `clip_value`.
    pub values_clipped: usize,
}

impl<T: Real> Optimizer<T> {
    pub fn new(spec: OptimizerSpec, params: &Params<T>) -> Optimizer<T> {
        let zeros = || params.zeros_like();
        let ema = (spec.ema > 0.0).then(|| params.clone());
        Optimizer { spec, step: 0, m: zeros(), v: zeros(), ema, grads: zeros() }
    }

    /// The summed gradients of the last step.
    pub fn grads(&self) -> &Params<T> {
        &self.grads
    }

    /// One step along the workers' summed gradients.
    pub fn step(
        &mut self,
        shape: &NetShape,
        workers: &[Worker<T>],
        params: &mut Params<T>,
        lr: f64,
        threads: usize,
    ) -> StepReport {
        add_table_grads(shape, workers, &mut self.grads);
        let parts: Vec<&Params<T>> = workers.iter().map(|worker| &worker.grads).collect();
        self.descend(&parts, shape.tables.len(), params, lr, threads)
    }

    /// One step along the sum of `parts`, in their order; the first `tables` tensors' gradients are summed already.
    pub(super) fn descend(
        &mut self,
        parts: &[&Params<T>],
        tables: usize,
        params: &mut Params<T>,
        lr: f64,
        threads: usize,
    ) -> StepReport {
        let (sum, values_clipped) = self.collect(parts, tables, threads);
        let norm = sum.sqrt();
        let limit = self.spec.clip_norm.unwrap_or(f64::INFINITY);
        let clipped = norm > limit;
        // As torch.nn.utils.clip_grad_norm_.
        let scale = if clipped { limit / (norm + 1e-6) } else { 1.0 };
        if norm.is_finite() {
            self.update(params, lr, scale, threads);
        }
        StepReport { norm, clipped, values_clipped }
    }

    /// Adds up the shards' gradients in order; returns the square of their norm and the numbers clipped.
    fn collect(&mut self, all: &[&Params<T>], tables: usize, threads: usize) -> (f64, usize) {
        let clip = self.spec.clip_value.map(T::of);
        struct Item<'a, T> {
            out: &'a mut [T],
            parts: Vec<&'a [T]>,
            sum: f64,
            clipped: usize,
        }
        let mut items = Vec::new();
        for (at, grad) in self.grads.slices_mut().enumerate() {
            for (k, out) in grad.chunks_mut(BLOCK).enumerate() {
                let range = k * BLOCK..k * BLOCK + out.len();
                let parts = if at < tables {
                    Vec::new()
                } else {
                    all.iter().map(|grads| &grads.slice(at)[range.clone()]).collect()
                };
                items.push(Item { out, parts, sum: 0.0, clipped: 0 });
            }
        }
        for_each(threads, items.iter_mut().collect(), |item| {
            for (k, part) in item.parts.iter().enumerate() {
                for (o, &p) in item.out.iter_mut().zip(*part) {
                    *o = if k == 0 { p } else { *o + p };
                }
            }
            if let Some(limit) = clip {
                for g in item.out.iter_mut().filter(|g| g.abs() > limit) {
                    *g = limit * g.signum();
                    item.clipped += 1;
                }
            }
            // Eight sums side by side, so that the compiler can use vectors; still one fixed order.
            let mut sums = [0.0f64; 8];
            for eight in item.out.chunks(8) {
                for (s, g) in sums.iter_mut().zip(eight) {
                    *s += g.f64() * g.f64();
                }
            }
            item.sum = sums.iter().sum();
        });
        (items.iter().map(|i| i.sum).sum(), items.iter().map(|i| i.clipped).sum())
    }

    fn update(&mut self, params: &mut Params<T>, lr: f64, scale: f64, threads: usize) {
        self.step += 1;
        let s = &self.spec;
        let power = |beta: f64| 1.0 - beta.powi(self.step.min(i32::MAX as u64) as i32);
        let adam = AdamStep {
            scale: T::of(scale),
            lr: T::of(lr),
            beta1: T::of(s.beta1),
            beta2: T::of(s.beta2),
            eps: T::of(s.eps),
            correction1: T::of(power(s.beta1)),
            correction2: T::of(power(s.beta2)),
            weight_decay: T::of(if s.rule == Rule::Adamw { s.weight_decay } else { 0.0 }),
        };
        // Warm start: the average follows quickly at first.
        let decay = T::of(s.ema.min((1.0 + self.step as f64) / (10.0 + self.step as f64)));
        let (rule, l2, momentum) = (s.rule, T::of(s.weight_decay / scale), T::of(s.momentum));
        let mut ema = self.ema.as_mut().map(|e| e.slices_mut());
        let mut items = Vec::new();
        for (((p, g), m), v) in
            params.slices_mut().zip(self.grads.slices_mut()).zip(self.m.slices_mut()).zip(self.v.slices_mut())
        {
            let mut e = ema.as_mut().and_then(|e| e.next()).map(|e| e.chunks_mut(BLOCK));
            for (((p, g), m), v) in
                p.chunks_mut(BLOCK).zip(g.chunks_mut(BLOCK)).zip(m.chunks_mut(BLOCK)).zip(v.chunks_mut(BLOCK))
            {
                items.push((p, g, m, v, e.as_mut().and_then(|e| e.next())));
            }
        }
        for_each(threads, items, |(p, g, m, v, e)| {
            if rule != Rule::Adamw && l2 > T::zero() {
                g.iter_mut().zip(p.iter()).for_each(|(g, &p)| *g += l2 * p);
            }
            if rule == Rule::Sgd {
                for ((p, &mut g), m) in p.iter_mut().zip(g).zip(m) {
                    *m = momentum * *m + g * adam.scale;
                    *p -= adam.lr * *m;
                }
            } else {
                T::adam(p, g, m, v, &adam);
            }
            if let Some(e) = e {
                for (e, &mut p) in e.iter_mut().zip(p) {
                    *e = decay * *e + (T::one() - decay) * p;
                }
            }
        });
    }
}
