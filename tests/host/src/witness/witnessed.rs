//! What was witnessed: how often, by suite and kind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::witness::judge;

/// The kinds that a suite makes itself, and must have shown while they lived, by its own tests: what is asked after a test is
/// another with each order.
const MADE: [(&str, &[&str]); 21] = [
    ("areas", &["vmalloc", "vmap", "ioremap", "coherent", "guard"]),
    ("atomic_pool", &["pool"]),
    ("bare_areas", &["vmap"]),
    ("coherent", &["coherent", "lent", "guard"]),
    ("dma", &["coherent"]),
    ("exec", &["code", "sealed", "lent", "guard"]),
    ("faces", &["vmalloc", "vmap", "ioremap", "linear"]),
    ("faults", &["user"]),
    ("heap", &["heap"]),
    ("huge", &["section", "large-page", "vmalloc", "vmap"]),
    ("iommu_scattered", &["scattered", "snooped", "lent", "guard"]),
    ("ioremap", &["ioremap", "guard"]),
    ("map_ram", &["vmap", "guard"]),
    ("memory_functions", &["vmap"]),
    ("pages", &["linear"]),
    ("screen", &["picture"]),
    ("serial", &["ioremap"]),
    ("tables", &["text", "constants", "data", "stack", "linear", "vmalloc", "coherent", "lent"]),
    ("virtio_block", &["vmalloc"]),
    ("vmalloc", &["vmalloc", "guard"]),
    ("vmap", &["vmap", "guard"]),
];

/// All RAM that the linear map can hold: nothing of it is missing then.
const MOST_RAM: u64 = 1 << 30;

/// How often the witnesses agreed, by suite and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Witnessed(BTreeMap<(String, String), usize>);

impl Witnessed {
    /// Counts one address.
    pub(crate) fn add(&mut self, suite: &str, kind: &str) {
        *self.0.entry((suite.into(), kind.into())).or_default() += 1;
    }

    /// Counts those of another boot as well.
    pub(crate) fn add_all(&mut self, other: &Self) {
        for (key, count) in &other.0 {
            *self.0.entry(key.clone()).or_default() += count;
        }
    }

    /// What all tests of `suites` should have shown on a machine with `ram` bytes, and have not.
    pub(crate) fn missing(&self, suites: &BTreeSet<&str>, ram: u64) -> Vec<String> {
        let of_kind = |kind: &str| self.0.keys().any(|(_, had)| had == kind);
        let exists = |kind: &&str| match *kind {
            "beyond-ram" => ram < MOST_RAM,
            // Of high memory, which a machine has by a parameter alone.
            "temporary" => false,
            _ => true,
        };
        let kinds = judge::kinds().filter(exists).filter(|kind| !of_kind(kind)).map(str::to_owned);
        let of_suite = |suite: &str| self.0.keys().any(|(had, _)| had == suite);
        let silent = suites.iter().filter(|suite| !of_suite(suite));
        let silent = silent.map(|suite| format!("anything in {suite}"));
        let made =
            MADE.iter().flat_map(|(suite, kinds)| kinds.iter().map(move |kind| (suite, kind)));
        let made = made.filter(|(suite, kind)| {
            !self.0.contains_key(&((**suite).to_owned(), (**kind).to_owned()))
        });
        let made = made.map(|(suite, kind)| format!("{kind} in {suite}"));
        kinds.chain(silent).chain(made).collect()
    }
}

/// One line: `witnessed: 812 (vmalloc 210, vmap 93, …)`, or nothing if nobody was asked.
impl fmt::Display for Witnessed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let count = |kind: &str| -> usize {
            self.0.iter().filter(|((_, had), _)| had == kind).map(|(_, count)| count).sum()
        };
        let kinds: Vec<String> = judge::kinds()
            .map(|kind| (kind, count(kind)))
            .filter(|&(_, count)| count > 0)
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect();
        writeln!(f, "witnessed: {} ({})", self.0.values().sum::<usize>(), kinds.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that there should be.
    fn complete() -> Witnessed {
        let mut witnessed = Witnessed::default();
        judge::kinds().for_each(|kind| witnessed.add("locks", kind));
        for (suite, kinds) in MADE {
            for kind in kinds {
                witnessed.add(suite, kind);
            }
        }
        witnessed
    }

    #[test]
    fn what_was_never_witnessed_is_named() {
        let suites = BTreeSet::from(["locks", "vmap"]);
        assert_eq!(complete().missing(&suites, 0), [""; 0]);
        let without = |suite: &str, kind: &str| {
            let mut witnessed = complete();
            witnessed.0.retain(|(had_suite, had), _| {
                !(had_suite.starts_with(suite) && had.starts_with(kind))
            });
            witnessed.missing(&suites, 0)
        };
        assert_eq!(without("", "fixed"), ["fixed"]);
        assert_eq!(without("vmap", "vmap"), ["vmap in vmap"]);
        assert_eq!(without("", "pool"), ["pool", "pool in atomic_pool"]);
        let mut all_ram = complete();
        all_ram.0.retain(|(_, kind), _| kind != "beyond-ram");
        assert_eq!(all_ram.missing(&suites, MOST_RAM / 2), ["beyond-ram"]);
        assert_eq!(all_ram.missing(&suites, MOST_RAM), [""; 0]);
        let none_at_all = complete().missing(&BTreeSet::from(["locks", "monitor"]), 0);
        assert_eq!(none_at_all, ["anything in monitor"]);
    }

    #[test]
    fn the_summary_counts_by_kind_over_all_suites_and_boots() {
        let mut one = Witnessed::default();
        assert_eq!(one.to_string(), "");
        one.add("vmap", "vmap");
        one.add("areas", "vmap");
        let mut all = one.clone();
        all.add("vmap", "guard");
        all.add_all(&one);
        assert_eq!(all.to_string(), "witnessed: 5 (vmap 4, guard 1)\n");
    }

    #[test]
    fn every_kind_that_a_suite_is_to_show_is_one() {
        for (suite, kinds) in MADE {
            for kind in kinds {
                assert!(judge::kinds().any(|known| known == *kind), "{kind} in {suite}");
            }
        }
    }
}
