//! Two and three users of one page, in every interleaving of their steps (S60 to S62).
//!
//! Steps are the critical sections of the kernel's locks, and the writing of descriptors with all that follows it; see
//! [`machine::schedule`].

use histories::bed::{Bed, CALLER};
use kerncore::{
    addr::{PageRange, PhysAddr, VirtAddr},
    attributes::Attributes,
    kernel_space::AreaCounts,
    machine::Machine,
};
use machine::{
    Behaviour, Kind, Privilege, SoftCpu, pass_on,
    schedule::{Explored, Lost, User, Users, explore, fail, point},
};

/// The page with the registers of several devices.
pub(crate) const DEVICE: PhysAddr = PhysAddr::new(0x1e00_0000);

/// CPU 0, before whose writes others may go on.
#[derive(Clone)]
pub(crate) struct Stepping {
    cpu: SoftCpu<'static>,
    /// Whether they may before its flushes, too.
    flushes: bool,
}

impl Stepping {
    /// Others may go on before its writes alone.
    const fn writing(cpu: SoftCpu<'static>) -> Self {
        Self { cpu, flushes: false }
    }

    /// Others may go on before its writes, and before its flushes.
    pub(crate) const fn flushing(cpu: SoftCpu<'static>) -> Self {
        Self { cpu, flushes: true }
    }
}

impl Machine for Stepping {
    type Authority = ();

    fn write_descriptors(&self, first: PhysAddr, descriptors: impl Iterator<Item = u32>) {
        point("write");
        self.cpu.write_descriptors(first, descriptors);
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        if self.flushes {
            point("flush");
        }
        self.cpu.invalidate_tlb(pages);
    }

    pass_on!(cpu: read_descriptor clean_descriptors barrier clean_and_invalidate zero_pages in_interrupt cpu);
}

pub(crate) type World = Bed<Stepping>;

/// How a page is shared.
pub(crate) trait Shares: Sync {
    /// Begins anew.
    fn reset(&self) {}
    /// A use of what lies `offset` into the page.
    fn map(&self, world: &World, offset: u32) -> VirtAddr;
    /// The end of that use.
    fn unmap(&self, world: &World, address: VirtAddr) -> Result<(), String>;
}

/// As the kernel does it.
pub(crate) struct Kernel;

impl Shares for Kernel {
    fn map(&self, world: &World, offset: u32) -> VirtAddr {
        let physical = DEVICE.checked_add(offset).expect("inside");
        let mapped = world.space.ioremap_shared(physical, 4, Attributes::DEVICE, CALLER);
        mapped.expect("addresses")
    }

    fn unmap(&self, world: &World, address: VirtAddr) -> Result<(), String> {
        world.space.iounmap((), address).map_err(|error| error.to_string())
    }
}

/// What a user does: maps, uses what it has, and gives it up; so many times.
fn uses(shares: &impl Shares, world: &World, offset: u32, times: u32) {
    for _ in 0..times {
        let address = shares.map(world, offset);
        let is_mapped = |when: &str| {
            let walked = world.space.table().translate(address).map(|entry| entry.physical);
            // By what the TLB remembers, too.
            let reached = world.machine.cpu(0).access(address, Kind::Read, Privilege::Kernel);
            for found in [walked, reached.ok()] {
                if found != DEVICE.checked_add(offset) {
                    fail(format!("{address} leads to {found:?} {when}, while it is in use"));
                }
            }
        };
        is_mapped("at once");
        point("use");
        is_mapped("a while later");
        if let Err(error) = shares.unmap(world, address) {
            fail(format!("a use of {address} that was never given up: {error}"));
        }
    }
}

/// What there was before anybody came, and must be there again when all are gone: no area, and nobody who is known to have the
/// page mapped, so that it may be mapped otherwise.
fn is_back(world: &World, before: &AreaCounts, thorough: bool) -> Result<(), String> {
    let is_left = |when| {
        let after = world.space.area_counts();
        let (areas, pages) = (after.areas, after.pages_taken);
        let is_all = (areas, pages) == (before.areas, before.pages_taken);
        if is_all { Ok(()) } else { Err(format!("{areas} areas with {pages} pages {when}")) }
    };
    is_left("are left")?;
    let otherwise = world.space.ioremap_own(DEVICE, 4, Attributes::WRITE_COMBINE, CALLER);
    let address = otherwise.map_err(|error| error.to_string())?;
    world.space.iounmap((), address).map_err(|error| error.to_string())?;
    is_left("stay")?;
    let found = if thorough { world.audit().1 } else { Vec::new() };
    found.first().map_or(Ok(()), |violation| Err(violation.to_string()))
}

