//! e^x, σ and tanh over the whole of f32: how far they are from f64, and that every table gives the portable bits.

use super::*;
use std::sync::Mutex;

/// Numbers of one block.
const BLOCK: usize = 1024;

/// The largest errors: of e^x and of σ relative, of the others absolute.
#[derive(Debug, Default, Clone, Copy)]
struct Worst {
    exp: f64,
    sigmoid: f64,
    tanh: f64,
    /// Of [`portable::lstm_step`] where all gates are x: σ(x) tanh(x), and σ(x) tanh of that.
    c: f64,
    h: f64,
}

impl Worst {
    fn parts(&mut self) -> [&mut f64; 5] {
        [&mut self.exp, &mut self.sigmoid, &mut self.tanh, &mut self.c, &mut self.h]
    }
}

/// What the functions' documentation promises.
const BOUNDS: Worst = Worst { exp: 1e-7, sigmoid: 1.6e-7, tanh: 1e-7, c: 2.5e-7, h: 2.5e-7 };

/// What a table makes of numbers: σ and tanh, c and h of an LSTM's step, h of a GRU's.
fn results(kernels: &Kernels, x: &[f32]) -> [Vec<f32>; 5] {
    let n = x.len();
    let zeros = vec![0.0f32; n];
    let mut gates = x.repeat(3);
    (kernels.gru_rows)(n, &mut gates, &zeros, &mut zeros.clone());
    let (mut c, mut h) = (zeros.clone(), zeros.clone());
    (kernels.lstm_step)(n, &mut x.repeat(4), &mut c, &mut h);
    let mut gru = zeros.clone();
    (kernels.gru_step)(n, &mut x.repeat(3), &zeros, &mut gru);
    [gates[..n].to_vec(), gates[2 * n..].to_vec(), c, h, gru]
}

fn same(x: f32, y: f32) -> bool {
    x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan())
}

fn check_block(x: &[f32], worst: &mut Worst) {
    let tables = available();
    let want = results(tables[0], x);
    for kernels in &tables[1..] {
        for (got, want) in results(kernels, x).iter().zip(&want) {
            let differs = got.iter().zip(want).position(|(&got, &want)| !same(got, want));
            assert!(differs.is_none(), "{} at {:e}", kernels.name, x[differs.unwrap()]);
        }
    }
    for (k, &number) in x.iter().enumerate() {
        let [sigmoid, tanh, c, h, _] = [0, 1, 2, 3, 4].map(|of| want[of][k]);
        if number.is_nan() {
            assert!(
                sigmoid.is_nan() && tanh.is_nan() && c.is_nan() && h.is_nan() && portable::exp_f32(number).is_nan()
            );
            continue;
        }
        let e = (-f64::from(number.abs())).exp();
        let exact = if number < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) };
        let exact_tanh = ((1.0 - e * e) / (1.0 + e * e)).copysign(f64::from(number));
        let exact_c = exact * exact_tanh;
        let mut off = Worst {
            tanh: (f64::from(tanh) - exact_tanh).abs(),
            c: (f64::from(c) - exact_c).abs(),
            h: (f64::from(h) - exact * exact_c.tanh()).abs(),
            ..Worst::default()
        };
        if (portable::EXP_LEAST..=portable::EXP_MOST).contains(&number) {
            let exact = if number < 0.0 { e } else { 1.0 / e };
            off.exp = (f64::from(portable::exp_f32(number)) / exact - 1.0).abs();
        }
        if number >= -portable::EXP_MOST {
            off.sigmoid = (f64::from(sigmoid) / exact - 1.0).abs();
        } else {
            assert!(sigmoid < 1e-38, "σ({number:e}) = {sigmoid:e}");
        }
        for (worst, off) in worst.parts().into_iter().zip(off.parts()) {
            *worst = worst.max(*off);
        }
    }
}

/// Checks the numbers whose bits are `pattern` of 0 to `count`, and tells the largest errors.
fn check(count: u64, pattern: impl Fn(u64) -> u32 + Sync) -> Worst {
    let all = Mutex::new(Worst::default());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (all, pattern) = (&all, &pattern);
            scope.spawn(move || {
                let mut worst = Worst::default();
                for first in (thread as u64 * BLOCK as u64..count).step_by(threads * BLOCK) {
                    let numbers = first..count.min(first + BLOCK as u64);
                    let x: Vec<f32> = numbers.map(|k| f32::from_bits(pattern(k))).collect();
                    check_block(&x, &mut worst);
                }
                for (all, worst) in all.lock().unwrap().parts().into_iter().zip(worst.parts()) {
                    *all = all.max(*worst);
                }
            });
        }
    });
    all.into_inner().unwrap()
}

fn assert_in_bounds(mut worst: Worst) {
    println!("{worst:?}");
    let mut bounds = BOUNDS;
    assert!(
        worst.parts().iter().zip(bounds.parts()).all(|(off, bound)| **off <= *bound),
        "{worst:?} is above {bounds:?}"
    );
}

#[test]
fn tanh_is_exact_at_zero_and_at_the_ends() {
    for (x, want) in [(0.0f32, 0.0f32), (-0.0, -0.0), (f32::INFINITY, 1.0), (f32::NEG_INFINITY, -1.0)] {
        assert_eq!(portable::tanh(x).to_bits(), want.to_bits(), "tanh({x})");
    }
}

#[test]
fn the_functions_keep_their_bounds_on_numbers_of_all_sizes() {
    const STRIDE: u64 = 2039;
    assert_in_bounds(check((1 << 32) / STRIDE, |k| (k * STRIDE) as u32));
}

#[test]
fn the_functions_keep_their_bounds_between_1_and_2() {
    let one = 1.0f32.to_bits();
    assert_in_bounds(check(1 << 22, |k| one + 2 * k as u32));
}

#[test]
#[ignore = "all 2^32 numbers: minutes"]
fn the_functions_keep_their_bounds_on_every_number() {
    assert_in_bounds(check(1 << 32, |k| k as u32));
}
