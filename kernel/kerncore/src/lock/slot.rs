//! A word that holds one reference, or nothing.

/// A place for one reference, which any CPU may fill and empty at any time. No lock; any context.
pub trait Slot<'t, T: Sync>: Sync {
    /// A slot that holds nothing.
    const EMPTY: Self;

    /// Takes out what is there. What was written before it was put there is seen after it.
    fn take(&self) -> Option<&'t T>;

    /// Puts `value` there, and takes out what was there, as [`Slot::take`] does.
    fn exchange(&self, value: &'t T) -> Option<&'t T>;

    /// Whether there is nothing, or was a moment ago.
    fn is_empty(&self) -> bool;
}
