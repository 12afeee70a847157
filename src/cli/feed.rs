//! `strand run --feed FILE`: hands a file of records to the running daemon's queue, as clients would over HTTP, and
//! shows the labels as they come out.

use super::render::{Kinds, Paint};
use serde::Deserialize;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use strand::model::Model;
use strand::state::StreamId;
use strand::transport::embedded::{Answer, Embedded, NewRecord};
use strand::transport::line::Line;
use tokio::sync::oneshot;

/// Pause between two records, so that the eye can follow.
const PAUSE: Duration = Duration::from_millis(80);

/// The records of a file, checked.
pub struct Feed {
    path: PathBuf,
    lines: Vec<Line>,
}

/// What is shown of an output record.
#[derive(Deserialize)]
struct Shown {
    labels: Vec<ShownLabel>,
    #[serde(rename = "final")]
    is_final: bool,
}

#[derive(Deserialize)]
struct ShownLabel {
    start: u64,
    end: u64,
    text: String,
    label: String,
}

impl Feed {
    /// Reads and checks the file before anything runs.
    pub fn read(path: &Path) -> Result<Feed, String> {
        let name = path.display();
        let text = std::fs::read(path).map_err(|e| format!("cannot read {name}: {e}"))?;
        let lines = text.split(|&b| b == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
        let parse = |(k, line): (usize, &[u8])| Line::parse(line).map_err(|e| format!("{name}, line {}: {e}", k + 1));
        Ok(Feed { path: path.to_path_buf(), lines: lines.map(parse).collect::<Result<_, _>>()? })
    }

    /// Feeds all records, each when the one before is labelled, and shows what comes out.
    pub async fn run(self, model: Arc<Model>, queue: Embedded) {
        let on_terminal = std::io::stdout().is_terminal();
        let paint = Paint { colours: on_terminal && Paint::from_environment().colours };
        let kinds = Kinds::of(model.spec());
        let width = self.lines.iter().map(|l| l.stream.chars().count()).max().unwrap_or(0);
        for line in self.lines {
            let Ok(stream) = StreamId::new(line.stream.as_bytes()) else { continue };
            let (sender, answer) = oneshot::channel();
            let record = NewRecord { stream, event: line.event, value: line.value, id: line.id, wait: Some(sender) };
            if let Err(error) = queue.ingest(vec![record]).await {
                show(&format!("{:width$}  not taken: {error}\n", line.stream));
                continue;
            }
            let text = match answer.await {
                Ok(Answer::Output(output)) => match serde_json::from_slice::<Shown>(&output) {
                    Ok(shown) => shown.paint(&model, &kinds, paint),
                    Err(error) => format!("unreadable output: {error}"),
                },
                Ok(Answer::Rejected { code, detail }) => format!("dead letter, {code}: {detail}"),
                Err(_) => return,
            };
            show(&format!("{}  {text}\n", paint.bold(&format!("{:width$}", line.stream))));
            tokio::time::sleep(PAUSE).await;
        }
        show(&format!("-- end of {}; strand goes on running, Ctrl-C ends it --\n", self.path.display()));
    }
}

impl Shown {
    /// The record's words with their labels in boxes.
    fn paint(&self, model: &Model, kinds: &Kinds, paint: Paint) -> String {
        let mut text = String::new();
        let (mut open, mut position): (Option<usize>, Option<u64>) = (None, None);
        for step in &self.labels {
            let label = model.spec().labels.iter().position(|l| *l == step.label);
            let (kind, begins) = label.map_or((None, false), |label| kinds.of_label(label));
            if let Some(last) = open
                && (kind != Some(last) || begins)
            {
                text.push_str(&paint.close(last, &kinds.names[last]));
                open = None;
            }
            if position.is_some_and(|end| end < step.start) {
                text.push(' ');
            }
            if let (None, Some(kind)) = (open, kind) {
                text.push_str(&paint.open(kind));
                open = Some(kind);
            }
            text.push_str(&super::render::harmless(&step.text));
            position = Some(step.end);
        }
        if let Some(last) = open {
            text.push_str(&paint.close(last, &kinds.names[last]));
        }
        if self.is_final {
            text.push_str("  (end of stream)");
        }
        text
    }
}

/// Output that nobody reads is no reason to stop the daemon.
fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
