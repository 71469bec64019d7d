//! Users who want one page in different types, in every interleaving of their steps: whoever gets it is the only type there is,
//! for as long as any TLB remembers him (S97).

use crate::schedules::{DEVICE, Stepping, World};
use histories::bed::CALLER;
use kerncore::{
    addr::{PAGE_SIZE, VirtAddr},
    attributes::Attributes,
    kernel_space::{IoRemapError, NoArea, VmapError},
};
use machine::{
    Behaviour, Kind, Privilege,
    schedule::{Explored, Lost, User, Users, explore, fail, point},
};
use std::sync::Mutex;

/// The type that each user wants.
pub(crate) const WAYS: [Attributes; 3] =
    [Attributes::DEVICE, Attributes::WRITE_COMBINE, Attributes::STRONGLY_ORDERED];

/// How a page is kept from having two types.
pub(crate) trait Guards: Sync {
    /// Begins anew.
    fn reset(&self) {}
    /// The page in the user's type, or `None` if somebody has it in another.
    fn map(&self, world: &World, user: usize) -> Option<VirtAddr>;
    /// The end of that.
    fn unmap(&self, world: &World, user: usize, address: VirtAddr);
}

/// By which calls users map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// Each shares with those who want the same.
    Shared,
    /// The first has it for himself; the second by a list of frames; the third shares.
    Mixed,
    /// Seventeen pages, which are not made in one step.
    Long,
}

/// As the kernel does it.
pub(crate) struct Kernel(pub(crate) Calls);

impl Kernel {
    fn bytes(&self) -> u32 {
        if self.0 == Calls::Long { 17 * PAGE_SIZE } else { 4 }
    }
}

impl Guards for Kernel {
    fn map(&self, world: &World, user: usize) -> Option<VirtAddr> {
        let (space, bytes) = (&world.space, self.bytes());
        let mapped = match (self.0, user) {
            (Calls::Mixed, 1) => {
                let frames = std::iter::once(DEVICE.pfn());
                let listed = space.vmap_devices(frames, WAYS[user], CALLER);
                listed.map(|area| area.pages.start()).map_err(|error| match error {
                    VmapError::Area(error) => IoRemapError::Area(error),
                    error => panic!("{error}"),
                })
            }
            (Calls::Mixed, 0) | (Calls::Long, _) => {
                space.ioremap_own(DEVICE, bytes, WAYS[user], CALLER)
            }
            _ => space.ioremap_shared(DEVICE, bytes, WAYS[user], CALLER),
        };
        match mapped {
            Ok(address) => Some(address),
            Err(IoRemapError::Area(NoArea::Alias(_))) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn unmap(&self, world: &World, user: usize, address: VirtAddr) {
        let unmapped = match (self.0, user) {
            (Calls::Mixed, 1) => world.space.vunmap((), address),
            _ => world.space.iounmap((), address),
        };
        if let Err(error) = unmapped {
            fail(format!("{address}, which user {user} has: {error}"));
        }
    }
}

/// Where each user has the page, or had it last.
type Seen = Mutex<[Option<VirtAddr>; 3]>;

/// What a user does.
fn wants(guards: &impl Guards, world: &World, seen: &Seen, user: usize) {
    let Some(address) = guards.map(world, user) else { return };
    let cpu = world.machine.cpu(0);
    let reached = |address| cpu.access(address, Kind::Read, Privilege::Kernel).ok();
    let others = {
        let mut seen = seen.lock().expect("nobody panics");
        seen[user] = Some(address);
        *seen
    };
    for (other, had) in others.into_iter().enumerate() {
        // Where one had it, another may have it by now.
        if let Some(had) = had.filter(|&had| other != user && had != address)
            && reached(had).is_some_and(|found| found.page_base() == DEVICE)
        {
            fail(format!("user {user} has it at {address}, and user {other} still at {had}"));
        }
    }
    let stays = |when| {
        let found = world.space.table().translate(address);
        let is_so = found
            .is_some_and(|entry| entry.physical == DEVICE && entry.attributes() == Ok(WAYS[user]));
        if !is_so || reached(address) != Some(DEVICE) {
            fail(format!("user {user} has {found:?} at {address} {when}"));
        }
    };
    stays("at once");
    point("use");
    stays("a while later");
    guards.unmap(world, user, address);
}

/// Nobody is left, and the page may have any type.
fn is_free(world: &World, guards: &impl Guards, before: (u32, u32)) -> Result<(), String> {
    let counts = || {
        let counts = world.space.area_counts();
        (counts.areas, counts.pages_taken)
    };
    if counts() != before {
        return Err(format!("areas and pages {:?} are left", counts()));
    }
    guards.reset();
    for user in [1, 0] {
        match guards.map(world, user) {
            Some(address) => guards.unmap(world, user, address),
            None => return Err(format!("user {user} is refused, and nobody else is there")),
        }
    }
    if counts() == before { Ok(()) } else { Err("a mapping was not ended".into()) }
}

/// Every interleaving of so many users, who are stopped no more than so often.
pub(crate) fn every_interleaving_of_types(
    guards: &impl Guards,
    users: usize,
    most_preemptions: u32,
) -> Result<Explored, Lost> {
    let world = World::driven_by(Behaviour::Hoarding, |machine| Stepping::flushing(machine.cpu(0)));
    world.warm_up();
    let counts = world.space.area_counts();
    let before = (counts.areas, counts.pages_taken);
    let seen: Seen = Mutex::default();
    let each = (0..users).map(|user| {
        let (world, seen) = (&world, &seen);
        move || wants(guards, world, seen, user)
    });
    let each: Vec<_> = each.collect();
    let users: Vec<User<'_>> = each.iter().map(|user| user as User<'_>).collect();
    let begin = || {
        guards.reset();
        *seen.lock().expect("nobody panics") = [None; 3];
    };
    let judge = || is_free(&world, guards, before);
    let explored = explore(&users, Users::Different, most_preemptions, begin, judge)?;
    world.clean();
    Ok(explored)
}

#[track_caller]
fn told(explored: Result<Explored, Lost>) {
    let explored = explored.unwrap_or_else(|lost| {
        panic!("{} in the schedule {} (after {})", lost.saw, lost.schedule, lost.after)
    });
    println!("{} schedules of up to {} points", explored.schedules, explored.longest);
    assert!(explored.schedules > 50, "{explored:?}: where are the points?");
}

/// S97: two users of two types, by whatever calls; stopped four times in all, wherever.
#[test]
fn two_users_who_want_a_page_in_two_types_s97() {
    for calls in [Calls::Shared, Calls::Mixed, Calls::Long] {
        told(every_interleaving_of_types(&Kernel(calls), 2, 4));
    }
}

/// S97: three users of three types; stopped twice in all, wherever.
#[test]
fn three_users_who_want_a_page_in_three_types_s97() {
    told(every_interleaving_of_types(&Kernel(Calls::Mixed), 3, 2));
}
