//! Coherent buffers at their linear addresses, as devices that snoop have them, in windows of programs and in lists: alone, behind an
//! IOMMU in one piece, and of callers who may not sleep (S46, S78, S82, S97, S99, S109).

extern crate alloc;

use alloc::vec;
use core::ffi::{c_int, c_uint, c_void};
use core::ptr;

use arch::exception::Access;
use dma::coherent::{Buffer, Coherent, CoherentBox, FreeError, first_frame, free};
use dma::device::Device;
use dma::listing::{self, Source};
use dma::scatter::{Link, ScatterTable};
use image::capture::capture_log;
use image::programs;
use kerncore::addr::{DmaAddr, PAGE_SIZE, VirtAddr, pages_for};
use kerncore::attributes::MemoryType;
use kerncore::coherent::AllocationFlags;
use kerncore::dma_attributes::DmaAttributes;
use kerncore::frames::FrameOwner;
use kerncore::kernel_space::{RemoveError, ShareError};
use kerncore::user::{Protection, ShowError};
use ktest::ktest;
use linux::dma_attrs::{dma_alloc_attrs, dma_free_attrs};
use linux::dma_sgtable::{dma_get_sgtable, dma_get_sgtable_attrs, sg_free_table};
use linux::errno::{EINVAL, ENXIO};
use linux::iommu::arm_iommu_mmap_attrs;
use linux::user::{VM_RESERVED, dma_mmap_attrs, dma_mmap_coherent};
use mm::kernel;
use mm::page_alloc::Pages;
use mm::user::{AddressSpace, End};

use super::buffers::show;
use super::failures::{no_place, no_table, survives};
use super::iommu::{Attached, BYTES, Engine};
use super::user::{NO_PAGE, TEXT, assert_killed, at, pages, program_in};
use super::user_programs as code;
use super::user_sharing::{WINDOW, waiting, window};
use super::witness::{Books, frame_at, plus, word_at};

static SNOOPING: Device = Device::coherent("a snooping device that programs watch");
static OTHER: Device = Device::new("a device that does not snoop");

const CONTIGUOUS: DmaAttributes = DmaAttributes::FORCE_CONTIGUOUS;
const HIDDEN: DmaAttributes = DmaAttributes::NO_KERNEL_MAPPING;

/// How the device comes to have a buffer at its linear address.
#[derive(Clone, Copy, Debug)]
struct Way {
    behind_iommu: bool,
    flags: AllocationFlags,
    attributes: DmaAttributes,
}

impl Way {
    const fn of(behind_iommu: bool, flags: AllocationFlags, attributes: DmaAttributes) -> Self {
        Self { behind_iommu, flags, attributes }
    }

    const ALL: [Self; 5] = [
        Self::of(false, AllocationFlags::KERNEL, DmaAttributes::NONE),
        Self::of(false, AllocationFlags::ATOMIC, DmaAttributes::WRITE_COMBINE),
        Self::of(true, AllocationFlags::KERNEL, CONTIGUOUS),
        Self::of(true, AllocationFlags::KERNEL, CONTIGUOUS.with(HIDDEN)),
        Self::of(true, AllocationFlags::ATOMIC, DmaAttributes::NONE),
    ];

    fn attach(self) -> Option<Attached> {
        self.behind_iommu.then(|| Attached::new(&SNOOPING, BYTES))
    }
}

/// What [`dma_alloc_attrs`] gave, to be given back as it was asked for.
struct Given {
    memory: *mut c_void,
    dma: DmaAddr,
    bytes: u32,
    attributes: c_uint,
}

impl Given {
    #[track_caller]
    fn by(way: Way, bytes: u32) -> Self {
        let (mut dma, attributes) = (DmaAddr::new(0), way.attributes.bits());
        // SAFETY: a device, and a place for an address.
        let memory = unsafe {
            dma_alloc_attrs(&raw const SNOOPING, bytes, &raw mut dma, way.flags, attributes)
        };
        let given = Self { memory, dma, bytes, attributes };
        assert!(!memory.is_null(), "no memory");
        let physical = SNOOPING.physical_address(dma);
        assert_eq!(kerncore::layout::linear_physical(given.address()), Some(physical), "{way:?}");
        given
    }

