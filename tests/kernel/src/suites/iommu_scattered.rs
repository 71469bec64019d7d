//! Coherent buffers of scattered frames, for devices behind an IOMMU: made where memory is in pieces, seen by both sides, and gone in
//! the end (S79, S81, S109). What C callers do with them is in [`super::iommu_scattered_calls`].

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;

use dma::coherent::{self, AllocateError, Buffer, CoherentBox, FreeError};
use dma::device::Device;
use dma::iommu::{IommuMapping, detach};
use image::capture::capture_log;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr, pages_for};
use kerncore::area::{AreaFlags, AreaKind};
use kerncore::coherent::Sleep;
use kerncore::dma_mask::DmaMask;
use kerncore::frames::FrameOwner;
use kerncore::iommu::{DomainMapError, IovaError};
use kerncore::kernel_space::{RemoveError, ScatteredError};
use ktest::{Completion, ktest};
use mm::kernel;

use super::exec_scattered::Pieces;
use super::iommu::{Attached, BASE, BYTES, Engine};
use super::smp::Barrier;
use super::witness::{
    Books, NOBODY, ask_host, assert_absent, authority, each_page, feed, frame_at, guard_of, linear,
    starve,
};

static DEVICE: Device = Device::new("a device of scattered frames");
static SNOOPING: Device = Device::coherent("a snooping device of scattered frames");
static OTHER: Device = Device::new("another device of scattered frames");
static BUS: Device = Device::new("a device on the bus that wants much");

pub(super) fn take(device: &Device, bytes: u32) -> Result<Buffer, AllocateError> {
    coherent::allocate(device, bytes, Sleep::May, NOBODY)
}

#[track_caller]
pub(super) fn give(device: &Device, bytes: u32, buffer: Buffer) {
    // SAFETY: the test's own, without a reference, and no device at work.
    let freed = unsafe { coherent::free(device, bytes, buffer.address, buffer.dma) };
    assert_eq!(freed, Ok(()), "{}", buffer.address);
}

/// Has what is made once and kept, such as the device's tables.
fn warm(device: &Device, bytes: u32) {
    give(device, bytes, take(device, bytes).expect("memory"));
}

fn pattern(seed: u32, bytes: usize) -> Vec<u8> {
    let mut word = seed | 1;
    let mut next = || {
        word = word.wrapping_mul(0x915f_77f5).wrapping_add(0x2545);
        (word >> 16).to_le_bytes()[0]
    };
    core::iter::repeat_with(&mut next).take(bytes).collect()
}

