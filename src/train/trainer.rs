//! The training loop: epochs of chunks, dev score, checkpoints, early stop, the finished model directory.

use super::checkpoint::{Checkpoint, Progress};
use super::corpus::{Corpus, Examples, model_spec};
use super::dev::{DevScore, DevSet};
use super::dropout::Dropout;
use super::log::RunLog;
use super::network::{LossSpec, NO_TARGET, ShardLoss, States, TrainBatch, TrainNet, Worker};
use super::optimizer::Optimizer;
use super::parallel::for_each;
use super::plan::Plan;
use super::recipe::Recipe;
use super::sequences::{Course, Sequences};
use super::{TrainError, calibration, pictures};
use crate::encode::Encoder;
use crate::model::decode::Decoder;
use crate::model::network::Network;
use crate::model::params::{NetShape, Params};
use crate::model::{Model, ModelSpec, Task};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::time::Instant;

/// Steps in a row without a finite gradient after which training gives up.
pub(super) const MAX_BAD_STEPS: usize = 20;

/// What came of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainReport {
    pub epochs: usize,
    pub best_epoch: usize,
    pub best: Option<DevScore>,
    pub words_per_second: f64,
}

/// Trains as the recipe says and writes the model directory.
///
/// # Errors
/// When data cannot be read, the recipe does not fit the data, or the loss does not stay finite.
pub fn train(recipe: &Recipe, resume: bool) -> Result<TrainReport, TrainError> {
    if recipe.task.kind == Task::Transduce {
        return super::transduce::train(recipe, resume);
    }
    train_until(recipe, resume, recipe.train.epochs)?.finish()
}

/// Trains up to the end of an epoch (counted from 1) and leaves the checkpoint.
///
/// # Errors
/// As [`train`].
pub fn train_until(recipe: &Recipe, resume: bool, epoch: usize) -> Result<Trainer<'_>, TrainError> {
    recipe.check().map_err(TrainError::recipe)?;
    if recipe.task.kind == Task::Transduce {
        return Err(TrainError::recipe("kind = \"transduce\" is trained by train::transduce"));
    }
    let mut trainer = Trainer::new(recipe, resume)?;
    while trainer.progress.epoch < epoch.min(recipe.train.epochs) && !trainer.out_of_patience() {
        trainer.epoch()?;
    }
    Ok(trainer)
}

/// One shard of the streams: batch, state, working space.
struct Shard {
    index: usize,
    batch: TrainBatch,
    states: States<f32>,
    dropout: Dropout,
    loss: ShardLoss,
}

/// A training under way.
pub struct Trainer<'a> {
    recipe: &'a Recipe,
    encoder: Encoder,
    spec: ModelSpec,
    shape: NetShape,
    corpus: Corpus,
    dev: DevSet,
    params: Params<f32>,
    best: Params<f32>,
    net: TrainNet<f32>,
    optimizer: Optimizer<f32>,
    workers: Vec<Worker<f32>>,
    shards: Vec<Shard>,
    progress: Progress,
    log: RunLog,
    threads: usize,
}

