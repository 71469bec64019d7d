//! The names of devices that hold memory, by number: what a note of a buffer has room for, and what outlives the device.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use kerncore::holder::Tag;
use spin::Once;

/// How many names are told apart.
const MOST: usize = 127;

static NAMES: [Once<&'static str>; MOST] = [const { Once::new() }; MOST];

/// A device's number, once it has one: 1 and up. Devices of one name share it.
#[derive(Debug)]
pub(crate) struct Number(AtomicU32);

impl Number {
    pub(crate) const fn none() -> Self {
        Self(AtomicU32::new(0))
    }

    /// The tag of the device of that name. Any context.
    #[inline]
    pub(crate) fn tag(&self, name: &'static str) -> Tag {
        match self.0.load(Relaxed) {
            0 => {
                let tag = enter(name);
                self.0.store(tag.word(), Relaxed);
                tag
            }
            word => Tag::from_word(word),
        }
    }
}

#[cold]
#[inline(never)]
fn enter(name: &'static str) -> Tag {
    // Masked, so that no handler of this CPU waits for an entry that is being made.
    let saved = arch::irq::save_and_mask();
    let place = NAMES.iter().position(|place| *place.call_once(|| name) == name);
    saved.restore();
    // One too many is nobody that could be named.
    let number = place.and_then(|place| u8::try_from(place + 1).ok());
    Tag::of(number.unwrap_or(u8::MAX))
}

/// What the device is called that `tag` is of.
pub(crate) fn name_of(tag: Tag) -> &'static str {
    let place = usize::from(tag.device()).checked_sub(1);
    let name = place.and_then(|place| NAMES.get(place)).and_then(Once::get);
    name.map_or("?", |name| *name)
}
