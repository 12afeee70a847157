//! A training's state on disk, written after each epoch: `checkpoint.safetensors` in the run's folder. A training that
//! is continued from it ends at the same weights as one that was never interrupted.

use super::dev::DevScore;
use super::optimizer::Optimizer;
use super::recipe::Recipe;
use super::{TrainError, recipe};
use crate::model::params::Params;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// How far a training has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs done.
    pub epoch: usize,
    /// Steps of optimisation done.
    pub step: u64,
    pub best_epoch: usize,
    pub best: Option<DevScore>,
    /// Steps whose gradient was clipped by its norm.
    pub clipped: u64,
    pub rows_per_second: f64,
}

impl Progress {
    /// Whether the epoch that is done is the best so far, by its score on dev (without dev each is); notes it if so.
    pub fn is_best(&mut self, score: Option<&DevScore>) -> bool {
        let better = match (score, &self.best) {
            (Some(new), Some(old)) => new.main() > old.main(),
            _ => true,
        };
        if better {
            (self.best_epoch, self.best) = (self.epoch, score.cloned());
        }
        better
    }
}

/// What is read back.
pub struct Checkpoint {
    pub params: Params<f32>,
    pub best: Params<f32>,
    pub m: Params<f32>,
    pub v: Params<f32>,
    pub ema: Option<Params<f32>>,
    pub progress: Progress,
}

const FILE: &str = "checkpoint.safetensors";

/// The recipe without what may change between interruption and continuation.
fn identity(recipe: &Recipe) -> String {
    let mut recipe = recipe.clone();
    recipe.train = recipe::TrainSpec { threads: 0, early_stop: 0, ..recipe.train };
    recipe.output.dir = Default::default();
    recipe.output.run = None;
    serde_json::to_string(&recipe).unwrap_or_default()
}

impl Checkpoint {
    /// Sets the optimiser to where it was; the parameters, the best ones, and the progress.
    pub fn resume(self, optimizer: &mut Optimizer<f32>) -> (Params<f32>, Params<f32>, Progress) {
        (optimizer.m, optimizer.v) = (self.m, self.v);
        (optimizer.ema, optimizer.step) = (self.ema, self.progress.step);
        (self.params, self.best, self.progress)
    }

    pub fn save(
        run: &Path,
        recipe: &Recipe,
        params: &Params<f32>,
        best: &Params<f32>,
        optimizer: &Optimizer<f32>,
        progress: &Progress,
    ) -> Result<(), TrainError> {
        let mut sets = vec![("params", params), ("best", best), ("m", &optimizer.m), ("v", &optimizer.v)];
        sets.extend(optimizer.ema.as_ref().map(|e| ("ema", e)));
        let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
        for (set, params) in sets {
            for at in 0..params.len() {
                let bytes = params.slice(at).iter().flat_map(|x| x.to_le_bytes()).collect();
                tensors.push((format!("{set}/{}", params.name(at)), params.dims(at).to_vec(), bytes));
            }
        }
        let failed = |what: String| TrainError::Checkpoint { path: run.join(FILE), detail: what };
        let mut views = Vec::new();
        for (name, dims, bytes) in &tensors {
            let view = TensorView::new(Dtype::F32, dims.clone(), bytes).map_err(|e| failed(e.to_string()))?;
            views.push((name.as_str(), view));
        }
        let progress = serde_json::to_string(progress).map_err(|e| failed(e.to_string()))?;
        let meta = HashMap::from([("progress".to_string(), progress), ("recipe".to_string(), identity(recipe))]);
        let bytes = safetensors::serialize(views, Some(meta)).map_err(|e| failed(e.to_string()))?;
        let (temporary, path) = (run.join("checkpoint.tmp"), run.join(FILE));
        std::fs::write(&temporary, bytes)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|e| failed(e.to_string()))
    }

    /// Reads the checkpoint of a run; `like` has the names and shapes that the recipe asks for.
    pub fn load(run: &Path, recipe: &Recipe, like: &Params<f32>) -> Result<Checkpoint, TrainError> {
        let path = run.join(FILE);
        let failed = |detail: String| TrainError::Checkpoint { path: path.clone(), detail };
        let bytes = std::fs::read(&path).map_err(|e| failed(format!("{e}; start without --resume")))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| failed(e.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| failed(e.to_string()))?;
        let meta = header.metadata().clone().unwrap_or_default();
        if meta.get("recipe") != Some(&identity(recipe)) {
            return Err(failed("it was made by another recipe; start without --resume".into()));
        }
        let progress: Progress = serde_json::from_str(meta.get("progress").map_or("", String::as_str))
            .map_err(|e| failed(format!("its progress cannot be read: {e}")))?;
        let read = |set: &str| -> Result<Params<f32>, TrainError> {
            let mut params = like.zeros_like();
            for at in 0..params.len() {
                let name = format!("{set}/{}", params.name(at));
                let tensor = file.tensor(&name).map_err(|_| failed(format!("tensor {name} is missing")))?;
                if tensor.shape() != params.dims(at) || tensor.dtype() != Dtype::F32 {
                    return Err(failed(format!("tensor {name} has another shape: the data has changed")));
                }
                for (x, b) in params.slice_mut(at).iter_mut().zip(tensor.data().chunks_exact(4)) {
                    *x = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            Ok(params)
        };
        let ema = if recipe.train.ema > 0.0 { Some(read("ema")?) } else { None };
        Ok(Checkpoint { params: read("params")?, best: read("best")?, m: read("m")?, v: read("v")?, ema, progress })
    }
}
