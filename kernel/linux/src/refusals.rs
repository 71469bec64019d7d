//! What a function says on the console when it refuses: each has a limit of its own, so that one that fails often does not silence
//! another's first word.

use core::fmt;

use mm::report::RateLimit;

/// Of one function, by its Linux name.
pub(crate) struct Refusals {
    name: &'static str,
    limit: RateLimit,
}

impl Refusals {
    /// Nothing was refused yet.
    pub(crate) const fn of(name: &'static str) -> Self {
        Self { name, limit: RateLimit::new() }
    }

    /// Says `why`, behind the name; ever more rarely.
    #[cold]
    pub(crate) fn warn(&self, why: fmt::Arguments<'_>) {
        self.limit.warn(format_args!("{}: {why}", self.name));
    }
}

/// The [`Refusals`] of the function of this name, at the one place where it refuses.
macro_rules! refusals {
    ($name:expr) => {{
        static REFUSED: crate::refusals::Refusals = crate::refusals::Refusals::of($name);
        &REFUSED
    }};
}
pub(crate) use refusals;