    #[expect(clippy::cast_possible_truncation, reason = "pointers have 32 bits")]
    fn address(&self) -> VirtAddr {
        VirtAddr::new(self.memory.addr() as u32)
    }

    /// Shows it to a program, by what somebody says of it.
    fn map(&self, said: (*mut c_void, DmaAddr, u32), count: u32, offset: u32) -> c_int {
        let space = waiting(code::loads(), count);
        self.map_in(&space, said, count, offset)
    }

    fn map_in(
        &self,
        space: &AddressSpace,
        (memory, dma, bytes): (*mut c_void, DmaAddr, u32),
        count: u32,
        offset: u32,
    ) -> c_int {
        let mut vma = window(space, count, offset);
        // SAFETY: the device, the window and its space live.
        let answer = unsafe {
            dma_mmap_attrs(&raw const SNOOPING, &raw mut vma, memory, dma, bytes, self.attributes)
        };
        assert_eq!(vma.vm_flags == VM_RESERVED, answer == 0);
        assert_eq!(space.attributes_at(at(WINDOW)).is_some(), answer == 0);
        answer
    }

    const fn own(&self) -> (*mut c_void, DmaAddr, u32) {
        (self.memory, self.dma, self.bytes)
    }

    /// Gives it back, or tries.
    fn free(&self) {
        // SAFETY: nobody but programs uses it; while one does, it is refused.
        unsafe {
            dma_free_attrs(&raw const SNOOPING, self.bytes, self.memory, self.dma, self.attributes);
        }
    }

    fn is_listed(&self) -> bool {
        let mut is_listed = false;
        listing::for_each_line(|line| {
            let is_it = (line.address, line.dma) == (self.address(), self.dma);
            is_listed |= is_it && line.source == Source::Direct;
        });
        is_listed
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.free();
        assert!(!self.is_listed(), "it was freed");
    }
}

fn run_in(space: AddressSpace, arguments: &[u32]) -> (End, AddressSpace) {
    let mut program = program_in(space, arguments);
    let end = program.run(programs::answer);
    (end, program.into_space())
}

/// S78, S97: program, kernel and device see one memory, by one type, page for page.
#[ktest]
fn a_program_sees_a_buffer_at_its_linear_address_s78_s97() {
    let books = Books::now();
    for way in Way::ALL {
        let _attached = way.attach();
        let given = Given::by(way, 3 * PAGE_SIZE);
        let space = waiting(code::fills(), 2);
        assert_eq!(given.map_in(&space, given.own(), 2, 1), 0);
        let promised = space.attributes_at(at(WINDOW)).expect("mapped");
        assert_eq!(promised.memory(), MemoryType::NormalWriteBack);
        let kernels = kernel().table().translate(given.address()).expect("mapped");
        assert_eq!(kernels.attributes().expect("ours").memory(), promised.memory());
        for page in 0..2 {
            // The kernel's words, and the device's, are the program's.
            let (own, there) = (plus(given.address(), (page + 1) * PAGE_SIZE), page * PAGE_SIZE);
            // SAFETY: the buffer is the test's own, and it has no reference to it.
            unsafe { arch::probe::write_u32(own, 0x51de + page) }.expect("writable");
            let dma = given.dma.raw() + (page + 1) * PAGE_SIZE + 4;
            assert_eq!(Engine(&SNOOPING).write(dma, &[1, 2, 3, page.to_le_bytes()[0]]), Ok(()));
            let mut seen = [0; 8];
            space.copy_from(&mut seen, at(WINDOW + there)).expect("its own");
            assert_eq!(seen[..4], (0x51de + page).to_le_bytes());
            assert_eq!(seen[4..], [1, 2, 3, page.to_le_bytes()[0]], "{way:?}");
        }
        // And the program's are theirs.
        let (end, space) = run_in(space, &[WINDOW, 0xc0de, 2 * PAGE_SIZE / 4]);
        assert_eq!(end, End::Exited(0));
        for offset in (0..3 * PAGE_SIZE).step_by(4) {
            let wanted = if offset < PAGE_SIZE { 0 } else { 0xc0de };
            assert_eq!(word_at(plus(given.address(), offset)), wanted, "{way:?}, {offset:#x}");
        }
        let mut seen = [0; 4];
        let last = given.dma.raw() + 3 * PAGE_SIZE - 4;
        assert_eq!(Engine(&SNOOPING).read(last, &mut seen), Ok(()));
        assert_eq!(seen, 0xc0de_u32.to_le_bytes());
        space.unmap(at(WINDOW)).expect("a window");
        drop(space);
        // S112: and no page behind it.
        let space = waiting(code::loads(), 1);
        assert_eq!(given.map_in(&space, given.own(), 1, 2), 0);
        let (end, space) = run_in(space, &[WINDOW + PAGE_SIZE]);
        assert_killed(end, NO_PAGE, Access::Read, WINDOW + PAGE_SIZE, TEXT);
        drop(space);
    }
    books.assert_unchanged();
}

