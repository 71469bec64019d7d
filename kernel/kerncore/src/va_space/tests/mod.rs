//! The address space on the host: each rule by itself, and small spaces against the dullest possible allocator.

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

/// Memory for the books of `pages` pages, full of what the books must not rely on.
fn storage_for(pages: u32) -> Vec<u32> {
    vec![0xffff_ffff; VaStorage::words(pages)]
}

/// A space of `pages` pages from page number `first`.
#[track_caller]
fn space(memory: &mut [u32], first: u32, pages: u32) -> VaSpace<'_> {
    let range = PageRange::from_numbers(first, pages).expect("a range of the address space");
    let storage = VaStorage::carve(memory, pages).expect("enough memory");
    VaSpace::new(OwnedRange::mint(range), storage).expect("a space with enough storage")
}

/// The kernel's default window.
#[track_caller]
fn vmalloc_space(memory: &mut [u32]) -> VaSpace<'_> {
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
fn taken(space: &mut VaSpace<'_>, request: &Request) -> (u32, Reservation) {
    let reservation = space.reserve(request).expect("room for the request");
    assert_eq!(reservation.usable.pages().end(), reservation.guard.pages().first(), "S2");
    assert_eq!(reservation.guard.count(), 1, "S2");
    space.check().expect("sound books");
    (reservation.usable.start().raw(), reservation)
}

#[track_caller]
fn give_back(space: &mut VaSpace<'_>, reservation: Reservation) {
    space.release(reservation.usable, reservation.guard).expect("an area of this space");
    space.check().expect("sound books");
}

fn record(index: u32) -> RecordId {
    RecordId::new(index).expect("a small number")
}

fn at(address: u32) -> VirtAddr {
    VirtAddr::new(address)
}
