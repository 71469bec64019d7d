//! Frames that leave the linear map to be used uncached, and come back: S85, S97, S112.

use crate::support::{ROOT, World, at, cut, everywhere, frame, pages};
use kerncore::{
    addr::{PhysAddr, VirtAddr},
    attributes::Attributes,
    frames::{Frame, FrameAllocator, FrameBlock, FrameOwner, FrameTable},
    linear_map::{FillError, LinearError, LinearMap, ProtectError},
    machine::Machine,
    owned_range::OwnedRange,
    page_table::{MapError, PageTable},
};
use machine::{Behaviour, Event, Fault, HostLocks, Reach, Scope, SoftCpu};

/// RAM in the linear map: 1 MiB from frame 0x60100, at `0x8010_0000`.
const FIRST: u32 = 0x6_0100;
const LINEAR: u32 = 0x8_0100;
const ARRAY: PhysAddr = PhysAddr::new(0x6000_c000);
const WINDOW: u32 = 0x8_0200;

/// A page table, the linear map filled with its MiB, and the addresses above it.
pub(crate) struct Scene<M: Machine> {
    pub(crate) table: PageTable<M, HostLocks>,
    pub(crate) linear: LinearMap<M>,
    pub(crate) range: OwnedRange,
}

impl<M: Machine + Clone> Scene<M> {
    pub(crate) fn new(machine: M) -> Self {
        let (table, window) = PageTable::new(machine, ROOT, pages(LINEAR, 768));
        let (window, range) = window.split_at(256).expect("three MiB");
        let mut linear =
            LinearMap::new(&table, window, ARRAY, frame(FIRST)).expect("nothing is there");
        linear.fill(frame(FIRST), 256).expect("nothing is there");
        Self { table, linear, range: cut(range, 0, 3) }
    }
}

/// Two owned frames of the MiB.
pub(crate) fn block(records: &[Frame]) -> FrameBlock {
    let table = FrameTable::new(records, frame(0x6_0000)).expect("aligned");
    let mut allocator = FrameAllocator::new(table);
    allocator.add_range(frame(FIRST), 256).expect("new");
    allocator.allocate(1, FrameOwner::Test).expect("256 are free")
}

pub(crate) fn records() -> Vec<Frame> {
    (0..512).map(|_| Frame::new()).collect()
}

/// The linear address and the physical one of the word at `offset` of the block at `first`.
fn word(first: kerncore::addr::Pfn, offset: u32) -> (VirtAddr, PhysAddr) {
    let physical = first.base().raw() + offset;
    (VirtAddr::new(physical - 0x6010_0000 + 0x8010_0000), PhysAddr::new(physical))
}

/// The life of a coherent buffer; an error says where the CPU and the device first disagreed.
pub(crate) fn life_of_a_coherent_buffer<M: Machine<Authority = ()> + Clone>(
    world: &World,
    machine: M,
    before_withdrawal: impl Fn(&M, &FrameBlock),
) -> Result<(), &'static str> {
    let records = records();
    let block = block(&records);
    let Scene { table, linear, range } = Scene::new(machine);
    let cpus = [world.cpu(0), world.cpu(1)];
    let first = block.first();
    let ok = |right: bool, what| if right { Ok(()) } else { Err(what) };
    for offset in [0, 0x40, 0x1ffc] {
        let (linear, physical) = word(first, offset);
        // Both CPUs have the linear translations in their TLBs, the device an old word in memory.
        world.machine.device_write(physical, 0xbad);
        cpus[1].store(linear, 0).map_err(|_| "linear map absent")?;
        cpus[0].store(linear, offset).map_err(|_| "linear map absent")?;
    }
    before_withdrawal(table.raw_machine(()), &block);
    let absent = linear.withdraw(block).map_err(|_| "not withdrawn")?.flush();
    let lent = absent
        .lend(&table, range, Attributes::WRITE_COMBINE, &world.tables)
        .map_err(|_| "not lent")?;
    let start = lent.pages().start();
    for offset in [0, 0x40, 0x1ffc] {
        let (linear, physical) = word(first, offset);
        let uncached = start.checked_add(offset).expect("inside");
        ok(
            world.machine.device_read(physical) == offset,
            "the device sees what was written before",
        )?;
        world.machine.device_write(physical, offset + 1);
        for cpu in cpus {
            ok(cpu.load(linear).is_err(), "the linear entry is gone")?;
            ok(cpu.load(uncached) == Ok(offset + 1), "the CPU sees the device's word")?;
        }
        cpus[0].store(uncached, offset + 2).map_err(|_| "not mapped")?;
        cpus[0].barrier();
        ok(world.machine.device_read(physical) == offset + 2, "the device sees the CPU's word")?;
    }
    let released = lent.unmap(&table).flush();
    let block = linear.restore(released.payload).map_err(|_| "not restored")?;
    for offset in [0, 0x40, 0x1ffc] {
        let (linear, _) = word(block.first(), offset);
        ok(cpus[1].load(linear) == Ok(offset + 2), "the linear map shows the last word")?;
        let uncached = start.checked_add(offset).expect("inside");
        ok(cpus.iter().all(|cpu| cpu.load(uncached).is_err()), "the uncached mapping is gone")?;
    }
    Ok(())
}

