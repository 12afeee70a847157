//! A run's figures as CSV, in the run's folder: `steps.csv`, `epochs.csv`, `gradient_flow.csv`.

use super::TrainError;
use super::checkpoint::Progress;
use super::dev::DevScore;
use super::optimizer::StepReport;
use std::fs::{File, OpenOptions};
use std::path::Path;

/// The open log files.
pub struct RunLog {
    steps: csv::Writer<File>,
    epochs: csv::Writer<File>,
    flow: csv::Writer<File>,
}

impl RunLog {
    /// Opens the logs; a resumed run goes on where they end.
    pub fn open(run: &Path, resume: bool) -> Result<RunLog, TrainError> {
        let failed = |source| TrainError::Log { path: run.to_path_buf(), source };
        std::fs::create_dir_all(run).map_err(failed)?;
        let open = |name: &str, header: &[&str]| -> Result<csv::Writer<File>, TrainError> {
            let path = run.join(name);
            let fresh = !resume || !path.exists();
            let file = OpenOptions::new().create(true).write(true).append(!fresh).truncate(fresh).open(&path);
            let mut writer = csv::Writer::from_writer(file.map_err(failed)?);
            if fresh {
                writer.write_record(header)?;
            }
            Ok(writer)
        };
        Ok(RunLog {
            steps: open("steps.csv", &["step", "epoch", "loss", "lr", "gradient_norm", "clipped", "values_clipped"])?,
            epochs: open(
                "epochs.csv",
                &["epoch", "step", "loss", "dev_accuracy", "dev_f1", "dev_endless", "steps_per_s", "seconds"],
            )?,
            flow: open("gradient_flow.csv", &["epoch", "layer", "steps_back", "gradient_norm"])?,
        })
    }

    pub fn step(&mut self, step: u64, epoch: usize, loss: f64, lr: f64, r: &StepReport) -> Result<(), TrainError> {
        Ok(self.steps.serialize((step, epoch, loss, lr, r.norm, u8::from(r.clipped), r.values_clipped))?)
    }

    pub fn epoch(&mut self, p: &Progress, loss: f64, dev: Option<&DevScore>, seconds: f64) -> Result<(), TrainError> {
        let (accuracy, f1, endless) = (dev.map(|d| d.accuracy), dev.and_then(|d| d.f1), dev.and_then(|d| d.endless));
        self.epochs.serialize((p.epoch, p.step, loss, accuracy, f1, endless, p.rows_per_second, seconds))?;
        for writer in [&mut self.steps, &mut self.epochs, &mut self.flow] {
            writer.flush().map_err(csv::Error::from)?;
        }
        Ok(())
    }

    /// `flow[layer][t]` is the squared norm of the gradient at h_t, of the loss of the last step alone.
    pub fn flow(&mut self, epoch: usize, flow: &[Vec<f64>]) -> Result<(), TrainError> {
        for (layer, norms) in flow.iter().enumerate() {
            for (back, square) in norms.iter().rev().enumerate() {
                self.flow.serialize((epoch, layer, back, square.sqrt()))?;
            }
        }
        Ok(())
    }
}
