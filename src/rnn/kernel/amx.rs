//! int8 with AMX, the matrix unit of some x86 processors (Intel's Software Developer's Manual, volume 1, chapter 18): it
//! multiplies sixteen rows by sixteen columns, 64 numbers of k at a time.
//!
//! Of a panel it takes whole *steps* of sixteen groups, then a last one of one to sixteen. The layout of weights and rows is
//! that of the other kernels of int8, and so are the sums, which are exact.
//!
//! What a tile register is multiplied with depends on what it was loaded with before, and the compiler knows nothing of
//! that; so all instructions for some panels are one block of assembly, which leaves the registers as it found them.

use super::PANEL;
use super::cpuid::cpuid;
use super::narrow::{NarrowKernels, Rows, Scales, TALL_ROWS as ROWS, Tall};
use std::arch::asm;
use std::arch::x86_64::_xgetbv;
use std::sync::OnceLock;

/// Groups in a step.
const STEP: usize = 16;

/// Bytes of a row in a tile register.
const ROW_BYTES: usize = 64;

/// Of words in a row of a panel, and of sums: what `amx.s` has in r11.
const PANEL_BYTES: usize = PANEL * 4;

/// Writes Σ_k q q of [`ROWS`] rows by some panels, `[panels, ROWS, PANEL]`: `(groups, a, b, panels, sums)`.
///
/// # Safety
/// `groups` and `panels` are not 0; `a` must hold [`ROWS`] rows of `groups` words, `b` the words of the panels, `sums` the sums.
pub type Sums = unsafe fn(usize, *const u32, *const u32, usize, *mut i32);

/// How `amx.s` is called.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The registers' shapes, as LDTILECFG reads them: rdi.
    pub shapes: [u8; 64],
    /// Bytes from one row of A to the next: rdx.
    pub a_stride: usize,
    /// Steps before the last: rcx.
    pub steps: usize,
    /// Bytes of the panel in the last step: rax.
    pub last: usize,
}

impl Call {
    /// For at least one group.
    pub fn new(groups: usize) -> Call {
        let steps = (groups - 1) / STEP;
        let last = groups - steps * STEP;
        let mut shapes = [0; 64];
        // Palette 1: eight registers of at most 16 rows of 64 bytes.
        shapes[0] = 1;
        // Sums; then A and B of a whole step; then of the last one.
        let whole = [(ROWS, ROW_BYTES), (ROWS, ROW_BYTES), (ROWS, ROW_BYTES), (STEP, ROW_BYTES), (STEP, ROW_BYTES)];
        let rest = [(ROWS, last * 4), (last, ROW_BYTES), (last, ROW_BYTES)];
        for (tile, (rows, bytes)) in whole.into_iter().chain(rest).enumerate() {
            shapes[16 + 2 * tile] = bytes as u8;
            shapes[48 + tile] = rows as u8;
        }
        Call { shapes, a_stride: groups * 4, steps, last: last * PANEL_BYTES }
    }
}

/// Σ q q of sixteen rows by `panels` panels, `[panels, 16, PANEL]`.
///
/// # Safety
/// As [`Sums`]; the processor must have AMX with int8, and the system must have granted it.
unsafe fn sums(groups: usize, a: *const u32, b: *const u32, panels: usize, sums: *mut i32) {
    let call = Call::new(groups);
    // SAFETY: by the shapes, rows and columns in each load and store are those of the step: they lie in the sixteen rows of
    // A, the panels and the sums that the caller promises. Nothing but the registers named is changed; TILERELEASE gives
    // the tile registers back.
    unsafe {
        asm!(
            include_str!("amx.s"),
            in("rdi") call.shapes.as_ptr(),
            in("rsi") a,
            in("rdx") call.a_stride,
            in("rcx") call.steps,
            in("rax") call.last,
            inout("r8") b => _,
            inout("r9") panels => _,
            inout("r10") sums => _,
            in("r11") PANEL_BYTES,
            out("r12") _,
            out("r13") _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// A [`Tall`] by sums whose rows are 128 higher than they are.
///
/// # Safety
/// As [`Tall`] and `sums`.
#[inline(always)]
unsafe fn scaled(
    sums: Sums,
    groups: usize,
    a: *const u32,
    b: *const u32,
    columns: usize,
    scales: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
    space: *mut i32,
) {
    // SAFETY: the caller's promise: column + width ≤ columns, and scales and sums are there for whole panels.
    unsafe {
        sums(groups, a, b, columns.div_ceil(PANEL), space);
        for column in (0..columns).step_by(PANEL) {
            let width = PANEL.min(columns - column);
            for r in 0..ROWS {
                let sums = space.add((column / PANEL * ROWS + r) * PANEL);
                let row = *scales.rows.add(r);
                let mut line = [0.0f32; PANEL];
                std::ptr::copy_nonoverlapping(from.add(r * ld + column), line.as_mut_ptr(), width);
                for (j, x) in line.iter_mut().enumerate() {
                    let sum = (*sums.add(j)).wrapping_sub(*scales.sums.add(column + j));
                    *x = (sum as f32).mul_add(row * *scales.columns.add(column + j), *x);
                }
                std::ptr::copy_nonoverlapping(line.as_ptr(), c.add(r * ldc + column), width);
            }
        }
    }
}

/// # Safety
/// As [`Tall`], and as [`sums`]; the processor must have AVX-512F.
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn rows(
    groups: usize,
    a: *const u32,
    b: *const u32,
    columns: usize,
    scales: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
    space: *mut i32,
) {
    // SAFETY: the caller's promise.
    unsafe { scaled(sums, groups, a, b, columns, scales, from, ld, c, ldc, space) }
}

/// `base` with sixteen rows at a time by AMX, if this processor has it.
pub fn kernels(base: &NarrowKernels) -> Option<&'static NarrowKernels> {
    static TABLE: OnceLock<Option<NarrowKernels>> = OnceLock::new();
    let there = || {
        // SAFETY of the peak: only where there is AMX.
        let peak = |rounds| unsafe { peak(rounds) };
        let table = NarrowKernels { name: "avx512-amx", tall: Some(rows as Tall), peak: Some(peak), ..*base };
        // VPDPBUSD's rows: AMX multiplies unsigned by signed numbers, too.
        (base.rows == Rows::Offset && present() && granted() && sums_are_right()).then_some(table)
    };
    TABLE.get_or_init(there).as_ref()
}

/// Whether the processor has AMX with int8, and the system keeps its registers.
fn present() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILES_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const TILE_STATE: u64 = 1 << 17 | 1 << 18;
    let named = cpuid(0).eax >= 7 && cpuid(1).ecx & OSXSAVE != 0;
    let tiles = named && cpuid(7).edx & TILES_AND_INT8 == TILES_AND_INT8;
    // SAFETY: OSXSAVE says that there is XGETBV.
    tiles && unsafe { extended_control() } & TILE_STATE == TILE_STATE
}

/// # Safety
/// The processor must have XGETBV.
#[target_feature(enable = "xsave")]
unsafe fn extended_control() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(0) }
}

