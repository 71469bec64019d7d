//! Two CPUs, one MiB, no table yet (S16, S116).

use crate::support::{ROOT, WINDOW, World, cut, frame, frames, pages, table_of};
use kerncore::{
    addr::PhysAddr,
    attributes::Attributes,
    machine::Machine,
    page_table::{PageTable, TableSource, consecutive},
};
use machine::{Behaviour, HostLocks, Kind, Privilege, SoftCpu, pass_on};
use std::{cell::RefCell, iter, thread};

const DATA: Attributes = Attributes::KERNEL_DATA;

/// CPU 0, which is stopped just before it cleans the first-level slot that it has written; then something else runs.
struct Stopped<'a> {
    cpu: SoftCpu<'a>,
    meanwhile: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl Machine for Stopped<'_> {
    type Authority = ();

    fn clean_descriptors(&self, first: PhysAddr, count: u32) {
        let is_first_level = first.raw() >= ROOT.raw() && first.raw() < ROOT.raw() + 0x4000;
        if is_first_level && let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        self.cpu.clean_descriptors(first, count);
    }

    pass_on!(cpu: read_descriptor write_descriptors barrier invalidate_tlb clean_and_invalidate
        zero_pages in_interrupt cpu);
}

#[test]
fn a_mapping_is_visible_even_if_the_maker_of_its_table_was_stopped_halfway() {
    for behaviour in Behaviour::all(24) {
        let world = World::new(behaviour);
        let other = cut_window(&world, 10);
        let meanwhile = || {
            let (table, mut range) = other;
            table.map(&mut range, 0, frames(&[0x6_0300]), DATA, &world.tables).expect("empty");
            let reached = world.cpu(1).access(range.start(), Kind::Read, Privilege::Kernel);
            assert_eq!(reached, Ok(frame(0x6_0300).base()), "{behaviour:?}");
        };
        let stopped =
            Stopped { cpu: world.cpu(0), meanwhile: RefCell::new(Some(Box::new(meanwhile))) };
        let (table, window) = table_of(stopped);
        let mut range = cut(window, 0, 1);
        table.map(&mut range, 0, frames(&[0x6_0200]), DATA, &world.tables).expect("empty");
        assert!(table.raw_machine(()).meanwhile.borrow().is_none(), "the other CPU ran");
        assert_eq!(world.reach(WINDOW), Ok(frame(0x6_0200)));
        assert_eq!(world.tables.taken(), 1);
    }
}

/// CPU 1, to whom the first-level slot was empty a moment ago; before it takes the lock, something else runs.
struct Overtaken<'a> {
    cpu: SoftCpu<'a>,
    meanwhile: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl Machine for Overtaken<'_> {
    type Authority = ();

    fn read_descriptor(&self, slot: PhysAddr) -> u32 {
        let found = self.cpu.read_descriptor(slot);
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        found
    }

    pass_on!(cpu: write_descriptors clean_descriptors barrier invalidate_tlb clean_and_invalidate
        zero_pages in_interrupt cpu);
}

/// The maker has cleaned its slot and left the lock, and has yet to reach its barrier: what it began, only its own barrier
/// completes.
#[test]
fn a_mapping_is_visible_even_if_the_maker_of_its_table_has_not_reached_its_barrier() {
    for behaviour in Behaviour::all(24) {
        let world = World::new(behaviour);
        let maker = || {
            let cpu = world.cpu(0);
            let table = world.tables.take_table().expect("the first table");
            cpu.write_descriptors(table, iter::repeat_n(0, 256));
            cpu.clean_descriptors(table, 256);
            cpu.barrier();
            let slot = PhysAddr::new(ROOT.raw() + WINDOW / 256 * 4);
            cpu.write_descriptors(slot, iter::once(table.raw() | 1));
            cpu.clean_descriptors(slot, 1);
        };
        let overtaken =
            Overtaken { cpu: world.cpu(1), meanwhile: RefCell::new(Some(Box::new(maker))) };
        let (table, window) = table_of(overtaken);
        let mut range = cut(window, 0, 1);
        table.map(&mut range, 0, frames(&[0x6_0200]), DATA, &world.tables).expect("empty");
        let reached = world.cpu(1).access(range.start(), Kind::Read, Privilege::Kernel);
        assert_eq!(reached, Ok(frame(0x6_0200).base()), "{behaviour:?}");
        assert_eq!(world.tables.taken(), 1);
    }
}

/// CPU 1's table over the same root, with one page of the same MiB as its window.
fn cut_window(
    world: &World,
    page: u32,
) -> (PageTable<SoftCpu<'_>, HostLocks>, kerncore::owned_range::OwnedRange) {
    PageTable::new(world.cpu(1), ROOT, pages(WINDOW + page, 1))
}

/// Real threads: one table is made, and nobody's mapping is lost.
#[test]
fn many_threads_that_map_in_one_mib_make_one_table() {
    for seed in 0..8 {
        let world = World::new(Behaviour::Random(seed));
        let (table, window) = world.table();
        let (mut rest, mut ranges) = (cut(window, 0, 256), Vec::new());
        for _ in 0..7 {
            let (range, more) = rest.split_at(32).expect("long");
            ranges.push(range);
            rest = more;
        }
        thread::scope(|scope| {
            for range in ranges {
                let (table, tables) = (&table, &world.tables);
                scope.spawn(move || {
                    let mut range = range;
                    let first = frame(0x6_0100 + range.pages().first() - WINDOW);
                    let list = consecutive(first, 32).expect("below 4 GiB");
                    assert_eq!(table.map(&mut range, 0, list, DATA, tables), Ok(32));
                });
            }
        });
        assert_eq!(world.tables.taken(), 1);
        for page in 0..7 * 32 {
            assert_eq!(world.reach(WINDOW + page), Ok(frame(0x6_0100 + page)));
        }
    }
}