/// S79, S85, S109: no two frames are adjacent; a mebibyte is to be had behind the IOMMU, zeroed, and byte for byte the same to both,
/// and without one not even two pages are.
#[ktest]
fn a_mebibyte_in_single_frames_is_contiguous_to_both_and_on_the_bus_not_to_be_had_s79() -> Completion
{
    const LARGE: u32 = 1 << 20;
    for device in [&DEVICE, &SNOOPING] {
        let attached = Attached::new(device, BYTES);
        let Some(pieces) = Pieces::new() else {
            return Completion::Skipped("too little low memory");
        };
        warm(device, LARGE);
        let books = Books::now();
        // The contiguous region has kept some for such a device.
        if kernel().contiguous().is_none() {
            for bytes in [2 * PAGE_SIZE, LARGE] {
                let refused = take(&BUS, bytes);
                assert!(matches!(refused, Err(AllocateError::Remap(_))), "{refused:?}");
            }
        }
        {
            let mut buffer = CoherentBox::new(device, LARGE).expect("frames wherever they lie");
            assert!(buffer.iter().all(|&byte| byte == 0), "zeroed");
            let area = kernel().find(buffer.address()).expect("an area of its own");
            assert_eq!((area.kind, area.pages.bytes()), (AreaKind::Scattered, LARGE));
            let mut before = None;
            for frame in each_page(area.pages).map(frame_at) {
                let apart = |before: u32| before.abs_diff(frame.number()) > 1;
                assert!(before.is_none_or(apart), "adjacent frames have no teeth");
                assert_eq!(kernel().zones().table().owner_of(frame), FrameOwner::Dma);
                before = Some(frame.number());
            }
            let first = frame_at(area.pages.start());
            assert_absent(linear(first));
            for address in [area.pages.start(), linear(first), guard_of(area.pages)] {
                ask_host(address);
            }
            let (engine, dma) = (Engine(device), buffer.dma_address());
            buffer.copy_from_slice(&pattern(1, LARGE as usize));
            let mut seen = vec![0; LARGE as usize];
            assert_eq!(engine.read(dma.raw(), &mut seen), Ok(()));
            assert!(seen == buffer[..], "the device reads what the processor wrote");
            assert_eq!(engine.write(dma.raw(), &pattern(2, LARGE as usize)), Ok(()));
            assert!(buffer[..] == pattern(2, LARGE as usize)[..], "and the other way round");
            // To the last byte, and over the border of two frames; not behind it.
            let last = dma.raw() + LARGE - 1;
            assert_eq!(engine.write(last, &[7]), Ok(()));
            assert_eq!(engine.write(dma.raw() + 5 * PAGE_SIZE - 2, &[1, 2, 3, 4]), Ok(()));
            let border = 5 * PAGE_SIZE as usize;
            assert_eq!(
                (buffer.last(), &buffer[border - 2..border + 2]),
                (Some(&7), &[1, 2, 3, 4][..])
            );
            assert_eq!(engine.read(last + 1, &mut [0]), Err(Some(VirtAddr::new(last + 1))));
        }
        assert_eq!(attached.taken(), 0);
        books.assert_unchanged();
        pieces.end();
    }
    Completion::Ran
}

/// S65, S85: large buffers are in large blocks where there are any: entries of both sides, and the first word of each page.
#[ktest]
fn a_buffer_of_many_mebibytes_is_all_there_s79() {
    const LARGE: u32 = 6 << 20;
    let attached = Attached::new(&DEVICE, BYTES);
    let mut buffer = CoherentBox::new(&DEVICE, LARGE).expect("memory");
    let flags = AreaFlags::DMA.with(AreaFlags::USERMAP).with(AreaFlags::VPAGES);
    assert_eq!(kernel().find(buffer.address()).map(|area| area.flags), Some(flags));
    let dma = buffer.dma_address();
    for page in (0..LARGE / PAGE_SIZE).step_by(7) {
        let offset = (page * PAGE_SIZE) as usize;
        assert_eq!(buffer[offset..offset + 4], [0; 4]);
        buffer[offset..offset + 4].copy_from_slice(&page.to_le_bytes());
        let mut seen = [0; 4];
        assert_eq!(Engine(&DEVICE).read(dma.raw() + page * PAGE_SIZE, &mut seen), Ok(()));
        assert_eq!(u32::from_le_bytes(seen), page);
    }
    assert_eq!(attached.taken(), LARGE / PAGE_SIZE);
    drop(buffer);
}

