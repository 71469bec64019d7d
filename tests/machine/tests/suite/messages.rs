//! What a refusal says: it names the offender, what was wanted and what was there, and passes on what it was told.

use crate::{
    linear_map::{Scene, block, records},
    support::{World, at, cut, frame, pages},
};
use kerncore::{
    addr::{PageRange, PhysAddr},
    area::AreaKind,
    attributes::{Attributes, MemoryType},
    audit::{Place, Summary, Violation},
    bus::BusRange,
    descriptor::{l1, l2},
    frames::{self, AddError, FrameOwner, Unsound},
    handover::{Problem, Span},
    kernel_space::{
        Alias, AreasBusy, BareError, ChangeError, CoherentError, ExtendError, FillAreaError,
        FramesError, IoRemapError, LiveMapping, MapAreaError, MemRemapError, NoArea, ReallocError,
        RemoveError, StaticError, StaticMapping, StaticRequest, UnmapAreaError, VmallocError,
        VmapError,
    },
    kmap::{KmapError, KunmapError},
    linear_map::{FillError, LinearError, LinearFault},
    page_table::{AdoptError, MapError, Oddity, ReserveError as TableError},
    pool,
    slab::{ChunkError, Home, NoPlace},
    va_space::{CheckError, PublishError, ReserveError},
};
use machine::Behaviour;
use std::fmt::Display;

const PAGE: u32 = 0xc_0123;
const ADDRESS: &str = "0xc0123000";
const WORD: u32 = 0x6018_041e;

/// `said` has each of `words`, in their order.
#[track_caller]
fn says(said: &dyn Display, words: &[&str]) {
    let said = said.to_string();
    let mut rest = said.as_str();
    for word in words {
        let found = rest.split_once(word);
        assert!(found.is_some(), "{said:?} does not say {word:?}, or not there");
        rest = found.map_or("", |(_, rest)| rest);
    }
}

fn exhausted() -> frames::AllocateError {
    let owner = FrameOwner::Dma;
    frames::AllocateError::Exhausted {
        pages: 8,
        owner,
        free: 12,
        largest: Some(2),
        from: frames::FrameRequest::ANY,
    }
}

#[test]
fn errors_of_tables_name_the_address_and_what_is_there() {
    let address = at(PAGE);
    let mapped = 5;
    let occupied = MapError::Occupied { address, descriptor: WORD, mapped };
    says(&occupied, &[ADDRESS, "0x6018041e", "5 mapped"]);
    says(&MapError::MissingFrame { address, mapped }, &[ADDRESS, "5 mapped"]);
    says(&MapError::NoFrames { range: pages(PAGE, 2) }, &["0xc0123000-0xc0125000"]);
    let range = pages(PAGE, 2);
    says(&MapError::DoesNotFit { range, offset: 1, frames: 7 }, &["7", "0xc0123000-", "1"]);
    let reason = TableError::NoTable(address);
    says(&MapError::Table { reason, mapped }, &["no memory", ADDRESS, "5 mapped"]);
    says(&TableError::NotATable { address, descriptor: WORD }, &[ADDRESS, "0x6018041e"]);
    says(&AdoptError::NotSections(range), &["0xc0123000-0xc0125000", "sections"]);
    says(&AdoptError::Tables(PhysAddr::new(0x6001_0000)), &["0x60010000"]);
    says(&AdoptError::Occupied { address, descriptor: WORD }, &[ADDRESS, "0x6018041e"]);
    for oddity in [
        Oddity::Leftover { address, descriptor: WORD },
        Oddity::NotATable { address, descriptor: WORD },
        Oddity::Uneven { address, descriptor: WORD },
        Oddity::ReachesOutside { address, descriptor: WORD },
    ] {
        says(&oddity, &[ADDRESS, "0x6018041e"]);
    }
}

