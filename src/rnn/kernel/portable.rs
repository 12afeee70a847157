//! Plain Rust kernels for any processor and both number types; the vector kernels are checked against them.

use super::{AdamStep, PANEL, Packed, Real, Terms, WIDE};

/// e^x by x = n ln 2 + r, |r| <= ln 2 / 2, and the Taylor series of e^r to r^7 (error below 1e-8 relative); clamped to
/// the range of f32. Only IEEE additions, multiplications and fused multiply-adds: vector code gives the same bits.
/// Within -87 and 88, off by at most 1e-7 of e^x.
#[inline(always)]
pub fn exp_f32(x: f32) -> f32 {
    let x = x.clamp(EXP_LEAST, EXP_MOST);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LO, n.mul_add(-LN2_HI, x));
    let mut p = EXP_TERMS[0];
    for c in &EXP_TERMS[1..] {
        p = p.mul_add(r, *c);
    }
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

pub(super) const EXP_LEAST: f32 = -87.0;
pub(super) const EXP_MOST: f32 = 88.0;
/// 1.5 * 2^23: adding it rounds to an integer that then stands in the low bits of the mantissa.
pub(super) const ROUND: f32 = 12_582_912.0;
pub(super) const LN2_HI: f32 = 0.693_145_75;
pub(super) const LN2_LO: f32 = 1.428_606_8e-6;
/// Of r^7 to r^0.
pub(super) const EXP_TERMS: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// 1 / (1 + e^-x). In f32 off by at most 1.6e-7 of itself, but below -88 anything under 1e-38.
#[inline(always)]
pub fn sigmoid<T: Real>(x: T) -> T {
    T::one() / (T::one() + (-x).exp_())
}

/// (1 - e^-2|x|) / (1 + e^-2|x|), with the sign of x. In f32 off by at most 1e-7.
#[inline(always)]
pub fn tanh<T: Real>(x: T) -> T {
    let e = (-(x.abs() + x.abs())).exp_();
    ((T::one() - e) / (T::one() + e)).copysign(x)
}

/// e^-2|x| with the sign of x: all that tanh x is made of.
#[inline(always)]
fn tanh_part<T: Real>(x: T) -> T {
    (-(x.abs() + x.abs())).exp_().copysign(x)
}

/// σ(x) tanh(y) from e^-x and the [`tanh_part`] of y, with one division for both: by at most (1 + e^88) · 2, which f32 holds.
/// For y = x off by at most 2.5e-7.
#[inline(always)]
fn sigmoid_tanh<T: Real>(x: T, y: T) -> T {
    let e = y.abs();
    ((T::one() - e) / ((T::one() + x) * (T::one() + e))).copysign(y)
}

/// The LSTM's elementwise part (PyTorch `torch.nn.LSTM`): row by row `gates` `[rows, 4·hidden]` holds the sums for
/// i, f, g, o and is replaced by their values; `c` `[rows, hidden]` goes from c_{t-1} to c_t; `h` becomes h_t:
/// c = σ(f) c + σ(i) tanh(g), h = σ(o) tanh(c).
#[inline(always)]
pub fn lstm_rows<T: Real>(hidden: usize, gates: &mut [T], c: &mut [T], h: &mut [T]) {
    for ((gates, c), h) in
        gates.chunks_exact_mut(4 * hidden).zip(c.chunks_exact_mut(hidden)).zip(h.chunks_exact_mut(hidden))
    {
        // One pass an operation, each over few slices: the compiler turns such loops into vector code.
        let (i_f, g_o) = gates.split_at_mut(2 * hidden);
        let (g, o) = g_o.split_at_mut(hidden);
        i_f.iter_mut().for_each(|x| *x = sigmoid(*x));
        g.iter_mut().for_each(|x| *x = tanh(*x));
        o.iter_mut().for_each(|x| *x = sigmoid(*x));
        let (i, f) = i_f.split_at(hidden);
        for (c, ((&i, &f), &g)) in c.iter_mut().zip(i.iter().zip(f).zip(&*g)) {
            *c = f.mul_add(*c, i * g);
        }
        for (h, (&o, &c)) in h.iter_mut().zip(o.iter().zip(&*c)) {
            *h = o * tanh(c);
        }
    }
}

/// One unit's c and h from the sums of its gates i, f, g, o.
#[inline(always)]
pub fn lstm_one<T: Real>([i, f, g, o]: [T; 4], c: T) -> (T, T) {
    let c = c / (T::one() + (-f).exp_()) + sigmoid_tanh((-i).exp_(), tanh_part(g));
    (c, sigmoid_tanh((-o).exp_(), tanh_part(c)))
}

