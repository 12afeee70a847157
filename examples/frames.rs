//! From WAV files to the frames that a speech model reads: Kaldi's log-mel filter banks, 40 a second, as JSON lines.
//!
//! ```sh
//! cargo run --release --example frames -- call.wav > call.jsonl        # {"vector":[[…],…]}
//! cargo run --release --example frames -- train.tsv > train.jsonl      # of lines file<TAB>transcript, with "transcript"
//! ```
//!
//! 26 mel bins from 80 to 7,600 Hz over windows of 40 ms, every 25 ms, as (ln energy - 17) / 4 of 16-bit samples, with two
//! digits. Channels are averaged; any sampling rate from 16 kHz up will do.

use kaldi_native_fbank::fbank::{FbankComputer, FbankOptions};
use kaldi_native_fbank::online::{FeatureComputer, OnlineFeature};
use std::io::Write;
use std::path::Path;

const BINS: usize = 26;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for file in std::env::args().skip(1) {
        if file.to_lowercase().ends_with(".wav") {
            writeln!(out, "{{\"vector\":{}}}", json(&frames(Path::new(&file))?))?;
            continue;
        }
        for line in std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?.lines() {
            let (wav, transcript) =
                line.split_once('\t').ok_or_else(|| format!("{file}: expected file<TAB>transcript"))?;
            let transcript = serde_json::to_string(transcript)?;
            writeln!(out, "{{\"transcript\":{transcript},\"vector\":{}}}", json(&frames(Path::new(wav))?))?;
        }
    }
    Ok(out.flush()?)
}

/// The frames of a WAV file, `[frames][BINS]`.
fn frames(path: &Path) -> Result<Vec<Vec<f32>>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut wav = hound::WavReader::open(path).map_err(|e| failed(&e))?;
    let spec = wav.spec();
    if spec.sample_rate < 16_000 {
        return Err(failed(&format!("{} samples a second: 16,000 are the least", spec.sample_rate)));
    }
    let samples: Result<Vec<f32>, hound::Error> = match spec.sample_format {
        hound::SampleFormat::Float => wav.samples::<f32>().map(|x| x.map(|x| x * 32_768.0)).collect(),
        hound::SampleFormat::Int => {
            let scale = 2f32.powi(16 - i32::from(spec.bits_per_sample));
            wav.samples::<i32>().map(|x| x.map(|x| x as f32 * scale)).collect()
        }
    };
    let samples = samples.map_err(|e| failed(&e))?;
    let channels = usize::from(spec.channels);
    let mono: Vec<f32> = samples.chunks_exact(channels).map(|all| all.iter().sum::<f32>() / channels as f32).collect();

    let mut options = FbankOptions { use_energy: false, ..FbankOptions::default() };
    options.frame_opts.samp_freq = spec.sample_rate as f32;
    options.frame_opts.frame_length_ms = 40.0;
    options.frame_opts.frame_shift_ms = 25.0;
    options.frame_opts.dither = 0.0;
    options.mel_opts.num_bins = BINS;
    options.mel_opts.low_freq = 80.0;
    options.mel_opts.high_freq = 7_600.0;
    let mut online = OnlineFeature::new(FeatureComputer::Fbank(FbankComputer::new(options)?));
    online.accept_waveform(spec.sample_rate as f32, &mono);
    online.input_finished();
    Ok(online.features)
}

fn json(frames: &[Vec<f32>]) -> String {
    let number = |x: &f32| format!("{}", (((x.max(0.0) - 17.0) / 4.0) * 100.0).round() / 100.0);
    let row = |frame: &Vec<f32>| format!("[{}]", frame.iter().map(number).collect::<Vec<_>>().join(","));
    format!("[{}]", frames.iter().map(row).collect::<Vec<_>>().join(","))
}