#[test]
fn errors_of_the_linear_map_name_the_entry() {
    let (address, wanted, found) = (at(0x8_0123), 0x6012_345f, 0);
    let first = frame(0x9_ffff);
    says(&FillError::Outside { first, count: 2 }, &["2 frames", "0x9ffff"]);
    says(&FillError::Occupied { address, descriptor: WORD }, &["0x80123000", "0x6018041e"]);
    let words = ["0x80123000", "0x00000000", "0x6012345f"];
    says(&LinearError::Unexpected { address, wanted, found, block: () }, &words);
    says(&LinearFault::Unexpected { address, wanted, found }, &words);
    says(&LinearFault::Outside, &["not in the linear map"]);
}

/// A refusal that was passed on says what the first one said.
#[test]
fn errors_of_areas_pass_on_what_they_were_told() {
    let full = NoArea::Addresses(ReserveError::NoSpace { wanted: 9, order: 4, largest_hole: 3 });
    let map = MapError::MissingFrame { address: at(PAGE), mapped: 5 };
    let fault = LinearFault::Outside;
    says(&full, &["9 pages", "2^4", "has 3", "vmalloc=<size>"]);
    says(&NoArea::Addresses(ReserveError::TooLarge { bytes: 0xffff_f000 }), &["0xfffff000"]);
    says(&NoArea::Addresses(ReserveError::ZeroSize), &["zero"]);
    says(&NoArea::Record(exhausted()), &["record", "8 frames", "dma", "12"]);
    says(&NoArea::TooManyAreas { capacity: 77 }, &["77"]);
    let same =
        |passed_on: &dyn Display, first: &dyn Display| says(passed_on, &[&first.to_string()]);
    same(&VmallocError::Area(full), &full);
    same(&VmallocError::Frames(exhausted()), &exhausted());
    same(&VmallocError::Map(map), &map);
    same(&VmapError::Area(full), &full);
    same(&VmapError::Map(map), &map);
    same(&IoRemapError::Area(full), &full);
    same(&IoRemapError::Map(map), &map);
    same(&CoherentError::Area(full), &full);
    same(&CoherentError::Frames(exhausted()), &exhausted());
    same(&CoherentError::Linear(fault), &fault);
    same(&CoherentError::Map(map), &map);
    same(&ExtendError::Frames(exhausted()), &exhausted());
    same(&ExtendError::Map(map), &map);
    let other = frames::FreeError::AlreadyFree { frame: frame(0x6_0123) };
    same(&FramesError::Free(other), &other);
    same(&FramesError::Linear(fault), &fault);
    let error = FramesError::Free(other);
    says(&RemoveError::Frames { address: at(PAGE), error }, &[ADDRESS, &other.to_string()]);
}

