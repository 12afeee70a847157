//! Memory that packed weights lie in: from a cache line on, and in huge pages where there is enough of it.
//!
//! Weights of many megabytes are read from end to end at every step. In pages of 4 KiB that is more of them than the processor
//! remembers the places of, and it looks each up again on every way through.

use bytemuck::Pod;
use memmap2::MmapMut;

/// Bytes of a cache line; panels start on one.
pub const LINE: usize = 64;

/// Bytes of a huge page on x86-64, and on ARM64 with pages of 4 KiB.
const HUGE: usize = 2 << 20;

/// Numbers, at first zeros, that start on a cache line.
#[derive(Debug)]
pub struct Memory<T> {
    place: Place<T>,
    start: usize,
    len: usize,
}

#[derive(Debug)]
enum Place<T> {
    Heap(Vec<T>),
    Pages(MmapMut),
}

impl<T: Pod> Memory<T> {
    pub fn zeroed(len: usize) -> Memory<T> {
        Memory::in_pages(len).unwrap_or_else(|| Memory::on_the_heap(len))
    }

    fn on_the_heap(len: usize) -> Memory<T> {
        let room = LINE / size_of::<T>();
        let numbers = vec![T::zeroed(); len + room];
        let start = numbers.as_ptr().align_offset(LINE).min(room);
        Memory { place: Place::Heap(numbers), start, len }
    }

    /// None where that is less than half a huge page, or there is no such memory.
    fn in_pages(len: usize) -> Option<Memory<T>> {
        let bytes = (len * size_of::<T>()).next_multiple_of(HUGE);
        if len * size_of::<T>() < HUGE / 2 || !cfg!(target_os = "linux") {
            return None;
        }
        // What lies in front of the first huge page is never touched, and takes no memory.
        let pages = MmapMut::map_anon(bytes + HUGE).ok()?;
        let start = pages.as_ptr().align_offset(HUGE);
        // Where the system has no huge pages, ordinary ones do.
        #[cfg(target_os = "linux")]
        let _ = pages.advise_range(memmap2::Advice::HugePage, start, bytes);
        Some(Memory { place: Place::Pages(pages), start: start / size_of::<T>(), len })
    }
}

impl<T: Pod> std::ops::Deref for Memory<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let all = match &self.place {
            Place::Heap(numbers) => numbers,
            Place::Pages(pages) => bytemuck::cast_slice(pages),
        };
        &all[self.start..self.start + self.len]
    }
}

impl<T: Pod> std::ops::DerefMut for Memory<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let all = match &mut self.place {
            Place::Heap(numbers) => numbers,
            Place::Pages(pages) => bytemuck::cast_slice_mut(pages),
        };
        &mut all[self.start..self.start + self.len]
    }
}

impl<T: Pod> Clone for Memory<T> {
    fn clone(&self) -> Memory<T> {
        let mut copy = Memory::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_are_zeros_on_a_cache_line_and_a_copy_is_equal() {
        for len in [0, 1, 100, HUGE / 8 - 1, HUGE / 8, HUGE / 4, HUGE / 4 + 1, HUGE] {
            let mut memory = Memory::<f32>::zeroed(len);
            assert!(memory.len() == len && memory.iter().all(|x| *x == 0.0), "{len}");
            assert_eq!(memory.as_ptr() as usize % LINE, 0, "{len}");
            memory.iter_mut().enumerate().for_each(|(i, x)| *x = i as f32);
            let copy = memory.clone();
            memory.fill(0.0);
            assert!(copy.iter().enumerate().all(|(i, x)| *x == i as f32), "{len}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn large_memory_starts_on_a_huge_page() {
        let memory = Memory::<u32>::zeroed(HUGE);
        assert!(matches!(memory.place, Place::Pages(_)));
        assert_eq!(memory.as_ptr() as usize % HUGE, 0);
    }
}
