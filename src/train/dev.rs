//! The dev score after each epoch: spans' F1 or accuracy, each sentence as a stream of its own and all as one; for
//! classifiers the accuracy of the streams' classes.

use super::TrainError;
use super::corpus::{Corpus, Examples};
use super::network::NO_TARGET;
use super::parallel::for_each;
use super::transcripts::DevTranscripts;
use super::units::DevUnits;
use crate::encode::{Encoder, Features};
use crate::model::classify;
use crate::model::decode::Decoder;
use crate::model::lookahead::AheadLane;
use crate::model::network::{Lane, Network, Scratch};
use crate::model::{ModelSpec, Scheme, Span, Task};
use crate::score::spans::spans_of;
use serde::{Deserialize, Serialize};

/// Streams that are stepped together.
pub(super) const LANES: usize = 64;
/// Longer sequences (genomes) are cut into streams of this many steps for the dev score.
const LONGEST: usize = 20_000;

/// A score of a dev set, 0..=1.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DevScore {
    pub accuracy: f64,
    /// F1 of the spans, each sentence as a stream; only for spans.
    pub f1: Option<f64>,
    /// The same with all sentences as one endless stream (accuracy where there are no spans).
    pub endless: Option<f64>,
    /// For classes in order: by how many classes the given one is off, on average.
    #[serde(default)]
    pub mean_absolute_error: Option<f64>,
    /// For language models: -ln P of a unit, on average. `accuracy` then is e^-nats, the mean of what the units' own
    /// probabilities were (the geometric one).
    #[serde(default)]
    pub nats: Option<f64>,
    /// For transcripts: wrong characters and wrong words for each right one, found greedily. `accuracy` then is what is
    /// left of 1 by the characters.
    #[serde(default)]
    pub errors: Option<[f64; 2]>,
    /// For translators: BLEU, 0 to 100. `accuracy` then is the share of sentences that are exactly right.
    #[serde(default)]
    pub bleu: Option<f64>,
}

impl DevScore {
    /// What the best epoch is chosen by: the mean of both ways of streaming; of a translator the mean of BLEU / 100 and
    /// exact matches.
    pub fn main(&self) -> f64 {
        if let Some(bleu) = self.bleu {
            return (bleu / 100.0 + self.accuracy) / 2.0;
        }
        let first = self.f1.unwrap_or(self.accuracy);
        self.endless.map_or(first, |endless| (first + endless) / 2.0)
    }
}

impl std::fmt::Display for DevScore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(nats) = self.nats {
            let (bits, perplexity) = (nats / std::f64::consts::LN_2, nats.exp());
            return write!(f, "dev {nats:.4} nats, {bits:.4} bits a unit, perplexity {perplexity:.3}");
        }
        if let Some([symbols, words]) = self.errors {
            return write!(f, "dev symbol error rate {symbols:.4}, word error rate {words:.4}");
        }
        if let Some(bleu) = self.bleu {
            return write!(f, "dev BLEU {bleu:.2}, exact matches {:.2} %", 100.0 * self.accuracy);
        }
        write!(f, "dev accuracy {:.4}", self.accuracy)?;
        if let Some(f1) = self.f1 {
            write!(f, "  F1 {f1:.4}")?;
        }
        if let Some(error) = self.mean_absolute_error {
            write!(f, "  mean absolute error {error:.4}")?;
        }
        self.endless.map_or(Ok(()), |e| write!(f, "  endless {e:.4}"))
    }
}

/// A stream's logits, and the class it has.
pub type Judged = (Vec<f32>, usize);

/// The dev set, encoded.
pub struct DevSet {
    streams: Vec<Features>,
    /// Label of each step, or [`NO_TARGET`]; of a classifier's stream its class.
    gold: Vec<Vec<u32>>,
    /// For each class the label it counts for.
    class_label: Vec<usize>,
    spec: ModelSpec,
    with_endless: bool,
    /// For a language model, in the place of all else.
    pub(super) units: Option<DevUnits>,
    /// The same for a transcriber.
    transcripts: Option<DevTranscripts>,
}

