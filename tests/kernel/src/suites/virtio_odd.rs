//! Devices that answer wrongly. None does so under emulation; so the test is the device, behind a transport of its own, with rings in
//! the memory that the drivers gave it.
//!
//! ```text
//!   driver ──notify──▶ Odd: the newest chain of the available ring ──▶ what `answer` says goes into its last buffer,
//!                                                                      into the used ring, and nowhere else
//! ```

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::mem::size_of;
use core::ptr;

use dma::bounce::usage;
use drivers::virtio::RequestError;
use kerncore::addr::{PhysAddr, VirtAddr};
use kerncore::area::AreaKind;
use kerncore::layout::{linear_address, linear_physical};
use ktest::{assert_err, ktest};
use mm::kernel;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr as OnBus, Result};
use virtio_hal::{Blocks, EntropySource, Link, shared_buffers};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::witness::Books;

pub(super) const NET: u32 = 1;
pub(super) const DISK: u32 = 2;
const ENTROPY: u32 = 4;

pub(super) const SECTOR: usize = 512;

/// What is said of the newest request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Added to the number of its chain.
    pub(super) beside: u32,
    /// Bytes that were written.
    pub(super) length: u32,
    /// What the first byte of its last buffer then is.
    pub(super) last: u8,
}

/// As it should be, of a disk.
const RIGHT: Answer = Answer { beside: 0, length: 1, last: 0 };

/// What the test sees of the device, and tells it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) answer: Cell<Answer>,
    resets: Cell<u32>,
    places: u32,
    sectors: u64,
    features: u64,
    /// The first word of the newest request's first buffer, and whether that is coherent memory.
    kind: Cell<(u32, bool)>,
}

impl Seen {
    pub(super) const fn new() -> Self {
        let (answer, resets) = (Cell::new(RIGHT), Cell::new(0));
        Self { answer, resets, places: 16, sectors: 100, features: 0, kind: Cell::new((0, false)) }
    }
}

/// Where a queue's parts are for the kernel, and how far the device has come.
#[derive(Clone, Copy, Debug, Default)]
struct Ring {
    size: u16,
    descriptors: usize,
    available: usize,
    used: usize,
    done: u16,
    /// The last buffer that was written, on the bus and for the kernel.
    last: (u32, usize),
    /// The first buffer of the newest request, the same.
    first: (u32, usize),
}

pub(super) struct Odd<'s> {
    kind: u32,
    status: DeviceStatus,
    seen: &'s Seen,
    rings: [Ring; 2],
}

impl<'s> Odd<'s> {
    pub(super) fn new(kind: u32, seen: &'s Seen) -> Self {
        Self { kind, status: DeviceStatus::empty(), seen, rings: [Ring::default(); 2] }
    }
}

/// Where the kernel has what lies at `physical`: coherent memory has addresses of its own, and may have no others.
fn place(physical: u32) -> usize {
    let physical = PhysAddr::new(physical);
    let mut next = VirtAddr::new(0);
    while let Some(area) = kernel().next_area(next) {
        if let Some(offset) = physical.checked_sub(area.physical)
            && area.kind == AreaKind::Dma
            && offset < area.pages.bytes()
        {
            return (area.pages.start().raw() + offset) as usize;
        }
        let Some(after) = area.pages.start().checked_add(area.pages.bytes()) else { break };
        next = after;
    }
    linear_address(physical).expect("low memory").raw() as usize
}

fn read<T: Copy>(address: usize) -> T {
    let place: *const T = ptr::with_exposed_provenance(address);
    // SAFETY: the driver gave it to this device.
    unsafe { place.read_volatile() }
}

fn write<T: Copy>(address: usize, value: T) {
    let place: *mut T = ptr::with_exposed_provenance_mut(address);
    // SAFETY: as above.
    unsafe { place.write_volatile(value) };
}

