//! What the host asks of one boot.

/// What to do, for which tests, in what order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options<'a> {
    /// What to do.
    pub mode: Mode<'a>,
    /// Which tests: `test=`.
    pub filter: Filter<'a>,
    /// What the order is drawn from: `seed=`. The same seed and the same filter give the same order.
    pub seed: u64,
    /// The number of the first test to run, counted from 1 in the order drawn: `from=`. The host sets it when an
    /// earlier boot died in the test before. Zero counts as 1.
    pub from: usize,
    /// Bytes of RAM, for the report's head only.
    pub memory: u64,
}

/// What a boot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode<'a> {
    /// Run the tests that return.
    Run,
    /// Run just this test, by its full name, which is expected to end the kernel: `fatal=`.
    Fatal(&'a str),
    /// Print what there is and run nothing: `list`.
    List,
}

/// Which tests are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter<'a> {
    /// Every one.
    All,
    /// Those whose full name contains this.
    Contains(&'a str),
    /// The one whose full name this is.
    Exactly(&'a str),
    /// Those whose full name contains none of these, which commas part.
    ContainsNone(&'a str),
}

impl<'a> Filter<'a> {
    /// Reads the value of `test=`: `=suite::name` means that test alone, `!part,part` all whose full name has none of these
    /// parts, anything else a part of the full name, and nothing means all.
    pub fn parse(text: &'a str) -> Self {
        if let Some(name) = text.strip_prefix('=') {
            Self::Exactly(name)
        } else if let Some(parts) = text.strip_prefix('!') {
            Self::ContainsNone(parts)
        } else if text.is_empty() {
            Self::All
        } else {
            Self::Contains(text)
        }
    }

    /// Whether the test with this full name is meant.
    pub fn accepts(self, full_name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Contains(part) => full_name.contains(part),
            Self::Exactly(name) => full_name == name,
            Self::ContainsNone(parts) => {
                !parts.split(',').any(|part| !part.is_empty() && full_name.contains(part))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_part_of_the_full_name_unless_it_begins_with_an_equals_sign() {
        let part = Filter::parse("c::map");
        assert!(part.accepts("vmalloc::maps") && part.accepts("vmalloc::map"));
        assert!(!part.accepts("vmalloc::unmaps"));
        let exact = Filter::parse("=vmalloc::map");
        assert!(exact.accepts("vmalloc::map"));
        assert!(!exact.accepts("vmalloc::maps") && !exact.accepts("old::vmalloc::map"));
    }

    #[test]
    fn an_exclamation_mark_means_all_that_have_none_of_the_parts() {
        let most = Filter::parse("!failures::,peers_,");
        assert!(most.accepts("vmalloc::maps") && most.accepts("failure::maps"));
        assert!(!most.accepts("failures::vmap") && !most.accepts("peers_linux::fix_size"));
        assert!(Filter::parse("!").accepts("a::b"));
        assert!(Filter::parse("!,").accepts("a::b"));
    }

    #[test]
    fn no_filter_means_all_and_an_exact_nothing_means_none() {
        assert!(Filter::parse("").accepts("a::b"));
        assert!(!Filter::parse("=").accepts("a::b"));
    }
}
