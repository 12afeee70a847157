//! What `amx.s` does, tested without AMX: an interpreter of the few instructions that it is made of, as Intel's Software
//! Developer's Manual describes them, with bounds that memory does not have. On a processor with AMX, the tests in `tests.rs`
//! run the program itself.

use super::*;
use crate::rnn::kernel::narrow::{self, Narrow, NarrowKernels, NarrowScratch, Precision, Rows};
use crate::rnn::kernel::tests::numbers;
use crate::rnn::kernel::tiling::Start;
use proptest::prelude::*;
use std::collections::HashMap;

/// Memory that the program may touch: from an address on, so many bytes, and whether it may write there.
struct Region {
    from: usize,
    len: usize,
    writable: bool,
}

/// A tile register: sixteen rows of 64 bytes.
type Tile = [[u8; ROW_BYTES]; ROWS];
const EMPTY: Tile = [[0; ROW_BYTES]; ROWS];

struct Machine {
    memory: Vec<Region>,
    registers: HashMap<&'static str, usize>,
    /// After the last subtraction.
    carry: bool,
    zero: bool,
    /// Rows and bytes of each tile register, once they are configured.
    shapes: Option<[(usize, usize); 8]>,
    tiles: [Tile; 8],
}

impl Machine {
    /// `len` bytes at an address, if they lie in a region.
    fn bytes(&self, at: usize, len: usize, write: bool) -> *mut u8 {
        let inside = |r: &Region| at >= r.from && at + len <= r.from + r.len && (r.writable || !write);
        assert!(self.memory.iter().any(inside), "the program touches {len} bytes at {at:#x}");
        at as *mut u8
    }

    fn value(&self, operand: &str) -> usize {
        operand.parse().unwrap_or_else(|_| self.registers[operand])
    }

    fn set(&mut self, register: &'static str, value: usize) {
        self.registers.insert(register, value);
    }

    /// The number of a tile register and its shape.
    fn tile(&self, operand: &str) -> (usize, (usize, usize)) {
        let tile: usize = operand.strip_prefix("tmm").unwrap().parse().unwrap();
        let shape = self.shapes.expect("#UD: tiles are not configured")[tile];
        assert!(shape.0 > 0 && shape.1 > 0, "#UD: {operand} has no shape");
        (tile, shape)
    }

    /// `[base + 1*index + displacement]`: the address of the first row, and the distance of rows.
    fn rows(&self, operand: &str) -> (usize, usize) {
        let mut parts = operand.trim_matches(['[', ']']).split('+').map(str::trim);
        let base = self.value(parts.next().unwrap());
        let stride = self.value(parts.next().unwrap().strip_prefix("1*").unwrap());
        (base + parts.next().map_or(0, |displacement| self.value(displacement)), stride)
    }

    fn configure(&mut self, at: usize) {
        // SAFETY: the shapes are readable.
        let shapes = unsafe { std::slice::from_raw_parts(self.bytes(at, 64, false), 64) };
        assert_eq!((shapes[0], shapes[1]), (1, 0), "#GP: palette and first row");
        assert!(
            shapes[2..16].iter().chain(&shapes[32..48]).chain(&shapes[56..]).all(|&b| b == 0),
            "#GP: reserved bytes"
        );
        let shape = |tile: usize| (usize::from(shapes[48 + tile]), usize::from(shapes[16 + 2 * tile]));
        let shapes: [(usize, usize); 8] = std::array::from_fn(shape);
        assert!(shapes.iter().all(|&(rows, bytes)| rows <= ROWS && bytes <= ROW_BYTES), "#GP: a shape is too large");
        self.shapes = Some(shapes);
        self.tiles = [EMPTY; 8];
    }

    fn load(&mut self, to: &str, from: &str) {
        let ((tile, (rows, bytes)), (first, stride)) = (self.tile(to), self.rows(from));
        self.tiles[tile] = EMPTY;
        for r in 0..rows {
            let from = self.bytes(first + r * stride, bytes, false);
            // SAFETY: the bytes are readable; the register's row has room for them.
            unsafe { from.copy_to_nonoverlapping(self.tiles[tile][r].as_mut_ptr(), bytes) };
        }
    }

    fn store(&self, to: &str, from: &str) {
        let ((tile, (rows, bytes)), (first, stride)) = (self.tile(from), self.rows(to));
        for r in 0..rows {
            let to = self.bytes(first + r * stride, bytes, true);
            // SAFETY: the bytes are writable; the register's row has so many.
            unsafe { to.copy_from_nonoverlapping(self.tiles[tile][r].as_ptr(), bytes) };
        }
    }

    /// TDPBUSD: sums of four products of an unsigned byte of A and a signed one of B.
    fn multiply(&mut self, c: &str, a: &str, b: &str) {
        let ((c, c_shape), (a, a_shape), (b, b_shape)) = (self.tile(c), self.tile(a), self.tile(b));
        assert!(c != a && a != b && b != c, "#UD: registers must differ");
        assert_eq!((c_shape.0, c_shape.1, a_shape.1), (a_shape.0, b_shape.1, b_shape.0 * 4), "#UD: shapes do not fit");
        for m in 0..c_shape.0 {
            for k in 0..a_shape.1 / 4 {
                for n in 0..c_shape.1 / 4 {
                    let four = |tile: usize, row: usize, at: usize| {
                        <[u8; 4]>::try_from(&self.tiles[tile][row][at * 4..at * 4 + 4]).unwrap()
                    };
                    let products = four(a, m, k).into_iter().zip(four(b, k, n));
                    let sum: i32 = products.map(|(a, b)| i32::from(a) * i32::from(b as i8)).sum();
                    let sum = i32::from_le_bytes(four(c, m, n)).wrapping_add(sum);
                    self.tiles[c][m][n * 4..n * 4 + 4].copy_from_slice(&sum.to_le_bytes());
                }
            }
        }
    }

