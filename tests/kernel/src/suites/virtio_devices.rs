//! What the suites of virtio devices share: the slots, an interrupt to wait for, memory of each kind, and known bytes; and where
//! memory of each kind is for a device.

extern crate alloc;

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use board::vexpress_a9::{VIRTIO_INTERRUPTS, VIRTIO_SLOTS};
use dma::coherent::CoherentBox;
use dma::device::Device;
use dma::{atomic_pool, bounce};
use drivers::virtio::completion::Completion as DeviceInterrupt;
use kerncore::addr::{PhysAddr, VirtAddr, pages_for};
use kerncore::contiguous::{MAX_ALIGNMENT, Unmovable};
use kerncore::frames::{FrameBlock, FrameOwner};
use kerncore::streaming::Flow::{FromDevice, ToDevice};
use ktest::Completion::{self, Ran, Skipped};
use ktest::ktest;
use mm::io_mem::IoMem;
use mm::kernel;
use mm::page_alloc::Pages;
use virtio_hal::{Mapped, Slot, shared_buffers};

use super::witness::{Books, feed, starve};

pub(super) static DEVICE: Device = Device::new("virtio tests");

/// The number and the registers of the first slot that is one of those that are looked for.
pub(super) fn slot_with(is_it: impl Fn(&mut IoMem<Slot>) -> bool) -> Option<(usize, IoMem<Slot>)> {
    VIRTIO_SLOTS.iter().enumerate().find_map(|(number, slot)| {
        let mut registers = IoMem::map(slot.base).expect("addresses");
        is_it(&mut registers).then_some((number, registers))
    })
}

/// Runs `test` on the device that is looked for while `interrupt` listens to it, and makes sure that nothing of it stays.
pub(super) fn with_device(
    is_it: impl Fn(&mut IoMem<Slot>) -> bool,
    none: &'static str,
    interrupt: &'static DeviceInterrupt,
    test: impl FnOnce(&mut IoMem<Slot>),
) -> Completion {
    let (books, pool) = (Books::now(), atomic_pool::usage());
    let misuses = dma::debug::found();
    let Some((number, mut registers)) = slot_with(is_it) else { return Skipped(none) };
    let line = VIRTIO_INTERRUPTS[number].id();
    let second = IoMem::map(VIRTIO_SLOTS[number].base).expect("addresses");
    interrupt.listen(second, line).expect("nobody else listens");
    test(&mut registers);
    assert_eq!(shared_buffers(), 0, "buffers that the device still has");
    assert_eq!(bounce::usage().taken, 0, "copies that the device still has");
    assert_eq!(dma::debug::found(), misuses, "mappings that were misused");
    interrupt.stop(line).expect("it listens");
    drop(registers);
    books.assert_unchanged();
    assert_eq!(atomic_pool::usage(), pool);
    Ran
}

/// Takes all that nobody has of the contiguous region, if there is one: rings come from there.
fn rest_of_region() -> Vec<FrameBlock> {
    let mut taken = Vec::new();
    let Some(region) = kernel().contiguous() else { return taken };
    for order in (0..=MAX_ALIGNMENT).rev() {
        let take = || region.take(1 << order, FrameOwner::Dma, |_, _| Err(Unmovable::Busy));
        while let Ok(block) = take() {
            taken.push(block);
        }
    }
    taken
}

fn give_back(buffers: Vec<FrameBlock>) {
    for block in buffers {
        let region = kernel().contiguous().expect("they are from there");
        region.give_back(block).expect("our own");
    }
}

/// Runs `test` while no memory is free but `left` frames, and nothing of the contiguous region; it takes nothing.
#[track_caller]
pub(super) fn without_memory<R>(left: u32, test: impl FnOnce() -> R) -> R {
    let before = Books::now();
    let buffers = rest_of_region();
    let list = starve(left);
    let starved = Books::now();
    let result = test();
    let after = Books::now();
    feed(list);
    give_back(buffers);
    assert_eq!(starved, after);
    before.assert_unchanged();
    result
}

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// In the linear map: mapped in place, or copied if everything is.
    Linear,
    /// In the heap, over frames that need not be adjacent: copied.
    Heap,
    /// In coherent memory that was taken where one may sleep.
    Coherent,
    /// In the atomic pool.
    Pool,
}

pub(super) const KINDS: [Kind; 4] = [Kind::Linear, Kind::Heap, Kind::Coherent, Kind::Pool];