/// As [`lstm_rows`] for labelling, which does not look at the gates' values: three divisions instead of five.
#[inline(always)]
pub fn lstm_step<T: Real>(hidden: usize, gates: &mut [T], c: &mut [T], h: &mut [T]) {
    for ((gates, c), h) in
        gates.chunks_exact(4 * hidden).zip(c.chunks_exact_mut(hidden)).zip(h.chunks_exact_mut(hidden))
    {
        for k in 0..hidden {
            let gate = |g: usize| gates[g * hidden + k];
            (c[k], h[k]) = lstm_one([gate(0), gate(1), gate(2), gate(3)], c[k]);
        }
    }
}

/// One unit's h from the sums of its gates r and z and of n's input, and the hidden part of n.
#[inline(always)]
pub fn gru_one<T: Real>([r, z, n]: [T; 3], hn: T, h: T) -> T {
    let n = tanh(sigmoid(r).mul_add(hn, n));
    sigmoid(z).mul_add(h - n, n)
}

/// As [`gru_rows`] for labelling, which does not look at the gates' values.
#[inline(always)]
pub fn gru_step<T: Real>(hidden: usize, gates: &mut [T], hn: &[T], h: &mut [T]) {
    for ((gates, hn), h) in gates.chunks_exact(3 * hidden).zip(hn.chunks_exact(hidden)).zip(h.chunks_exact_mut(hidden))
    {
        for k in 0..hidden {
            let gate = |g: usize| gates[g * hidden + k];
            h[k] = gru_one([gate(0), gate(1), gate(2)], hn[k], h[k]);
        }
    }
}

/// The elementwise part of the LSTM with peepholes (Gers and Schmidhuber 2000; Graves 2013), as [`lstm_rows`], but that
/// the gates see c through `peephole` `[3·hidden]`, the weights p of i, f and o: i = σ(sum + p_i c_{t-1}),
/// f = σ(sum + p_f c_{t-1}), o = σ(sum + p_o c_t).
#[inline(always)]
pub fn peephole_rows<T: Real>(hidden: usize, peephole: &[T], gates: &mut [T], c: &mut [T], h: &mut [T]) {
    let (p_i, p_fo) = peephole.split_at(hidden);
    let (p_f, p_o) = p_fo.split_at(hidden);
    for ((gates, c), h) in
        gates.chunks_exact_mut(4 * hidden).zip(c.chunks_exact_mut(hidden)).zip(h.chunks_exact_mut(hidden))
    {
        let (i, rest) = gates.split_at_mut(hidden);
        let (f, rest) = rest.split_at_mut(hidden);
        let (g, o) = rest.split_at_mut(hidden);
        for (gate, peephole) in [(&mut *i, p_i), (&mut *f, p_f)] {
            for (x, (&p, &c)) in gate.iter_mut().zip(peephole.iter().zip(&*c)) {
                *x = sigmoid(p.mul_add(c, *x));
            }
        }
        g.iter_mut().for_each(|x| *x = tanh(*x));
        for (c, ((&i, &f), &g)) in c.iter_mut().zip(i.iter().zip(&*f).zip(&*g)) {
            *c = f.mul_add(*c, i * g);
        }
        for (o, (&p, &c)) in o.iter_mut().zip(p_o.iter().zip(&*c)) {
            *o = sigmoid(p.mul_add(c, *o));
        }
        for (h, (&o, &c)) in h.iter_mut().zip(o.iter().zip(&*c)) {
            *h = o * tanh(c);
        }
    }
}

/// The GRU's elementwise part (PyTorch `torch.nn.GRU`): `gates` `[rows, 3·hidden]` holds the whole sums for r and z
/// and the input's part of n (W_in x + b_in), `hn` `[rows, hidden]` is W_hn h + b_hn; gates become r, z, n and `h` goes
/// from h_{t-1} to h_t: n = tanh(x_n + σ(r) hn), h = (1 - z) n + z h.
#[inline(always)]
pub fn gru_rows<T: Real>(hidden: usize, gates: &mut [T], hn: &[T], h: &mut [T]) {
    for ((gates, hn), h) in
        gates.chunks_exact_mut(3 * hidden).zip(hn.chunks_exact(hidden)).zip(h.chunks_exact_mut(hidden))
    {
        let (r_z, n) = gates.split_at_mut(2 * hidden);
        r_z.iter_mut().for_each(|x| *x = sigmoid(*x));
        let (r, z) = r_z.split_at(hidden);
        for (n, (&r, &hn)) in n.iter_mut().zip(r.iter().zip(hn)) {
            *n = r.mul_add(hn, *n);
        }
        n.iter_mut().for_each(|x| *x = tanh(*x));
        for (h, (&z, &n)) in h.iter_mut().zip(z.iter().zip(&*n)) {
            *h = z.mul_add(*h - n, n);
        }
    }
}

