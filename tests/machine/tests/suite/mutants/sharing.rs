//! Mappings that are counted, and not as S61 asks: each loses in some schedule, and the schedule is told.

use super::{Verdict, board};
use crate::schedules::{DEVICE, Kernel, Shares, World, every_interleaving};
use histories::bed::CALLER;
use kerncore::{addr::VirtAddr, area::AreaFlags, attributes::Attributes, va_space::Request};
use machine::schedule::{Users, point};
use std::sync::{Mutex, MutexGuard};

/// In every interleaving of two users, stopped twice in all, each has what he uses, for as long as he uses it; it goes once, and nothing is left.
fn no_schedule_of_two_users_is_lost(shares: &impl Shares) -> Verdict {
    match every_interleaving(shares, Users::Different, &[1, 1], 2) {
        Ok(_) => Ok(()),
        Err(lost) => Err(format!("{}: {}", lost.saw, lost.schedule)),
    }
}

/// The same of three.
fn no_schedule_of_three_users_is_lost(shares: &impl Shares) -> Verdict {
    match every_interleaving(shares, Users::Different, &[1, 1, 1], 2) {
        Ok(_) => Ok(()),
        Err(lost) => Err(format!("{}: {}", lost.saw, lost.schedule)),
    }
}

/// How users are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// As S61 asks.
    Right,
    /// The count goes down in one step; the mapping leaves sight in another.
    DecrementThenLook,
    /// The count goes down in one step; whether it is zero is read in another.
    SubtractThenRead,
    /// It is found in one step, and counted in another.
    FindThenCount,
    /// It is found before it is mapped.
    PublishThenMap,
    /// Whoever gives up his use ends the mapping.
    NotCounted,
}

/// What is known of the mapping that is shared.
#[derive(Clone, Copy, Default)]
struct Known {
    address: Option<VirtAddr>,
    users: u32,
}

/// Users counted outside the kernel, over mappings that are each one user's own.
struct Counted {
    how: How,
    known: Mutex<Known>,
}

impl Counted {
    fn new(how: How) -> Self {
        Self { how, known: Mutex::default() }
    }

    /// A step of its own.
    fn known(&self) -> MutexGuard<'_, Known> {
        point("count");
        self.known.lock().expect("nobody panics")
    }

    /// Finds the mapping, and counts a user more.
    fn find(&self) -> Option<VirtAddr> {
        let mut known = self.known();
        let address = known.address?;
        match self.how {
            How::FindThenCount => {
                drop(known);
                self.known().users += 1;
            }
            // Seen to have a user still, or found as long as it is in sight.
            How::SubtractThenRead if known.users == 0 => return None,
            _ => known.users += 1,
        }
        Some(address)
    }

    fn publish(&self, address: VirtAddr) {
        let mut known = self.known();
        if known.address.is_none() {
            *known = Known { address: Some(address), users: 1 };
        }
    }

    /// Whether the mapping is to be ended: the last user's, or one that nobody shares.
    fn is_last(&self, address: VirtAddr) -> bool {
        let mut known = self.known();
        if known.address != Some(address) {
            return true;
        }
        known.users = known.users.saturating_sub(1);
        let mut is_zero = known.users == 0;
        match self.how {
            How::DecrementThenLook => {
                drop(known);
                if is_zero {
                    self.known().address = None;
                }
            }
            How::SubtractThenRead => {
                drop(known);
                is_zero = self.known().users == 0;
                if is_zero {
                    point("zero");
                    self.known.lock().expect("nobody panics").address = None;
                }
            }
            How::NotCounted => {
                is_zero = true;
                known.address = None;
            }
            _ if is_zero => known.address = None,
            _ => {}
        }
        is_zero
    }

    /// As ioremap would map, but found before.
    fn map_published(&self, world: &World, offset: u32) -> VirtAddr {
        let area = world.space.reserve_area(Request::of_bytes(4), AreaFlags::NONE, CALLER);
        let base = area.expect("addresses").area.pages.start();
        self.publish(base);
        point("map");
        world.poke_page(base, DEVICE.pfn(), Attributes::DEVICE);
        VirtAddr::new(base.raw() | offset)
    }
}

impl Shares for Counted {
    fn reset(&self) {
        *self.known.lock().expect("nobody panics") = Known::default();
    }

    fn map(&self, world: &World, offset: u32) -> VirtAddr {
        if let Some(base) = self.find() {
            return VirtAddr::new(base.raw() | offset);
        }
        if self.how == How::PublishThenMap {
            return self.map_published(world, offset);
        }
        let physical = DEVICE.checked_add(offset).expect("inside");
        let address = world.space.ioremap_own(physical, 4, Attributes::DEVICE, CALLER);
        let address = address.expect("addresses");
        self.publish(address.page_base());
        address
    }

    fn unmap(&self, world: &World, address: VirtAddr) -> Result<(), String> {
        let base = address.page_base();
        if !self.is_last(base) {
            return Ok(());
        }
        if self.how == How::PublishThenMap {
            world.poke(world.l2_slot(base), 0);
            return world.space.vunmap((), base).map_err(|error| error.to_string());
        }
        world.space.iounmap((), address).map_err(|error| error.to_string())
    }
}

board! {
    no_schedule_of_two_users_is_lost(Kernel, Counted::new(How::Right)) {
        shared_decrement_then_look: "S61", "a user is counted less, and the mapping that he was the last of is found meanwhile", Counted::new(How::DecrementThenLook);
        shared_subtract_then_read: "S60", "two users are counted less, and then both read zero", Counted::new(How::SubtractThenRead);
        shared_lookup_without_the_lock: "S61", "a mapping is found, and gone when the user is counted", Counted::new(How::FindThenCount);
        shared_publish_before_mapped: "S61", "a mapping is found before its descriptor is written", Counted::new(How::PublishThenMap);
        shared_without_a_count: "S58", "the first user who goes ends the mapping for all", Counted::new(How::NotCounted);
    }
    no_schedule_of_three_users_is_lost(Kernel, Counted::new(How::Right)) {
        shared_by_three_subtract_then_read: "S60", "two of three users are counted less, and then both read zero", Counted::new(How::SubtractThenRead);
    }
}
