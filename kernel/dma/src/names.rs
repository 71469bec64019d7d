//! The names of devices that hold memory, by number: what a note of a buffer has room for, and what outlives the device.
//!
//! A name stays for good, since notes do not say when they go. Devices of one name share it, so that there are no more names than in
//! the text of all drivers, for which there is room in the image: no memory is asked for, and any context will do. Devices whose
//! names come when there is no room left are [`NAMELESS`] in listings; nothing else is different for them.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU16, AtomicU32};

use kerncore::holder::Tag;
use spin::Once;

/// How many names are kept.
pub const MOST: usize = 1023;

/// How listings call a device whose name there was no room for.
pub const NAMELESS: &str = "(no room for its name)";

/// The number of those.
const NO_NAME: u16 = Tag::LAST_NAME;
const _: () = assert!(MOST < NO_NAME as usize);

static NAMES: [Once<&'static str>; MOST] = [const { Once::new() }; MOST];

/// Devices that were given a number.
static DEVICES: AtomicU16 = AtomicU16::new(0);

/// A device's numbers, once it has some: that of its name, 1 and up, and its own.
#[derive(Debug)]
pub(crate) struct Number(AtomicU32);

impl Number {
    pub(crate) const fn none() -> Self {
        Self(AtomicU32::new(0))
    }

    /// For what stands for the same device.
    pub(crate) fn same(&self) -> Self {
        Self(AtomicU32::new(self.0.load(Relaxed)))
    }

    /// The tag of the device, if it was given one.
    #[inline]
    pub(crate) fn known(&self) -> Option<Tag> {
        match self.0.load(Relaxed) {
            0 => None,
            word => Some(Tag::from_word(word)),
        }
    }

    /// The tag of the device of that name. Any context.
    #[inline]
    pub(crate) fn tag(&self, name: &'static str) -> Tag {
        match self.known() {
            Some(tag) => tag,
            None => self.enter(name),
        }
    }

    #[cold]
    #[inline(never)]
    fn enter(&self, name: &'static str) -> Tag {
        let place = NAMES.iter().position(|place| is_entered(place, name));
        let number = place.and_then(|place| u16::try_from(place + 1).ok()).unwrap_or(NO_NAME);
        let tag = Tag::of(number, DEVICES.fetch_add(1, Relaxed));
        // Another CPU may have been first with the same device.
        match self.0.compare_exchange(0, tag.word(), Relaxed, Relaxed) {
            Ok(_) => tag,
            Err(first) => Tag::from_word(first),
        }
    }
}

/// Whether `place` has this name, or had none and has it now.
fn is_entered(place: &'static Once<&'static str>, name: &'static str) -> bool {
    if let Some(entered) = place.get() {
        return *entered == name;
    }
    // Masked, so that no handler of this CPU waits for an entry that is being made.
    let saved = arch::irq::save_and_mask();
    let entered = *place.call_once(|| name);
    saved.restore();
    entered == name
}

/// What the device is called that `tag` is of.
pub(crate) fn name_of(tag: Tag) -> &'static str {
    if tag.name() == NO_NAME {
        return NAMELESS;
    }
    let place = usize::from(tag.name()).checked_sub(1);
    let name = place.and_then(|place| NAMES.get(place)).and_then(Once::get);
    name.map_or("?", |name| *name)
}