/// Asks Linux for the tile registers, once for the whole process (Documentation/arch/x86/xstate.rst).
#[cfg(target_os = "linux")]
fn granted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const REQ_XCOMP_PERM: usize = 0x1023;
    const XTILEDATA: usize = 18;
    let answer: isize;
    // SAFETY: a system call that takes two numbers and touches no memory of ours.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

#[cfg(not(target_os = "linux"))]
fn granted() -> bool {
    false
}

/// Multiplies numbers of every kind, a step and a part of one, and compares with plain sums.
fn sums_are_right() -> bool {
    const PANELS: usize = 2;
    let groups = STEP + 3;
    let words = |n: usize, factor: u32| -> Vec<u32> { (1..=n as u32).map(|k| k.wrapping_mul(factor)).collect() };
    let (a, b) = (words(ROWS * groups, 0x9e37_79b1), words(PANELS * groups * PANEL, 0x85eb_ca6b));
    let mut got = vec![0; PANELS * ROWS * PANEL];
    // SAFETY: there are so many rows, panels and sums; the caller has seen AMX.
    unsafe { sums(groups, a.as_ptr(), b.as_ptr(), PANELS, got.as_mut_ptr()) };
    got == plain_sums(groups, &a, &b, PANELS)
}

/// As [`Sums`], of unsigned by signed bytes, in plain Rust.
fn plain_sums(groups: usize, a: &[u32], b: &[u32], panels: usize) -> Vec<i32> {
    let dot = |a: u32, b: u32| -> i32 {
        a.to_le_bytes().into_iter().zip(b.to_le_bytes()).map(|(a, b)| i32::from(a) * i32::from(b as i8)).sum()
    };
    let mut sums = Vec::with_capacity(panels * ROWS * PANEL);
    for panel in b.chunks_exact(groups * PANEL).take(panels) {
        for row in a.chunks_exact(groups).take(ROWS) {
            sums.extend((0..PANEL).map(|j| -> i32 { (0..groups).map(|g| dot(row[g], panel[g * PANEL + j])).sum() }));
        }
    }
    sums
}

/// Operations of TDPBUSD alone, on four sums.
///
/// # Safety
/// As [`sums`].
unsafe fn peak(rounds: usize) -> f64 {
    let call = Call::new(STEP);
    if rounds == 0 {
        return 0.0;
    }
    // SAFETY: by the shapes all registers are whole, so that they fit one another; no memory is touched but the shapes.
    unsafe {
        asm!(
            "ldtilecfg [{shapes}]",
            "2:",
            "tdpbusd tmm0, tmm6, tmm7",
            "tdpbusd tmm1, tmm6, tmm7",
            "tdpbusd tmm2, tmm6, tmm7",
            "tdpbusd tmm3, tmm6, tmm7",
            "sub {rounds}, 1",
            "jnz 2b",
            "tilerelease",
            shapes = in(reg) call.shapes.as_ptr(),
            rounds = inout(reg) rounds => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    (rounds * 4 * ROWS * STEP * 4 * 16 * 2) as f64
}

#[cfg(test)]
#[path = "amx_program.rs"]
mod program;