impl Transport for Odd<'_> {
    fn device_type(&self) -> DeviceType {
        DeviceType::try_from(self.kind).expect("one of the three")
    }

    /// `VIRTIO_F_VERSION_1` (Virtio 1.2, 6), and what the test says.
    fn read_device_features(&mut self) -> u64 {
        1 << 32 | self.seen.features
    }

    fn write_driver_features(&mut self, _driver_features: u64) {}

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        self.seen.places
    }

    /// Virtio 1.2, 2.7.
    fn notify(&mut self, queue: u16) {
        let ring = &mut self.rings[usize::from(queue)];
        let place = usize::from(ring.done % ring.size);
        let head: u16 = read(ring.available + 4 + 2 * place);
        let mut descriptor = ring.descriptors + 16 * usize::from(head);
        if self.kind == DISK {
            let request: u32 = read(descriptor);
            if ring.first.0 != request {
                ring.first = (request, self::place(request));
            }
            let first = ring.first.1;
            let address = VirtAddr::new(u32::try_from(first).expect("32 bits"));
            self.seen.kind.set((read(first), linear_physical(address).is_none()));
        }
        while read::<u16>(descriptor + 12) & 1 != 0 {
            descriptor = ring.descriptors + 16 * usize::from(read::<u16>(descriptor + 14));
        }
        let Answer { beside, length, last } = self.seen.answer.get();
        let buffer: u32 = read(descriptor);
        if ring.last.0 != buffer {
            ring.last = (buffer, self::place(buffer));
        }
        write(ring.last.1, last);
        let used = ring.used + 4 + 8 * place;
        write(used, u32::from(head) + beside);
        write(used + 4, length);
        ring.done = ring.done.wrapping_add(1);
        write(ring.used + 2, ring.done);
    }

    fn get_status(&self) -> DeviceStatus {
        self.status
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.status = status;
        if status.is_empty() {
            self.seen.resets.set(self.seen.resets.get() + 1);
        }
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: OnBus,
        driver_area: OnBus,
        device_area: OnBus,
    ) {
        let place = |address: OnBus| place(u32::try_from(address).expect("RAM"));
        self.rings[usize::from(queue)] = Ring {
            size: size.try_into().expect("few"),
            descriptors: place(descriptors),
            available: place(driver_area),
            used: place(device_area),
            ..Ring::default()
        };
    }

    fn queue_unset(&mut self, queue: u16) {
        self.rings[usize::from(queue)] = Ring::default();
    }

    fn queue_used(&mut self, _queue: u16) -> bool {
        false
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let bytes = self.seen.sectors.to_le_bytes();
        let part = bytes.get(offset..offset + size_of::<T>()).ok_or(Error::ConfigSpaceTooSmall)?;
        T::read_from_bytes(part).map_err(|_| Error::ConfigSpaceTooSmall)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> Result<()> {
        Err(Error::Unsupported)
    }
}

impl Drop for Odd<'_> {
    fn drop(&mut self) {
        self.set_status(DeviceStatus::empty());
    }
}

pub(super) fn spin(done: &mut dyn FnMut() -> bool) {
    assert!(done(), "the device answers at once");
}

pub(super) fn fault(error: Error) -> RequestError {
    RequestError::Device(error)
}

/// Runs `test`, after which no device has anything, and no memory is taken.
pub(super) fn quietly(test: impl FnOnce()) {
    let books = Books::now();
    test();
    assert_eq!((shared_buffers(), usage().taken), (0, 0));
    books.assert_unchanged();
}

#[ktest]
fn a_disk_that_answers_what_nobody_asked_is_reset() {
    for beside in [1, 3, 15, 16, 999, 0xffff] {
        quietly(|| {
            let seen = Seen::new();
            let mut disk = Blocks::new(Odd::new(DISK, &seen)).expect("it comes up");
            let mut buffer = vec![0xee; 2 * SECTOR];
            assert_eq!(disk.read(1, &mut buffer, &mut spin), Ok(()));
            let before = seen.resets.get();
            seen.answer.set(Answer { beside, ..RIGHT });
            let wrong = Err(fault(Error::WrongToken));
            if beside % 2 == 0 {
                assert_eq!(disk.write(1, &buffer, &mut spin), wrong, "{beside}");
            } else {
                assert_eq!(disk.read(1, &mut buffer, &mut spin), wrong, "{beside}");
            }
            assert_eq!((seen.resets.get(), shared_buffers()), (before + 1, 0), "{beside}");
            seen.answer.set(RIGHT);
            let lost = Err(fault(Error::NotReady));
            assert_eq!(disk.read(1, &mut buffer, &mut spin), lost, "{beside}");
            assert_eq!(disk.write(1, &buffer, &mut spin), lost, "{beside}");
            assert_eq!((disk.sectors(), shared_buffers()), (0, 0));
        });
    }
}