#[test]
fn refusals_of_calls_name_what_was_asked_for() {
    says(&VmallocError::ZeroSize, &["zero"]);
    says(&VmallocError::MoreThanMemory { wanted: 9, total: 8 }, &["9", "8"]);
    let (frame, owner) = (frame(0x6_0123), FrameOwner::Slab);
    says(&VmapError::NoPages, &["no pages"]);
    says(&VmapError::MoreThanMemory { wanted: 9, total: 8 }, &["9", "8"]);
    says(&VmapError::NotMemory { frame, owner }, &["0x60123", "slab"]);
    says(&VmapError::Ram { frame, owner }, &["0x60123", "slab", "RAM"]);
    let wanted = MemoryType::Device;
    says(&VmapError::MemoryType { frame, owner, wanted }, &["0x60123", "slab", "Device"]);
    let wanted = Attributes::KERNEL_TEXT;
    says(&VmapError::Protection { frame, owner, wanted }, &["0x60123", "slab", "r-x"]);
    let (physical, bytes) = (PhysAddr::new(0x5fff_f000), 0x2000);
    says(&IoRemapError::ZeroSize { physical }, &["zero", "0x5ffff000"]);
    says(&IoRemapError::Wraps { physical, bytes }, &["0x2000", "0x5ffff000"]);
    let ram = PhysAddr::new(0x6000_0000);
    says(&IoRemapError::Ram { physical, bytes, ram }, &["0x2000", "0x5ffff000", "0x60000000"]);
    let address = at(PAGE);
    says(&RemoveError::Misaligned { address }, &[ADDRESS]);
    says(&RemoveError::Unknown { address }, &[ADDRESS]);
    says(&RemoveError::WrongKind { address, found: AreaKind::Dma }, &[ADDRESS, "dma"]);
    says(&RemoveError::OtherSize { address, found: 7, wanted: 9 }, &[ADDRESS, "7 pages", "not 9"]);
    says(&RemoveError::InUse { address, users: 7 }, &[ADDRESS, "7 windows"]);
    says(&RemoveError::Busy { address }, &[ADDRESS, "being changed"]);
    says(&RemoveError::Elsewhere { address, found: ram }, &[ADDRESS, "0x60000000"]);
    says(&FramesError::StillMapped, &["mapped"]);
    says(&FramesError::PageArray, &["array"]);
    says(&AreasBusy, &["lock"]);
    let held = KmapError::Exhausted { cpu: 2, slots: 32 };
    says(&held, &["32 temporary mappings", "CPU 2", "in use"]);
    says(&VmallocError::Zero(held), &[&held.to_string()]);
    says(&KmapError::NotMemory { frame, owner }, &["0x60123", "slab"]);
    says(&KmapError::Lent { frame, owner }, &["0x60123", "slab"]);
    says(&KunmapError { address }, &[ADDRESS]);
    let (node, nodes) = (frames::NodeId::new(7), 2);
    let unknown = frames::AllocateError::UnknownNode { node, nodes, owner };
    says(&unknown, &["slab", "no node 7", "of 2"]);
}

#[test]
fn refusals_of_bare_areas_name_what_was_asked_for() {
    let address = at(PAGE);
    says(&ChangeError::Misaligned { address }, &[ADDRESS]);
    says(&ChangeError::Unknown { address }, &[ADDRESS]);
    says(&ChangeError::WrongKind { address, found: AreaKind::Dma }, &[ADDRESS, "dma"]);
    says(&ChangeError::InUse { address, users: 7 }, &[ADDRESS, "7 windows"]);
    says(&ChangeError::Busy { address }, &[ADDRESS, "being changed"]);
    says(&ChangeError::Large { address }, &[ADDRESS, "large mapping"]);
    let change = ChangeError::WrongKind { address, found: AreaKind::Bare };
    says(&MapAreaError::Change(change), &[&change.to_string()]);
    let reason = VmapError::MissingFrame { index: 9 };
    says(&MapAreaError::Map { reason, mapped: 4 }, &["page 9", "(4 mapped)"]);
    let occupied = MapError::Occupied { address, descriptor: 0x6012_3403, mapped: 4 };
    let twice = MapAreaError::Map { reason: VmapError::Map(occupied), mapped: 4 };
    assert_eq!(twice.to_string().matches("mapped)").count(), 1, "{twice}");
    says(&twice, &[ADDRESS, "(4 mapped)"]);
    says(&UnmapAreaError::Change(change), &[&change.to_string()]);
    let pages = PageRange::from_numbers(PAGE, 2).expect("a range");
    says(&UnmapAreaError::Outside { pages }, &[&pages.to_string()]);
    let area = pages;
    says(&UnmapAreaError::Large { pages, area }, &[&pages.to_string(), "large mapping"]);
    says(&FillAreaError::Change(change), &[&change.to_string()]);
    says(&FillAreaError::Mapped { address }, &[ADDRESS]);
    says(&FillAreaError::Consumed(VmallocError::ZeroSize), &["zero", "removed"]);
    let full = NoArea::TooManyAreas { capacity: 77 };
    says(&BareError::Area(full), &["77"]);
    says(&ReallocError::Change(change), &[&change.to_string()]);
    says(&ReallocError::Grow(VmallocError::ZeroSize), &["zero"]);
    let table = TableError::NoTable(address);
    says(&BareError::Table(table), &[&table.to_string()]);
}

