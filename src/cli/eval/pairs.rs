//! `strand eval` of a translator: exact matches and BLEU.

use crate::cli::translate::{SearchArgs, first, translate};
use crate::cli::usage;
use serde_json::json;
use std::path::PathBuf;
use strand::data::{read_pairs, read_parallel};
use strand::encode::EncoderSpec;
use strand::model::Model;
use strand::score::{Bleu, bleu};

pub struct Report {
    name: String,
    pairs: usize,
    right: usize,
    bleu: Bleu,
}

/// Translates the sources of one file of pairs, or of two files whose lines belong together, and compares.
pub fn evaluate(model: &Model, files: &[PathBuf], search: &SearchArgs, threads: usize) -> anyhow::Result<Report> {
    let spec = model.spec();
    let (Some(translator), Some(decoder), EncoderSpec::Sentences(sentences)) =
        (model.translator(), &spec.decoder, model.encoder().spec())
    else {
        anyhow::bail!("`{}` is no translator", spec.name);
    };
    let pairs = match files {
        [one] => read_pairs(one)?,
        [source, target] => read_parallel(source, target)?,
        _ => {
            return Err(usage(
                "give one file of source<TAB>target lines or JSON lines, or two whose lines belong together",
            ));
        }
    };
    let search = search.search(decoder)?;
    let sources: Vec<&str> = pairs.iter().map(|pair| first(&pair.source, sentences.max_source)).collect();
    let found = translate(translator, &sources, search, threads);
    let right = found.iter().zip(&pairs).filter(|((text, _), pair)| *text == pair.target).count();
    let bleu = bleu(found.iter().zip(&pairs).map(|((text, _), pair)| (text.as_str(), pair.target.as_str())));
    Ok(Report { name: spec.name.clone(), pairs: pairs.len(), right, bleu })
}

impl Report {
    fn exact_match(&self) -> f64 {
        self.right as f64 / self.pairs.max(1) as f64
    }

    pub fn json(&self) -> anyhow::Result<String> {
        let Bleu { score, precisions, brevity_penalty, lengths: [own, reference] } = self.bleu;
        let report = json!({
            "task": "transduce",
            "model": self.name,
            "records": self.pairs,
            "exact_match": self.exact_match(),
            "bleu": score,
            "precisions": precisions,
            "brevity_penalty": brevity_penalty,
            "tokens": own,
            "reference_tokens": reference,
        });
        Ok(serde_json::to_string_pretty(&report)? + "\n")
    }

    pub fn table(&self) -> String {
        let Bleu { score, precisions: [one, two, three, four], brevity_penalty, .. } = self.bleu;
        format!(
            "{}: {} pairs\n\nexact matches {:.2} %\nBLEU          {score:.2} ({one:.1} {two:.1} {three:.1} {four:.1}, brevity \
             penalty {brevity_penalty:.3}; tokens 13a)\n",
            self.name,
            self.pairs,
            100.0 * self.exact_match()
        )
    }
}