/// S78: offset and count are bounded by what was asked for, though the block of frames is larger; and what is no such buffer is refused.
#[ktest]
fn a_window_of_a_linear_buffer_keeps_to_its_pages_s78() {
    let books = Books::now();
    for way in Way::ALL {
        let _attached = way.attach();
        // Five pages of a block of eight; the last is not filled, and mapped all the same.
        let given = Given::by(way, 4 * PAGE_SIZE + 1);
        for count in [1, 2, 4, 5, 6, 8, 9] {
            for offset in (0..=8).chain([0x10_0000, 0x3fff_ffff, u32::MAX - 1, u32::MAX]) {
                let fits = u64::from(offset) + u64::from(count) <= 5;
                let wanted = if fits { 0 } else { -ENXIO };
                assert_eq!(given.map(given.own(), count, offset), wanted, "{count} from {offset}");
                let lie = (given.memory, given.dma, u32::MAX);
                assert_eq!(given.map(lie, count, offset), wanted, "{count} from {offset}, a lie");
            }
        }
        assert_eq!(given.map((given.memory, given.dma, PAGE_SIZE), 2, 0), -ENXIO, "its own word");
        assert_eq!(given.map((given.memory, given.dma, 0), 1, 0), -ENXIO, "no pages");
        let next = DmaAddr::new(given.dma.raw() + PAGE_SIZE);
        let second = given.memory.wrapping_byte_add(PAGE_SIZE as usize);
        let odd = given.memory.wrapping_byte_add(4);
        let nowhere = DmaAddr::new(given.dma.raw() ^ 0x4000_0000);
        for (memory, dma) in [
            (given.memory, next),
            (given.memory, nowhere),
            (second, given.dma),
            (second, next),
            (odd, given.dma),
            (ptr::null_mut(), given.dma),
        ] {
            assert_eq!(given.map((memory, dma, PAGE_SIZE), 1, 0), -ENXIO, "{memory:?} at {dma}");
        }
        // Frames that lie so and are no buffer.
        let others = Pages::new(0).expect("memory");
        let other =
            Buffer { address: others.address(), dma: SNOOPING.dma_address(others.physical()) };
        let space = waiting(code::loads(), 1);
        let shown = show(&SNOOPING, &space, at(WINDOW), (other, PAGE_SIZE), 0);
        let unknown = Err(ShowError::Share(ShareError::Unknown { address: other.address }));
        assert_eq!(shown, unknown);
        // Nor does one who does not snoop have such.
        let buffer = Buffer { address: given.address(), dma: given.dma };
        let shown = show(&OTHER, &space, at(WINDOW), (buffer, PAGE_SIZE), 0);
        let address = given.address();
        assert_eq!(shown, Err(ShowError::Share(ShareError::Unknown { address })));
        let (gone, dma) = (given.memory, given.dma);
        drop(given);
        let mut vma = window(&space, 1, 0);
        // SAFETY: the device, the window and its space live; the buffer does not, and is refused.
        let answer =
            unsafe { dma_mmap_coherent(&raw const SNOOPING, &raw mut vma, gone, dma, PAGE_SIZE) };
        assert_eq!(answer, -ENXIO, "it was freed");
    }
    books.assert_unchanged();
}