/// The simplified GRU's elementwise part: `gates` `[rows, 2·hidden]` holds the sums for u (the update gate) and n (the
/// candidate) and is replaced by their values; `h` goes from h_{t-1} to h_t: h = σ(u) tanh(n) + (1 - σ(u)) h.
#[inline(always)]
pub fn simplified_rows<T: Real>(hidden: usize, gates: &mut [T], h: &mut [T]) {
    for (gates, h) in gates.chunks_exact_mut(2 * hidden).zip(h.chunks_exact_mut(hidden)) {
        let (u, n) = gates.split_at_mut(hidden);
        u.iter_mut().for_each(|x| *x = sigmoid(*x));
        n.iter_mut().for_each(|x| *x = tanh(*x));
        for (h, (&u, &n)) in h.iter_mut().zip(u.iter().zip(&*n)) {
            *h = u.mul_add(n - *h, *h);
        }
    }
}

/// What one step's elementwise part passes back, LSTM: from `dh` `[rows, hidden]` (gradient at h_t) and `dc` (at c_t,
/// from the step after) to `dgates` `[rows, 4·hidden]` (at the sums); `dc` becomes the gradient at c_{t-1}.
#[inline(always)]
pub fn lstm_back<T: Real>(hidden: usize, gates: &[T], c: &[T], c_prev: &[T], dh: &[T], dc: &mut [T], dgates: &mut [T]) {
    let one = T::one();
    for (row, (gates, dgates)) in gates.chunks_exact(4 * hidden).zip(dgates.chunks_exact_mut(4 * hidden)).enumerate() {
        let at = row * hidden..(row + 1) * hidden;
        let (c, c_prev, dh, dc) = (&c[at.clone()], &c_prev[at.clone()], &dh[at.clone()], &mut dc[at]);
        let (i, rest) = gates.split_at(hidden);
        let (f, rest) = rest.split_at(hidden);
        let (g, o) = rest.split_at(hidden);
        let (di, rest) = dgates.split_at_mut(hidden);
        let (df, rest) = rest.split_at_mut(hidden);
        let (dg, d_o) = rest.split_at_mut(hidden);
        let (i, f, g, o) = (&i[..hidden], &f[..hidden], &g[..hidden], &o[..hidden]);
        let (di, df, dg, d_o) = (&mut di[..hidden], &mut df[..hidden], &mut dg[..hidden], &mut d_o[..hidden]);
        let (c, c_prev, dh, dc) = (&c[..hidden], &c_prev[..hidden], &dh[..hidden], &mut dc[..hidden]);
        for k in 0..hidden {
            let tc = tanh(c[k]);
            d_o[k] = dh[k] * tc * o[k] * (one - o[k]);
            let d = dc[k] + dh[k] * o[k] * (one - tc * tc);
            di[k] = d * g[k] * i[k] * (one - i[k]);
            df[k] = d * c_prev[k] * f[k] * (one - f[k]);
            dg[k] = d * i[k] * (one - g[k] * g[k]);
            dc[k] = d * f[k];
        }
    }
}