/// Every interleaving of users who each come so many `times`: those who are alike for the same bytes, and equally often; the others
/// each for bytes of their own.
pub(crate) fn every_interleaving(
    shares: &impl Shares,
    who: Users,
    times: &[u32],
    most_preemptions: u32,
) -> Result<Explored, Lost> {
    let drive = match most_preemptions {
        // So many that there are no more of them than can be run.
        NO_LIMIT => Stepping::writing,
        _ => Stepping::flushing,
    };
    let world = World::driven_by(Behaviour::Hoarding, |machine| drive(machine.cpu(0)));
    // The first record and table are made.
    world.warm_up();
    let before = world.space.area_counts();
    let numbered = (0..).zip(times.iter().copied());
    let each = numbered.map(|(number, times)| {
        let world = &world;
        let offset = match who {
            Users::Different => number * 0x400,
            Users::Alike => 0x400,
        };
        move || uses(shares, world, offset, times)
    });
    let each: Vec<_> = each.collect();
    let users: Vec<User<'_>> = each.iter().map(|user| user as User<'_>).collect();
    let mut runs = 0_u32;
    let judge = || {
        runs += 1;
        is_back(&world, &before, runs.is_multiple_of(16))
    };
    let explored = explore(&users, who, most_preemptions, || shares.reset(), judge)?;
    world.clean();
    Ok(explored)
}

const NO_LIMIT: u32 = u32::MAX;

#[track_caller]
fn told(explored: Result<Explored, Lost>) -> Explored {
    let explored = explored.unwrap_or_else(|lost| {
        panic!("{} in the schedule {} (after {})", lost.saw, lost.schedule, lost.after)
    });
    println!("{} schedules of up to {} points", explored.schedules, explored.longest);
    explored
}

/// S60, S61, S62: two users, each once, in all interleavings that there are. They run the same code with the same numbers and
/// share the world and the CPU that they see, so that nothing but a name changes if the other begins. Below they differ.
#[test]
fn two_users_of_one_page_in_every_interleaving_s60_s61_s62() {
    let explored = told(every_interleaving(&Kernel, Users::Alike, &[1, 1], NO_LIMIT));
    assert!(explored.schedules > 1000, "{explored:?}: where are the points?");
}

/// One who comes again while the other goes; stopped three times in all, wherever.
#[test]
fn two_users_who_come_again_s60_s61_s62() {
    told(every_interleaving(&Kernel, Users::Different, &[2, 2], 3));
}

/// Three users, stopped twice in all, wherever.
#[test]
fn three_users_of_one_page_s60_s61_s62() {
    told(every_interleaving(&Kernel, Users::Different, &[1, 1, 1], 2));
}

/// Of steps without any meaning there are as many interleavings as arithmetic says, no two alike.
#[test]
fn every_interleaving_is_run_once() {
    use std::{collections::BTreeSet, sync::Mutex};
    for (users, points, wanted) in [(1, 5, 1), (2, 1, 6), (2, 3, 70), (3, 1, 90), (3, 2, 1680)] {
        let order = Mutex::new(Vec::new());
        let steps = |user: u32| {
            // As many steps as points, and one before the first.
            order.lock().expect("nobody panics").push(user);
            for _ in 0..points {
                point("step");
                order.lock().expect("nobody panics").push(user);
            }
        };
        let steps = &steps;
        let each: Vec<_> = (0..users).map(|user| move || steps(user)).collect();
        let each: Vec<User<'_>> = each.iter().map(|user| user as User<'_>).collect();
        let mut seen = BTreeSet::new();
        let explored = explore(
            &each,
            Users::Different,
            NO_LIMIT,
            || order.lock().expect("nobody panics").clear(),
            || {
                let order = order.lock().expect("nobody panics").clone();
                if seen.insert(order) { Ok(()) } else { Err("run before".into()) }
            },
        );
        assert_eq!(explored.expect("no two alike").schedules, wanted, "{users} of {points}");
        // Nobody stopped: one after the other, in each order.
        let explored = explore(&each, Users::Different, 0, || (), || Ok(()));
        let in_each_order = (1..=u64::from(users)).product();
        assert_eq!(explored.expect("nothing is judged").schedules, in_each_order);
        // Of those who are alike the first begins: of all interleavings one in as many as there are users.
        let explored = explore(&each, Users::Alike, NO_LIMIT, || (), || Ok(()));
        let explored = explored.expect("nothing is judged");
        assert_eq!(explored.schedules, wanted / u64::from(users), "{users} of {points}");
    }
}

/// A user's panic is told with its schedule, and the others end.
#[test]
fn a_panic_is_told_with_its_schedule() {
    let flag = std::sync::atomic::AtomicBool::new(false);
    let set = || {
        point("before");
        flag.store(true, std::sync::atomic::Ordering::SeqCst);
        point("after");
        flag.store(false, std::sync::atomic::Ordering::SeqCst);
    };
    let look = || {
        point("look");
        assert!(!flag.load(std::sync::atomic::Ordering::SeqCst), "it is set");
    };
    let lost = explore(&[&set, &look], Users::Different, NO_LIMIT, || (), || Ok(()));
    let lost = lost.expect_err("a schedule is lost");
    assert_eq!(lost.saw, "user 1 panicked");
    assert_eq!(lost.schedule, "0: before, after; 1: look");
    assert!(lost.after > 0);
}