/// S46, S83: while a program sees it, it is not freed, in any context or by any name, and is listed; when the last window ends, or the
/// last program, it is.
#[ktest]
fn a_linear_buffer_stays_while_a_program_sees_it_s46_s78() {
    let books = Books::now();
    for way in Way::ALL {
        let attached = way.attach();
        let given = Given::by(way, 2 * PAGE_SIZE);
        let before = Books::now();
        let [one, two] = [1, 2].map(|_| waiting(code::loads(), 2));
        for space in [&one, &two] {
            assert_eq!(given.map_in(space, given.own(), 2, 0), 0);
        }
        let address = given.address();
        let refused = |users| {
            let ((), log) = capture_log(|| given.free());
            let said = alloc::format!("is seen by programs, in {users} windows");
            assert!(log.text().contains(&said), "{log:?}");
            let buffer = Buffer { address, dma: given.dma };
            let error = FreeError::Invalid(RemoveError::InUse { address, users });
            // SAFETY: it is refused.
            let try_free = || unsafe { free(&SNOOPING, given.bytes, address, buffer.dma) };
            let (freed, _) = capture_log(|| arch::irq::masked(try_free));
            assert_eq!(freed, Err(error), "{way:?}");
            assert!(given.is_listed());
            // The device goes on seeing it.
            assert_eq!(
                Engine(&SNOOPING).write(given.dma.raw() + 8, &[users.to_le_bytes()[0]]),
                Ok(())
            );
            assert_eq!(word_at(plus(address, 8)), users.into());
        };
        refused(2);
        // Nor by the number of its frame.
        let (frame, order) = (frame_at(address), 1);
        let freed =
            kernel().free_frames_at(super::witness::authority(), frame, order, FrameOwner::Pages);
        assert!(freed.is_err(), "{freed:?}");
        one.unmap(at(WINDOW)).expect("a window");
        refused(1);
        let (end, two) = run_in(two, &[WINDOW + PAGE_SIZE]);
        assert_eq!(end, End::Exited(0), "it is still there");
        drop((one, two));
        before.assert_unchanged();
        drop(given);
        assert_eq!(attached.map_or(0, |attached| attached.taken()), 0, "nothing is lost");
    }
    books.assert_unchanged();
}

/// S78: by its owner in Rust, and by the IOMMU's own name.
#[ktest]
fn owners_and_the_iommu_s_names_show_linear_buffers_s78_s109() {
    let books = Books::now();
    let buffer: Coherent = CoherentBox::new(&SNOOPING, 2 * PAGE_SIZE).expect("memory").share();
    let space = waiting(code::fills(), 1);
    buffer.show(&space, at(WINDOW), 1).expect("it fits");
    let again = Err(ShowError::InUse { address: at(WINDOW) });
    assert_eq!(buffer.show(&space, at(WINDOW), 1), again);
    let outside = ShareError::Outside { area: 2, offset: 2, window: 1 };
    assert_eq!(buffer.show(&space, at(WINDOW), 2), Err(ShowError::Share(outside)));
    let (end, space) = run_in(space, &[WINDOW, 0xc0de, PAGE_SIZE / 4]);
    assert_eq!(end, End::Exited(0));
    let mut seen = vec![0; 2 * PAGE_SIZE as usize];
    buffer.read(&mut seen);
    let (before, shown) = seen.split_at(PAGE_SIZE as usize);
    assert!(before.iter().all(|&byte| byte == 0));
    assert!(shown.chunks(4).all(|word| word == 0xc0de_u32.to_le_bytes()));
    drop(space);
    drop(buffer);
    books.assert_unchanged();
    let attached = Attached::new(&SNOOPING, BYTES);
    let given = Given::by(Way::of(true, AllocationFlags::KERNEL, CONTIGUOUS), 3 * PAGE_SIZE);
    let space = waiting(code::loads(), 2);
    for (offset, wanted) in [(2, -ENXIO), (1, 0)] {
        let mut vma = window(&space, 2, offset);
        let (memory, dma, bytes) = given.own();
        // SAFETY: the device, the window and its space live.
        let answer = unsafe {
            arm_iommu_mmap_attrs(
                &raw const SNOOPING,
                &raw mut vma,
                memory,
                dma,
                bytes,
                CONTIGUOUS.bits(),
            )
        };
        assert_eq!(answer, wanted);
    }
    drop(space);
    drop(given);
    drop(attached);
    books.assert_unchanged();
}