#[test]
fn cpu_and_device_agree_all_through_the_life_of_a_coherent_buffer() {
    everywhere(|world| {
        assert_eq!(life_of_a_coherent_buffer(world, world.cpu(0), |_, _| ()), Ok(()));
    });
}

/// S97: the order that the module argues for, step by step.
#[test]
fn lines_are_cleaned_after_the_flush_and_through_the_new_mapping() {
    let world = World::new(Behaviour::Hoarding);
    let records = records();
    let Scene { table, linear, range } = Scene::new(world.cpu(0));
    let block = block(&records);
    let (first, linear_pages) = (block.first(), linear.pages_of(block.first(), 2));
    drop(world.machine.take_log());
    let absent = linear.withdraw(block).expect("as filled").flush();
    let lent = absent.lend(&table, range, Attributes::WRITE_COMBINE, &world.tables).expect("empty");
    assert_eq!((lent.pages(), lent.range().count()), (pages(WINDOW, 2), 3));
    let log: Vec<Event> = world.machine.take_log().into_iter().map(|(_, event)| event).collect();
    let place = |wanted: &dyn Fn(&Event) -> bool| log.iter().position(wanted).expect("asked");
    let cleared = place(
        &|event| matches!(event, Event::Write(slot, 2) if *slot < PhysAddr::new(0x6000_c400)),
    );
    let scope = Scope::Pages(linear_pages.expect("inside"));
    let flushed = place(&|event| *event == Event::Invalidate(scope, Reach::InnerShareable));
    let cleaned = place(&|event| *event == Event::CleanAndInvalidate(pages(WINDOW, 2), first));
    assert!(cleared < flushed && flushed < cleaned, "{log:?}");
    assert_eq!(log[flushed - 1], Event::Barrier);
    assert_eq!(log[flushed + 1], Event::Barrier);
    assert_eq!(log[cleaned + 1..], [Event::Barrier]);
    drop(lent);
}

#[test]
fn a_block_that_cannot_be_lent_comes_back_and_leaves_nothing_mapped() {
    everywhere(|world| {
        let records = records();
        let Scene { table, linear, mut range } = Scene::new(world.cpu(0));
        table
            .map(&mut range, 1, [frame(0x6_0900)], Attributes::DEVICE, &world.tables)
            .expect("empty");
        let block = block(&records);
        let first = block.first();
        let absent = linear.withdraw(block).expect("as filled").flush();
        let error = absent
            .lend(&table, range, Attributes::WRITE_COMBINE, &world.tables)
            .expect_err("its second page is in use");
        assert!(matches!(error.reason, MapError::Occupied { .. }));
        assert_eq!(world.reach(WINDOW + 1), Ok(frame(0x6_0900)), "left alone");
        let short = error.range.split_at(1).expect("three pages").0;
        let error = error
            .block
            .lend(&table, short, Attributes::WRITE_COMBINE, &world.tables)
            .expect_err("two frames in one page");
        assert!(matches!(error.reason, MapError::DoesNotFit { frames: 2, .. }));
        let block = linear.restore(error.block).expect("still absent");
        assert_eq!(world.reach(LINEAR + (block.first().number() - FIRST)), Ok(first));
    });
}

/// S19, S97: a half-made uncached mapping is gone, flush and all, before the block can go back.
#[test]
fn a_block_that_was_half_lent_is_mapped_nowhere() {
    everywhere(|world| {
        let records = records();
        let (table, window) =
            PageTable::<_, HostLocks>::new(world.cpu(0), ROOT, pages(LINEAR, 768));
        let (window, range) = window.split_at(256).expect("three MiB");
        let mut linear = LinearMap::new(&table, window, ARRAY, frame(FIRST)).expect("empty");
        linear.fill(frame(FIRST), 256).expect("empty");
        let mut range = cut(range, 255, 2);
        let elsewhere = [frame(0x6_0900)];
        table.map(&mut range, 1, elsewhere, Attributes::DEVICE, &world.tables).expect("empty");
        let absent = linear.withdraw(block(&records)).expect("as filled").flush();
        let error = absent
            .lend(&table, range, Attributes::WRITE_COMBINE, &world.tables)
            .expect_err("its second page is in use");
        assert!(matches!(error.reason, MapError::Occupied { mapped: 1, .. }));
        assert_eq!(world.reach(WINDOW + 255), crate::support::absent(WINDOW + 255));
        assert!(linear.restore(error.block).is_ok());
    });
}

