//! What one CPU holds, and what it may take next.
//!
//! ```text
//!   outermost                     innermost
//!   ┌────────┬──────────────────┬────────┐        taken next: a class that comes after all of these,
//!   │ heap   │ making of tables │ frames │◀────── and not a lock that is here already
//!   └────────┴──────────────────┴────────┘
//! ```
//!
//! A wrong order is wrong each time that it is taken, not only the one time that two CPUs meet in it: the test that
//! takes it fails, on one CPU and in every run.

use core::fmt;
use core::panic::Location;

use super::Class;

/// The most locks that are held together. The longest chain of the kernel has four.
const MOST: usize = 8;

/// A lock that is taken, or about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// What tells it from all other locks: its address.
    pub lock: usize,
    /// Its class.
    pub class: Class,
    /// Who takes it.
    pub at: &'static Location<'static>,
}

/// How the CPU's interrupts are when a lock is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// As they should be.
    Masked,
    /// A handler may have waited for the lock for ever.
    Unmasked,
}

/// Whose code a CPU runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Somebody's who can wait.
    Task,
    /// A handler's, of an interrupt.
    Interrupt,
}

/// How the written order was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// It would wait for itself.
    Twice {
        /// The lock.
        taken: Taken,
        /// Who has taken it before.
        held: Taken,
    },
    /// Its class does not come after that of a lock that is held.
    Order {
        /// The lock.
        taken: Taken,
        /// The innermost of those that it may not be taken under.
        held: Taken,
    },
    /// More locks than anybody should hold.
    TooMany {
        /// The lock.
        taken: Taken,
    },
    /// What is given back is not the innermost lock that this CPU holds: the section began on another CPU, or
    /// sections overlap.
    NotInnermost {
        /// What is given back.
        given: Taken,
    },
    /// The section unmasked interrupts.
    Unmasked {
        /// The lock.
        held: Taken,
    },
    /// What may sleep was called under a lock.
    Sleep {
        /// What was called.
        operation: &'static str,
        /// The innermost lock.
        held: Taken,
    },
    /// Memory is freed in which a lock lies that this CPU holds (S36): to give it back would be to write to somebody else's.
    Freed {
        /// The lock.
        held: Taken,
    },
    /// What may sleep was called in a handler.
    SleepInInterrupt {
        /// What was called.
        operation: &'static str,
    },
}

/// The locks that one CPU holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    locks: [Option<Taken>; MOST],
    count: usize,
}

impl Held {
    /// None.
    pub const fn new() -> Self {
        Self { locks: [None; MOST], count: 0 }
    }

    /// Outermost first.
    fn iter(&self) -> impl DoubleEndedIterator<Item = &Taken> {
        self.locks[..self.count].iter().flatten()
    }

    /// Notes that this CPU is about to wait for a lock.
    ///
    /// # Errors
    /// [`Violation`]: it must not.
    pub fn take(&mut self, taken: Taken) -> Result<(), Violation> {
        if let Some(&held) = self.iter().find(|held| held.lock == taken.lock) {
            return Err(Violation::Twice { taken, held });
        }
        if let Some(&held) = self.iter().rfind(|held| held.class >= taken.class) {
            return Err(Violation::Order { taken, held });
        }
        self.note(taken)
    }

    /// Notes a lock that this CPU has without having waited for it, which it may in any order.
    ///
    /// # Errors
    /// [`Violation::TooMany`].
    pub fn note(&mut self, taken: Taken) -> Result<(), Violation> {
        let place = self.locks.get_mut(self.count).ok_or(Violation::TooMany { taken })?;
        *place = Some(taken);
        self.count += 1;
        Ok(())
    }

    /// Notes that this CPU has given a lock back, with its interrupts as said.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn give_back(&mut self, given: Taken, interrupts: Interrupts) -> Result<(), Violation> {
        let innermost = self.iter().next_back().copied();
        let held = innermost
            .filter(|innermost| innermost.lock == given.lock)
            .ok_or(Violation::NotInnermost { given })?;
        match interrupts {
            Interrupts::Masked => {
                self.count -= 1;
                Ok(())
            }
            Interrupts::Unmasked => Err(Violation::Unmasked { held }),
        }
    }

    /// Whether `bytes` of memory from the address `start` may be freed now (S36).
    ///
    /// # Errors
    /// [`Violation::Freed`]: a lock lies there that this CPU holds.
    pub fn may_free(&self, start: usize, bytes: usize) -> Result<(), Violation> {
        let inside = |held: &&Taken| held.lock.wrapping_sub(start) < bytes;
        self.iter().rfind(inside).map_or(Ok(()), |&held| Err(Violation::Freed { held }))
    }

    /// Whether `operation`, which may sleep, may be called now, in `context`.
    ///
    /// # Errors
    /// [`Violation::Sleep`], [`Violation::SleepInInterrupt`].
    pub fn might_sleep(&self, operation: &'static str, context: Context) -> Result<(), Violation> {
        match (self.iter().next_back(), context) {
            (Some(&held), _) => Err(Violation::Sleep { operation, held }),
            (None, Context::Interrupt) => Err(Violation::SleepInInterrupt { operation }),
            (None, Context::Task) => Ok(()),
        }
    }
}

