//! Prints what needs no clock, as tab-separated lines: message, format, its name, bytes on the wire, and allocations per
//! seal, open, and open with every field read, in the steady state.

use fleetwire_formats::{
    Format, each_format,
    sample::Kind,
    visit::{Nothing, Sum, Visit},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// More than the numbers of frames at which their encoding grows by a byte.
const WARM_UP: u64 = 300;
const ROUNDS: u64 = 100;

/// Allocations per seal and per open, once everything has grown to its size.
fn count<F: Format, V: Visit>(kind: Kind, mut visitor: V) -> (usize, u64, u64) {
    let mut format = F::new(kind.sample());
    let (mut frame, mut sealing, mut opening) = (Vec::new(), 0, 0);
    for round in 0..WARM_UP + ROUNDS {
        frame.clear();
        let begin = COUNT.load(Relaxed);
        format.seal(black_box(&mut frame));
        let sealed = COUNT.load(Relaxed);
        format.open(&frame, &mut visitor).unwrap();
        let opened = COUNT.load(Relaxed);
        if round >= WARM_UP {
            sealing += sealed - begin;
            opening += opened - sealed;
        }
    }
    (frame.len(), sealing.div_ceil(ROUNDS), opening.div_ceil(ROUNDS))
}

fn main() {
    for kind in Kind::ALL {
        macro_rules! print {
            ($format:ty, $id:literal, $name:literal) => {
                if <$format as Format>::has(kind) {
                    let (bytes, seal, open) = count::<$format, _>(kind, Nothing);
                    let (_, _, read) = count::<$format, _>(kind, Sum::default());
                    println!("{}\t{}\t{}\t{bytes}\t{seal}\t{open}\t{read}", kind.id(), $id, $name);
                }
            };
        }
        each_format!(print);
    }
}