#[test]
fn errors_of_frames_name_the_frame_and_its_owner() {
    use frames::FreeError as Error;

    let (owner, claimed, frame, head) =
        (FrameOwner::Vmalloc, FrameOwner::Heap, frame(0x6_0123), frame(0x6_0120));
    says(&exhausted(), &["8 frames", "dma", "12", "4 adjacent"]);
    let none = frames::AllocateError::Exhausted {
        pages: 8,
        owner,
        free: 0,
        largest: None,
        from: frames::FrameRequest::ANY,
    };
    says(&none, &["8 frames", "vmalloc", "0"]);
    says(&frames::AllocateError::TooLarge { pages: 4096, owner }, &["4096", "vmalloc"]);
    says(&frames::AllocateError::Zero { owner }, &["vmalloc"]);
    says(&frames::AllocateError::NotAnOwner { owner }, &["vmalloc"]);
    says(&Error::NotManaged { frame }, &["0x60123"]);
    says(&Error::Reserved { frame, owner }, &["0x60123", "vmalloc"]);
    says(&Error::Misaligned { frame, order: 3 }, &["0x60123", "3"]);
    let wrong = Error::WrongOrder { frame, owner, order: 3, actual: 1 };
    says(&wrong, &["0x60123", "vmalloc", "1", "3"]);
    let inside = Error::InsideBlock { frame, head, order: 3, owner };
    says(&inside, &["0x60123", "order-3", "0x60120", "vmalloc"]);
    says(&Error::OtherOwner { frame, owner, claimed }, &["0x60123", "vmalloc", "heap"]);
    says(&AddError::OutsideTable { first: frame, pages: 9 }, &["9", "0x60123"]);
    says(&AddError::AlreadyManaged { frame, owner }, &["0x60123", "vmalloc"]);
    says(&Unsound::Shape { frame, order: 3 }, &["3", "0x60123"]);
    says(&Unsound::HeadInside { frame, head }, &["0x60123", "0x60120"]);
    says(&Unsound::Count { counted: 8, recorded: 9 }, &["8", "9"]);
}

#[test]
fn errors_of_books_name_the_place_and_the_numbers() {
    use pool::{AllocateError, FreeError, NewError};

    let (start, run) = (at(PAGE), at(PAGE - 1));
    says(&NewError::Unaligned { base: start }, &[ADDRESS]);
    says(&NewError::NoPages { bytes: 77 }, &["77"]);
    says(&NewError::Wraps { base: start, bytes: 77 }, &["77", ADDRESS]);
    says(&NewError::TooFewWords { wanted: 3, had: 2 }, &["3", "2"]);
    says(&AllocateError::Zero, &["no bytes"]);
    let exhausted = AllocateError::Exhausted { pages: 8, largest: 4, free: 5, taken: 11 };
    says(&exhausted, &["8 pages", "5 of 16", "4"]);
    says(&FreeError::NotMine { start }, &[ADDRESS, "outside"]);
    says(&FreeError::Overruns { start, bytes: 77, last: run }, &["77", ADDRESS, "0xc0122000"]);
    says(&FreeError::Unaligned { start }, &[ADDRESS]);
    says(&FreeError::NotAllocated { start }, &[ADDRESS]);
    says(&FreeError::NotAStart { start, run, pages: 2 }, &[ADDRESS, "2 pages", "0xc0122000"]);
    says(&FreeError::WrongSize { start, pages: 2, allocated: 3 }, &[ADDRESS, "3", "2"]);
    says(&PublishError::NotReserved { base: start, record: () }, &[ADDRESS]);
    says(&PublishError::AlreadyLive { base: start, record: () }, &[ADDRESS, "live"]);
    says(&PublishError::Dying { base: start, record: () }, &[ADDRESS, "dying"]);
    says(&CheckError::Unowned { page: 9 }, &["9"]);
    says(&CheckError::BadLength { area: 9, length: 1 }, &["9", "1"]);
    says(&CheckError::StrayRecord { page: 9 }, &["9", "record"]);
    says(&NoPlace::NeedsChunk { entries: 32, home: Home::First }, &["32"]);
    says(&NoPlace::Full { capacity: 64 }, &["64"]);
    says(&ChunkError::WrongSize { wanted: 32, had: 31 }, &["32", "31"]);
    says(&ChunkError::Full { capacity: 64 }, &["64"]);
}