/// What one step's elementwise part passes back, LSTM with peepholes: as [`lstm_back`]. What comes back to the
/// peepholes themselves is `dgates` times the c that the gate saw.
#[inline(always)]
pub fn peephole_back<T: Real>(
    hidden: usize,
    peephole: &[T],
    gates: &[T],
    c: &[T],
    c_prev: &[T],
    dh: &[T],
    dc: &mut [T],
    dgates: &mut [T],
) {
    let one = T::one();
    let (p_i, p_fo) = peephole.split_at(hidden);
    let (p_f, p_o) = p_fo.split_at(hidden);
    let (p_i, p_f, p_o) = (&p_i[..hidden], &p_f[..hidden], &p_o[..hidden]);
    for (row, (gates, dgates)) in gates.chunks_exact(4 * hidden).zip(dgates.chunks_exact_mut(4 * hidden)).enumerate() {
        let at = row * hidden..(row + 1) * hidden;
        let (c, c_prev, dh, dc) = (&c[at.clone()], &c_prev[at.clone()], &dh[at.clone()], &mut dc[at]);
        let (i, rest) = gates.split_at(hidden);
        let (f, rest) = rest.split_at(hidden);
        let (g, o) = rest.split_at(hidden);
        let (di, rest) = dgates.split_at_mut(hidden);
        let (df, rest) = rest.split_at_mut(hidden);
        let (dg, d_o) = rest.split_at_mut(hidden);
        let (i, f, g, o) = (&i[..hidden], &f[..hidden], &g[..hidden], &o[..hidden]);
        let (di, df, dg, d_o) = (&mut di[..hidden], &mut df[..hidden], &mut dg[..hidden], &mut d_o[..hidden]);
        let (c, c_prev, dh, dc) = (&c[..hidden], &c_prev[..hidden], &dh[..hidden], &mut dc[..hidden]);
        for k in 0..hidden {
            let tc = tanh(c[k]);
            d_o[k] = dh[k] * tc * o[k] * (one - o[k]);
            let d = dc[k] + dh[k] * o[k] * (one - tc * tc) + d_o[k] * p_o[k];
            di[k] = d * g[k] * i[k] * (one - i[k]);
            df[k] = d * c_prev[k] * f[k] * (one - f[k]);
            dg[k] = d * i[k] * (one - g[k] * g[k]);
            dc[k] = d * f[k] + di[k] * p_i[k] + df[k] * p_f[k];
        }
    }
}

/// What one step's elementwise part passes back, GRU: from `dh` (at h_t) to `dx` (at the input's sums) and `dg` (at
/// the hidden state's sums), both `[rows, 3·hidden]`; `dh` becomes the direct part of the gradient at h_{t-1}.
#[inline(always)]
pub fn gru_back<T: Real>(hidden: usize, gates: &[T], hn: &[T], h_prev: &[T], dh: &mut [T], dx: &mut [T], dg: &mut [T]) {
    let one = T::one();
    for (row, gates) in gates.chunks_exact(3 * hidden).enumerate() {
        let at = row * hidden..(row + 1) * hidden;
        let (hn, h_prev, dh) = (&hn[at.clone()], &h_prev[at.clone()], &mut dh[at]);
        let (r, rest) = gates.split_at(hidden);
        let (z, n) = rest.split_at(hidden);
        let (dx_r, rest) = dx[row * 3 * hidden..].split_at_mut(hidden);
        let (dx_z, dx_n) = rest.split_at_mut(hidden);
        let (dg_r, rest) = dg[row * 3 * hidden..].split_at_mut(hidden);
        let (dg_z, dg_n) = rest.split_at_mut(hidden);
        let (r, z, n) = (&r[..hidden], &z[..hidden], &n[..hidden]);
        let (hn, h_prev, dh) = (&hn[..hidden], &h_prev[..hidden], &mut dh[..hidden]);
        let (dx_r, dx_z, dx_n) = (&mut dx_r[..hidden], &mut dx_z[..hidden], &mut dx_n[..hidden]);
        let (dg_r, dg_z, dg_n) = (&mut dg_r[..hidden], &mut dg_z[..hidden], &mut dg_n[..hidden]);
        for k in 0..hidden {
            let dn = dh[k] * (one - z[k]) * (one - n[k] * n[k]);
            let dz = dh[k] * (h_prev[k] - n[k]) * z[k] * (one - z[k]);
            let dr = dn * hn[k] * r[k] * (one - r[k]);
            (dx_r[k], dx_z[k], dx_n[k]) = (dr, dz, dn);
            (dg_r[k], dg_z[k], dg_n[k]) = (dr, dz, dn * r[k]);
            dh[k] *= z[k];
        }
    }
}

/// What one step's elementwise part passes back, simplified GRU: from `dh` (at h_t) to `dgates` `[rows, 2·hidden]` (at
/// the sums); `dh` becomes the direct part of the gradient at h_{t-1}.
#[inline(always)]
pub fn simplified_back<T: Real>(hidden: usize, gates: &[T], h_prev: &[T], dh: &mut [T], dgates: &mut [T]) {
    let one = T::one();
    for (row, (gates, dgates)) in gates.chunks_exact(2 * hidden).zip(dgates.chunks_exact_mut(2 * hidden)).enumerate() {
        let at = row * hidden..(row + 1) * hidden;
        let (h_prev, dh) = (&h_prev[at.clone()], &mut dh[at]);
        let (u, n) = gates.split_at(hidden);
        let (du, dn) = dgates.split_at_mut(hidden);
        let (u, n, h_prev) = (&u[..hidden], &n[..hidden], &h_prev[..hidden]);
        let (du, dn, dh) = (&mut du[..hidden], &mut dn[..hidden], &mut dh[..hidden]);
        for k in 0..hidden {
            du[k] = dh[k] * (n[k] - h_prev[k]) * u[k] * (one - u[k]);
            dn[k] = dh[k] * u[k] * (one - n[k] * n[k]);
            dh[k] *= one - u[k];
        }
    }
}

