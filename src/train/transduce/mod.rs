//! Training of translators: whole pairs of sentences, about as long as one another side by side, teacher forcing, the mean
//! cross-entropy of the target's units.
//!
//! [`data`] brings the pairs, [`batch`] lays them out, [`net`] and [`worker`] compute loss and gradients ([`encoder`] and
//! [`decoder`] forwards and back), and here is the loop around them. What is the same for all tasks (optimiser,
//! checkpoints, logs, dropout) is in the modules above.

pub mod batch;
pub mod data;
pub mod decoder;
pub mod encoder;
pub mod net;
pub mod worker;

use super::checkpoint::{Checkpoint, Progress};
use super::corpus::model_spec;
use super::dev::DevScore;
use super::dropout::Dropout;
use super::log::RunLog;
use super::network::ShardLoss;
use super::optimizer::Optimizer;
use super::parallel::for_each;
use super::recipe::Recipe;
use super::trainer::{MAX_BAD_STEPS, TrainReport, progress_bar, provenance};
use super::{TrainError, pictures};
use crate::encode::Encoder;
use crate::encode::units::Units;
use crate::model::params::Params;
use crate::model::transduce::search::Search;
use crate::model::transduce::{TransduceShape, Translator, Written, decoder_of, shape_of};
use crate::model::{Model, ModelSpec};
use crate::score::bleu;
use batch::{Pair, PairBatch};
use data::Course;
use net::TrainTransducer;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::time::Instant;
use worker::{PairLoss, PairWorker};

/// Pairs of one shard, the unit of work of a thread.
pub const SHARD: usize = 32;

/// Dev sentences that are translated together.
const DEV_GROUP: usize = 64;

/// Trains as the recipe says and writes the model directory.
///
/// # Errors
/// When data cannot be read, the recipe does not fit the data, or the loss does not stay finite.
pub fn train(recipe: &Recipe, resume: bool) -> Result<TrainReport, TrainError> {
    train_until(recipe, resume, recipe.train.epochs)?.finish()
}

/// Trains up to the end of an epoch (counted from 1) and leaves the checkpoint.
///
/// # Errors
/// As [`train`].
pub fn train_until(recipe: &Recipe, resume: bool, epoch: usize) -> Result<Trainer<'_>, TrainError> {
    recipe.check().map_err(TrainError::recipe)?;
    let mut trainer = Trainer::new(recipe, resume)?;
    while trainer.progress.epoch < epoch.min(recipe.train.epochs) && !trainer.out_of_patience() {
        trainer.epoch()?;
    }
    Ok(trainer)
}

struct Shard {
    index: usize,
    batch: PairBatch,
    dropout: Dropout,
    loss: ShardLoss,
}

/// A training under way.
pub struct Trainer<'a> {
    recipe: &'a Recipe,
    encoder: Encoder,
    target: Units,
    spec: ModelSpec,
    shape: TransduceShape,
    pairs: Vec<Pair>,
    dev: Vec<crate::data::SentencePair>,
    params: Params<f32>,
    best: Params<f32>,
    net: TrainTransducer<f32>,
    optimizer: Optimizer<f32>,
    workers: Vec<PairWorker<f32>>,
    shards: Vec<Shard>,
    progress: Progress,
    log: RunLog,
    threads: usize,
}