/// Memory of any kind.
pub(super) enum Memory {
    Linear(Pages, usize),
    Heap(Vec<u8>),
    Coherent(CoherentBox),
}

impl Kind {
    pub(super) fn memory(self, bytes: usize) -> Memory {
        let size = u32::try_from(bytes).expect("a small buffer");
        let memory = match self {
            Self::Heap => Memory::Heap(alloc::vec![0; bytes]),
            Self::Linear => Memory::Linear(Pages::exactly(pages_for(size)).expect("memory"), bytes),
            Self::Coherent => Memory::Coherent(CoherentBox::new(&DEVICE, size).expect("memory")),
            Self::Pool => pooled(size),
        };
        assert_eq!(memory.len(), bytes, "{self:?}");
        memory
    }

    /// Whether a device has it only by a copy.
    pub(super) fn is_copied(self) -> bool {
        match self {
            Self::Linear => bounce::is_forced(),
            Self::Heap => true,
            Self::Coherent | Self::Pool => false,
        }
    }
}

/// What may not sleep takes from the pool.
fn pooled(bytes: u32) -> Memory {
    let taken = || atomic_pool::usage().expect("there is a pool").taken;
    let before = taken();
    let buffer = arch::irq::masked(|| CoherentBox::new_atomic(&DEVICE, bytes)).expect("room");
    assert!(taken() > before, "it is not from the pool");
    Memory::Coherent(buffer)
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Linear(pages, bytes) => &pages[..*bytes],
            Self::Heap(bytes) => bytes,
            Self::Coherent(bytes) => bytes,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Linear(pages, bytes) => &mut pages[..*bytes],
            Self::Heap(bytes) => bytes,
            Self::Coherent(bytes) => bytes,
        }
    }
}

/// Byte `index` of the output of `SplitMix64` (Steele, Lea and Flood, 2014), which the host has, too.
pub(super) fn known_byte(seed: u64, index: u64) -> u8 {
    let steps = index / 8 + 1;
    let mut word = seed.wrapping_add(steps.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)).to_le_bytes()[usize::try_from(index % 8).expect("below 8")]
}

/// Says which of `bytes` is the first that is not byte `from` and following of what `seed` gives.
#[track_caller]
pub(super) fn assert_known(bytes: &[u8], seed: u64, from: u64, what: &str) {
    let wrong = (from..).zip(bytes).find(|&(index, &byte)| byte != known_byte(seed, index));
    if let Some((index, &byte)) = wrong {
        let right = known_byte(seed, index);
        panic!("{what}: byte {index} is {byte:#04x}, and the host has {right:#04x}");
    }
}

/// Makes `bytes` those that `seed` gives from byte `from` on.
pub(super) fn fill_known(bytes: &mut [u8], seed: u64, from: u64) {
    for (index, byte) in (from..).zip(bytes) {
        *byte = known_byte(seed, index);
    }
}

/// Coherent memory is the device's where it is; other memory where it lies on the bus, or in a copy there.
#[ktest]
fn a_device_gets_addresses_of_its_own_and_never_the_processors() {
    for kind in KINDS {
        for (flow, from) in [(ToDevice, 0), (FromDevice, 64)] {
            let mut memory = kind.memory(8192);
            let bytes = NonNull::from(&mut memory[from..][..4096]);
            // SAFETY: the memory is this test's, which does not use it until the mapping ends.
            let mapped = unsafe { Mapped::new(&DEVICE, bytes, flow) }.expect("room");
            let (dma, has) = (mapped.dma_address(), mapped.bytes());
            let copies = bounce::usage().taken;
            // SAFETY: no device knows of it.
            unsafe { mapped.end() }.expect("mapped above");
            assert_eq!(has.cast::<u8>() != bytes.cast(), kind.is_copied(), "{kind:?}");
            assert_eq!(copies != 0, kind.is_copied(), "{kind:?}");
            let address = VirtAddr::new(bytes.addr().get().try_into().expect("32 bits"));
            let physical = kernel().table().translate(address).expect("mapped").physical;
            assert_eq!(dma.raw() == physical.raw(), !kind.is_copied(), "{kind:?}: {dma}");
            let frame = PhysAddr::new(dma.raw()).pfn();
            let owner = kernel().zones().table().owner_of(frame);
            assert_ne!(owner, FrameOwner::Absent, "{kind:?}: {dma} is no RAM");
            assert_eq!(shared_buffers(), 0, "{kind:?}");
        }
    }
}