impl<'a> Trainer<'a> {
    fn new(recipe: &'a Recipe, resume: bool) -> Result<Trainer<'a>, TrainError> {
        let t = &recipe.train;
        let examples = Examples::read_train(recipe)?;
        let encoder = examples.learn_encoder(recipe)?;
        let classes = examples.classes(recipe);
        if let Some(name) = t.class_weights.keys().find(|k| !classes.contains(k)) {
            return Err(TrainError::recipe(format!("train.class_weights names {name:?}; the classes are {classes:?}")));
        }
        let class_weights: Vec<f32> = classes.iter().map(|c| t.class_weights.get(c).copied().unwrap_or(1.0)).collect();
        let mut spec = model_spec(recipe, &classes, &encoder);
        let encoder = match &mut spec.generate {
            Some(generate) => {
                generate.classes = examples.written_classes(recipe)?;
                generate.check().map_err(|e| TrainError::recipe(format!("the streams' labels: {e}")))?;
                encoder.with_classes(generate.classes.len())
            }
            None => encoder,
        };
        let corpus = match recipe.task.kind {
            Task::LanguageModel | Task::Generate => Corpus::of_units(&examples, &encoder, &spec)?,
            Task::Transcribe => Corpus::of_transcripts(&examples, &encoder, recipe, &classes)?,
            _ => Corpus::new(&examples, &encoder, &classes, &class_weights, true)?,
        };
        if corpus.rows() < t.batch {
            let (rows, batch) = (corpus.rows(), t.batch);
            return Err(TrainError::recipe(format!("{rows} training steps are too few for a batch of {batch}")));
        }
        let streams = corpus.starts.len() - 1;
        if matches!(recipe.task.kind, Task::Classify | Task::Transcribe) && streams < t.batch {
            return Err(TrainError::recipe(format!("{streams} streams are too few for a batch of {}", t.batch)));
        }
        let dev = DevSet::new(&Examples::read(recipe, &recipe.data.dev)?, &encoder, &spec, &classes)?;
        let shape = NetShape::of(&spec, encoder.layout())
            .and_then(|shape| shape.check().map(|()| shape))
            .map_err(TrainError::recipe)?;
        let params = Params::random(&shape, &mut ChaCha8Rng::seed_from_u64(t.seed));
        let run = recipe.output.run_dir();
        let mut trainer = Trainer {
            best: params.clone(),
            net: TrainNet::new(&shape),
            optimizer: Optimizer::new(t.optimizer(), &params),
            workers: (0..Plan::shards(t.batch)).map(|_| Worker::new(&shape, &params)).collect(),
            shards: (0..Plan::shards(t.batch))
                .map(|index| Shard {
                    index,
                    batch: TrainBatch::default(),
                    states: States::zero(&shape, Plan::streams(t.batch, index)),
                    dropout: Dropout::new(t.dropout_input, t.dropout_layers, t.word_dropout),
                    loss: ShardLoss::default(),
                })
                .collect(),
            progress: Progress::default(),
            log: RunLog::open(&run, resume)?,
            threads: t.threads(),
            recipe,
            encoder,
            spec,
            shape,
            corpus,
            dev,
            params,
        };
        if resume {
            let checkpoint = Checkpoint::load(&run, recipe, &trainer.params)?;
            (trainer.params, trainer.best, trainer.progress) = checkpoint.resume(&mut trainer.optimizer);
        }
        trainer.net.set(&trainer.params, trainer.threads);
        eprintln!(
            "{}: {} parameters, {} steps of {} classes, {} threads, kernels {}",
            recipe.output.name,
            trainer.params.count(),
            trainer.corpus.rows(),
            trainer.shape.classes,
            trainer.threads,
            crate::rnn::kernel::active().name
        );
        Ok(trainer)
    }

    /// What has a target each.
    fn targets(&self) -> &'static str {
        if self.spec.classify.is_some() || self.shape.ctc { "streams" } else { "steps" }
    }

    fn out_of_patience(&self) -> bool {
        let patience = self.recipe.train.early_stop;
        patience > 0 && !self.dev.is_empty() && self.progress.epoch >= self.progress.best_epoch + patience
    }

