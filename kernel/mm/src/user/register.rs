//! The address spaces that live: the memory that each lies in, and the register of all, for the audit.
//!
//! ```text
//!   Registered::new ──▶ in memory of its own, and in the register ──▶ dropped: out of the register, then of the world
//!                              ▲ visit: under the register's lock, so that it stays
//! ```
//!
//! `alloc`'s owners end the kernel when there is no memory for them; here that is an error like any other.

extern crate alloc;

use alloc::alloc::alloc;
use alloc::boxed::Box;
use core::alloc::Layout;
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;

use arch::lock::IrqSpinLock;
use kerncore::lock::Class;

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
    /// From a `Box`, which it is made into again when it is dropped.
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
        let layout = Layout::new::<Space>();
        // SAFETY: a space has some bytes.
        let memory = unsafe { alloc(layout) };
        let memory = NonNull::new(memory.cast::<Space>()).ok_or(SpaceError::Heap)?;
        // SAFETY: memory for a space, which nobody else has.
        unsafe { memory.write(space) };
        let place = REGISTER.with(|register| {
            let place = register.iter().position(Option::is_none)?;
            register[place] = Some(Entry(memory));
            Some(place)
        });
        match place {
            Some(place) => Ok(Self { space: memory, place }),
            None => {
                // SAFETY: memory of the global allocator's with a space in it, which nobody else knows.
                drop(unsafe { Box::from_raw(memory.as_ptr()) });
                Err(SpaceError::TooMany { most: MOST })
            }
        }
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
        REGISTER.with(|register| register[self.place] = None);
        // SAFETY: memory of the global allocator's with a space in it; what the register knew of it is gone, and this is going.
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

/// How many spaces live.
pub(super) fn count() -> usize {
    REGISTER.with(|register| register.iter().flatten().count())
}
