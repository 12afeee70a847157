//! The texts of spans, which may begin in one piece of a stream and end in a later one.

use strand::encode::EncoderSpec;
use strand::model::{ModelSpec, Span, StepLabel, Task};

/// A span's text is left out when it is longer.
const MAX_SPAN_TEXT_BYTES: usize = 4096;

/// The words or characters that a span not closed yet may be made of.
#[derive(Default)]
pub struct SpanTexts {
    units: Vec<(u64, u64, String)>,
    bytes: usize,
}

impl SpanTexts {
    /// Whether the model's spans have texts.
    fn are_of(spec: &ModelSpec) -> bool {
        spec.task == Task::Tag && matches!(spec.encoder, EncoderSpec::Words(_) | EncoderSpec::Chars(_))
    }

    /// Adds the steps of a piece.
    pub fn add(&mut self, spec: &ModelSpec, steps: &[StepLabel]) {
        if !SpanTexts::are_of(spec) {
            return;
        }
        for step in steps {
            let is_outside = Some(&spec.labels[step.label]) == spec.outside.as_ref();
            if !is_outside && self.bytes <= MAX_SPAN_TEXT_BYTES * 2 {
                self.units.push((step.start, step.end, step.text.clone()));
                self.bytes += step.text.len();
            }
        }
    }

    /// The span's text, with a space where there was something between its words.
    pub fn text(&self, span: &Span) -> Option<String> {
        let mut text = String::new();
        let mut position = span.start;
        let first = self.units.partition_point(|unit| unit.0 < span.start);
        for (start, end, unit) in self.units[first..].iter().take_while(|unit| unit.1 <= span.end) {
            if *start > position {
                text.push(' ');
            }
            text.push_str(unit);
            position = *end;
        }
        (!text.is_empty() && position == span.end && text.len() <= MAX_SPAN_TEXT_BYTES).then_some(text)
    }

    /// After a piece: only an open span's words are needed further.
    pub fn forget(&mut self, spec: &ModelSpec, steps: &[StepLabel]) {
        let Some(last) = steps.last().filter(|_| SpanTexts::are_of(spec)) else { return };
        if Some(&spec.labels[last.label]) == spec.outside.as_ref() {
            self.units.clear();
        } else if self.units.len() > 256 {
            // A span that long has no text.
            self.units.drain(..self.units.len() - 256);
        }
        self.bytes = self.units.iter().map(|unit| unit.2.len()).sum();
    }
}
