//! Colours for kinds of labels, and their legend.

use strand::model::spec::SURPRISE_LABELS;
use strand::model::{ModelSpec, Scheme};

pub const RESET: &str = "\x1b[0m";

/// Background, and a darker shade of it for the label's name; of the 256 colours of a terminal.
const BOXES: [(u8, u8); 10] =
    [(153, 25), (222, 94), (157, 28), (225, 90), (229, 100), (189, 55), (159, 30), (217, 124), (252, 238), (194, 64)];

/// The kinds that labels fall into: types of spans, or the labels themselves.
#[derive(Debug, Clone)]
pub struct Kinds {
    pub names: Vec<String>,
    /// For each label its kind, if it has one, and whether it begins a span whatever was before.
    of_label: Vec<(Option<usize>, bool)>,
}

impl Kinds {
    pub fn of(spec: &ModelSpec) -> Kinds {
        let mut names: Vec<String> = Vec::new();
        let of_label = spec.labels.iter().map(|label| {
            if spec.language.is_some() && *label == SURPRISE_LABELS[0] {
                return (None, false);
            }
            let (kind, begins) = match (spec.scheme, label.split_once('-')) {
                (Scheme::Bio, Some((prefix, kind))) => (kind, prefix == "B"),
                (Scheme::Bio, None) => return (None, false),
                (Scheme::Runs, _) if Some(label) == spec.outside.as_ref() => return (None, false),
                (Scheme::Runs | Scheme::Plain, _) => (label.as_str(), false),
            };
            let index = names.iter().position(|name| name == kind).unwrap_or_else(|| {
                names.push(kind.to_string());
                names.len() - 1
            });
            (Some(index), begins)
        });
        let of_label = of_label.collect();
        Kinds { names, of_label }
    }

    /// The kind of a label, and whether it begins a span whatever was before.
    pub fn of_label(&self, label: usize) -> (Option<usize>, bool) {
        self.of_label[label]
    }
}

/// Colours, or none where NO_COLOR is set.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    pub colours: bool,
}

impl Paint {
    pub fn from_environment() -> Paint {
        Paint { colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) }
    }

    /// What begins a box of this kind.
    pub fn open(self, kind: usize) -> String {
        match self.colours {
            true => format!("\x1b[48;5;{};38;5;16m", BOXES[kind % BOXES.len()].0),
            false => "[".to_string(),
        }
    }

    /// What ends a box, with the kind's name in it.
    pub fn close(self, kind: usize, name: &str) -> String {
        match self.colours {
            true => format!("\x1b[1;38;5;{}m {name} {RESET}", BOXES[kind % BOXES.len()].1),
            false => format!(" {name}]"),
        }
    }

    /// A tag set small behind its word.
    pub fn tag(self, kind: usize, name: &str) -> String {
        match self.colours {
            true => format!("\x1b[2;38;5;{}m·{name}{RESET}", BOXES[kind % BOXES.len()].0),
            false => format!("/{name}"),
        }
    }

    /// Text in the colour of a kind; that of no kind is dim.
    pub fn text(self, kind: Option<usize>, text: &str) -> String {
        match (self.colours, kind) {
            (false, _) => text.to_string(),
            (true, Some(kind)) => format!("\x1b[38;5;{}m{text}{RESET}", BOXES[kind % BOXES.len()].0),
            (true, None) => format!("\x1b[2m{text}{RESET}"),
        }
    }

    pub fn bold(self, text: &str) -> String {
        if self.colours { format!("\x1b[1m{text}{RESET}") } else { text.to_string() }
    }
}

/// Text that does nothing to a terminal: control characters but line ends and tabs are shown as `�`.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}
