//! Code in on-chip memory on SoftMachine: what is mapped, what is refused, and what is left of it (S93, S112). What
//! `ioremap_exec` must not forget is on the board of mutants.

use super::bed::{Bed, CALLER, RAM, frame};
use kerncore::{
    addr::{LARGE_PAGE_SIZE, PAGE_SIZE, PhysAddr, SECTION_SIZE, VirtAddr},
    area::AreaKind,
    attributes::{Access, Attributes, Execute, MemoryType, Scope},
    bus::BusRange,
    descriptor::PageSize,
    kernel_space::{
        Alias, IoRemapError, LiveMapping, MemRemapError, NoArea, RemoveError, VmapError,
    },
};
use machine::{Behaviour, Fault, Kind, Privilege};

const fn range(name: &'static str, first: u32, bytes: u32) -> BusRange {
    BusRange { name, first: PhysAddr::new(first), last: PhysAddr::new(first + (bytes - 1)) }
}

const SRAM: u32 = 0x4800_0000;
const SRAM_BYTES: u32 = 4 * SECTION_SIZE;
const SECOND: u32 = 0x4c00_0000;
const ON_CHIP: [BusRange; 2] = [range("sram", SRAM, SRAM_BYTES), range("ocm", SECOND, PAGE_SIZE)];
const OTHER_CALLER: VirtAddr = VirtAddr::new(0x8002_0000);

fn at(physical: u32) -> PhysAddr {
    PhysAddr::new(physical)
}

fn code() -> Attributes {
    let memory = MemoryType::NormalNonCacheable;
    let made = Attributes::new(memory, Access::KernelReadOnly, Execute::Allowed, Scope::Global);
    made.expect("Normal memory that nobody writes")
}

fn map(bed: &Bed, physical: u32, bytes: u32) -> Result<VirtAddr, MemRemapError> {
    bed.space.ioremap_exec((at(physical), bytes), &ON_CHIP, CALLER)
}

/// Every byte of the range is there, to be read and executed by every CPU and written by none; the last user leaves nothing.
#[test]
fn code_is_mapped_to_its_last_byte_executed_and_never_written_s93() {
    for behaviour in Behaviour::all(2) {
        let bed = Bed::warm_on(behaviour);
        for (offset, bytes, size) in [
            (0, 4, PageSize::Small),
            (0x404, 8, PageSize::Small),
            (PAGE_SIZE - 4, 8, PageSize::Small),
            (SRAM_BYTES - 4, 4, PageSize::Small),
            (LARGE_PAGE_SIZE, LARGE_PAGE_SIZE, PageSize::Large),
            (SECTION_SIZE, SECTION_SIZE + PAGE_SIZE, PageSize::Section),
        ] {
            bed.gives_back(|bed| {
                let address = map(bed, SRAM + offset, bytes).expect("addresses");
                assert_eq!(address.page_offset(), offset % PAGE_SIZE);
                let last = VirtAddr::new(address.raw() + bytes - 1);
                for (place, physical) in [(address, offset), (last, offset + bytes - 1)] {
                    let entry = bed.space.table().translate(place).expect("mapped");
                    assert_eq!(
                        (entry.physical, entry.attributes()),
                        (at(SRAM + physical), Ok(code()))
                    );
                }
                assert_eq!(
                    bed.space.table().translate(address).map(|entry| entry.size),
                    Some(size)
                );
                let area = bed.space.find_containing(address).expect("live");
                assert_eq!((area.kind, area.caller), (AreaKind::IoRemap, CALLER));
                let both = [0, 1].map(|number| bed.machine.cpu(number));
                for (cpu, place) in both.into_iter().zip([last, address]) {
                    let reach = |kind| cpu.access(place, kind, Privilege::Kernel);
                    assert!(reach(Kind::Execute).is_ok() && reach(Kind::Read).is_ok());
                    assert_eq!(reach(Kind::Write), Err(Fault::Permission(place)));
                    let by_program = cpu.access(place, Kind::Execute, Privilege::User);
                    assert_eq!(by_program, Err(Fault::Permission(place)));
                }
                bed.clean();
                // By any address inside (S59), once.
                assert_eq!(bed.space.iounmap((), last), Ok(()));
                for (cpu, place) in both.into_iter().zip([address, last]) {
                    let gone = Err(Fault::Translation(place));
                    assert_eq!(cpu.access(place, Kind::Execute, Privilege::Kernel), gone);
                }
                let unknown = RemoveError::Unknown { address };
                assert_eq!(bed.space.iounmap((), address), Err(unknown));
            });
        }
    }
}