impl<'a> Trainer<'a> {
    fn new(recipe: &'a Recipe, resume: bool) -> Result<Trainer<'a>, TrainError> {
        let t = &recipe.train;
        let texts = data::read(recipe, &recipe.data.train)?;
        let (encoder, target) = data::learn(recipe, &texts)?;
        let spec = model_spec(recipe, &[], &encoder);
        let pairs = data::encode(&encoder, &target, &texts, &spec)?;
        if pairs.len() < t.batch {
            let (pairs, batch) = (pairs.len(), t.batch);
            return Err(TrainError::recipe(format!("{pairs} pairs are too few for a batch of {batch}")));
        }
        let dev = data::read(recipe, &recipe.data.dev)?;
        let shape = shape_of(&spec, &encoder, &target).map_err(TrainError::recipe)?;
        let params = Params::drawn(&shape, &mut ChaCha8Rng::seed_from_u64(t.seed));
        let run = recipe.output.run_dir();
        let (net, shards) = (TrainTransducer::new(&shape), t.batch.div_ceil(SHARD));
        let mut trainer = Trainer {
            best: params.clone(),
            optimizer: Optimizer::new(t.optimizer(), &params),
            workers: (0..shards).map(|_| PairWorker::new(&net, &params)).collect(),
            shards: (0..shards)
                .map(|index| Shard {
                    index,
                    batch: PairBatch::default(),
                    dropout: Dropout::new(t.dropout_input, t.dropout_layers, t.word_dropout),
                    loss: ShardLoss::default(),
                })
                .collect(),
            progress: Progress::default(),
            log: RunLog::open(&run, resume)?,
            threads: t.threads(),
            net,
            recipe,
            encoder,
            target,
            spec,
            shape,
            pairs,
            dev,
            params,
        };
        if resume {
            let checkpoint = Checkpoint::load(&run, recipe, &trainer.params)?;
            (trainer.params, trainer.best, trainer.progress) = checkpoint.resume(&mut trainer.optimizer);
        }
        trainer.net.set(&trainer.params, trainer.threads);
        eprintln!(
            "{}: {} parameters, {} pairs, {} and {} units, {} threads, kernels {}",
            recipe.output.name,
            trainer.params.count(),
            trainer.pairs.len(),
            trainer.shape.source.0,
            trainer.shape.target.0,
            trainer.threads,
            crate::rnn::kernel::active().name
        );
        Ok(trainer)
    }

    fn out_of_patience(&self) -> bool {
        let patience = self.recipe.train.early_stop;
        patience > 0 && !self.dev.is_empty() && self.progress.epoch >= self.progress.best_epoch + patience
    }

    fn epoch(&mut self) -> Result<(), TrainError> {
        let (t, epoch) = (&self.recipe.train, self.progress.epoch);
        let course = Course::new(&self.pairs, t.seed, epoch, t.batch);
        let total_steps = (t.epochs * course.batches.len()) as u64;
        let bar = progress_bar(course.batches.len() as u64, epoch + 1, t.epochs);
        let (mut sum, mut rows, mut bad, started) = (0.0, 0usize, 0, Instant::now());
        for (k, batch) in course.batches.iter().enumerate() {
            let lr = t.lr_at(self.progress.step, total_steps);
            let units: usize = batch.iter().map(|&pair| self.pairs[pair].target.len() + 1).sum();
            let loss = PairLoss { total: units as f64, label_smoothing: t.label_smoothing };
            let result = self.batch(batch, loss);
            let grads: Vec<&Params<f32>> = self.workers.iter().map(|worker| &worker.grads).collect();
            let report = self.optimizer.descend(&grads, 0, &mut self.params, lr, self.threads);
            self.net.set(&self.params, self.threads);
            bad = if report.norm.is_finite() { 0 } else { bad + 1 };
            if bad > MAX_BAD_STEPS {
                return Err(TrainError::Diverged { step: self.progress.step, lr });
            }
            self.progress.step += 1;
            self.progress.clipped += u64::from(report.clipped);
            self.log.step(self.progress.step, epoch + 1, result.loss, lr, &report)?;
            if result.loss.is_finite() {
                sum += result.loss * units as f64;
                rows += units;
            }
            bar.inc(1);
            if k % 8 == 0 {
                let rate = rows as f64 / started.elapsed().as_secs_f64();
                bar.set_message(format!("loss {:.4}  {rate:.0} units/s", sum / rows.max(1) as f64));
            }
        }
        bar.finish_and_clear();
        let seconds = started.elapsed().as_secs_f64();
        self.progress.epoch += 1;
        self.progress.rows_per_second = rows as f64 / seconds;
        self.score(sum / rows.max(1) as f64, seconds)?;
        let run = self.recipe.output.run_dir();
        Checkpoint::save(&run, self.recipe, &self.params, &self.best, &self.optimizer, &self.progress)
    }

    /// Forwards and back over one batch, all shards.
    fn batch(&mut self, batch: &[usize], loss: PairLoss) -> ShardLoss {
        let (net, params, pairs, seed, step) =
            (&self.net, &self.params, &self.pairs, self.recipe.train.seed, self.progress.step);
        let items = self.workers.iter_mut().zip(&mut self.shards).collect();
        for_each(self.threads, items, |(worker, shard): (&mut PairWorker<f32>, &mut Shard)| {
            shard.dropout.seed(seed, step, shard.index as u64);
            let own: Vec<&Pair> =
                batch.iter().skip(shard.index * SHARD).take(SHARD).map(|&pair| &pairs[pair]).collect();
            shard.batch.gather(&own);
            shard.loss = worker.run(net, params, &shard.batch, Some(&mut shard.dropout), loss);
        });
        self.shards.iter().map(|shard| shard.loss).sum()
    }

    /// Translates the dev set greedily, keeps the best parameters, logs and draws.
    fn score(&mut self, loss: f64, seconds: f64) -> Result<(), TrainError> {
        let current = self.optimizer.ema.as_ref().unwrap_or(&self.params);
        let score = match self.dev.is_empty() {
            true => None,
            false => Some(self.dev_score(current)?),
        };
        let better = self.progress.is_best(score.as_ref());
        if better {
            self.best = current.clone();
        }
        self.log.epoch(&self.progress, loss, score.as_ref(), seconds)?;
        pictures::draw(&self.recipe.output.run_dir())?;
        eprintln!(
            "epoch {:>3}  loss {loss:.4}  {}{}  {:.0} units/s  {seconds:.0} s",
            self.progress.epoch,
            score.map_or("no dev set".to_string(), |s| s.to_string()),
            if better { " *" } else { "" },
            self.progress.rows_per_second,
        );
        Ok(())
    }

    fn dev_score(&self, params: &Params<f32>) -> Result<DevScore, TrainError> {
        let translator =
            Translator::new(&self.spec, &self.encoder, &self.target, params).map_err(TrainError::recipe)?;
        let search = Search { beam: 1, ..translator.search };
        let mut order: Vec<usize> = (0..self.dev.len()).collect();
        order.sort_by_key(|&k| self.dev[k].source.len());
        let mut groups: Vec<(&[usize], Vec<Written>)> =
            order.chunks(DEV_GROUP).map(|group| (group, Vec::new())).collect();
        for_each(self.threads, groups.iter_mut().collect(), |(group, out)| {
            let sources: Vec<&str> = group.iter().map(|&k| self.dev[k].source.as_str()).collect();
            *out = translator.translate(&sources, search);
        });
        let pairs: Vec<(&str, &str)> = (groups.iter())
            .flat_map(|(group, out)| group.iter().zip(out))
            .map(|(&k, (text, _))| (text.as_str(), self.dev[k].target.as_str()))
            .collect();
        let right = pairs.iter().filter(|(text, target)| text == target).count();
        let accuracy = right as f64 / pairs.len() as f64;
        let bleu = Some(bleu(pairs.into_iter()).score);
        Ok(DevScore { accuracy, bleu, ..DevScore::default() })
    }

    /// Writes the model directory with the best parameters.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<TrainReport, TrainError> {
        let mut training = provenance(self.recipe, &self.progress)?;
        let decoder = decoder_of(&self.spec).map_err(TrainError::recipe)?;
        training.insert(
            "attention".into(),
            toml::Value::try_from(decoder.attention).map_err(|e| TrainError::recipe(e.to_string()))?,
        );
        self.spec.training = Some(training);
        let dir = &self.recipe.output.dir;
        Model::save_translator(dir, &self.spec, &self.encoder, &self.target, &self.best)?;
        let model = Model::load(dir)?;
        super::card::write_if_absent(dir, self.recipe, &model, &self.progress)?;
        Ok(TrainReport {
            epochs: self.progress.epoch,
            best_epoch: self.progress.best_epoch,
            best: self.progress.best,
            words_per_second: self.progress.rows_per_second,
        })
    }
}
