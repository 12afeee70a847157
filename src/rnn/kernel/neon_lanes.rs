//! Vectors of four f32 (NEON).

use super::lanes::Lanes;
use std::arch::aarch64::*;

const SIGN: u32 = 1 << 31;
const ONE: u32 = 0x3f80_0000;

// SAFETY of all blocks: the trait's promise; each is one instruction or two, of NEON, which every aarch64 processor has.
impl Lanes for float32x4_t {
    const N: usize = 4;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { vst1q_f32(to, self) }
    }
    #[inline(always)]
    unsafe fn all(x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    unsafe fn add(self, y: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(self, y) }
    }
    #[inline(always)]
    unsafe fn sub(self, y: float32x4_t) -> float32x4_t {
        unsafe { vsubq_f32(self, y) }
    }
    #[inline(always)]
    unsafe fn mul(self, y: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(self, y) }
    }
    #[inline(always)]
    unsafe fn div(self, y: float32x4_t) -> float32x4_t {
        unsafe { vdivq_f32(self, y) }
    }
    #[inline(always)]
    unsafe fn fma(self, y: float32x4_t, z: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(z, self, y) }
    }
    #[inline(always)]
    unsafe fn clamp(self, low: float32x4_t, high: float32x4_t) -> float32x4_t {
        // FMAX and FMIN give what is no number on.
        unsafe { vminq_f32(high, vmaxq_f32(low, self)) }
    }
    #[inline(always)]
    unsafe fn abs(self) -> float32x4_t {
        unsafe { vabsq_f32(self) }
    }
    #[inline(always)]
    unsafe fn neg(self) -> float32x4_t {
        unsafe { vnegq_f32(self) }
    }
    #[inline(always)]
    unsafe fn copysign(self, sign: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(vdupq_n_u32(SIGN), sign, self) }
    }
    #[inline(always)]
    unsafe fn power(self) -> float32x4_t {
        unsafe { vreinterpretq_f32_u32(vaddq_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(self)), vdupq_n_u32(ONE))) }
    }
}