/// S44, S45, S78: each failure on the way to a window leaves all as it was, and the buffer can be freed.
#[ktest]
fn a_linear_buffer_is_shown_to_programs_or_not_at_all_s45_s78() {
    for way in [Way::ALL[0], Way::ALL[2]] {
        let _attached = way.attach();
        let given = Given::by(way, 3 * PAGE_SIZE);
        let buffer = Buffer { address: given.address(), dma: given.dma };
        let space = AddressSpace::new().expect("memory");
        survives(
            "dma_mmap_coherent, at linear addresses",
            || {
                space
                    .reserve(pages(WINDOW, 2), Protection::ReadWrite)
                    .map_err(|error| (Some(error), None))?;
                let shown = show(&SNOOPING, &space, at(WINDOW), (buffer, given.bytes), 1);
                shown.map_err(|error| {
                    assert_eq!(space.unmap(at(WINDOW)), Ok(()), "its owner ends it");
                    (None, Some(error))
                })
            },
            |point, error| match error {
                (Some(place), _) => no_place(point, place),
                (None, Some(ShowError::Map(error))) => no_table(point, error),
                (None, _) => false,
            },
            |()| assert_eq!(space.unmap(at(WINDOW)), Ok(())),
        );
    }
}

/// S99: the list of such a buffer is its frames, as many as were asked for.
#[ktest]
fn the_scatter_list_of_a_linear_buffer_has_its_frames_s99() {
    let books = Books::now();
    for way in Way::ALL {
        let _attached = way.attach();
        let given = Given::by(way, 3 * PAGE_SIZE - 7);
        let list = |memory, dma, size| {
            let mut table = ScatterTable::NONE;
            // SAFETY: the device lives, and there is a place for a table.
            let answer = unsafe {
                dma_get_sgtable_attrs(
                    &raw const SNOOPING,
                    &raw mut table,
                    memory,
                    dma,
                    size,
                    given.attributes,
                )
            };
            (answer, table)
        };
        let (memory, dma, bytes) = given.own();
        for size in [1, PAGE_SIZE, PAGE_SIZE + 1, bytes] {
            let (answer, mut table) = list(memory, dma, size);
            assert_eq!((answer, table.nents), (0, 1), "{way:?}, {size}");
            // SAFETY: the list has that entry.
            let entry = unsafe { &*table.sgl };
            let Link::Page(page) = entry.link() else { panic!("a chain") };
            let first = kernel().zones().table().frame_at_record(page as usize);
            assert_eq!(first, Some(frame_at(given.address())));
            assert_eq!((entry.offset, entry.length), (0, pages_for(size) * PAGE_SIZE));
            // SAFETY: made above.
            unsafe { sg_free_table(&raw mut table) };
        }
        let next = DmaAddr::new(dma.raw() + PAGE_SIZE);
        let second = memory.wrapping_byte_add(PAGE_SIZE as usize);
        for (memory, dma, size, answer) in [
            (memory, dma, 0, -EINVAL),
            (memory, dma, 3 * PAGE_SIZE + 1, -ENXIO),
            (memory, dma, u32::MAX, -ENXIO),
            (memory, next, PAGE_SIZE, -ENXIO),
            (second, next, PAGE_SIZE, -ENXIO),
            (second, dma, PAGE_SIZE, -ENXIO),
            (ptr::null_mut(), dma, PAGE_SIZE, -ENXIO),
        ] {
            assert_eq!(list(memory, dma, size).0, answer, "{way:?}, {size} at {dma}");
        }
        // Frames that lie so and are no buffer.
        let others = Pages::new(1).expect("memory");
        let other =
            Buffer { address: others.address(), dma: SNOOPING.dma_address(others.physical()) };
        assert_eq!(first_frame(&SNOOPING, other, PAGE_SIZE), None);
        drop(given);
        let mut table = ScatterTable::NONE;
        // SAFETY: as above; the buffer is gone, and refused.
        let answer =
            unsafe { dma_get_sgtable(&raw const SNOOPING, &raw mut table, memory, dma, PAGE_SIZE) };
        assert_eq!(answer, -ENXIO, "it was freed");
    }
    books.assert_unchanged();
}
