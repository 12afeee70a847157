//! The engine's matrix product beside a well-kept one, on the shapes of an online daemon: `cargo bench --bench gemm`.
//!
//! Prints GFLOP/s for a weight matrix that is packed once (ours) and one that is packed at every call (matrixmultiply),
//! single-threaded, the two measured in turns.

use rand::{RngExt, SeedableRng};
use std::time::Instant;
use strand::rnn::kernel::{self, Packed};

fn main() {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    println!("rows\tk\tn\tstrand\tmatrixmultiply\tratio\tkernels={}", kernel::active().name);
    for (k, n) in [(128, 512), (256, 1024), (512, 2048)] {
        for m in [1, 2, 8, 32, 256, 1024] {
            let mut numbers = |len: usize| (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect::<Vec<_>>();
            let (a, b, mut c, mut d) = (numbers(m * k), numbers(k * n), vec![0.0f32; m * n], vec![0.0f32; m * n]);
            let packed = Packed::new(&b, (n, 1), k, n);
            let flops = 2.0 * (m * k * n) as f64;
            let rounds = (2e8 / flops).ceil().max(3.0) as usize;
            let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
            for _ in 0..7 {
                let started = Instant::now();
                for _ in 0..rounds {
                    kernel::gemm(kernel::active(), m, &a, (k, 1), &packed, &mut c, n);
                }
                ours = ours.min(started.elapsed().as_secs_f64() / rounds as f64);
                let started = Instant::now();
                for _ in 0..rounds {
                    // SAFETY: a, b and d are row-major matrices of m·k, k·n and m·n numbers.
                    unsafe {
                        matrixmultiply::sgemm(
                            m,
                            k,
                            n,
                            1.0,
                            a.as_ptr(),
                            k as isize,
                            1,
                            b.as_ptr(),
                            n as isize,
                            1,
                            1.0,
                            d.as_mut_ptr(),
                            n as isize,
                            1,
                        )
                    };
                }
                theirs = theirs.min(started.elapsed().as_secs_f64() / rounds as f64);
            }
            let (ours, theirs) = (flops / ours / 1e9, flops / theirs / 1e9);
            println!("{m}\t{k}\t{n}\t{ours:.1}\t{theirs:.1}\t{:.2}", ours / theirs);
        }
    }
}