impl DevSet {
    pub fn new(
        examples: &Examples,
        encoder: &Encoder,
        spec: &ModelSpec,
        classes: &[String],
    ) -> Result<DevSet, TrainError> {
        let class_label = spec.class_labels().map_err(TrainError::recipe)?;
        if spec.language.is_some() || spec.generate.is_some() {
            let units = Some(DevUnits::new(examples, encoder, spec)?);
            let (streams, gold, spec, with_endless) = (Vec::new(), Vec::new(), spec.clone(), false);
            return Ok(DevSet { streams, gold, class_label, spec, with_endless, units, transcripts: None });
        }
        if spec.task == Task::Transcribe {
            let transcripts = Some(DevTranscripts::new(examples, encoder, spec)?);
            let (streams, gold, spec) = (Vec::new(), Vec::new(), spec.clone());
            return Ok(DevSet { streams, gold, class_label, spec, with_endless: false, units: None, transcripts });
        }
        // Where several classes make one label, the labels of sentences stand for the first of them.
        let names: Vec<String> = match examples.sentences.is_empty() {
            true => classes.to_vec(),
            false => class_label.iter().map(|&label| spec.labels[label].clone()).collect(),
        };
        let corpus = Corpus::new(examples, encoder, &names, &vec![1.0; classes.len()], false)?;
        // A class is of the whole stream.
        let longest = if spec.classify.is_some() { usize::MAX } else { LONGEST };
        let (mut streams, mut gold) = (Vec::new(), Vec::new());
        for sentence in corpus.starts.windows(2) {
            for from in (sentence[0]..sentence[1]).step_by(longest) {
                let to = from.saturating_add(longest).min(sentence[1]);
                let mut stream = Features::default();
                stream.append_range(&corpus.features, from, to, encoder.layout());
                streams.push(stream);
                let label = |&t: &u32| if t == NO_TARGET { t } else { class_label[t as usize] as u32 };
                let labelled = if spec.classify.is_some() { to - 1..to } else { from..to };
                gold.push(corpus.targets[labelled].iter().map(label).collect());
            }
        }
        let with_endless = examples.sequences.is_empty() && spec.classify.is_none();
        Ok(DevSet { streams, gold, class_label, spec: spec.clone(), with_endless, units: None, transcripts: None })
    }

    pub fn is_empty(&self) -> bool {
        let others = self.units.as_ref().map(DevUnits::is_empty);
        let others = others.or(self.transcripts.as_ref().map(DevTranscripts::is_empty));
        others.unwrap_or(self.streams.is_empty())
    }

    /// The score of this network, whose labels are chosen by `decoder`, if it has one.
    pub fn score(&self, net: &Network, decoder: Option<&Decoder>, threads: usize) -> DevScore {
        if let Some(units) = &self.units {
            let surprises = units.surprises(net, threads);
            let nats = surprises.iter().map(|&nats| f64::from(nats)).sum::<f64>() / surprises.len().max(1) as f64;
            let accuracy = (-nats).exp();
            return DevScore { accuracy, nats: Some(nats), ..DevScore::default() };
        }
        if let Some(transcripts) = &self.transcripts {
            return transcripts.score(net, threads);
        }
        let mut order: Vec<usize> = (0..self.streams.len()).collect();
        order.sort_by_key(|&k| std::cmp::Reverse(self.streams[k].steps));
        let mut labels: Vec<Vec<u32>> = vec![Vec::new(); self.streams.len()];
        let mut slots: Vec<Option<&mut Vec<u32>>> = labels.iter_mut().map(Some).collect();
        let groups: Vec<Vec<(usize, &mut Vec<u32>)>> = order
            .chunks(LANES)
            .map(|group| group.iter().filter_map(|&k| slots[k].take().map(|slot| (k, slot))).collect())
            .collect();
        for_each(threads, groups, |group| self.label(net, decoder, group));
        let accuracy = self.accuracy(&labels);
        let spans = self.spec.scheme == Scheme::Bio;
        let f1 = spans.then(|| self.f1(&labels));
        let endless = self.with_endless.then(|| {
            let mut whole = Features::default();
            self.streams.iter().for_each(|s| whole.append(s));
            let labels = self.cut(&self.run(net, decoder, &[&whole])[0]);
            if spans { self.f1(&labels) } else { self.accuracy(&labels) }
        });
        let ordinal = self.spec.classify.as_ref().is_some_and(|classify| classify.ordinal);
        let mean_absolute_error = ordinal.then(|| self.distance(&labels));
        DevScore { accuracy, f1, endless, mean_absolute_error, ..DevScore::default() }
    }

    /// Share of the steps with a known label that are right.
    fn accuracy(&self, labels: &[Vec<u32>]) -> f64 {
        let (right, all) = (labels.iter().flatten().zip(self.gold.iter().flatten()))
            .filter(|(_, gold)| **gold != NO_TARGET)
            .fold((0, 0), |(right, all), (label, gold)| (right + usize::from(label == gold), all + 1));
        right as f64 / all.max(1) as f64
    }