    fn epoch(&mut self) -> Result<(), TrainError> {
        let (t, epoch) = (&self.recipe.train, self.progress.epoch);
        let course = match self.recipe.task.kind {
            Task::Tag | Task::LanguageModel | Task::Generate => {
                Course::Carried(Plan::new(&self.corpus, t, self.shape.window, epoch))
            }
            Task::Classify | Task::Transcribe | Task::Transduce => {
                Course::Whole(Sequences::new(&self.corpus, t, self.shape.window, epoch))
            }
        };
        let total_steps = (t.epochs * course.chunks()) as u64;
        for shard in &mut self.shards {
            shard.states = States::zero(&self.shape, Plan::streams(t.batch, shard.index));
        }
        let bar = progress_bar(course.chunks() as u64, epoch + 1, t.epochs);
        let (mut sum, mut rows, mut bad, started) = (0.0, 0usize, 0, Instant::now());
        for chunk in 0..course.chunks() {
            let lr = t.lr_at(self.progress.step, total_steps);
            let (weight, scored) = course.weight(&self.corpus, chunk);
            let loss_spec = LossSpec {
                total_weight: weight,
                label_smoothing: t.label_smoothing,
                ordinal: self.recipe.task.ordinal,
            };
            let loss = self.chunk(&course, chunk, loss_spec, true);
            let report = self.optimizer.step(&self.shape, &self.workers, &mut self.params, lr, self.threads);
            self.net.set(&self.params, self.threads);
            bad = if report.norm.is_finite() { 0 } else { bad + 1 };
            if bad > MAX_BAD_STEPS {
                return Err(TrainError::Diverged { step: self.progress.step, lr });
            }
            self.progress.step += 1;
            self.progress.clipped += u64::from(report.clipped);
            self.log.step(self.progress.step, epoch + 1, loss.loss, lr, &report)?;
            if loss.loss.is_finite() {
                sum += loss.loss * scored as f64;
                rows += scored;
            }
            bar.inc(1);
            if chunk % 8 == 0 {
                let rate = rows as f64 / started.elapsed().as_secs_f64();
                let best = self.progress.best.as_ref().map_or(String::new(), |b| format!("  best {:.4}", b.main()));
                bar.set_message(format!("loss {:.4}{best}  {rate:.0} {}/s", sum / rows.max(1) as f64, self.targets()));
            }
        }
        bar.finish_and_clear();
        let seconds = started.elapsed().as_secs_f64();
        self.progress.epoch += 1;
        self.progress.rows_per_second = rows as f64 / seconds;
        self.flow(&course)?;
        self.score(sum / rows.max(1) as f64, seconds)?;
        Checkpoint::save(
            &self.recipe.output.run_dir(),
            self.recipe,
            &self.params,
            &self.best,
            &self.optimizer,
            &self.progress,
        )
    }

    /// Forwards and back over one chunk, all shards.
    fn chunk(&mut self, course: &Course, chunk: usize, loss: LossSpec, dropout: bool) -> ShardLoss {
        let (net, params, corpus, seed, step) =
            (&self.net, &self.params, &self.corpus, self.recipe.train.seed, self.progress.step);
        let items = self.workers.iter_mut().zip(&mut self.shards).collect();
        for_each(self.threads, items, |(worker, shard): (&mut Worker<f32>, &mut Shard)| {
            shard.dropout.seed(seed, step, shard.index as u64);
            let mut dropout = dropout.then_some(&mut shard.dropout);
            if let Course::Whole(sequences) = course {
                let streams = sequences.shard(chunk, shard.index);
                shard.states.clear();
                worker.pool.begin();
                for window in 0..sequences.windows(corpus, streams) {
                    sequences.gather(corpus, streams, Some(window), &mut shard.batch);
                    worker.warm(net, params, &shard.batch, &mut shard.states, dropout.as_deref_mut());
                }
            }
            course.gather(corpus, chunk, shard.index, &mut shard.batch);
            shard.loss = worker.run(net, params, &shard.batch, &mut shard.states, dropout, loss);
        });
        self.shards.iter().map(|shard| shard.loss).sum()
    }

    /// How far gradients reach: the loss of a chunk's last step alone, followed back in time through every layer.
    fn flow(&mut self, course: &Course) -> Result<(), TrainError> {
        if self.shape.ctc {
            // A transcript's loss is no step's.
            return Ok(());
        }
        let shard = &mut self.shards[0];
        let middle = course.chunks() / 2;
        if let Course::Whole(sequences) = course {
            // One stream: the steps back from its end are the same for all its rows.
            sequences.gather(&self.corpus, &sequences.shard(middle, 0)[..1], None, &mut shard.batch);
            shard.states.clear();
            self.workers[0].pool.begin();
        } else {
            course.gather(&self.corpus, middle, 0, &mut shard.batch);
        }
        let streams = shard.batch.sizes.first().copied().unwrap_or(0);
        if self.corpus.of_units {
            // Not the streams' first units.
            shard.batch.targets.truncate(shard.batch.features.steps);
        }
        let last = shard.batch.targets.len().saturating_sub(streams);
        shard.batch.targets[..last].fill(NO_TARGET);
        shard.batch.reset.fill(false);
        let mut states = shard.states.clone();
        let loss = LossSpec { total_weight: streams.max(1) as f64, label_smoothing: 0.0, ordinal: None };
        let worker = &mut self.workers[0];
        worker.run(&self.net, &self.params, &shard.batch, &mut states, None, loss);
        self.log.flow(self.progress.epoch, &worker.flow)
    }

