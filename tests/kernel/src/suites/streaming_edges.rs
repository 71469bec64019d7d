//! Where mappings begin and end (S105, S106): beside memory that is used uncached, inside of lines, at the top of the bus, at the last slot.

extern crate alloc;

use alloc::vec::Vec;

use dma::bounce::{is_forced, usage};
use dma::coherent::{CoherentBox, allocate, free};
use dma::device::Device;
use dma::in_place::seen_at;
use dma::streaming::{self, Call, MapError, Memory, UnmapError};
use image::start::started;
use kerncore::addr::{DmaAddr, PAGE_SIZE, PhysAddr, VirtAddr};
use kerncore::bounce::SLOT;
use kerncore::coherent::Sleep;
use kerncore::dma_mask::DmaMask;
use kerncore::kmap::KmapError;
use kerncore::misuse::Family;
use kerncore::streaming::{Flow, Refusal};
use ktest::{assert_err, ktest};
use mm::kernel;
use mm::page_alloc::Pages;
use mm::vm_area::VmArea;

use super::witness::{Books, NOBODY};

static DEVICE: Device = Device::new("a device at edges");

const fn call(flow: Flow) -> Call<'static> {
    Call { name: "a test", device: &DEVICE, flow, caller: NOBODY, family: Family::Single }
}

fn map(flow: Flow, memory: Memory, bytes: u32) -> Result<DmaAddr, MapError> {
    // SAFETY: the test's pages, which it leaves alone; or refused; or what no device does anything to.
    unsafe { streaming::map(call(flow), memory, bytes) }
}

#[track_caller]
fn unmap(flow: Flow, dma: DmaAddr, bytes: u32) {
    // SAFETY: mapped by the test; there is no device.
    assert_eq!(unsafe { streaming::unmap(call(flow), dma, bytes) }, Ok(()));
}

/// How many pages are taken before it is said that none lies where it should.
const MOST: usize = 4096;

fn is_pair(pair: &[Pages]) -> bool {
    pair[0].first().checked_add(1) == Some(pair[1].first())
}

/// A page of the linear map, and a page of coherent memory that lies right behind it on the bus.
#[track_caller]
fn with_uncached_neighbour(test: impl FnOnce(&Pages, PhysAddr)) {
    if kernel().contiguous().is_some() {
        // The contiguous region's lies elsewhere, and has its own neighbours.
        return;
    }
    // Where earlier tests have left single frames apart from each other, those are given first.
    let mut pages: Vec<Pages> = Vec::with_capacity(MOST);
    let place = loop {
        assert!(pages.len() < MOST, "no teeth: no two of {MOST} pages are neighbours");
        let page = Pages::new(0).expect("memory");
        let at = pages.partition_point(|other| other.first() < page.first());
        pages.insert(at, page);
        let adjacent = |first: usize| {
            let pair = pages.get(first..first + 2).filter(|pair| is_pair(pair));
            pair.map(|_| first)
        };
        if let Some(place) = at.checked_sub(1).and_then(adjacent).or_else(|| adjacent(at)) {
            break place;
        }
    };
    let behind = pages.remove(place + 1);
    let wanted = behind.physical();
    drop(behind);
    let mut buffers = Vec::with_capacity(MOST);
    while buffers.len() < MOST {
        let buffer = allocate(&DEVICE, PAGE_SIZE, Sleep::May, NOBODY).expect("memory");
        buffers.push(buffer);
        if buffer.dma.raw() == wanted.raw() {
            break;
        }
    }
    assert_eq!(buffers.last().map(|last| last.dma.raw()), Some(wanted.raw()), "no teeth");
    test(&pages[place], wanted);
    for buffer in buffers {
        // SAFETY: no reference to its memory was ever made.
        let freed = unsafe { free(&DEVICE, PAGE_SIZE, buffer.address, buffer.dma) };
        assert_eq!(freed, Ok(()));
    }
}

/// What ends right before it is mapped as anything else; what reaches into it by a byte is not, by whatever name it goes.
#[ktest]
fn a_buffer_ends_where_uncached_memory_begins_s97_s105() {
    let books = Books::now();
    with_uncached_neighbour(|page, uncached| {
        let tail = |bytes| {
            let offset = PAGE_SIZE - bytes;
            (
                VirtAddr::new(page.address().raw() + offset),
                PhysAddr::new(page.physical().raw() + offset),
            )
        };
        for flow in Flow::ALL {
            let (address, physical) = tail(64);
            for memory in [Memory::Linear(address), Memory::Physical(physical)] {
                let dma = map(flow, memory, 64).expect("a mapping");
                assert_eq!(dma.raw() == physical.raw(), !is_forced(), "{memory:?}");
                unmap(flow, dma, 64);
            }
            let frame = uncached.pfn();
            for bytes in [65, 96, PAGE_SIZE] {
                for memory in [Memory::Linear(address), Memory::Physical(physical)] {
                    let refused = map(flow, memory, bytes);
                    assert_err!(refused, MapError::Memory(KmapError::Lent { frame: it, .. }) if it == frame);
                }
            }
        }
    });
    assert_eq!(usage().taken, 0);
    books.assert_unchanged();
}