    /// By how many classes the given ones are off, on average.
    fn distance(&self, labels: &[Vec<u32>]) -> f64 {
        let (off, all) = (labels.iter().flatten().zip(self.gold.iter().flatten()))
            .filter(|(_, gold)| **gold != NO_TARGET)
            .fold((0, 0), |(off, all), (label, gold)| (off + label.abs_diff(*gold), all + 1));
        f64::from(off) / f64::from(all.max(1))
    }

    /// A classifier's logits for all streams, and their classes; but for streams of classes that it does not have.
    pub fn logits(&self, net: &Network, threads: usize) -> Vec<Judged> {
        let mut groups: Vec<(usize, Vec<Judged>)> =
            (0..self.streams.len()).step_by(LANES).map(|from| (from, Vec::new())).collect();
        for_each(threads, groups.iter_mut().collect(), |(from, rows)| {
            let group: Vec<&Features> = self.streams[*from..].iter().take(LANES).collect();
            let gold = self.gold[*from..].iter().map(|gold| gold[0]);
            let logits = classify::logits(net, &group, &mut Scratch::default());
            rows.extend(logits.into_iter().zip(gold).filter(|(_, g)| *g != NO_TARGET).map(|(l, g)| (l, g as usize)));
        });
        groups.into_iter().flat_map(|(_, rows)| rows).collect()
    }

    fn label(&self, net: &Network, decoder: Option<&Decoder>, group: Vec<(usize, &mut Vec<u32>)>) {
        let streams: Vec<&Features> = group.iter().map(|(k, _)| &self.streams[*k]).collect();
        for ((_, slot), labels) in group.into_iter().zip(self.run(net, decoder, &streams)) {
            *slot = labels;
        }
    }

    /// The labels of these streams, each from a zero state.
    fn run(&self, net: &Network, decoder: Option<&Decoder>, streams: &[&Features]) -> Vec<Vec<u32>> {
        if self.spec.classify.is_some() {
            let best = |logits: Vec<f32>| {
                vec![(0..logits.len()).fold(0, |best, k| if logits[k] > logits[best] { k } else { best }) as u32]
            };
            return classify::logits(net, streams, &mut Scratch::default()).into_iter().map(best).collect();
        }
        let probabilities = probabilities(net, streams);
        if let Some(decoder) = decoder {
            return probabilities.iter().map(|p| decoder.labels(p)).collect();
        }
        let mut sums = Vec::new();
        let labels = self.spec.labels.len();
        let mut pick = |p: &[f32]| crate::model::session::best(p, &self.class_label, labels, &mut sums).0 as u32;
        probabilities.iter().map(|p| p.chunks_exact(self.class_label.len()).map(&mut pick).collect()).collect()
    }

    /// One endless stream's labels, cut at the sentences.
    fn cut(&self, labels: &[u32]) -> Vec<Vec<u32>> {
        let mut rest = labels;
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at(n);
            rest = tail;
            head.to_vec()
        };
        self.streams.iter().map(|s| take(s.steps)).collect()
    }

    /// F1 of exactly right spans, all types together, as the CoNLL evaluation counts them.
    fn f1(&self, labels: &[Vec<u32>]) -> f64 {
        let (mut right, mut found, mut wanted) = (0, 0, 0);
        for (labels, gold) in labels.iter().zip(&self.gold) {
            let (a, b) = (self.spans(labels), self.spans(gold));
            right += a.iter().filter(|span| b.contains(span)).count();
            found += a.len();
            wanted += b.len();
        }
        2.0 * right as f64 / (found + wanted).max(1) as f64
    }

    fn spans(&self, labels: &[u32]) -> Vec<Span> {
        let name = |&label: &u32| self.spec.labels.get(label as usize).map_or("O", String::as_str);
        spans_of(self.spec.scheme, Some("O"), labels.iter().map(name))
    }
}

/// The probabilities of these streams' steps, each stream from a zero state.
pub(super) fn probabilities(net: &Network, streams: &[&Features]) -> Vec<Vec<f32>> {
    let mut states = vec![vec![0.0; net.state_len()]; streams.len()];
    let mut probabilities = vec![Vec::new(); streams.len()];
    let mut lanes: Vec<Lane<'_>> = (streams.iter().zip(&mut states).zip(&mut probabilities))
        .map(|((features, state), probabilities)| Lane { features, state, probabilities })
        .collect();
    if net.shape().window.is_some() {
        let whole = lanes.into_iter().map(|lane| AheadLane { ready: lane.features.steps, lane });
        let mut lanes: Vec<AheadLane<'_>> = whole.collect();
        net.forward_ahead(&mut lanes, 0..usize::MAX, &mut Scratch::default());
    } else {
        net.forward(&mut lanes, &mut Scratch::default());
    }
    probabilities
}
