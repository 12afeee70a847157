//! Every table against the portable one, bit for bit, and the portable one against f64.

use super::narrow::{Narrow, NarrowKernels, NarrowScratch, Precision, bf16};
use super::*;
use proptest::prelude::*;

pub(super) fn numbers(seed: u64, n: usize) -> Vec<f32> {
    use rand::{RngExt, SeedableRng};
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_instruction_set_gives_the_portable_bits(m in 1usize..20, k in 1usize..70, n in 1usize..200, turned: bool, seed: u64) {
        let (a, b, c) = (numbers(seed, m * k), numbers(seed ^ 1, k * n), numbers(seed ^ 2, m * n));
        let stride = if turned { (1, m) } else { (k, 1) };
        let packed = Packed::new(&b, (n, 1), k, n);
        let mut want = c.clone();
        portable::gemm(m, &a, stride, &packed, &mut want, n);
        for kernels in available() {
            let mut got = c.clone();
            gemm(kernels, m, &a, stride, &packed, &mut got, n);
            prop_assert!(got.iter().zip(&want).all(|(x, y)| x.to_bits() == y.to_bits()), "{}", kernels.name);
        }
        for i in 0..m {
            for j in 0..n {
                let exact: f64 = c[i * n + j] as f64
                    + (0..k).map(|p| a[i * stride.0 + p * stride.1] as f64 * b[p * n + j] as f64).sum::<f64>();
                prop_assert!((exact - want[i * n + j] as f64).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn a_sum_of_products_has_the_bits_of_one_after_the_other(
        m in 1usize..70, k in prop::array::uniform2(0usize..70), n in prop_oneof![1usize..36, 1usize..200], row_start: bool, seed: u64
    ) {
        let a = k.map(|k| numbers(seed ^ k as u64, m * k));
        let b = k.map(|k| numbers(!seed ^ k as u64, k * n));
        let packed = [0, 1].map(|i| Packed::new(&b[i], (n, 1), k[i], n));
        // Between the rows lies what must stay.
        let ldc = n + 3;
        let c = numbers(seed ^ 2, m * ldc);
        let mut want = c.clone();
        if row_start {
            want.chunks_mut(ldc).for_each(|row| row[..n].copy_from_slice(&c[..n]));
        }
        (0..2).for_each(|i| portable::gemm(m, &a[i], (k[i], 1), &packed[i], &mut want, ldc));
        for kernels in available() {
            let mut got = c.clone();
            let factors = [0, 1].map(|i| Factors { a: &a[i], stride: (k[i], 1), b: &packed[i] });
            let start = if row_start { Start::Row(&c[..n]) } else { Start::Old };
            gemm_sum(kernels, start, m, factors, &mut got, ldc);
            prop_assert!(got.iter().zip(&want).all(|(x, y)| x.to_bits() == y.to_bits()), "{}", kernels.name);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_portable_bits_in_bf16_and_int8(m in 1usize..20, k in 1usize..70, n in 1usize..200, row_start: bool, seed: u64) {
        let (a, b, c) = (numbers(seed, m * k), numbers(seed ^ 1, k * n), numbers(seed ^ 2, m * n));
        let start = if row_start { Start::Row(&c[..n]) } else { Start::Old };
        for (precision, most) in [(Precision::Bf16, 0.006), (Precision::Int8, 0.012)] {
            let packed = Narrow::new(&b, (n, 1), k, n, precision);
            let run = |kernels: &NarrowKernels, m: usize, a: &[f32], c: &[f32]| {
                let mut out = c.to_vec();
                narrow::product(kernels, start, m, a, &packed, &mut out, n, &mut NarrowScratch::default());
                out
            };
            let tables = narrow::available(precision);
            let want = run(tables[0], m, &a, &c);
            for kernels in tables {
                let got = run(kernels, m, &a, &c);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&got), bits(&want), "{}", kernels.name);
                // Alone, a row comes to the same.
                for i in 0..m {
                    let alone = run(kernels, 1, &a[i * k..(i + 1) * k], &c[i * n..(i + 1) * n]);
                    prop_assert_eq!(bits(&alone), bits(&got[i * n..(i + 1) * n]), "{}", kernels.name);
                }
            }
            for i in 0..m {
                for j in 0..n {
                    let begun = if row_start { c[j] } else { c[i * n + j] };
                    let exact: f64 = begun as f64 + (0..k).map(|p| a[i * k + p] as f64 * b[p * n + j] as f64).sum::<f64>();
                    let off = (exact - want[i * n + j] as f64).abs();
                    prop_assert!(off < most * (k as f64).sqrt(), "{}: off by {off}", precision.name());
                }
            }
        }
    }

    #[test]
    fn rounding_rows_gives_the_portable_bits(rows in 1usize..5, k in 1usize..70, offset in prop::sample::select(vec![0u8, 128]), seed: u64) {
        let a: Vec<f32> = numbers(seed, rows * k).iter().map(|x| x * 9.0).collect();
        for kernels in available() {
            let words = |per: usize| vec![0u32; rows * k.div_ceil(per)];
            let (mut got, mut want) = (words(2), words(2));
            (kernels.bf16_rows)(k, &a, &mut got);
            narrow::bf16_rows(k, &a, &mut want);
            prop_assert_eq!(&got, &want);
            let mut pairs = vec![0; 2 * got.len()];
            (kernels.bf16_pairs)(k, &a, &mut pairs);
            prop_assert_eq!(pairs, got.iter().flat_map(|word| [word & 0xffff_0000, word << 16]).collect::<Vec<_>>());
            let (mut got, mut want) = ((words(4), vec![0.0; rows]), (words(4), vec![0.0; rows]));
            (kernels.int8_rows)(k, offset, &a, &mut got.0, &mut got.1);
            narrow::int8_rows(k, offset, &a, &mut want.0, &mut want.1);
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn elementwise_kernels_give_the_portable_bits(rows in 1usize..5, hidden in 1usize..70, seed: u64) {
        let scaled = |seed, n: usize| numbers(seed, n).iter().map(|x| x * 12.0).collect::<Vec<f32>>();
        let (gates, c, h) = (scaled(seed, rows * 4 * hidden), scaled(seed ^ 1, rows * hidden), scaled(seed ^ 2, rows * hidden));
        let peephole = numbers(seed ^ 3, 3 * hidden);
        for kernels in available() {
            let (mut g1, mut c1, mut h1) = (gates.clone(), c.clone(), h.clone());
            let (mut g2, mut c2, mut h2) = (gates.clone(), c.clone(), h.clone());
            (kernels.lstm_rows)(hidden, &mut g1, &mut c1, &mut h1);
            portable::lstm_rows(hidden, &mut g2, &mut c2, &mut h2);
            prop_assert_eq!((&g1, &c1, &h1), (&g2, &c2, &h2));
            let (mut c3, mut h3) = (c.clone(), h.clone());
            (kernels.lstm_step)(hidden, &mut gates.clone(), &mut c3, &mut h3);
            let (mut c4, mut h4) = (c.clone(), h.clone());
            portable::lstm_step(hidden, &mut gates.clone(), &mut c4, &mut h4);
            prop_assert_eq!((&c3, &h3), (&c4, &h4));
            prop_assert!(c3.iter().zip(&c1).all(|(x, want)| (x - want).abs() < 2e-6 * want.abs().max(1.0)));
            prop_assert!(h3.iter().zip(&h1).all(|(x, want)| (x - want).abs() < 2e-6));
            let (mut g1, mut h1) = (gates[..rows * 3 * hidden].to_vec(), h.clone());
            let (mut g2, mut h2) = (g1.clone(), h.clone());
            (kernels.gru_rows)(hidden, &mut g1, &c, &mut h1);
            portable::gru_rows(hidden, &mut g2, &c, &mut h2);
            prop_assert_eq!((&g1, &h1), (&g2, &h2));
            let mut h3 = h.clone();
            (kernels.gru_step)(hidden, &mut gates[..rows * 3 * hidden].to_vec(), &c, &mut h3);
            prop_assert_eq!(&h3, &h1, "gru_step");
            let (mut g1, mut c1, mut h1) = (gates.clone(), c.clone(), h.clone());
            let (mut g2, mut c2, mut h2) = (gates.clone(), c.clone(), h.clone());
            (kernels.peephole_rows)(hidden, &peephole, &mut g1, &mut c1, &mut h1);
            portable::peephole_rows(hidden, &peephole, &mut g2, &mut c2, &mut h2);
            prop_assert_eq!((&g1, &c1, &h1), (&g2, &c2, &h2));
            let (mut g1, mut h1) = (gates[..rows * 2 * hidden].to_vec(), h.clone());
            let (mut g2, mut h2) = (g1.clone(), h.clone());
            (kernels.simplified_rows)(hidden, &mut g1, &mut h1);
            portable::simplified_rows(hidden, &mut g2, &mut h2);
            prop_assert_eq!((&g1, &h1), (&g2, &h2));
            let (mut x1, mut x2) = (gates.clone(), gates.clone());
            (kernels.norm_rows)(&peephole[..hidden], &c[..hidden], &mut x1);
            portable::norm_rows(&peephole[..hidden], &c[..hidden], &mut x2);
            prop_assert_eq!(x1, x2);
            let (mut dy1, mut dw1) = (h.clone(), [c[..hidden].to_vec(), h[..hidden].to_vec()]);
            let (mut dy2, mut dw2) = (dy1.clone(), dw1.clone());
            let [dw, db] = &mut dw1;
            (kernels.norm_back)(&gates[..h.len()], &peephole[..hidden], &mut dy1, dw, db);
            let [dw, db] = &mut dw2;
            portable::norm_back(&gates[..h.len()], &peephole[..hidden], &mut dy2, dw, db);
            prop_assert_eq!((dy1, dw1), (dy2, dw2));
            let (mut x1, mut x2) = (gates.clone(), gates.clone());
            (kernels.tanh_all)(&mut x1);
            portable::tanh_all(&mut x2);
            prop_assert_eq!(x1, x2);
            let (mut x1, mut x2) = (gates.clone(), gates.clone());
            (kernels.softmax_rows)(hidden, &mut x1);
            portable::softmax_rows(hidden, &mut x2);
            prop_assert_eq!(x1, x2);
            let n = rows * hidden;
            let (mut dc1, mut dg1) = (h.clone(), vec![0.0; 4 * n]);
            let (mut dc2, mut dg2) = (h.clone(), vec![0.0; 4 * n]);
            (kernels.lstm_back)(hidden, &gates, &c, &h, &c, &mut dc1, &mut dg1);
            portable::lstm_back(hidden, &gates, &c, &h, &c, &mut dc2, &mut dg2);
            prop_assert_eq!((dc1, dg1), (dc2, dg2));
            let (mut dc1, mut dg1) = (h.clone(), vec![0.0; 4 * n]);
            let (mut dc2, mut dg2) = (h.clone(), vec![0.0; 4 * n]);
            (kernels.peephole_back)(hidden, &peephole, &gates, &c, &h, &c, &mut dc1, &mut dg1);
            portable::peephole_back(hidden, &peephole, &gates, &c, &h, &c, &mut dc2, &mut dg2);
            prop_assert_eq!((dc1, dg1), (dc2, dg2));
            let (mut dh1, mut dg1) = (h.clone(), vec![0.0; 2 * n]);
            let (mut dh2, mut dg2) = (h.clone(), vec![0.0; 2 * n]);
            (kernels.simplified_back)(hidden, &gates[..2 * n], &c, &mut dh1, &mut dg1);
            portable::simplified_back(hidden, &gates[..2 * n], &c, &mut dh2, &mut dg2);
            prop_assert_eq!((dh1, dg1), (dh2, dg2));
            let (mut dh1, mut dx1, mut dg1) = (h.clone(), vec![0.0; 3 * n], vec![0.0; 3 * n]);
            let (mut dh2, mut dx2, mut dg2) = (h.clone(), vec![0.0; 3 * n], vec![0.0; 3 * n]);
            (kernels.gru_back)(hidden, &gates[..3 * n], &c, &h, &mut dh1, &mut dx1, &mut dg1);
            portable::gru_back(hidden, &gates[..3 * n], &c, &h, &mut dh2, &mut dx2, &mut dg2);
            prop_assert_eq!((dh1, dx1, dg1), (dh2, dx2, dg2));
            let step = AdamStep { scale: 0.7, lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, correction1: 0.1, correction2: 0.001, weight_decay: 0.01 };
            let v: Vec<f32> = h.iter().map(|x| x * x).collect();
            let n = h.len();
            let (mut p1, mut m1, mut v1) = (h.clone(), c.clone(), v.clone());
            let (mut p2, mut m2, mut v2) = (h.clone(), c.clone(), v.clone());
            (kernels.adam)(&mut p1, &gates[..n], &mut m1, &mut v1, &step);
            portable::adam(&mut p2, &gates[..n], &mut m2, &mut v2, &step);
            prop_assert_eq!((p1, m1, v1), (p2, m2, v2));
        }
    }
}

#[test]
fn bf16_is_the_nearest_and_ties_go_to_even() {
    for bits in (0..u32::MAX).step_by(4099) {
        let x = f32::from_bits(bits);
        let (low, got) = (bits & 0xffff_0000, f32::from_bits(u32::from(bf16(x)) << 16));
        if x.is_nan() {
            assert!(got.is_nan());
            continue;
        }
        let (low, high) = (f32::from_bits(low), f32::from_bits(low.wrapping_add(0x1_0000)));
        if !high.is_finite() {
            continue;
        }
        let (below, above) = ((x as f64 - low as f64).abs(), (high as f64 - x as f64).abs());
        let want = if below < above || (below == above && bits & 0x1_0000 == 0) { low } else { high };
        assert_eq!(got.to_bits(), want.to_bits(), "{x}");
    }
}

#[test]
fn zeros_and_the_largest_numbers_survive_int8() {
    let (k, n) = (6, 3);
    let weights: Vec<f32> = (0..k * n).map(|i| if i % n == 1 { 0.0 } else { 3e37 }).collect();
    let packed = Narrow::new(&weights, (n, 1), k, n, Precision::Int8);
    for kernels in narrow::available(Precision::Int8) {
        for (a, want) in [(0.0, [1.0, 1.0, 1.0]), (1.0, [1.8e38, 1.0, 1.8e38])] {
            let mut c = vec![0.0; n];
            let start = Start::Row(&[1.0, 1.0, 1.0]);
            narrow::product(kernels, start, 1, &[a; 6], &packed, &mut c, n, &mut NarrowScratch::default());
            assert!(c.iter().zip(want).all(|(x, want)| (x - want).abs() <= 1e-4 * want), "{c:?}");
        }
    }
}

/// A matrix beyond the second-level cache is swept with more rows at a time.
#[test]
fn larger_sweeps_give_the_same_bits() {
    let (m, k, n) = (300, 270, 1000);
    let (a, b) = (numbers(1, m * k), numbers(2, k * n));
    let packed = Packed::new(&b, (n, 1), k, n);
    assert!(rows_of_a_sweep(packed.bytes()) > rows_of_a_sweep(1 << 20));
    let mut want = vec![0.5; m * n];
    portable::gemm(m, &a, (k, 1), &packed, &mut want, n);
    for kernels in available() {
        let mut got = vec![0.5; m * n];
        gemm(kernels, m, &a, (k, 1), &packed, &mut got, n);
        assert!(got.iter().zip(&want).all(|(x, y)| x.to_bits() == y.to_bits()), "{}", kernels.name);
    }
}