    fn run(&mut self, text: &'static str) {
        let lines = text.lines().map(|line| line.split('#').next().unwrap().trim());
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        let mut next = 0;
        while let Some(line) = lines.get(next) {
            next += 1;
            let (name, operands) = line.split_once(' ').unwrap_or((line, ""));
            let operands: Vec<&str> = operands.split(',').map(str::trim).collect();
            match (name, operands.as_slice()) {
                ("ldtilecfg", [at]) => self.configure(self.value(at.trim_matches(['[', ']']))),
                ("tilezero", [to]) => self.tiles[self.tile(to).0] = EMPTY,
                ("tileloadd", [to, from]) => self.load(to, from),
                ("tilestored", [to, from]) => self.store(to, from),
                ("tdpbusd", [c, a, b]) => self.multiply(c, a, b),
                ("tilerelease", _) => self.shapes = None,
                ("mov", [to, from]) => self.set(to, self.value(from)),
                ("add", [to, by]) => self.set(to, self.value(to) + self.value(by)),
                ("sub", [to, by]) => {
                    let (difference, carry) = self.value(to).overflowing_sub(self.value(by));
                    (self.carry, self.zero) = (carry, difference == 0);
                    self.set(to, difference);
                }
                ("jmp" | "jnc" | "jnz", [to]) => {
                    if name == "jmp" || (name == "jnc" && !self.carry) || (name == "jnz" && !self.zero) {
                        let label = format!("{}:", &to[..to.len() - 1]);
                        let found = |at: &usize| lines[*at] == label;
                        let place =
                            if to.ends_with('f') { (next..lines.len()).find(found) } else { (0..next).rfind(found) };
                        next = place.expect("a label");
                    }
                }
                (label, _) if label.ends_with(':') => {}
                _ => panic!("no such instruction: {line}"),
            }
        }
        assert!(self.shapes.is_none(), "the tile registers were not given back");
    }
}

/// As [`super::sums`], interpreted.
unsafe fn interpreted(groups: usize, a: *const u32, b: *const u32, panels: usize, sums: *mut i32) {
    let call = Call::new(groups);
    let region = |from: usize, words: usize, writable: bool| Region { from, len: words * 4, writable };
    let mut machine = Machine {
        memory: vec![
            region(call.shapes.as_ptr() as usize, 16, false),
            region(a as usize, ROWS * groups, false),
            region(b as usize, panels * groups * PANEL, false),
            region(sums as usize, panels * ROWS * PANEL, true),
        ],
        registers: HashMap::new(),
        carry: false,
        zero: false,
        shapes: None,
        tiles: [EMPTY; 8],
    };
    for (register, value) in [
        ("rdi", call.shapes.as_ptr() as usize),
        ("rsi", a as usize),
        ("rdx", call.a_stride),
        ("rcx", call.steps),
        ("rax", call.last),
        ("r8", b as usize),
        ("r9", panels),
        ("r10", sums as usize),
        ("r11", PANEL_BYTES),
    ] {
        machine.set(register, value);
    }
    machine.run(include_str!("amx.s"));
}

unsafe fn interpreted_rows(
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
    unsafe { scaled(interpreted, groups, a, b, columns, scales, from, ld, c, ldc, space) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_program_gives_the_portable_bits(blocks in 1usize..4, k in 1usize..300, n in 1usize..330, row_start: bool, seed: u64) {
        let m = blocks * ROWS;
        let (a, b, c) = (numbers(seed, m * k), numbers(seed ^ 1, k * n), numbers(seed ^ 2, m * n));
        let start = if row_start { Start::Row(&c[..n]) } else { Start::Old };
        let packed = Narrow::new(&b, (n, 1), k, n, Precision::Int8);
        let portable = narrow::available(Precision::Int8)[0];
        // All rows are whole blocks, so that the table's tiles are not asked for.
        let amx = NarrowKernels { name: "amx", rows: Rows::Offset, tall: Some(interpreted_rows), ..*portable };
        let run = |kernels: &NarrowKernels| {
            let mut out = c.clone();
            narrow::product(kernels, start, m, &a, &packed, &mut out, n, &mut NarrowScratch::default());
            out.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(&amx), run(portable));
    }

    #[test]
    fn the_program_gives_plain_sums(groups in 1usize..70, panels in 1usize..5, seed: u64) {
        let words = |seed: u64, n: usize| numbers(seed, n).iter().map(|x| x.to_bits().rotate_left(9)).collect::<Vec<u32>>();
        let (a, b) = (words(seed, ROWS * groups), words(seed ^ 1, panels * groups * PANEL));
        let mut got = vec![0; panels * ROWS * PANEL];
        // SAFETY: there are so many rows, panels and sums.
        unsafe { interpreted(groups, a.as_ptr(), b.as_ptr(), panels, got.as_mut_ptr()) };
        prop_assert_eq!(got, plain_sums(groups, &a, &b, panels));
    }
}