/// The last bytes that are linear are a buffer like any other; one byte more has no linear address.
#[ktest]
fn a_buffer_ends_where_the_linear_map_does_s105() {
    let window = kernel().linear().window();
    let last = VirtAddr::new(window.start().raw() + (window.bytes() - 64));
    match map(Flow::ToDevice, Memory::Linear(last), 64) {
        Ok(dma) => unmap(Flow::ToDevice, dma, 64),
        // It is lent: somebody uses it uncached.
        Err(error) => assert_err!(Err::<(), _>(error), MapError::Memory(_)),
    }
    let beyond = map(Flow::ToDevice, Memory::Linear(last), 65);
    assert_err!(beyond, MapError::NotLinear { address, .. } if address == last);
}

type Ending<'t> = (&'t str, &'t dyn Fn(DmaAddr, u32) -> Result<(), UnmapError>);

/// Neither an end nor a change of owner touches what no mapping can be of: its lines are others'.
#[ktest]
fn what_cannot_be_mapped_is_neither_ended_nor_synchronised_s97_s105() {
    let buffer = CoherentBox::new(&DEVICE, 2 * PAGE_SIZE).expect("memory");
    let both = call(Flow::Bidirectional);
    let calls: [Ending<'_>; 3] = [
        // SAFETY: to be refused.
        ("unmap", &|dma, bytes| unsafe { streaming::unmap(both, dma, bytes) }),
        // SAFETY: as above.
        ("sync_for_cpu", &|dma, bytes| unsafe { streaming::sync_for_cpu(both, dma, bytes) }),
        // SAFETY: as above.
        ("sync_for_device", &|dma, bytes| unsafe { streaming::sync_for_device(both, dma, bytes) }),
    ];
    for (name, end) in calls {
        let uncached = end(buffer.dma_address(), 64);
        assert!(
            matches!(uncached, Err(UnmapError::Memory(KmapError::Lent { .. }))),
            "{name}: {uncached:?}"
        );
        let top = DmaAddr::new(0xffff_ffe0);
        let first = PhysAddr::new(top.raw());
        let wraps = UnmapError::Refused(Refusal::Wraps { first, bytes: 64 });
        assert_eq!(end(top, 64), Err(wraps), "{name}");
        assert_eq!(end(streaming::MAPPING_ERROR, 1), Err(UnmapError::MappingError), "{name}");
    }
}

/// Lines change their owner as a whole, whatever part of them is meant, and as often as anybody likes.
#[ktest]
fn a_part_inside_of_lines_takes_whole_lines_along_s105() {
    let page = Pages::new(0).expect("memory");
    for flow in [Flow::FromDevice, Flow::Bidirectional] {
        let dma = map(flow, Memory::Linear(page.address()), 1024).expect("a mapping");
        for (offset, bytes) in [(7, 1), (0, 5), (31, 2), (40, 100), (1000, 24), (1023, 1)] {
            let part = DmaAddr::new(dma.raw() + offset);
            // SAFETY: mapped above; there is no device.
            assert_eq!(unsafe { streaming::sync_for_cpu(call(flow), part, bytes) }, Ok(()));
            // SAFETY: as above.
            assert_eq!(unsafe { streaming::sync_for_device(call(flow), part, bytes) }, Ok(()));
        }
        unmap(flow, dma, 1024);
    }
    assert_eq!(usage().taken, 0);
}

/// As many slots as the command line says, in memory that was set aside, and not one more.
#[ktest]
fn there_are_as_many_slots_as_were_asked_for_s106() {
    let config = &started().expect("the image has started").config;
    assert_eq!(usage().slots, config.bounce / PAGE_SIZE * (PAGE_SIZE / SLOT));
}

/// S99, S100: coherent memory is a device's as it is where its mask reaches, to the last byte.
#[ktest]
fn coherent_memory_beyond_a_mask_is_not_the_device_s_as_it_is_s99_s100() {
    let near = Device::new("a device that reaches a page");
    let buffer = CoherentBox::new(&DEVICE, 2 * PAGE_SIZE).expect("memory");
    let (address, dma) = (buffer.address(), buffer.dma_address());
    let mask = DmaMask::new(u64::from(dma.raw()) + u64::from(PAGE_SIZE) - 1);
    assert_eq!(near.set_mask(mask), Ok(()));
    assert_eq!(seen_at(&near, address, PAGE_SIZE), Some(dma));
    assert_eq!(seen_at(&near, address, PAGE_SIZE + 1), None);
    let second = VirtAddr::new(address.raw() + PAGE_SIZE);
    assert_eq!(seen_at(&near, second, 1), None);
    assert_eq!(seen_at(&DEVICE, second, PAGE_SIZE), Some(DmaAddr::new(dma.raw() + PAGE_SIZE)));
    assert_eq!(seen_at(&DEVICE, second, PAGE_SIZE + 1), None);
    let area = VmArea::new(PAGE_SIZE).expect("memory");
    assert_eq!(seen_at(&DEVICE, area.address(), 1), None, "not coherent");
}
