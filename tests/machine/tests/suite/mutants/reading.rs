//! vread that goes wrong in time and at the top of memory: pages that are copied when they are free, lengths that wrap (S14a, S39).

use super::{Goes, Verdict, board, copying::Copy, same};
use histories::bed::Bed;
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr},
    kernel_space::{Access, Span},
};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

/// When the bytes of a span are copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// While it is shown.
    Right,
    /// When all have been shown.
    Later,
}

impl When {
    /// The first bytes of each page from `from` on. At the first span `begins` runs; whoever is late has to wait for `late`.
    fn read(
        self,
        bed: &Bed,
        (from, pages): (VirtAddr, u32),
        mut begins: impl FnMut(),
        late: impl FnOnce(),
    ) -> Result<Vec<u8>, String> {
        let (mut spans, mut read) = (Vec::new(), Vec::new());
        bed.space.for_each_span(from, pages * PAGE_SIZE, Access::Read, |span| {
            begins();
            match (self, span) {
                (_, Span::Gap { .. }) => {}
                (Self::Right, Span::Memory { address, .. }) => read.push(Copy::load(bed, address)),
                (Self::Later, Span::Memory { address, .. }) => spans.push(address),
            }
        });
        if self == Self::Later {
            late();
            read.extend(spans.into_iter().map(|address| Copy::load(bed, address)));
        }
        read.into_iter().collect()
    }
}

/// How a length is kept from passing the top of memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clip {
    Right,
    /// By the end, which is a sum that wraps.
    ByItsEnd,
    /// To what there is above the first address: of address zero, nothing.
    ToNothing,
}

impl Clip {
    fn count(self, bed: &Bed, from: VirtAddr, bytes: u32) -> u32 {
        let bytes = match self {
            Self::Right => bytes,
            Self::ByItsEnd => from.raw().wrapping_add(bytes).saturating_sub(from.raw()),
            Self::ToNothing => bytes.min(from.raw().wrapping_neg()),
        };
        bed.space.for_each_span(from, bytes, Access::Read, |_| ())
    }
}

/// S14a: whoever frees it waits until it is read.
fn what_is_read_is_not_freed_before(reads: &impl Goes<When>) -> Verdict {
    let bed = Bed::warm();
    let base = bed.vmalloc(2);
    let words = [0x21_u32, 0x43];
    for (page, word) in (0..).zip(words) {
        let stored = bed.machine.cpu(0).store(VirtAddr::new(base.raw() + page * PAGE_SIZE), word);
        stored.map_err(|fault| format!("{fault:?}"))?;
    }
    let freed = AtomicBool::new(false);
    let read = thread::scope(|scope| {
        let mut freeing = None;
        let begins = || {
            freeing.get_or_insert_with(|| {
                scope.spawn(|| {
                    bed.space.vfree((), base).expect("nobody else frees it");
                    freed.store(true, SeqCst);
                })
            });
            while bed.space.find(base).is_some() {
                thread::yield_now();
            }
        };
        let late = || {
            while !freed.load(SeqCst) {
                thread::yield_now();
            }
        };
        reads.how().read(&bed, (base, 2), begins, late)
    })?;
    same("the bytes", &read, &vec![0x21, 0x43])
}

/// S39: as many as there are, up to the last area's last byte, whatever was asked for.
fn a_length_ends_where_memory_does(clips: &impl Goes<Clip>) -> Verdict {
    let bed = Bed::warm();
    let end = bed.vmalloc(3).raw() + 3 * PAGE_SIZE;
    for from in [0, 1, PAGE_SIZE, end - PAGE_SIZE - 1, end - 1, end, u32::MAX] {
        for bytes in [0, 1, PAGE_SIZE, from.wrapping_neg(), u32::MAX - 1, u32::MAX] {
            let wanted = bytes.min(end.saturating_sub(from));
            let what = format!("{bytes:#x} bytes from {from:#x}");
            same(&what, &clips.how().count(&bed, VirtAddr::new(from), bytes), &wanted)?;
        }
    }
    Ok(())
}

board! {
    what_is_read_is_not_freed_before(When::Right) {
        vread_of_freed_pages: "S14a", "pages are copied when the area is not pinned any more", When::Later;
    }
    a_length_ends_where_memory_does(Clip::Right) {
        vread_to_an_end_that_wraps: "S39", "the end of what is read is a sum that wraps", Clip::ByItsEnd;
        vread_from_zero_to_nothing: "S39", "from address zero on there is nothing up to the top", Clip::ToNothing;
    }
}
