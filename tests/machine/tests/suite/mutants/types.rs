//! One type for each page, and not guarded as S97 asks: each loses in some schedule, and the schedule is told.

use super::{Verdict, board};
use crate::schedules::{DEVICE, World};
use crate::schedules_types::{Calls, Guards, Kernel, WAYS, every_interleaving_of_types};
use histories::bed::CALLER;
use kerncore::{
    addr::{PageRange, VirtAddr},
    area::AreaFlags,
    machine::Machine as _,
    va_space::Request,
};
use machine::schedule::point;
use std::sync::Mutex;

/// In every interleaving of two users of two types, stopped three times in all, whoever has the page is alone with it.
fn no_schedule_gives_a_page_two_types(guards: &impl Guards) -> Verdict {
    match every_interleaving_of_types(guards, 2, 3) {
        Ok(_) => Ok(()),
        Err(lost) => Err(format!("{}: {}", lost.saw, lost.schedule)),
    }
}

/// How a list of who has what is kept outside the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// Asked and written in one step; forgotten after the flush.
    Right,
    /// Asked in one step, written in another.
    AskThenNote,
    /// Written when it is mapped.
    NotedWhenMapped,
    /// Forgotten before the flush.
    ForgottenBeforeFlush,
}

/// A guard over areas that the kernel knows nothing of.
struct Listed {
    how: How,
    users: Mutex<Vec<usize>>,
}

impl Listed {
    fn new(how: How) -> Self {
        Self { how, users: Mutex::default() }
    }

    /// Whether nobody wants another type than this user; a step of its own.
    fn ask(&self, user: usize) -> bool {
        point("ask");
        let others = self.users.lock().expect("nobody panics");
        others.iter().all(|&other| other == user)
    }

    fn note(&self, user: usize) {
        self.users.lock().expect("nobody panics").push(user);
    }

    fn forget(&self, user: usize) {
        self.users.lock().expect("nobody panics").retain(|&other| other != user);
    }
}

impl Guards for Listed {
    fn reset(&self) {
        self.users.lock().expect("nobody panics").clear();
    }

    fn map(&self, world: &World, user: usize) -> Option<VirtAddr> {
        if !self.ask(user) {
            return None;
        }
        match self.how {
            How::AskThenNote => {
                point("note");
                self.note(user);
            }
            How::NotedWhenMapped => {}
            _ => self.note(user),
        }
        let area = world.space.reserve_area(Request::of_bytes(4), AreaFlags::NONE, CALLER);
        let base = area.expect("addresses").area.pages.start();
        point("map");
        world.poke_page(base, DEVICE.pfn(), WAYS[user]);
        if self.how == How::NotedWhenMapped {
            point("note");
            self.note(user);
        }
        Some(base)
    }

    fn unmap(&self, world: &World, user: usize, address: VirtAddr) {
        world.poke(world.l2_slot(address), 0);
        if self.how == How::ForgottenBeforeFlush {
            self.forget(user);
            point("flush");
        }
        let page = PageRange::from_numbers(address.page_number(), 1).expect("a page");
        let cpu = world.machine.cpu(0);
        cpu.invalidate_tlb(page);
        cpu.barrier();
        self.forget(user);
        world.space.vunmap((), address).expect("a bare area");
    }
}

board! {
    no_schedule_gives_a_page_two_types(Kernel(Calls::Shared), Listed::new(How::Right)) {
        types_asked_then_noted: "S97", "nobody has the page when it is asked, and two have it when both are noted", Listed::new(How::AskThenNote);
        types_noted_when_mapped: "S97", "who is mapping a page is not known to who asks meanwhile", Listed::new(How::NotedWhenMapped);
        types_forgotten_before_the_flush: "S97", "a page has another type while a TLB remembers the first", Listed::new(How::ForgottenBeforeFlush);
    }
}
