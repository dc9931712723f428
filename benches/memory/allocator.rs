//! An allocator that knows how much is allocated, and how much was at most.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

/// A thread adds what it has counted to the sum when it is so many bytes: threads that count in one place slow each other
/// down, and small allocations are many.
const BATCH_BYTES: isize = 64 << 10;

thread_local! {
    /// What this thread has not added yet.
    static PENDING: Cell<isize> = const { Cell::new(0) };
}

/// Counts the bytes that `A` gives out, as they were asked for: what `A` adds for itself is not in it. It may be wrong by
/// [`BATCH_BYTES`] for each thread.
pub struct Counting<A> {
    inner: A,
    current: AtomicIsize,
    peak: AtomicIsize,
}

impl<A> Counting<A> {
    /// Counts from zero.
    pub const fn new(inner: A) -> Self {
        Self { inner, current: AtomicIsize::new(0), peak: AtomicIsize::new(0) }
    }

    /// Most bytes that were allocated at once since the process began.
    pub fn peak_bytes(&self) -> u64 {
        u64::try_from(self.peak.load(Ordering::Relaxed)).unwrap_or_default()
    }

    fn add(&self, bytes: usize) {
        self.count(bytes.cast_signed());
    }

    fn subtract(&self, bytes: usize) {
        self.count(-bytes.cast_signed());
    }

    fn count(&self, bytes: isize) {
        let pending = PENDING.get() + bytes;
        if pending.abs() < BATCH_BYTES {
            PENDING.set(pending);
            return;
        }
        PENDING.set(0);
        let current = self.current.fetch_add(pending, Ordering::Relaxed) + pending;
        // Nearly always false, and a load of what seldom changes is cheap.
        if current > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(current, Ordering::Relaxed);
        }
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
