//! An allocator that knows how much is allocated, and how much was at most.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the bytes that `A` gives out, as they were asked for: what `A` adds for itself is not in it.
pub struct Counting<A> {
    inner: A,
    current: AtomicUsize,
    peak: AtomicUsize,
}

impl<A> Counting<A> {
    /// Counts from zero.
    pub const fn new(inner: A) -> Self {
        Self { inner, current: AtomicUsize::new(0), peak: AtomicUsize::new(0) }
    }

    /// Most bytes that were allocated at once since the process began.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed) as u64
    }

    fn add(&self, bytes: usize) {
        let current = self.current.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // Nearly always false, and a load of what seldom changes is cheap.
        if current > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(current, Ordering::Relaxed);
        }
    }

    fn subtract(&self, bytes: usize) {
        self.current.fetch_sub(bytes, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to `inner` as it came, and what `inner` returned is returned.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Counting<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let pointer = unsafe { self.inner.alloc(layout) };
        if !pointer.is_null() {
            self.add(layout.size());
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let pointer = unsafe { self.inner.alloc_zeroed(layout) };
        if !pointer.is_null() {
            self.add(layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { self.inner.dealloc(pointer, layout) };
        self.subtract(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let moved = unsafe { self.inner.realloc(pointer, layout, size) };
        if !moved.is_null() {
            match size.checked_sub(layout.size()) {
                Some(more) => self.add(more),
                None => self.subtract(layout.size() - size),
            }
        }
        moved
    }
}