#[test]
fn what_an_audit_finds_names_the_place_and_the_word() {
    let address = at(PAGE);
    let place = Place::Area { kind: AreaKind::Vmap, base: at(PAGE - 1) };
    let descriptor = l2::Descriptor::decode(0x6012_3403).expect_err("writable and executable");
    let words = [ADDRESS, "vmap area at 0xc0122000", "0x60123403"];
    says(&Violation::BadDescriptor { address, place, descriptor }, &words);
    let leftover = l1::Descriptor::decode(0x6012_3400).expect_err("not present, not zero");
    says(&leftover, &["0x60123400", "not present"]);
    let (wanted, had) = (PhysAddr::new(0x6012_3000), PhysAddr::new(0x6012_4000));
    let missing = Violation::Missing { address, place, wanted: Some(wanted) };
    says(&missing, &[ADDRESS, "not mapped", "0x60123000"]);
    says(&Violation::Present { address, place, had }, &[ADDRESS, "0x60124000"]);
    let elsewhere = Violation::WrongFrame { address, place, wanted, had };
    says(&elsewhere, &[ADDRESS, "0x60124000", "0x60123000"]);
    let lent = Place::Lent(FrameOwner::AtomicPool);
    says(&lent, &["atomic pool"]);
    says(&Place::Image("rodata"), &["rodata"]);
    says(&Place::Guard { base: address }, &["guard", ADDRESS]);
    says(&Violation::Books(CheckError::Unowned { page: 9 }), &["page 9"]);
    let count = Violation::FrameCount { owner: FrameOwner::Dma, owned: 4, found: 3 };
    says(&count, &["dma", "4", "3"]);
}

#[test]
fn what_an_audit_counted_is_said_with_its_name() {
    let summary = Summary {
        violations: 1,
        linear_pages: 12,
        lent_pages: 3,
        areas: [4, 5, 6, 7, 8, 0, 0],
        area_pages: 34,
        code_pages: 0,
        heap_pages: 56,
        linear_tables: 8,
        tables: 70,
        image_tables: 5,
    };
    assert_eq!(summary.live_areas(), 30);
    let words =
        ["1 violation", "12 pages", "3 lent", "30, 34 pages", "56 pages", "8 lin", "75 other"];
    says(&summary, &words);
}

#[test]
fn what_a_boot_loader_said_amiss_is_named() {
    let span = Span::new(0x6800_0000, 0x20_0000).expect("below 4 GiB");
    says(&span, &["2048 KiB at 0x68000000"]);
    let (tag, offset, words) = (0x5441_0009, 28, 1);
    let (start, bytes) = (0x6800_0000, 0x1234);
    let address = PhysAddr::new(0x6000_0102);
    says(&Problem::Unaligned { address }, &["0x60000102"]);
    says(&Problem::NotCore { tag }, &["0x54410009"]);
    says(&Problem::Size { tag, offset, words }, &["0x54410009", "28", "1 words", "ignored"]);
    says(&Problem::Overlong { tag, offset, words }, &["0x54410009", "28", "1 words", "rest"]);
    says(&Problem::Bank { start, bytes }, &["0x1234 bytes of RAM", "0x68000000"]);
    says(&Problem::Initrd { start, bytes }, &["disk", "0x1234 bytes", "0x68000000"]);
    says(&Problem::Property { name: "reg" }, &["property reg"]);
}

