//! Which memory is declared, or about to be, or to be taken away, for which device: for one at a time (S102).

use arch::lock::IrqSpinLock;
use kerncore::addr::PhysAddr;
use kerncore::lock::Class;

use crate::book::{Book, Leaf};
use crate::declared::{DeclareError, Declared, Taken};

/// A device's memory.
struct Entry {
    serial: u64,
    device: &'static str,
    first: PhysAddr,
    last: PhysAddr,
    /// Its memory, while it is listed.
    listed: Option<&'static Declared>,
}

/// All memory that was declared, and the last serial number.
static DECLARED: IrqSpinLock<(Book<Entry>, u64)> =
    IrqSpinLock::new(Class::DevicesWithMemory, (Book::new(), 0));

/// The entry of this serial number: while it is there, its memory is declared for nobody else.
pub(crate) struct Claim(u64);

impl Claim {
    /// Claims the bytes from `first` to `last` for `device`. Where one may sleep.
    ///
    /// # Errors
    /// [`DeclareError::Another`], [`DeclareError::NoBooks`].
    pub(crate) fn new(
        device: &'static str,
        (first, last): (PhysAddr, PhysAddr),
    ) -> Result<Self, DeclareError> {
        let entry = Entry { serial: 0, device, first, last, listed: None };
        let mut leaf = Leaf::new(entry).ok_or(DeclareError::NoBooks)?;
        DECLARED
            .with(|(book, serial)| {
                let both = |other: &&Entry| other.first <= last && first <= other.last;
                if let Some(&Entry { device, first, last, .. }) = book.iter().find(both) {
                    return Err((leaf, DeclareError::Another { device, first, last }));
                }
                *serial += 1;
                leaf.value_mut().serial = *serial;
                book.add(leaf);
                Ok(Self(*serial))
            })
            // The leaf is dropped under no lock.
            .map_err(|(_leaf, error)| error)
    }

    fn list(&self, listed: Option<&'static Declared>) {
        DECLARED.with(|(book, _)| {
            book.find(|entry| (entry.serial == self.0).then(|| entry.listed = listed));
        });
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Dropped under no lock.
        let _entry = DECLARED.with(|(book, _)| book.take(|entry| entry.serial == self.0));
    }
}

/// From now on it is listed.
pub(crate) fn list(declared: &'static Declared) {
    declared.claim.list(Some(declared));
}

/// From now on it is not listed any more, and nobody looks at it for that.
pub(crate) fn unlist(declared: &Declared) {
    declared.claim.list(None);
}

/// The first buffer at or behind this page of the memory of this serial number, or in memory that was declared after that; and its
/// memory's serial number.
pub(crate) fn next((serial, page): (u64, u32)) -> Option<(u64, Taken)> {
    DECLARED.with(|(book, _)| {
        let (mut serial, mut page) = (serial, page);
        loop {
            let listed = book.iter().filter_map(|entry| Some((entry.serial, entry.listed?)));
            let later = listed.filter(|(other, _)| *other >= serial);
            let (found, declared) = later.min_by_key(|(other, _)| *other)?;
            let from = if found == serial { page } else { 0 };
            if let Some(taken) = declared.next_run(from) {
                return Some((found, taken));
            }
            (serial, page) = (found + 1, 0);
        }
    })
}
