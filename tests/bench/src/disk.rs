//! A disk of 64 MiB, read by its device's DMA into memory of one kind, in requests of 64 KiB (S105).
//!
//! Devices are done when they like, and what that costs the kernel would not be the same twice: so interrupts are masked but for
//! the moment in which the device's is taken, which is waited for asleep. A processor that sleeps counts nothing.
//!
//! What was read is compared with what `bench-report` wrote: in part n of 64 KiB, page n, counted round, holds ever greater words,
//! and all else is zero.

use alloc::vec::Vec;
use core::ops::DerefMut;

use arch::{cpu, irq};
use board::vexpress_a9::{VIRTIO_INTERRUPTS, VIRTIO_SLOTS};
use dma::coherent::CoherentBox;
use dma::device::Device;
use drivers::virtio::Wait;
use drivers::virtio::block::{Disk, SECTOR, is_disk};
use drivers::virtio::completion::Completion;
use kerncore::config::Copies;
use mm::io_mem::IoMem;
use mm::page_alloc::Pages;

use crate::meter::Meter;

/// Bytes of a request.
const REQUEST: usize = 64 << 10;
/// Requests that read the whole disk.
pub(crate) const REQUESTS: u32 = 1024;
/// Bytes of a piece of memory: the largest block of frames.
const PIECE: u32 = 4 << 20;
const PIECES: u32 = 16;
const PAGE: usize = 4 << 10;

static DEVICE: Device = Device::new("bench");
static COMPLETION: Completion = Completion::new();

pub(crate) fn read_coherent(meter: &mut Meter) {
    bounce_buffers(Copies::WhereNeeded);
    read_into(meter, pieces(|| CoherentBox::new(&DEVICE, PIECE).expect("1 GiB of RAM")));
}

pub(crate) fn read_mapped(meter: &mut Meter) {
    bounce_buffers(Copies::WhereNeeded);
    read_into(meter, pieces(whole_block));
}

pub(crate) fn read_bounced(meter: &mut Meter) {
    bounce_buffers(Copies::Always);
    read_into(meter, pieces(whole_block));
}

fn whole_block() -> Pages {
    Pages::exactly(PIECE / kerncore::addr::PAGE_SIZE).expect("1 GiB of RAM")
}

/// Requests have parts that are copied in any case: they lie on the stack.
fn bounce_buffers(copies: Copies) {
    dma::bounce::init(1 << 20, copies).expect("the first in this boot");
}

fn pieces<B: DerefMut<Target = [u8]>>(make: impl Fn() -> B) -> Vec<B> {
    let mut pieces: Vec<B> = (0..PIECES).map(|_| make()).collect();
    for piece in &mut pieces {
        piece.fill(0xee);
    }
    pieces
}

fn read_into<B: DerefMut<Target = [u8]>>(meter: &mut Meter, mut pieces: Vec<B>) {
    image::interrupts::start().expect("once in a boot");
    let map = |slot: usize| IoMem::map(VIRTIO_SLOTS[slot].base).expect("addresses");
    let slot = (0..VIRTIO_SLOTS.len()).find(|&slot| is_disk(&mut map(slot))).expect("a disk");
    COMPLETION.listen(map(slot), VIRTIO_INTERRUPTS[slot].id()).expect("nobody else listens");
    let mut registers = map(slot);
    let mut disk = Disk::new(&mut registers, Wait::Interrupt).expect("a disk that comes up");
    assert!(meter.operations() <= REQUESTS, "the disk has {REQUESTS} parts");

    let each = PIECE as usize / REQUEST;
    let mut read = true;
    let mut masked = Some(irq::save_and_mask());
    meter.measure(|number| {
        let buffer = &mut pieces[number / each][number % each * REQUEST..][..REQUEST];
        let sector = (number * (REQUEST / SECTOR)) as u64;
        read &= disk.read_by(sector, buffer, &mut |_| take_interrupt(&mut masked)).is_ok();
    });
    if let Some(saved) = masked.take() {
        saved.restore();
    }
    assert!(read, "what was measured was a failure");
    let parts = pieces.iter().flat_map(|piece| piece.chunks(REQUEST));
    let count = meter.operations() as usize;
    for (number, part) in (0..).zip(parts).take(count) {
        assert!(is_part(number, part), "part {number} is not what the disk holds");
    }
}

/// Sleeps until an interrupt is pending, and takes it.
fn take_interrupt(masked: &mut Option<irq::Saved>) {
    cpu::wait_for_interrupt();
    if let Some(saved) = masked.take() {
        saved.restore();
    }
    *masked = Some(irq::save_and_mask());
}

fn is_part(number: u32, part: &[u8]) -> bool {
    let page = number as usize % (REQUEST / PAGE) * PAGE;
    let first = number.wrapping_mul(0x9e37_79b1);
    let words = part[page..page + PAGE].chunks(4);
    let is_word = |(index, word): (u32, &[u8])| *word == first.wrapping_add(index).to_le_bytes();
    let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    (0..).zip(words).all(is_word) && is_zero(&part[..page]) && is_zero(&part[page + PAGE..])
}