/// S3, S26, S79: nothing, a byte, a byte too many, and what cannot be.
#[ktest]
fn odd_sizes_are_rounded_up_or_refused_s79() {
    for device in [&DEVICE, &SNOOPING] {
        let attached = Attached::new(device, 16 * PAGE_SIZE);
        let total = kernel().zones().total();
        warm(device, PAGE_SIZE);
        let books = Books::now();
        assert_eq!(take(device, 0), Err(AllocateError::ZeroSize));
        for (bytes, wanted) in [(u32::MAX, 0x10_0000), (u32::MAX - 4095, 0xf_ffff)] {
            let more = ScatteredError::MoreThanMemory { wanted, total };
            assert_eq!(take(device, bytes), Err(AllocateError::Scattered(more)));
        }
        for bytes in [17 * PAGE_SIZE, 16 * PAGE_SIZE + 1, total / 2 * PAGE_SIZE] {
            let pages = pages_for(bytes);
            let error = DomainMapError::Iova(IovaError::Exhausted { pages, largest: 16, free: 16 });
            assert_eq!(
                take(device, bytes),
                Err(AllocateError::Iommu { device: device.name(), error })
            );
        }
        books.assert_unchanged();
        for bytes in [1, 4095, 4096, 4097, 16 * PAGE_SIZE] {
            let buffer = take(device, bytes).expect("memory");
            let pages = pages_for(bytes);
            let last = buffer.dma.raw() + pages * PAGE_SIZE - 1;
            assert_eq!(Engine(device).write(last, &[1]), Ok(()));
            let behind = Engine(device).write(last + 1, &[1]);
            assert_eq!(behind, Err(Some(VirtAddr::new(last + 1))));
            assert_absent(VirtAddr::new(buffer.address.raw() + pages * PAGE_SIZE));
            assert_eq!(attached.taken(), pages);
            ask_host(buffer.address);
            give(device, bytes, buffer);
            assert_absent(buffer.address);
        }
        books.assert_unchanged();
    }
}

/// S108: addresses of the device's run out in the middle, and come back.
#[ktest]
fn an_exhausted_window_refuses_and_serves_again_s108() {
    let attached = Attached::new(&DEVICE, 16 * PAGE_SIZE);
    warm(&DEVICE, PAGE_SIZE);
    let books = Books::now();
    let mut buffers: Vec<Buffer> = Vec::with_capacity(16);
    while let Ok(buffer) = take(&DEVICE, 3 * PAGE_SIZE) {
        buffers.push(buffer);
    }
    assert_eq!((buffers.len(), attached.taken()), (4, 12), "each aligned to four pages");
    for buffer in buffers {
        give(&DEVICE, 3 * PAGE_SIZE, buffer);
    }
    give(&DEVICE, 16 * PAGE_SIZE, take(&DEVICE, 16 * PAGE_SIZE).expect("all of it"));
    books.assert_unchanged();
}

/// S28: memory runs out at each frame in turn: what was taken until then is back, and with one frame more it is made.
#[ktest]
fn memory_runs_out_at_each_frame_and_nothing_is_kept_s28() {
    const PAGES: u32 = 6;
    let attached = Attached::new(&DEVICE, BYTES);
    warm(&DEVICE, PAGES * PAGE_SIZE);
    for left in 0..=PAGES {
        let rest = starve(left);
        let books = Books::now();
        match take(&DEVICE, PAGES * PAGE_SIZE) {
            Ok(buffer) => {
                assert_eq!(left, PAGES, "as many as there are");
                give(&DEVICE, PAGES * PAGE_SIZE, buffer);
            }
            Err(error) => {
                assert!(left < PAGES, "{error}");
                assert!(
                    matches!(error, AllocateError::Scattered(ScatteredError::Frames(_))),
                    "{error}"
                );
            }
        }
        assert_eq!(attached.taken(), 0);
        books.assert_unchanged();
        feed(rest);
    }
}

