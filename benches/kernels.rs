//! The kernels one by one, single-threaded: `cargo bench --bench kernels` (`-- gemm` for some of them).
//!
//! Products are of weight matrices on the shapes of an online daemon, in FLOP a second: ours, packed once, beside one that is
//! packed at every call (matrixmultiply). The elementwise kernels are in numbers (gates, logits) a second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::hint::black_box;
use strand::rnn::kernel::{self, Packed};

fn numbers(len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(len as u64);
    (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

fn gemm(criterion: &mut Criterion) {
    for (k, n) in [(128, 512), (256, 1024), (512, 2048)] {
        let mut group = criterion.benchmark_group(format!("gemm {k} x {n}"));
        let weights = numbers(k * n);
        let packed = Packed::new(&weights, (n, 1), k, n);
        for m in [1, 8, 64, 1024] {
            let (a, mut c) = (numbers(m * k), vec![0.0f32; m * n]);
            group.throughput(Throughput::Elements((2 * m * k * n) as u64));
            group.bench_function(BenchmarkId::new(kernel::active().name, m), |b| {
                b.iter(|| kernel::gemm(kernel::active(), m, black_box(&a), (k, 1), &packed, &mut c, n));
            });
            group.bench_function(BenchmarkId::new("matrixmultiply", m), |b| {
                let [k_rows, n_rows] = [k as isize, n as isize];
                // SAFETY: a, weights and c are row-major matrices of m·k, k·n and m·n numbers.
                b.iter(|| unsafe {
                    let (a, w, c) = (black_box(&a).as_ptr(), weights.as_ptr(), c.as_mut_ptr());
                    matrixmultiply::sgemm(m, k, n, 1.0, a, k_rows, 1, w, n_rows, 1, 1.0, c, n_rows, 1);
                });
            });
        }
        group.finish();
    }
}

fn cells(criterion: &mut Criterion) {
    let hidden = 256;
    for rows in [1, 64] {
        let (mut c, mut h) = (numbers(rows * hidden), numbers(rows * hidden));
        for kernels in kernel::available() {
            let mut group = criterion.benchmark_group(format!("cells of {hidden}, {rows} rows"));
            let (gates, hn) = (numbers(rows * 4 * hidden), numbers(rows * hidden));
            let mut used = gates.clone();
            // As the engine steps, and as training does, which keeps the gates for its way back.
            group.throughput(Throughput::Elements(gates.len() as u64));
            for (name, lstm) in [("lstm_step", kernels.lstm_step), ("lstm_rows", kernels.lstm_rows)] {
                group.bench_function(BenchmarkId::new(name, kernels.name), |b| {
                    b.iter(|| {
                        used.copy_from_slice(&gates);
                        lstm(hidden, &mut used, &mut c, &mut h);
                    });
                });
            }
            let (gates, mut used) = (&gates[..rows * 3 * hidden], vec![0.0; rows * 3 * hidden]);
            group.throughput(Throughput::Elements(gates.len() as u64));
            for (name, gru) in [("gru_step", kernels.gru_step), ("gru_rows", kernels.gru_rows)] {
                group.bench_function(BenchmarkId::new(name, kernels.name), |b| {
                    b.iter(|| {
                        used.copy_from_slice(gates);
                        gru(hidden, &mut used, &hn, &mut h);
                    });
                });
            }
            group.finish();
        }
    }
}

fn softmax(criterion: &mut Criterion) {
    let rows = 64;
    for classes in [9, 32, 1024] {
        let mut group = criterion.benchmark_group(format!("softmax of {classes}, {rows} rows"));
        let logits = numbers(rows * classes);
        let mut used = logits.clone();
        group.throughput(Throughput::Elements(logits.len() as u64));
        for kernels in kernel::available() {
            group.bench_function(BenchmarkId::new("softmax_rows", kernels.name), |b| {
                b.iter(|| {
                    used.copy_from_slice(&logits);
                    (kernels.softmax_rows)(classes, &mut used);
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, gemm, cells, softmax);
criterion_main!(benches);