/// What is held back until a flush shows what it holds, so that a panic that prints it is of use.
#[test]
fn what_waits_for_a_flush_shows_its_addresses() {
    let world = World::new(Behaviour::Forgetful);
    let (table, window) = world.table();
    says(&format!("{table:?}"), &["PageTable", "0x60004000", "0xc0000000-0xc1000000"]);
    let unmapped = table.unmap(cut(window, 1, 2), ());
    says(&format!("{unmapped:?}"), &["Unmapped", "0xc0001000-0xc0003000", "pages: 0"]);
    let _released = unmapped.flush();
    let (scene, records) = (Scene::new(world.cpu(0)), records());
    let withdrawn = scene.linear.withdraw(block(&records)).expect("as filled");
    says(&format!("{withdrawn:?}"), &["Withdrawn", "0x60100"]);
}

#[test]
fn memory_that_cannot_be_mapped_is_named_with_what_is_there_s93() {
    let (physical, bytes) = (PhysAddr::new(0x5fff_f000), 0x2000);
    let ram = PhysAddr::new(0x6000_0000);
    let partly = MemRemapError::PartlyRam { physical, bytes, ram };
    says(&partly, &["0x2000", "0x5ffff000", "0x60000000"]);
    let wanted = MemoryType::Device;
    says(&MemRemapError::NotMemory { physical, wanted }, &["0x5ffff000", "device"]);
    let (had, wanted) = (Attributes::KERNEL_DATA, Attributes::WRITE_COMBINE);
    let linear = at(0x8_0123);
    let otherwise = MemRemapError::RamOtherwise { physical: ram, linear, had, wanted };
    says(&otherwise, &["0x60000000", "non-cacheable", "0x80123000", "write-back"]);
    says(&MemRemapError::NoLinearAddress { physical: ram }, &["0x60000000", "linear"]);
    let on_chip = BusRange { name: "sram", first: physical, last: ram };
    let far = MemRemapError::NotOnChip { physical: ram, bytes, on_chip: Some(on_chip) };
    says(&far, &["0x2000", "0x60000000", "0x5ffff000-0x60000000 sram"]);
    says(&MemRemapError::NotOnChip { physical: ram, bytes, on_chip: None }, &["0x60000000", "no"]);
    let zero = IoRemapError::ZeroSize { physical };
    assert_eq!(MemRemapError::Map(zero).to_string(), zero.to_string());
    let range = BusRange { name: "l2", first: physical, last: ram };
    let had = StaticMapping { range, attributes: had, pages: pages(PAGE, 2) };
    let otherwise = IoRemapError::Static { physical, bytes, wanted, had };
    let words = ["0x2000", "0x5ffff000", "non-cacheable", "l2", "write-back", ADDRESS];
    says(&otherwise, &words);
    let (address, kind, caller) = (at(PAGE), AreaKind::IoRemap, at(0x8_0123));
    let mut live = LiveMapping { address, attributes: wanted, area: Some((kind, caller)) };
    let alias = |live| Alias { physical, pages: 3, wanted: Attributes::KERNEL_DATA, live };
    let two = [
        "0x3000 bytes",
        "0x5ffff000",
        "write-back",
        ADDRESS,
        "non-cacheable",
        "ioremap",
        "0x80123000",
    ];
    says(&NoArea::Alias(alias(live)), &two);
    let passed_on = IoRemapError::Area(NoArea::Alias(alias(live)));
    says(&MemRemapError::Map(passed_on), &two);
    says(&VmapError::Area(NoArea::Alias(alias(live))), &two);
    live.area = None;
    says(&NoArea::Alias(alias(live)), &["0x3000 bytes", ADDRESS, "non-cacheable", "comes or goes"]);
    let frame = physical.pfn();
    let otherwise = VmapError::Static { frame, wanted, had };
    says(&otherwise, &["0x5ffff", "non-cacheable", "0x5ffff000-", "l2", "write-back", ADDRESS]);
    let beside = StaticRequest { range: BusRange { name: "screen", ..range }, attributes: wanted };
    let otherwise = StaticError::Alias { wanted: beside, had };
    says(&otherwise, &["screen", "non-cacheable", "l2", "write-back", ADDRESS]);
    says(&StaticError::Unfit(range), &["0x5ffff000-0x60000000 l2"]);
}