/// S34, S67: whoever has another name for it, another device, another domain's, or another address, frees nothing.
#[ktest]
fn what_is_not_the_buffer_is_not_freed_s34_s67() {
    let (mine, theirs) = (Attached::new(&DEVICE, BYTES), Attached::new(&OTHER, BYTES));
    let bytes = 3 * PAGE_SIZE;
    let (buffer, twin) =
        (take(&DEVICE, bytes).expect("memory"), take(&OTHER, bytes).expect("memory"));
    assert_eq!((buffer.dma, twin.dma), (BASE, BASE), "the same address of two domains");
    let books = Books::now();
    let (address, found) = (buffer.address, AreaKind::Scattered);
    let wrong_kind = Err(RemoveError::WrongKind { address, found });
    assert_eq!(kernel().vfree(authority(), address), wrong_kind);
    assert_eq!(kernel().vunmap(authority(), address), wrong_kind);
    assert_eq!(kernel().iounmap(authority(), address), wrong_kind);
    let ((), log) = capture_log(|| {
        // SAFETY: refused.
        let freed = unsafe { coherent::free(&BUS, bytes, address, buffer.dma) };
        assert_eq!(freed, Err(FreeError::Invalid(RemoveError::WrongKind { address, found })));
    });
    assert!(log.text().contains("trying to free invalid coherent area"), "{log:?}");
    assert!(log.text().contains("scattered dma"), "it names the kind: {log:?}");
    let page = |address: VirtAddr, index: u32| VirtAddr::new(address.raw() + index * PAGE_SIZE);
    for foreign in [
        page(address, 1),
        page(address, 3),
        VirtAddr::new(address.raw() + 8),
        linear(frame_at(address)),
    ] {
        // SAFETY: refused.
        let freed = unsafe { coherent::free(&DEVICE, bytes, foreign, buffer.dma) };
        assert!(matches!(freed, Err(FreeError::Invalid(_))), "{foreign}: {freed:?}");
    }
    // A buffer of the other domain, which has the same device address.
    // SAFETY: refused.
    let freed = unsafe { coherent::free(&DEVICE, bytes, twin.address, buffer.dma) };
    let (address, given) = (twin.address, buffer.dma);
    assert_eq!(freed, Err(FreeError::Handle { address, wanted: twin.dma, given }));
    books.assert_unchanged();
    assert_eq!((mine.taken(), theirs.taken()), (3, 3));
    give(&DEVICE, bytes, buffer);
    // SAFETY: refused.
    let again = unsafe { coherent::free(&DEVICE, bytes, buffer.address, buffer.dma) };
    assert!(matches!(again, Err(FreeError::Iommu { .. })), "{again:?}");
    give(&OTHER, bytes, twin);
}

/// S100: the device's own addresses must be within its reach.
#[ktest]
fn a_buffer_lies_where_its_device_reaches_or_nowhere_s100() {
    static NARROW: Device = Device::new("a device of 30 bits behind an IOMMU");
    NARROW.set_mask_and_coherent(DmaMask::new(0x6000_7fff)).expect("RAM begins below");
    let mapping = IommuMapping::new(DmaAddr::new(0x6000_0000), 64 * PAGE_SIZE).expect("memory");
    // SAFETY: the test's device has nothing.
    unsafe { mapping.attach(&NARROW) }.expect("attached to nothing");
    warm(&NARROW, 8 * PAGE_SIZE);
    let books = Books::now();
    let beyond = take(&NARROW, 9 * PAGE_SIZE);
    let is_beyond = |error: &AllocateError| {
        matches!(
            error,
            AllocateError::Iommu { error: DomainMapError::Iova(IovaError::OutOfReach { .. }), .. }
        )
    };
    assert!(beyond.as_ref().is_err_and(is_beyond), "{beyond:?}");
    books.assert_unchanged();
    warm(&NARROW, 8 * PAGE_SIZE);
    // SAFETY: the device has nothing.
    unsafe { detach(&NARROW) }.expect("attached");
}