impl Default for Held {
    fn default() -> Self {
        Self::new()
    }
}

/// The class, and where it was taken.
impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (taken at {})", self.class, self.at)
    }
}

/// All of them, outermost first.
impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none");
        }
        self.iter().enumerate().try_for_each(|(index, taken)| {
            f.write_str(if index == 0 { "" } else { ", " })?;
            taken.fmt(f)
        })
    }
}

/// What is wrong, and where; all that is held is for [`Held`] to say.
impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice { taken, .. } => {
                write!(f, "lock held twice: {}, at {}", taken.class, taken.at)
            }
            Self::Order { taken, held } if taken.class == held.class => {
                write!(f, "two locks of one class: {}, at {}", taken.class, taken.at)
            }
            Self::Order { taken, held } => {
                write!(f, "wrong lock order: {} under {}, at {}", taken.class, held.class, taken.at)
            }
            Self::TooMany { taken } => {
                write!(f, "more than {MOST} locks held: {}, at {}", taken.class, taken.at)
            }
            Self::NotInnermost { given } => {
                write!(f, "lock given back out of turn: {}, at {}", given.class, given.at)
            }
            Self::Unmasked { held } => {
                write!(f, "interrupts unmasked under a lock: {}", held.class)
            }
            Self::Sleep { operation, held } => {
                write!(f, "sleeping call under a spin lock: {operation} under {}", held.class)
            }
            Self::Freed { held } => {
                write!(f, "memory is freed with a held lock in it: {}", held.class)
            }
            Self::SleepInInterrupt { operation } => {
                write!(f, "sleeping call in interrupt context: {operation}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn lock(lock: usize, class: Class) -> Taken {
        Taken { lock, class, at: Location::caller() }
    }

    /// What is held after these were taken, each rightly.
    fn holding(taken: &[Taken]) -> Held {
        let mut held = Held::new();
        for &taken in taken {
            held.take(taken).expect("in order");
        }
        held
    }

    /// S36: its first byte decides, for a lock is no larger than what it was allocated in.
    #[test]
    fn memory_goes_when_no_held_lock_lies_in_it_s36() {
        let (one, two) = (lock(0x1000, Class::Areas), lock(0x1fff, Class::Frames));
        let mut held = holding(&[one, two]);
        assert_eq!(held.may_free(0x1001, 0xffe), Ok(()));
        assert_eq!(held.may_free(0x0, 0x1000), Ok(()));
        assert_eq!(held.may_free(0x2000, usize::MAX - 0x2000), Ok(()));
        assert_eq!(held.may_free(0x1000, 1), Err(Violation::Freed { held: one }));
        assert_eq!(held.may_free(0x1000, 0x1000), Err(Violation::Freed { held: two }));
        assert_eq!(held.give_back(two, Interrupts::Masked), Ok(()));
        assert_eq!(held.may_free(0x1001, 0x1000), Ok(()));
        let said = Violation::Freed { held: one }.to_string();
        assert_eq!(said, "memory is freed with a held lock in it: areas");
    }

    #[test]
    fn every_pair_is_taken_in_the_written_order_and_in_no_other() {
        for (outer_rank, outer_class) in Class::ALL.into_iter().enumerate() {
            for (inner_rank, inner_class) in Class::ALL.into_iter().enumerate() {
                let (outer, inner) = (lock(1, outer_class), lock(2, inner_class));
                let mut held = holding(&[outer]);
                let wanted = if inner_rank > outer_rank {
                    Ok(())
                } else {
                    Err(Violation::Order { taken: inner, held: outer })
                };
                assert_eq!(held.take(inner), wanted);
            }
        }
    }

    #[test]
    fn a_lock_is_compared_with_all_that_are_held_and_the_innermost_obstacle_is_named() {
        let (heap, areas) = (lock(1, Class::Heap), lock(2, Class::Areas));
        let frames = lock(3, Class::Frames);
        let mut held = holding(&[heap, areas, frames]);
        let table = lock(4, Class::TableMemory);
        assert_eq!(held.take(table), Err(Violation::Order { taken: table, held: frames }));
        // What was noted out of order stands innermost and hides nothing.
        let console = lock(5, Class::Console);
        assert_eq!(held.note(console), Ok(()));
        assert_eq!(held.take(table), Err(Violation::Order { taken: table, held: frames }));
    }

    #[test]
    fn a_lock_that_is_held_is_refused_whatever_lies_between() {
        let (heap, areas) = (lock(1, Class::Heap), lock(2, Class::Areas));
        let mut held = holding(&[heap, areas]);
        for again in [heap, areas] {
            let taken = lock(again.lock, again.class);
            assert_eq!(held.take(taken), Err(Violation::Twice { taken, held: again }));
        }
    }

    #[test]
    fn what_was_refused_is_not_held() {
        let frames = lock(1, Class::Frames);
        let mut held = holding(&[frames]);
        assert!(held.take(lock(2, Class::Heap)).is_err());
        assert_eq!(held.give_back(frames, Interrupts::Masked), Ok(()));
        assert_eq!(held.take(lock(2, Class::Heap)), Ok(()), "nothing of the first is left");
    }

    #[test]
    fn locks_are_given_back_innermost_first() {
        let (heap, areas) = (lock(1, Class::Heap), lock(2, Class::Areas));
        let mut held = holding(&[heap, areas]);
        let stranger = lock(3, Class::Frames);
        for given in [heap, stranger] {
            let refused = held.give_back(given, Interrupts::Masked);
            assert_eq!(refused, Err(Violation::NotInnermost { given }));
        }
        for given in [areas, heap] {
            assert_eq!(held.give_back(given, Interrupts::Masked), Ok(()));
        }
        let refused = held.give_back(heap, Interrupts::Masked);
        assert_eq!(refused, Err(Violation::NotInnermost { given: heap }));
    }

    #[test]
    fn a_section_that_unmasked_interrupts_is_named_by_who_began_it() {
        let heap = lock(1, Class::Heap);
        let mut held = holding(&[heap]);
        let refused = held.give_back(lock(1, Class::Heap), Interrupts::Unmasked);
        assert_eq!(refused, Err(Violation::Unmasked { held: heap }));
    }

    #[test]
    fn one_lock_too_many_is_refused() {
        let locks: Vec<Taken> =
            (0_u8..).take(MOST + 1).map(|n| lock(n.into(), Class::Test(n))).collect();
        let mut held = holding(&locks[..MOST]);
        assert_eq!(held.take(locks[MOST]), Err(Violation::TooMany { taken: locks[MOST] }));
        assert_eq!(held.give_back(locks[MOST - 1], Interrupts::Masked), Ok(()));
        assert_eq!(held.take(locks[MOST]), Ok(()));
    }

    #[test]
    fn who_holds_a_lock_may_not_sleep_nor_may_a_handler() {
        let (heap, areas) = (lock(1, Class::Heap), lock(2, Class::Areas));
        let mut held = Held::default();
        let sleep = |held: &Held, context| held.might_sleep("vmalloc", context);
        let in_handler = Violation::SleepInInterrupt { operation: "vmalloc" };
        assert_eq!(sleep(&held, Context::Task), Ok(()));
        assert_eq!(sleep(&held, Context::Interrupt), Err(in_handler));
        for taken in [heap, areas] {
            held.take(taken).expect("in order");
            let refused = Violation::Sleep { operation: "vmalloc", held: taken };
            assert_eq!(sleep(&held, Context::Task), Err(refused));
            assert_eq!(sleep(&held, Context::Interrupt), Err(refused));
        }
        for given in [areas, heap] {
            held.give_back(given, Interrupts::Masked).expect("innermost first");
        }
        assert_eq!(sleep(&held, Context::Task), Ok(()));
    }

    #[test]
    fn all_concerned_are_named_with_their_places() {
        let (heap, areas) = (lock(1, Class::Heap), lock(2, Class::Areas));
        let at = heap.at;
        let said = [
            (
                Violation::Order { taken: heap, held: areas },
                format!("wrong lock order: heap under areas, at {at}"),
            ),
            (
                Violation::Order { taken: heap, held: lock(2, Class::Heap) },
                format!("two locks of one class: heap, at {at}"),
            ),
            (
                Violation::Twice { taken: heap, held: lock(1, Class::Heap) },
                format!("lock held twice: heap, at {at}"),
            ),
            (Violation::TooMany { taken: heap }, format!("more than 8 locks held: heap, at {at}")),
            (
                Violation::NotInnermost { given: heap },
                format!("lock given back out of turn: heap, at {at}"),
            ),
            (
                Violation::Unmasked { held: heap },
                String::from("interrupts unmasked under a lock: heap"),
            ),
            (
                Violation::Sleep { operation: "vfree", held: areas },
                String::from("sleeping call under a spin lock: vfree under areas"),
            ),
            (
                Violation::SleepInInterrupt { operation: "vfree" },
                String::from("sleeping call in interrupt context: vfree"),
            ),
        ];
        for (violation, words) in said {
            assert_eq!(violation.to_string(), words);
        }
        let heap_said = format!("heap (taken at {at})");
        assert_eq!(Held::new().to_string(), "none");
        assert_eq!(holding(&[heap]).to_string(), heap_said);
        assert_eq!(
            holding(&[heap, areas]).to_string(),
            format!("{heap_said}, areas (taken at {})", areas.at)
        );
    }
}
