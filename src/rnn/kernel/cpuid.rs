//! What the processor says of itself.

use std::arch::x86_64::{__cpuid, CpuidResult};

/// CPUID's answer to this leaf (and subleaf 0).
pub fn cpuid(leaf: u32) -> CpuidResult {
    // SAFETY: every x86-64 processor has CPUID. (Newer compilers know that.)
    #[allow(unused_unsafe)]
    unsafe {
        __cpuid(leaf)
    }
}

/// Whether Intel made it.
pub fn is_intel() -> bool {
    let maker = cpuid(0);
    [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

/// Bytes of the second-level cache; 0 where that is not told.
pub fn second_level() -> usize {
    const LAST: u32 = 0x8000_0000;
    const CACHES: u32 = 0x8000_0006;
    if cpuid(LAST).eax >= CACHES { (cpuid(CACHES).ecx as usize >> 16) << 10 } else { 0 }
}
