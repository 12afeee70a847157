//! Every table against the portable one, bit for bit, and the portable one against f64.

use super::*;
use proptest::prelude::*;

fn numbers(seed: u64, n: usize) -> Vec<f32> {
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
            let (mut g1, mut h1) = (gates[..rows * 3 * hidden].to_vec(), h.clone());
            let (mut g2, mut h2) = (g1.clone(), h.clone());
            (kernels.gru_rows)(hidden, &mut g1, &c, &mut h1);
            portable::gru_rows(hidden, &mut g2, &c, &mut h2);
            prop_assert_eq!((&g1, &h1), (&g2, &h2));
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
fn exp_sigmoid_and_tanh_are_exact_to_f32() {
    let mut x = -86.0f32;
    while x < 86.0 {
        let (want, got) = ((x as f64).exp(), portable::exp_f32(x) as f64);
        assert!((got / want - 1.0).abs() < 3e-7, "exp({x}) = {got}, not {want}");
        let (want, got) = ((x as f64).tanh(), portable::tanh(x) as f64);
        assert!((got - want).abs() < 2e-7, "tanh({x}) = {got}, not {want}");
        let (want, got) = (1.0 / (1.0 + (-x as f64).exp()), portable::sigmoid(x) as f64);
        assert!((got - want).abs() < 2e-7, "sigmoid({x}) = {got}, not {want}");
        x += 0.0137;
    }
    assert_eq!(portable::tanh(f32::INFINITY), 1.0);
    assert_eq!(portable::tanh(0.0f32), 0.0);
    assert!(portable::tanh(f32::NAN).is_nan() && portable::sigmoid(f32::NAN).is_nan());
}