/// Σ f(a_k, b_k): sixteen sums side by side, so that the compiler can use vectors, then added up in order.
#[inline(always)]
pub(crate) fn sum<T: Real>(a: &[T], b: &[T], f: impl Fn(T, T) -> T) -> T {
    let mut sums = [T::zero(); 16];
    let ((whole_a, rest_a), (whole_b, rest_b)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in whole_a.iter().zip(whole_b) {
        for (s, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *s += f(a, b);
        }
    }
    for (s, (&a, &b)) in sums.iter_mut().zip(rest_a.iter().zip(rest_b)) {
        *s += f(a, b);
    }
    sums.iter().fold(T::zero(), |all, &s| all + s)
}

/// A row's mean and 1 / √(variance + 1e-5).
#[inline(always)]
fn moments<T: Real>(row: &[T]) -> (T, T) {
    let n = T::of(row.len() as f64);
    let mean = sum(row, row, |x, _| x) / n;
    let variance = sum(row, row, |x, _| (x - mean) * (x - mean)) / n;
    (mean, T::one() / (variance + T::of(1e-5)).sqrt())
}

/// Layer normalisation (Ba, Kiros and Hinton 2016; PyTorch `torch.nn.LayerNorm`) of every row of as many numbers as
/// `weight` has, in place: (x - mean) / √(variance + 1e-5) · weight + bias.
#[inline(always)]
pub fn norm_rows<T: Real>(weight: &[T], bias: &[T], x: &mut [T]) {
    for row in x.chunks_exact_mut(weight.len()) {
        let (mean, scale) = moments(row);
        for (x, (&w, &b)) in row.iter_mut().zip(weight.iter().zip(bias)) {
            *x = ((*x - mean) * scale).mul_add(w, b);
        }
    }
}

/// The way back of [`norm_rows`]: `x` is what went in; `dy`, the gradient at what came out, becomes that at `x`; adds to
/// `dweight` and `dbias`.
#[inline(always)]
pub fn norm_back<T: Real>(x: &[T], weight: &[T], dy: &mut [T], dweight: &mut [T], dbias: &mut [T]) {
    let (width, n) = (weight.len(), T::of(weight.len() as f64));
    for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact_mut(width)) {
        let (mean, scale) = moments(x);
        for ((dw, db), (&x, &d)) in dweight.iter_mut().zip(dbias.iter_mut()).zip(x.iter().zip(&*dy)) {
            *dw += d * (x - mean) * scale;
            *db += d;
        }
        dy.iter_mut().zip(weight).for_each(|(d, &w)| *d *= w);
        let along = sum(dy, dy, |d, _| d) / n;
        let turned = sum(dy, x, |d, x| d * (x - mean) * scale) / n;
        for (d, &x) in dy.iter_mut().zip(x) {
            *d = scale * (*d - along - (x - mean) * scale * turned);
        }
    }
}

/// Softmax of every row of `width` logits, in place.
#[inline(always)]
pub fn softmax_rows<T: Real>(width: usize, x: &mut [T]) {
    for row in x.chunks_exact_mut(width) {
        let top = row.iter().fold(T::neg_infinity(), |a, &b| if b > a { b } else { a });
        for x in row.iter_mut() {
            *x = (*x - top).exp_();
        }
        let sum = row.iter().fold(T::zero(), |a, &b| a + b);
        for x in row.iter_mut() {
            *x /= sum;
        }
    }
}

/// tanh of every element, in place.
#[inline(always)]
pub fn tanh_all<T: Real>(x: &mut [T]) {
    for x in x {
        *x = tanh(*x);
    }
}

