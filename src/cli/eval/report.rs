//! Figures as JSON for scripts and as a table for people.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use strand::score::{Confusion, Figures};

/// Labels or span types with their figures.
pub type Rows = Vec<(String, Figures)>;

/// A confusion matrix with more labels is left out of the table.
const MAX_TABLE_LABELS: usize = 20;

pub struct Report {
    pub task: &'static str,
    pub model: String,
    pub records: u64,
    pub record_word: &'static str,
    pub tokens: u64,
    pub token_word: &'static str,
    pub accuracy: f64,
    /// All spans (or tokens cut from text) together.
    pub overall: Option<Figures>,
    /// Further figures by name.
    pub more: Vec<(&'static str, f64)>,
    pub rows: Rows,
    pub row_word: &'static str,
    pub confusion: Confusion,
    /// How it was measured.
    pub conditions: BTreeMap<&'static str, &'static str>,
}

impl Report {
    /// One JSON object, on one line.
    pub fn json(&self) -> anyhow::Result<String> {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_string(), value);
        put("task", json!(self.task));
        put("model", json!(self.model));
        for (key, value) in &self.conditions {
            put(key, json!(value));
        }
        put("records", json!(self.records));
        put("tokens", json!(self.tokens));
        put("accuracy", json!(self.accuracy));
        if let Some(overall) = &self.overall {
            put("precision", json!(overall.precision));
            put("recall", json!(overall.recall));
            put("f1", json!(overall.f1));
        }
        for (key, value) in &self.more {
            put(key, json!(value));
        }
        let rows: Map<String, Value> =
            self.rows.iter().map(|(label, figures)| (label.clone(), json!(figures))).collect();
        put("per_label", Value::Object(rows));
        put("confusion", json!({ "labels": self.confusion.labels(), "matrix": self.confusion.matrix() }));
        Ok(serde_json::to_string(&object)? + "\n")
    }

    /// A table.
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_table(&mut out);
        out
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        write!(out, "{}: {} {}, {} {}", self.model, self.records, self.record_word, self.tokens, self.token_word)?;
        for (key, value) in &self.conditions {
            write!(out, ", {key} {value}")?;
        }
        let of = if self.task == "classify" { self.record_word } else { self.token_word };
        writeln!(out, "\n\naccuracy {:.2}% of {of}", 100.0 * self.accuracy)?;
        for (key, value) in &self.more {
            match *key {
                // Not a share: how many classes.
                "mean_absolute_error" => writeln!(out, "mean absolute error {value:.4}")?,
                _ => writeln!(out, "{} {:.2}%", key.replace('_', " "), 100.0 * value)?,
            }
        }
        let widest = self.rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        let width = widest.max(self.row_word.len());
        writeln!(out, "\n{:<width$}  precision   recall       f1   support", self.row_word)?;
        let all = self.overall.as_ref().map(|overall| ("all", overall));
        for (label, f) in self.rows.iter().map(|(label, figures)| (label.as_str(), figures)).chain(all) {
            let (p, r, f1) = (100.0 * f.precision, 100.0 * f.recall, 100.0 * f.f1);
            writeln!(out, "{label:<width$}  {p:>9.2} {r:>8.2} {f1:>8.2} {:>9}", f.support)?;
        }
        self.write_confusion(out)
    }

    fn write_confusion(&self, out: &mut String) -> std::fmt::Result {
        let (labels, matrix) = (self.confusion.labels(), self.confusion.matrix());
        let used = |k: usize| matrix[k].iter().any(|&count| count > 0) || matrix.iter().any(|row| row[k] > 0);
        let shown: Vec<usize> = (0..labels.len()).filter(|&k| used(k)).collect();
        if shown.len() > MAX_TABLE_LABELS {
            return writeln!(out, "\n(the confusion matrix of {} labels is in --json)", shown.len());
        }
        let width = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = shown.iter().map(|&k| labels[k].chars().count().max(6)).collect();
        write!(out, "\n{:<width$}", "gold \\ given")?;
        for (&k, width) in shown.iter().zip(&widths) {
            write!(out, " {:>width$}", labels[k])?;
        }
        for &row in &shown {
            write!(out, "\n{:<width$}", labels[row], width = width.max("gold \\ given".len()))?;
            for (&column, width) in shown.iter().zip(&widths) {
                write!(out, " {:>width$}", matrix[row][column])?;
            }
        }
        writeln!(out)
    }
}