#[ktest]
fn a_disk_s_every_status_is_a_result_and_it_goes_on() {
    quietly(|| {
        let seen = Seen::new();
        let mut disk = Blocks::new(Odd::new(DISK, &seen)).expect("it comes up");
        let mut buffer = vec![0xee; SECTOR];
        for last in 0..=u8::MAX {
            seen.answer.set(Answer { last, length: u32::MAX - u32::from(last), ..RIGHT });
            let wanted = match last {
                0 => Ok(()),
                2 => Err(fault(Error::Unsupported)),
                3 => Err(fault(Error::NotReady)),
                _ => Err(fault(Error::IoError)),
            };
            assert_eq!(disk.read(0, &mut buffer, &mut spin), wanted, "{last}");
            assert_eq!(disk.write(usize::MAX, &buffer, &mut spin), wanted, "{last}");
        }
        for bytes in [0, 1, SECTOR - 1] {
            let refused = Err(fault(Error::InvalidParam));
            assert_eq!(disk.read(0, &mut buffer[..bytes], &mut spin), refused);
            assert_eq!(disk.write(0, &buffer[..bytes], &mut spin), refused);
        }
    });
}

/// What the crate has on its stack is not what the device is shown.
#[ktest]
fn a_flush_is_a_request_of_its_own_where_the_disk_has_it() {
    /// `VIRTIO_BLK_F_FLUSH`, and the request's type (Virtio 1.2, 5.2.3 and 5.2.6).
    const FLUSH: (u64, u32) = (1 << 9, 4);
    quietly(|| {
        let seen = Seen { features: FLUSH.0, ..Seen::new() };
        let mut disk = Blocks::new(Odd::new(DISK, &seen)).expect("it comes up");
        let buffer = vec![0xee; SECTOR];
        for (last, wanted) in [
            (0, Ok(())),
            (1, Err(fault(Error::IoError))),
            (2, Err(fault(Error::Unsupported))),
            (0, Ok(())),
        ] {
            assert_eq!(disk.write(3, &buffer, &mut spin), Ok(()));
            assert_eq!(seen.kind.get(), (1, true), "a write");
            seen.answer.set(Answer { last, ..RIGHT });
            assert_eq!(disk.flush(), wanted);
            assert_eq!(seen.kind.get(), (FLUSH.1, true));
            seen.answer.set(RIGHT);
        }
        seen.answer.set(Answer { beside: 1, ..RIGHT });
        assert_eq!(disk.flush(), Err(fault(Error::WrongToken)));
        seen.answer.set(RIGHT);
        assert_eq!(disk.flush(), Err(fault(Error::NotReady)), "it was reset");
        // One that has nothing to put off is not asked.
        let seen = Seen::new();
        let mut disk = Blocks::new(Odd::new(DISK, &seen)).expect("it comes up");
        assert_eq!(disk.write(3, &buffer, &mut spin), Ok(()));
        assert_eq!((disk.flush(), seen.kind.get()), (Ok(()), (1, true)));
    });
}

#[ktest]
fn devices_of_any_size_come_up_or_are_refused() {
    for (places, sectors) in [(0, 1), (1, 1), (15, 1), (16, 0), (16, u64::MAX), (u32::MAX, 1)] {
        quietly(|| {
            let seen = Seen { places, sectors, ..Seen::new() };
            let disk = Blocks::new(Odd::new(DISK, &seen));
            assert_eq!(disk.is_ok(), places >= 16, "{places}");
            if let Ok(disk) = disk {
                assert_eq!(disk.sectors(), sectors);
            }
            assert_eq!(EntropySource::new(Odd::new(ENTROPY, &seen)).is_ok(), places >= 2);
            let card = Link::<_, Vec<u8>>::new(Odd::new(NET, &seen), vec![], vec![]);
            assert_eq!(card.is_ok(), places >= 16, "{places}");
        });
    }
}