/// Adam (Kingma and Ba 2015) and AdamW (Loshchilov and Hutter 2019) as `torch.optim` computes them.
#[inline(always)]
pub fn adam<T: Real>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], s: &AdamStep<T>) {
    let (keep, root) = (T::one() - s.lr * s.weight_decay, s.correction2.sqrt());
    let step = s.lr / s.correction1;
    let n = p.len();
    let (g, m, v) = (&g[..n], &mut m[..n], &mut v[..n]);
    for k in 0..n {
        let g = g[k] * s.scale;
        m[k] = s.beta1.mul_add(m[k] - g, g);
        v[k] = s.beta2.mul_add(v[k], (T::one() - s.beta2) * g * g);
        p[k] = p[k] * keep - step * m[k] / (v[k].sqrt() / root + s.eps);
    }
}

/// `ROWS` rows by the first `COLUMNS` of a panel, the sums of all `terms`, one after the other: see [`super::gemm_sum`].
///
/// # Safety
/// Of all terms `a` must hold `ROWS` rows of `k` elements at `stride`, `b` `k` rows of [`PANEL`]; `c` `ROWS` rows of `COLUMNS`
/// elements, `ldc` apart, `from` a row of `COLUMNS` elements for each, `ld` apart.
pub unsafe fn tile<T: Real, const ROWS: usize, const COLUMNS: usize>(
    terms: &[Terms<T>],
    from: *const T,
    ld: usize,
    c: *mut T,
    ldc: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { tile_of::<T, ROWS, COLUMNS>(0, terms, from, ld, c, ldc) }
}

/// One row by [`WIDE`] panels.
///
/// # Safety
/// As [`tile`], with `WIDE` panels in `b` and as many columns in `c`.
pub unsafe fn wide<T: Real>(terms: &[Terms<T>], from: *const T, ld: usize, c: *mut T, ldc: usize) {
    for w in 0..WIDE {
        // SAFETY: the caller's promise covers each panel.
        unsafe { tile_of::<T, 1, PANEL>(w, terms, from.add(w * PANEL), ld, c.add(w * PANEL), ldc) };
    }
}

/// As [`tile`], with the panel that is so many behind `b`.
///
/// # Safety
/// As [`tile`], with as many panels more in `b`.
unsafe fn tile_of<T: Real, const ROWS: usize, const COLUMNS: usize>(
    panel: usize,
    terms: &[Terms<T>],
    from: *const T,
    ld: usize,
    c: *mut T,
    ldc: usize,
) {
    for r in 0..ROWS {
        // SAFETY: the caller's promise.
        let c = unsafe {
            std::ptr::copy(from.add(r * ld), c.add(r * ldc), COLUMNS);
            std::slice::from_raw_parts_mut(c.add(r * ldc), COLUMNS)
        };
        for &Terms { k, a, stride, b, .. } in terms {
            // SAFETY: the caller's promise.
            let b = unsafe { std::slice::from_raw_parts(b.add(panel * k * PANEL), k * PANEL) };
            for (p, b) in b.chunks_exact(PANEL).enumerate() {
                // SAFETY: the caller's promise.
                let x = unsafe { *a.add(r * stride.0 + p * stride.1) };
                for j in 0..COLUMNS {
                    c[j] = x.mul_add(b[j], c[j]);
                }
            }
        }
    }
}

/// `c += a · b` in plain loops; see [`super::gemm`]. The caller has checked the sizes.
pub fn gemm<T: Real>(m: usize, a: &[T], stride: (usize, usize), b: &Packed<T>, c: &mut [T], ldc: usize) {
    let (k, n) = (b.rows(), b.columns());
    for i in 0..m {
        for p in 0..n.div_ceil(PANEL) {
            let width = PANEL.min(n - p * PANEL);
            let c = &mut c[i * ldc + p * PANEL..][..width];
            for (q, b) in b.panel(p).chunks_exact(PANEL).enumerate().take(k) {
                let x = a[i * stride.0 + q * stride.1];
                for (c, &b) in c.iter_mut().zip(b) {
                    *c = x.mul_add(b, *c);
                }
            }
        }
    }
}

/// As [`super::lanes::peak`]: as much as the compiler makes of plain code.
pub fn peak(rounds: usize) -> f64 {
    const LANES: usize = 64;
    let (x, y) = (std::hint::black_box(0.999f32), std::hint::black_box(1e-3f32));
    let mut chains = [0.5f32; LANES];
    for _ in 0..rounds {
        chains.iter_mut().for_each(|chain| *chain = chain.mul_add(x, y));
    }
    std::hint::black_box(chains);
    (rounds * LANES * 2) as f64
}

/// Reads every number once.
pub fn read(numbers: &[f32]) -> f32 {
    sum(numbers, numbers, |x, _| x)
}
