//! Vectors of 16 (AVX-512F) and 8 (AVX2 with FMA) f32.

use super::lanes::Lanes;
use std::arch::x86_64::*;

const SIGN: i32 = i32::MIN;
const ONE: i32 = 0x3f80_0000;

// SAFETY of all blocks: the trait's promise; each is one instruction or two.
impl Lanes for __m512 {
    const N: usize = 16;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn all(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn add(self, y: __m512) -> __m512 {
        unsafe { _mm512_add_ps(self, y) }
    }
    #[inline(always)]
    unsafe fn sub(self, y: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(self, y) }
    }
    #[inline(always)]
    unsafe fn mul(self, y: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(self, y) }
    }
    #[inline(always)]
    unsafe fn div(self, y: __m512) -> __m512 {
        unsafe { _mm512_div_ps(self, y) }
    }
    #[inline(always)]
    unsafe fn fma(self, y: __m512, z: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(self, y, z) }
    }
    #[inline(always)]
    unsafe fn clamp(self, low: __m512, high: __m512) -> __m512 {
        // Of what is no number, both give the second operand.
        unsafe { _mm512_min_ps(high, _mm512_max_ps(low, self)) }
    }
    #[inline(always)]
    unsafe fn abs(self) -> __m512 {
        unsafe { _mm512_abs_ps(self) }
    }
    #[inline(always)]
    unsafe fn neg(self) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(self), _mm512_set1_epi32(SIGN))) }
    }
    #[inline(always)]
    unsafe fn copysign(self, sign: __m512) -> __m512 {
        // Of each bit: where the mask has it the third, else the second.
        unsafe {
            let (mask, size, sign) = (_mm512_set1_epi32(SIGN), _mm512_castps_si512(self), _mm512_castps_si512(sign));
            _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xac>(mask, size, sign))
        }
    }
    #[inline(always)]
    unsafe fn power(self) -> __m512 {
        unsafe {
            let shifted = _mm512_slli_epi32::<23>(_mm512_castps_si512(self));
            _mm512_castsi512_ps(_mm512_add_epi32(shifted, _mm512_set1_epi32(ONE)))
        }
    }
}

// SAFETY of all blocks: the trait's promise; each is one instruction or two.
impl Lanes for __m256 {
    const N: usize = 8;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn all(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn add(self, y: __m256) -> __m256 {
        unsafe { _mm256_add_ps(self, y) }
    }
    #[inline(always)]
    unsafe fn sub(self, y: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(self, y) }
    }
    #[inline(always)]
    unsafe fn mul(self, y: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(self, y) }
    }
    #[inline(always)]
    unsafe fn div(self, y: __m256) -> __m256 {
        unsafe { _mm256_div_ps(self, y) }
    }
    #[inline(always)]
    unsafe fn fma(self, y: __m256, z: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(self, y, z) }
    }
    #[inline(always)]
    unsafe fn clamp(self, low: __m256, high: __m256) -> __m256 {
        // Of what is no number, both give the second operand.
        unsafe { _mm256_min_ps(high, _mm256_max_ps(low, self)) }
    }
    #[inline(always)]
    unsafe fn abs(self) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self) }
    }
    #[inline(always)]
    unsafe fn neg(self) -> __m256 {
        unsafe { _mm256_xor_ps(self, _mm256_set1_ps(-0.0)) }
    }
    #[inline(always)]
    unsafe fn copysign(self, sign: __m256) -> __m256 {
        unsafe {
            let mask = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(mask, self), _mm256_and_ps(mask, sign))
        }
    }
    #[inline(always)]
    unsafe fn power(self) -> __m256 {
        unsafe {
            let shifted = _mm256_slli_epi32::<23>(_mm256_castps_si256(self));
            _mm256_castsi256_ps(_mm256_add_epi32(shifted, _mm256_set1_epi32(ONE)))
        }
    }
}