/// S108: a buffer keeps its mapping alive: the maker lets it go, the device is detached, and a buffer that is left is told of and comes
/// back by the same mapping.
#[ktest]
fn a_buffer_outlives_attachment_and_maker_and_still_goes_back_s108() {
    let live = || mm::domain::usage();
    let mapping = IommuMapping::new(BASE, BYTES).expect("memory");
    // SAFETY: the test's device has nothing.
    unsafe { mapping.attach(&DEVICE) }.expect("attached to nothing");
    let bytes = 5 * PAGE_SIZE;
    let buffer = take(&DEVICE, bytes).expect("memory");
    assert_eq!(mapping.holders(), 3, "maker, device, buffer");
    let ((), log) = capture_log(|| {
        // SAFETY: nobody uses the buffer meanwhile.
        unsafe { detach(&DEVICE) }.expect("attached");
    });
    assert!(log.text().contains("1 buffers") && log.text().contains(DEVICE.name()), "{log:?}");
    assert_eq!(mapping.holders(), 2);
    // On the bus it has nothing there.
    // SAFETY: refused.
    let freed = unsafe { coherent::free(&DEVICE, bytes, buffer.address, buffer.dma) };
    assert!(matches!(freed, Err(FreeError::Invalid(RemoveError::WrongKind { .. }))), "{freed:?}");
    // Another mapping is not the one.
    {
        let _other = Attached::new(&DEVICE, BYTES);
        // SAFETY: refused.
        let freed = unsafe { coherent::free(&DEVICE, bytes, buffer.address, buffer.dma) };
        assert!(freed.is_err());
    }
    // SAFETY: the device has nothing but the buffer.
    unsafe { mapping.attach(&DEVICE) }.expect("attached to nothing");
    assert_eq!(Engine(&DEVICE).write(buffer.dma.raw() + bytes - 1, &[5]), Ok(()));
    drop(mapping);
    assert_eq!(live(), (1, 5), "device and buffer hold it");
    give(&DEVICE, bytes, buffer);
    // SAFETY: the device has nothing any more.
    unsafe { detach(&DEVICE) }.expect("attached");
    assert_eq!(live(), (0, 0));
}

/// S14a, S23, S116: all CPUs make, use and free buffers of two domains at once; nobody reads another's mark, and all comes back.
#[ktest]
fn all_cpus_make_and_free_buffers_of_two_domains_smp() {
    static DEVICES: [Device; 4] = [
        Device::new("the scattered device of CPU 0"),
        Device::coherent("the scattered device of CPU 1"),
        Device::new("the scattered device of CPU 2"),
        Device::coherent("the scattered device of CPU 3"),
    ];
    let mappings = [0, 1].map(|_| IommuMapping::new(BASE, BYTES).expect("memory"));
    for (index, device) in DEVICES.iter().enumerate() {
        // SAFETY: the test's device has nothing yet.
        unsafe { mappings[index / 2].attach(device) }.expect("attached to nothing");
    }
    let begin = Barrier::new();
    arch::smp::run_on_each(|cpu| {
        let device = &DEVICES[cpu as usize];
        begin.wait();
        for round in 0..24_u32 {
            let pages = [1, 3, 14, 15, 33, 130][((round + cpu) % 6) as usize];
            let mut buffers = Vec::new();
            for _ in 0..3 {
                let mut buffer = CoherentBox::new(device, pages * PAGE_SIZE).expect("memory");
                let mark = [cpu.to_le_bytes()[0], round.to_le_bytes()[0]];
                for page in buffer.chunks_mut(PAGE_SIZE as usize) {
                    assert_eq!(page[..2], [0; 2], "zeroed");
                    page[..2].copy_from_slice(&mark);
                }
                buffers.push(buffer);
            }
            for buffer in buffers {
                let last = buffer.dma_address().raw() + (pages - 1) * PAGE_SIZE;
                let mut seen = [0; 2];
                assert_eq!(Engine(device).read(last, &mut seen), Ok(()));
                assert_eq!(seen, [cpu.to_le_bytes()[0], round.to_le_bytes()[0]]);
                drop(buffer);
            }
        }
    });
    for (mapping, pair) in mappings.iter().zip(DEVICES.chunks(2)) {
        assert_eq!(mapping.domain().usage().taken, 0);
        for device in pair {
            // SAFETY: the device has nothing any more.
            unsafe { detach(device) }.expect("attached");
        }
        assert_eq!(mapping.holders(), 1, "its maker alone");
    }
}
