//! The address space on the host: each rule by itself, and small spaces against the dullest possible allocator.

mod books;
mod exhaustive;
mod life;
mod model;
mod placement;
mod request;

use crate::addr::{PAGE_SHIFT, PageRange, VirtAddr};
use crate::owned_range::OwnedRange;

use super::*;

/// The window of the kernel's default layout.
const VMALLOC_START: u32 = 0xc000_0000;
const VMALLOC_PAGES: u32 = 0x3000_0000 >> PAGE_SHIFT;

/// What the tests keep of a live area.
type Record = u32;

/// Memory for books.
struct Memory {
    words: Vec<u32>,
    records: Vec<Option<Record>>,
}

/// Memory for the books of `pages` pages, full of what the books must not rely on.
fn storage_for(pages: u32) -> Memory {
    let words = vec![0xffff_ffff; VaStorage::<Record>::words(pages)];
    Memory { words, records: vec![Some(0xffff_ffff); pages as usize] }
}

/// A space of `pages` pages from page number `first`.
#[track_caller]
fn space(memory: &mut Memory, first: u32, pages: u32) -> VaSpace<'_, Record> {
    let range = PageRange::from_numbers(first, pages).expect("a range of the address space");
    let storage = VaStorage::carve(&mut memory.words, &mut memory.records, pages);
    let storage = storage.expect("enough memory");
    VaSpace::new(OwnedRange::mint(range), storage).expect("a space with enough storage")
}

/// The kernel's default window.
#[track_caller]
fn vmalloc_space(memory: &mut Memory) -> VaSpace<'_, Record> {
    space(memory, VMALLOC_START >> PAGE_SHIFT, VMALLOC_PAGES)
}

/// A request for `pages` usable pages anywhere.
fn pages(pages: u32) -> Request {
    Request::of_bytes(pages << PAGE_SHIFT)
}

/// A request for `pages` usable pages between two addresses.
fn pages_between(count: u32, start: u32, end: u32) -> Request {
    let window = Window::new(VirtAddr::new(start), VirtAddr::new(end));
    Request { window: Some(window), ..pages(count) }
}

/// Reserves and gives the base address.
#[track_caller]
fn taken(space: &mut VaSpace<'_, Record>, request: &Request) -> (u32, OwnedRange) {
    let free = space.free_pages();
    let usable = space.reserve(request).expect("room for the request");
    assert_eq!(usable.count(), request.bytes.div_ceil(1 << PAGE_SHIFT));
    assert_eq!(space.free_pages() + usable.count() + 1, free, "S2: with a guard");
    space.check().expect("sound books");
    (usable.start().raw(), usable)
}

#[track_caller]
fn give_back(space: &mut VaSpace<'_, Record>, usable: OwnedRange) {
    space.release(usable).expect("an area of this space");
    space.check().expect("sound books");
}

fn at(address: u32) -> VirtAddr {
    VirtAddr::new(address)
}
