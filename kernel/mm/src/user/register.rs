//! The address spaces that live: the memory that each lies in, and the register of all, for the audit.
//!
//! ```text
//!   Registered::new ──▶ in memory of its own, and in the register ──▶ dropped: out of the register, then of the world
//!                              ▲ visit: under the register's lock, so that it stays
//! ```
//!
//! `alloc`'s owners end the kernel when there is no memory for them; here that is an error like any other.

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;

use arch::lock::IrqSpinLock;
use kerncore::lock::Class;
use kerncore::user::asid::SpaceId;

use super::space::{Space, SpaceError};

/// The most spaces that there can be at once.
pub(super) const MOST: usize = 512;

/// A space that its owner keeps alive as long as it stands in the register.
#[derive(Clone, Copy)]
struct Entry(NonNull<Space>);

// SAFETY: it leads to a space, which any CPU may use (`shared` below), and owns nothing.
unsafe impl Send for Entry {}

/// A `Registered` may be sent, used and dropped wherever a space may.
const fn shared<T: Send + Sync>() {}
const _: () = shared::<Space>();

static REGISTER: IrqSpinLock<[Option<Entry>; MOST]> =
    IrqSpinLock::new(Class::UserSpaces, [const { None }; MOST]);

/// Owns a space, which stands in the register.
pub(super) struct Registered {
    /// In memory as a `Box` has it, which it is made into when it is dropped.
    space: NonNull<Space>,
    place: usize,
}

// SAFETY: as a `Box<Space>` has them, of a space that may be sent (`shared`).
unsafe impl Send for Registered {}
// SAFETY: as a `Box<Space>` has them, of a space that may be shared (`shared`).
unsafe impl Sync for Registered {}

impl Registered {
    /// Puts `space` where it stays, and into the register.
    ///
    /// # Errors
    /// [`SpaceError`]; the space is gone, with all that it had.
    pub(super) fn new(space: Space) -> Result<Self, SpaceError> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(1).map_err(|_| SpaceError::Heap)?;
        memory.push(space);
        let space = NonNull::from(Box::leak(memory.into_boxed_slice())).cast::<Space>();
        let place = REGISTER.with(|register| {
            let place = register.iter().position(Option::is_none)?;
            register[place] = Some(Entry(space));
            Some(place)
        });
        place.map(|place| Self { space, place }).ok_or_else(|| {
            // SAFETY: a space in memory of its own, as a `Box` of one has it, which nobody else knows.
            drop(unsafe { Box::from_raw(space.as_ptr()) });
            SpaceError::TooMany { most: MOST }
        })
    }
}

impl Deref for Registered {
    type Target = Space;

    fn deref(&self) -> &Space {
        // SAFETY: it lives as long as this, and nobody has an exclusive reference to it meanwhile.
        unsafe { self.space.as_ref() }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        arch::lock::might_sleep("ending an address space");
        REGISTER.with(|register| register[self.place] = None);
        // SAFETY: a space in memory of its own, as a `Box` of one has it; what the register knew of it is gone, and this is going.
        drop(unsafe { Box::from_raw(self.space.as_ptr()) });
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Space::fmt(self, f)
    }
}

/// Shows every space that lives to `visitor`, each under the register's lock.
pub(super) fn visit(mut visitor: impl FnMut(&Space)) {
    for place in 0..MOST {
        REGISTER.with(|register| {
            if let Some(Entry(space)) = register[place] {
                // SAFETY: its owner takes it out of the register, under this lock, before it goes.
                visitor(unsafe { space.as_ref() });
            }
        });
    }
}

/// What `act` makes of the space of the name `id`, under the register's lock; `None` if it lives no more.
pub(super) fn with_space<R>(id: SpaceId, act: impl FnOnce(&Space) -> R) -> Option<R> {
    let mut act = Some(act);
    (0..MOST).find_map(|place| {
        REGISTER.with(|register| {
            let Entry(space) = register[place]?;
            // SAFETY: as in `visit`.
            let space = unsafe { space.as_ref() };
            (space.id() == id).then(|| act.take().map(|act| act(space))).flatten()
        })
    })
}

/// How many spaces live.
pub(super) fn count() -> usize {
    REGISTER.with(|register| register.iter().flatten().count())
}