#[ktest]
fn a_source_that_says_odd_lengths_or_names_is_refused() {
    quietly(|| {
        let seen = Seen::new();
        let mut source = EntropySource::new(Odd::new(ENTROPY, &seen)).expect("it comes up");
        let mut buffer = [0; 100];
        for length in [1, 99, 100] {
            seen.answer.set(Answer { length, ..RIGHT });
            assert_eq!(source.read(&mut buffer, &mut spin), Ok(length as usize));
        }
        for length in [0, 101, u32::MAX] {
            seen.answer.set(Answer { length, ..RIGHT });
            assert_eq!(source.read(&mut buffer, &mut spin), Err(fault(Error::IoError)), "{length}");
        }
        assert_eq!(source.read(&mut [], &mut spin), Err(fault(Error::InvalidParam)));
        let before = seen.resets.get();
        seen.answer.set(Answer { beside: 1, ..RIGHT });
        assert_eq!(source.read(&mut buffer, &mut spin), Err(fault(Error::WrongToken)));
        assert_eq!((seen.resets.get(), shared_buffers()), (before + 1, 0));
        seen.answer.set(RIGHT);
        assert_eq!(source.read(&mut buffer, &mut spin), Err(fault(Error::NotReady)));
    });
}

/// Each request is for what is missing, and its bytes come behind those that are there.
#[ktest]
fn a_source_that_gives_few_bytes_at_a_time_fills_a_buffer() {
    quietly(|| {
        let seen = Seen::new();
        let mut source = EntropySource::new(Odd::new(ENTROPY, &seen)).expect("it comes up");
        seen.answer.set(Answer { beside: 0, length: 25, last: 0x77 });
        let mut buffer = [0xee; 100];
        assert_eq!(source.fill(&mut buffer, &mut spin), Ok(()));
        // The device writes the first byte of what it is given.
        let written = (0..buffer.len()).filter(|&index| buffer[index] == 0x77);
        assert_eq!(written.collect::<Vec<_>>(), [0, 25, 50, 75]);
        // The last request is for fewer than it says that it gave.
        let odd = source.fill(&mut buffer[..90], &mut spin);
        assert_eq!(odd, Err(fault(Error::IoError)));
        assert_eq!(source.fill(&mut [], &mut spin), Ok(()));
    });
}

/// A buffer that is offered is answered at once, here.
#[ktest]
fn frames_of_odd_lengths_and_names_are_refused() {
    const BUFFER: usize = 2048;
    /// Bytes of a frame's header (Virtio 1.2, 5.1.6).
    const HEADER: u32 = 12;
    quietly(|| {
        let seen = Seen::new();
        seen.answer.set(Answer { beside: 0, length: HEADER, last: 0 });
        let buffers = vec![vec![0_u8; BUFFER]];
        let mut card =
            Link::new(Odd::new(NET, &seen), buffers, vec![vec![0; BUFFER]]).expect("it comes up");
        // What is said here of the buffer that is offered then is heard by the next call.
        for (length, wanted) in [
            (HEADER + 1, Ok(0)),
            (2048, Ok(1)),
            (2049, Ok(2048 - HEADER as usize)),
            (u32::MAX, Err(fault(Error::IoError))),
            (HEADER - 1, Err(fault(Error::IoError))),
            (0, Err(fault(Error::IoError))),
            (HEADER, Err(fault(Error::IoError))),
        ] {
            seen.answer.set(Answer { beside: 0, length, last: 0 });
            assert_eq!(card.receive(&mut spin, <[u8]>::len), wanted, "before {length}");
        }
        for beside in [16, 1] {
            seen.answer.set(Answer { beside, length: HEADER, last: 0 });
            let sent = card.send(&[0; 60], &mut spin).and_then(|()| card.flush(&mut spin));
            assert_eq!(sent, Err(fault(Error::WrongToken)), "{beside}");
        }
        assert_eq!(card.receive(&mut spin, <[u8]>::len), Ok(0));
        assert_err!(card.receive(&mut spin, <[u8]>::len), RequestError::Device(Error::WrongToken));
        // Both buffers are still the device's, and are taken back with it.
        assert_eq!(shared_buffers(), 2);
    });
}