#[test]
fn an_entry_that_is_not_as_it_should_be_is_named_and_the_block_comes_back() {
    let world = World::new(Behaviour::Hoarding);
    let records = records();
    let Scene { linear, .. } = Scene::new(world.cpu(0));
    let block = block(&records);
    let page = LINEAR + (block.first().number() - FIRST) + 1;
    let slot = PhysAddr::new(ARRAY.raw() + (page - LINEAR) * 4);
    let word = world.cpu(0).read_descriptor(slot);
    world.cpu(0).write_descriptors(slot, [word | 0x200].into_iter());
    match linear.withdraw(block) {
        Err(LinearError::Unexpected { address, wanted, found, block }) => {
            assert_eq!((address, wanted, found), (at(page), word, word | 0x200));
            world.cpu(0).write_descriptors(slot, [word].into_iter());
            let absent = linear.withdraw(block).expect("as filled").flush();
            world.cpu(0).write_descriptors(slot, [word].into_iter());
            let error = linear.restore(absent).expect_err("its slot is in use");
            assert!(matches!(error, LinearError::Unexpected { wanted: 0, .. }));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn filling_refuses_what_is_there_and_what_is_outside() {
    let world = World::new(Behaviour::Hoarding);
    let mut scene: Scene<SoftCpu<'_>> = Scene::new(world.cpu(0));
    let taken = scene.linear.fill(frame(FIRST + 7), 2);
    let descriptor = (FIRST + 7) << 12 | 0x45f;
    assert_eq!(taken, Err(FillError::Occupied { address: at(LINEAR + 7), descriptor }));
    let outside = FillError::Outside { first: frame(FIRST + 255), count: 2 };
    assert_eq!(scene.linear.fill(frame(FIRST + 255), 2), Err(outside));
    let below = FillError::Outside { first: frame(FIRST - 1), count: 2 };
    assert_eq!(scene.linear.fill(frame(FIRST - 1), 2), Err(below));
    assert_eq!(scene.linear.frame_of(at(LINEAR + 9)), Some(frame(FIRST + 9)));
    assert_eq!(scene.linear.frame_of(at(LINEAR + 256)), None);
}

/// Three frames that become read-only: an error says what somebody could do with them that he should not, or could not.
pub(crate) fn frames_that_become_read_only<M: Machine<Authority = ()> + Clone>(
    world: &World,
    machine: M,
    settle: impl Fn(&M),
) -> Result<(), &'static str> {
    let Scene { table, mut linear, .. } = Scene::new(machine);
    let ok = |right: bool, what| if right { Ok(()) } else { Err(what) };
    let cpus = [world.cpu(0), world.cpu(1)];
    let all = LINEAR + 4..LINEAR + 9;
    for page in all.clone() {
        settle(table.raw_machine(()));
        // Both have the writable entries in their TLBs.
        for cpu in cpus {
            cpu.store(at(page), page).map_err(|_| "linear map absent")?;
        }
    }
    linear.protect(frame(FIRST + 5), 3).map_err(|_| "not protected")?;
    settle(table.raw_machine(()));
    for page in all {
        let is_protected = (LINEAR + 5..LINEAR + 8).contains(&page);
        for cpu in cpus {
            ok(cpu.load(at(page)) == Ok(page), "what was written is read")?;
            let wanted = if is_protected { Err(Fault::Permission(at(page))) } else { Ok(()) };
            ok(cpu.store(at(page), page) == wanted, "they alone are read-only")?;
        }
    }
    Ok(())
}

#[test]
fn what_is_protected_cannot_be_protected_again_nor_withdrawn_and_what_is_outside_is_refused() {
    let world = World::new(Behaviour::Hoarding);
    let mut scene: Scene<SoftCpu<'_>> = Scene::new(world.cpu(0));
    let word = |page: u32, bits: u32| page << 12 | bits;
    assert_eq!(scene.linear.protect(frame(FIRST + 7), 2), Ok(()));
    let again = scene.linear.protect(frame(FIRST + 6), 2);
    let (wanted, found) = (word(FIRST + 7, 0x45f), word(FIRST + 7, 0x65f));
    let unexpected = ProtectError::Unexpected { address: at(LINEAR + 7), wanted, found };
    assert_eq!(again, Err(unexpected));
    assert_eq!(world.cpu(0).store(at(LINEAR + 6), 1), Ok(()), "nothing has changed");
    for first in [FIRST - 1, FIRST + 255] {
        let outside = ProtectError::Outside { first: frame(first), count: 2 };
        assert_eq!(scene.linear.protect(frame(first), 2), Err(outside));
    }
    let records = records();
    let block = block(&records);
    assert_eq!(scene.linear.protect(block.first(), 1), Ok(()));
    let refused = scene.linear.withdraw(block);
    assert!(matches!(refused, Err(LinearError::Unexpected { .. })), "{refused:?}");
}