    /// Scores the dev set, keeps the best parameters, logs and draws.
    fn score(&mut self, loss: f64, seconds: f64) -> Result<(), TrainError> {
        let current = self.optimizer.ema.as_ref().unwrap_or(&self.params);
        let decoder = Decoder::new(&self.spec, &self.shape, current).map_err(TrainError::recipe)?;
        let score = (!self.dev.is_empty())
            .then(|| self.dev.score(&Network::new(&self.shape, current), decoder.as_ref(), self.threads));
        let better = self.progress.is_best(score.as_ref());
        if better {
            self.best = current.clone();
        }
        self.log.epoch(&self.progress, loss, score.as_ref(), seconds)?;
        pictures::draw(&self.recipe.output.run_dir())?;
        let shown = score.map_or("no dev set".to_string(), |s| s.to_string());
        eprintln!(
            "epoch {:>3}  loss {loss:.4}  {shown}{}  {:.0} {}/s  {seconds:.0} s",
            self.progress.epoch,
            if better { " *" } else { "" },
            self.progress.rows_per_second,
            self.targets(),
        );
        Ok(())
    }

    /// Writes the model directory with the best parameters.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<TrainReport, TrainError> {
        let mut training = provenance(self.recipe, &self.progress)?;
        if let Some(classify) = self.spec.classify.as_mut().filter(|_| !self.dev.is_empty()) {
            let rows = self.dev.logits(&Network::new(&self.shape, &self.best), self.threads);
            let rows: Vec<(&[f32], usize)> = rows.iter().map(|(logits, class)| (&logits[..], *class)).collect();
            let fit = calibration::fit(&rows);
            classify.temperature = fit.temperature;
            training.insert("dev_calibration_error".into(), round4(fit.after).into());
            training.insert("dev_calibration_error_before".into(), round4(fit.before).into());
            eprintln!(
                "temperature {:.4}: calibration error on dev {:.4}, {:.4} before",
                fit.temperature, fit.after, fit.before
            );
        }
        if let (Some(units), Some(share)) = (&self.dev.units, self.recipe.task.threshold_quantile) {
            let surprises = units.surprises(&Network::new(&self.shape, &self.best), self.threads);
            // Not below the quantile itself: many units may be as surprising.
            let threshold = (super::units::threshold(surprises, share) * 1e4).ceil() / 1e4;
            eprintln!("threshold {threshold} nats: a share {share} of dev's units is not above");
            self.spec.language.iter_mut().for_each(|language| language.threshold = Some(threshold));
        }
        self.spec.training = Some(training);
        let dir = &self.recipe.output.dir;
        Model::save(dir, &self.spec, &self.encoder, &self.best)?;
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

fn round4(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

/// What `model.toml` says of a model's making.
pub(super) fn provenance(recipe: &Recipe, progress: &Progress) -> Result<toml::Table, TrainError> {
    let mut table = toml::Table::new();
    table.insert("strand".into(), env!("CARGO_PKG_VERSION").into());
    table.insert("epoch".into(), (progress.best_epoch as i64).into());
    if let Some(best) = &progress.best {
        table.insert("dev".into(), best.to_string().into());
    }
    let train = toml::Value::try_from(&recipe.train).map_err(|e| TrainError::recipe(e.to_string()))?;
    table.insert("recipe".into(), train);
    let data = toml::Value::try_from(&recipe.data.train).map_err(|e| TrainError::recipe(e.to_string()))?;
    table.insert("data".into(), data);
    Ok(table)
}

pub(super) fn progress_bar(steps: u64, epoch: usize, epochs: usize) -> ProgressBar {
    let bar = ProgressBar::new(steps);
    let style = ProgressStyle::with_template("{prefix} {bar:30.cyan/dim} {pos}/{len}  {msg}  {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(format!("epoch {epoch}/{epochs}"));
    bar
}