/// Any of the board's on-chip memories, wholly; elsewhere both parties are named.
#[test]
fn code_elsewhere_is_refused_and_both_are_named_s93() {
    let bed = Bed::warm();
    bed.changes_nothing(|bed| {
        let had = Some(ON_CHIP[0]);
        for (physical, bytes) in [
            (0x1001_3000, 4),
            (SRAM - 1, 2),
            (SRAM + SRAM_BYTES - 1, 2),
            (SRAM + SRAM_BYTES, 4),
            (SRAM, SRAM_BYTES + 1),
            // From the one into the other.
            (SRAM, SECOND - SRAM + 4),
            (SECOND + PAGE_SIZE - 2, 4),
            (RAM * PAGE_SIZE, 4),
        ] {
            let physical = at(physical);
            let refused = MemRemapError::NotOnChip { physical, bytes, on_chip: had };
            assert_eq!(map(bed, physical.raw(), bytes), Err(refused));
        }
        let physical = at(SRAM);
        let none = bed.space.ioremap_exec((physical, 4), &[], CALLER);
        let refused = MemRemapError::NotOnChip { physical, bytes: 4, on_chip: None };
        assert_eq!(none, Err(refused), "a board without any");
        let zero = IoRemapError::ZeroSize { physical };
        assert_eq!(map(bed, SRAM, 0), Err(MemRemapError::Map(zero)));
        let (physical, bytes) = (at(SRAM + 8), u32::MAX - SRAM);
        let wraps = IoRemapError::Wraps { physical, bytes };
        assert_eq!(map(bed, physical.raw(), bytes), Err(MemRemapError::Map(wraps)));
        // A board that calls RAM on-chip memory is not believed.
        let physical = at(RAM * PAGE_SIZE);
        let claimed = [range("ram", physical.raw(), SECTION_SIZE)];
        let ram = IoRemapError::Ram { physical, bytes: 4, ram: physical };
        let refused = bed.space.ioremap_exec((physical, 4), &claimed, CALLER);
        assert_eq!(refused, Err(MemRemapError::Map(ram)));
    });
    let last = map(&bed, SECOND + PAGE_SIZE - 1, 1).expect("the second's last byte");
    assert_eq!(bed.space.iounmap((), last), Ok(()));
    bed.clean();
}

/// Who writes a page and who executes it exclude each other, whoever is first; who reads it is in nobody's way.
#[test]
fn a_page_that_somebody_writes_is_not_executed_nor_the_other_way_round_s97_s112() {
    let bed = Bed::warm();
    let (physical, other) = (at(SRAM + 0x3000), at(SRAM + 0x3abc));
    let refused = |wanted, address, attributes| {
        let area = Some((AreaKind::IoRemap, OTHER_CALLER));
        let live = LiveMapping { address, attributes, area };
        NoArea::Alias(Alias { physical, pages: 1, wanted, live })
    };
    for written in [Attributes::WRITE_COMBINE, Attributes::KERNEL_DATA, Attributes::DEVICE] {
        bed.changes_nothing(|bed| {
            let live = bed.space.ioremap(physical, 4, written, OTHER_CALLER).expect("addresses");
            let clash = refused(code(), live, written);
            let clash = MemRemapError::Map(IoRemapError::Area(clash));
            assert_eq!(map(bed, other.raw(), 4), Err(clash), "{written}");
            assert_eq!(bed.space.iounmap((), live), Ok(()));
        });
        bed.changes_nothing(|bed| {
            let live = bed.space.ioremap_exec((physical, 4), &ON_CHIP, OTHER_CALLER);
            let live = live.expect("nobody writes");
            let clash = refused(written, live, code());
            let mapped = bed.space.ioremap(other, 4, written, CALLER);
            assert_eq!(mapped, Err(IoRemapError::Area(clash)), "{written}");
            if !written.memory().is_cacheable() {
                let number = [frame(physical.pfn().number())];
                let mapped = bed.space.vmap_devices(number.into_iter(), written, CALLER);
                assert_eq!(mapped, Err(VmapError::Area(clash)), "{written}");
            }
            assert_eq!(bed.space.iounmap((), live), Ok(()));
        });
    }
    bed.changes_nothing(|bed| {
        let live = map(bed, SRAM, 4).expect("addresses");
        let again = map(bed, SRAM + 8, 4).expect("executed twice");
        let read = Attributes::new(
            MemoryType::NormalNonCacheable,
            Access::KernelReadOnly,
            Execute::Never,
            Scope::Global,
        );
        let read = bed.space.ioremap(at(SRAM), 4, read.expect("sound"), CALLER).expect("read");
        for address in [live, read, again] {
            assert_eq!(bed.space.iounmap((), address), Ok(()));
        }
    });
}
