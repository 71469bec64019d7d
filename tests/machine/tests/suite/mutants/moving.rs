//! Wrong ways to move a page while it is used (S101).

use super::flushes::{Drives as _, Flush};
use super::{Verdict, board, same};
use crate::support::{WINDOW, World, at, frame, table_of};
use kerncore::{
    addr::{PAGE_SIZE, Pfn, VirtAddr},
    attributes::Attributes,
    contiguous::{Place, Places, Unmovable},
    machine::Machine,
    owned_range::OwnedRange,
    page_table::PageTable,
    user::machine::UserMachine,
};
use machine::{Behaviour, HostLocks};

/// When the contents are copied.
#[derive(Clone, Copy)]
enum Copies {
    /// When the old entry is gone and the new one is not there.
    Between,
    /// While the old entry is there.
    Before,
    /// When the new entry is there.
    After,
    /// Not at all.
    Never,
}

/// How a page is moved.
struct Moves(Copies, Flush);

const RIGHT: Moves = Moves(Copies::Between, Flush::Right);

impl Moves {
    fn run<M: Machine>(
        &self,
        table: &PageTable<M, HostLocks>,
        range: &mut OwnedRange,
        frames: (Pfn, Pfn),
        mut copy: impl FnMut(),
    ) -> bool {
        let replace = |range: &mut OwnedRange, copy: &mut dyn FnMut()| {
            table.replace(range, 0, frames, Attributes::KERNEL_DATA, copy)
        };
        match self.0 {
            Copies::Between => replace(range, &mut copy),
            Copies::Before => {
                copy();
                replace(range, &mut || ())
            }
            Copies::After => {
                let replaced = replace(range, &mut || ());
                copy();
                replaced
            }
            Copies::Never => replace(range, &mut || ()),
        }
    }
}

/// S101: a store that is accepted before, while or after a page moves is found there; one that is refused meanwhile succeeds
/// afterwards.
fn what_is_written_while_a_page_moves_is_not_lost(moves: &Moves) -> Verdict {
    let (old, new) = (frame(0x6_0100), frame(0x6_0180));
    let word = |index: u32| VirtAddr::new(at(WINDOW).raw() + 4 * index);
    for behaviour in Behaviour::all(4) {
        let world: &'static World = Box::leak(Box::new(World::new(behaviour)));
        let (table, mut range) = table_of(moves.1.drive(&world.machine));
        let mapped =
            table.map_consecutive(&mut range, 0, (old, 1), Attributes::KERNEL_DATA, &world.tables);
        mapped.map_err(|error| error.to_string())?;
        let (mover, user) = (world.cpu(0), world.cpu(1));
        let last = PAGE_SIZE / 4 - 1;
        for index in [0, last] {
            user.store(word(index), 100 + index).map_err(|fault| format!("{fault:?}"))?;
        }
        let mut refused = Vec::new();
        let mut store = |index: u32| {
            if user.store(word(index), 100 + index).is_err() {
                refused.push(index);
            }
        };
        let moved = moves.run(&table, &mut range, (old, new), || {
            store(1);
            mover.copy_frame(old, new);
            store(2);
        });
        same("moved", &moved, &true)?;
        if matches!(moves.0, Copies::Never) {
            store(1);
            store(2);
        }
        for index in refused {
            let stored = user.store(word(index), 100 + index);
            same("a store after the page has moved", &stored.is_ok(), &true)?;
        }
        for cpu in [mover, user] {
            for index in [0, 1, 2, last] {
                let what = format!("{behaviour:?}: word {index}");
                same(&what, &cpu.load(word(index)), &Ok(100 + index))?;
            }
        }
    }
    Ok(())
}

/// Who keeps account of pinned pages.
trait Pins {
    fn relocate(&self, places: &mut Places<'_>, old: Pfn, new: Pfn) -> Result<(), Unmovable>;
    fn free(&self, places: &mut Places<'_>) -> Result<Pfn, Unmovable>;
}

enum Guards {
    Count,
    NotWhenMoved,
    NotWhenFreed,
}

impl Guards {
    /// As if no guard lived.
    fn forgotten<R>(places: &mut Places<'_>, act: impl FnOnce(&mut Places<'_>) -> R) -> R {
        while places.unpin(0).is_ok() {}
        act(places)
    }
}

impl Pins for Guards {
    fn relocate(&self, places: &mut Places<'_>, old: Pfn, new: Pfn) -> Result<(), Unmovable> {
        let relocate = |places: &mut Places<'_>| places.relocate(0, old, new, || ());
        match self {
            Self::NotWhenMoved => Self::forgotten(places, relocate),
            _ => relocate(places),
        }
    }

    fn free(&self, places: &mut Places<'_>) -> Result<Pfn, Unmovable> {
        match self {
            Self::NotWhenFreed => Self::forgotten(places, |places| places.vacate(0)),
            _ => places.vacate(0),
        }
    }
}

/// S101: while a guard of it lives, a page is neither moved nor given back.
fn a_pinned_page_stays_where_it_is(guards: &Guards) -> Verdict {
    let (old, new) = (frame(0x6_0100), frame(0x6_0180));
    let fresh = |places: &mut Places<'_>| {
        // Whoever fills it has it pinned.
        places.occupy(0, old).map_err(|error| format!("{error:?}"))
    };
    let pinned = Unmovable::Pinned { guards: 1 };
    let mut memory = [Place::default()];
    let mut places = Places::new(&mut memory);
    fresh(&mut places)?;
    same("moved while pinned", &guards.relocate(&mut places, old, new), &Err(pinned))?;
    let mut memory = [Place::default()];
    let mut places = Places::new(&mut memory);
    fresh(&mut places)?;
    same("freed while pinned", &guards.free(&mut places), &Err(pinned))?;
    same("unpinned", &places.unpin(0).is_ok(), &true)?;
    same("moved", &guards.relocate(&mut places, old, new), &Ok(()))?;
    same("freed", &guards.free(&mut places), &Ok(new))
}

board! {
    what_is_written_while_a_page_moves_is_not_lost(RIGHT) {
        copies_before_the_page_is_unmapped: "S101", "what is stored behind the copy is lost", Moves(Copies::Before, Flush::Right);
        copies_behind_the_new_entry: "S101", "what is stored through the new entry is copied over", Moves(Copies::After, Flush::Right);
        never_copies_a_moved_page: "S101", "the new frame holds something else", Moves(Copies::Never, Flush::Right);
        moves_without_a_flush: "S101", "a TLB leads to the old frame while it is copied", Moves(Copies::Between, Flush::Never);
        moves_with_a_flush_of_one_cpu: "S101", "the other CPU's TLB leads to the old frame", Moves(Copies::Between, Flush::Local);
    }
    a_pinned_page_stays_where_it_is(Guards::Count) {
        moves_a_pinned_page: "S101", "who has a guard writes to a frame that is a buffer's", Guards::NotWhenMoved;
        frees_a_pinned_page: "S101", "who has a guard writes to a frame that is somebody else's", Guards::NotWhenFreed;
    }
}
