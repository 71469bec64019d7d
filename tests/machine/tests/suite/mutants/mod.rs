//! The board of mutants: ways to be wrong that somebody could have written (some were), and the test that notices.
//!
//! A *killer* is a test of one behaviour, written over a small trait that the real code implements and every mutant
//! too. It answers with a [`Verdict`]: `Ok` if the behaviour holds, `Err` with what it saw if it does not. [`board!`]
//! lists it with its mutants and makes of each entry a `#[test]`: the killer on the real code must say `Ok`; on a
//! mutant, after it has said `Ok` of the real code, it must say `Err`. A panic is neither: a mutant that trips over its
//! own feet was not caught by what it claims to be caught by.
//!
//! What a test prints about its mutant (lines that begin with `mutant: `) is read by the runner, which shows the board
//! and compares it with the list: one that is listed and was not run is a failure too.

use std::fmt::Debug;

mod aliases;
mod copying;
mod descriptors;
pub(crate) mod exec;
mod flushes;
mod frames;
mod freeing;
mod huge;
pub(crate) mod iommu;
mod iommu_addresses;
mod iommu_few;
mod iommu_listed;
mod lending;
mod long_arrays;
mod machine;
mod map_ram;
mod mappings;
mod moving;
mod page_arrays;
mod pinning;
mod placement;
mod pool;
mod purge;
mod reading;
mod registers;
mod resizing;
mod routing;
mod scattered;
mod sharing;
mod streaming;
mod temporary;
mod types;
mod undoing;
pub(crate) mod user;

/// What a killer says: the behaviour holds, or what was seen in its place.
type Verdict = Result<(), String>;

/// `Ok` if `found` is what was wanted.
fn same<T: PartialEq + Debug>(what: &str, found: &T, wanted: &T) -> Verdict {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found:?}, not {wanted:?}")) }
}

/// Whoever says itself which of the ways of a `T` is his: for killers whose subjects differ in no more than that.
trait Goes<T> {
    fn how(&self) -> T;
}

impl<T: Copy> Goes<T> for T {
    fn how(&self) -> T {
        *self
    }
}

/// One way to be wrong.
struct Mutant {
    name: &'static str,
    /// The behaviour that it breaks, by its number.
    spec: &'static str,
    /// What it does wrong.
    wrong: &'static str,
    /// The test that notices.
    killer: &'static str,
}

impl Mutant {
    /// Has the killer judge the real code, which it must pass, and then the mutant, which it must not.
    #[track_caller]
    fn face(&self, right: Verdict, mutant: impl FnOnce() -> Verdict) {
        let Self { name, spec, wrong, killer } = self;
        if let Err(saw) = right {
            panic!("{killer} does not even pass on the real code, so it kills nothing: {saw}");
        }
        match mutant() {
            Ok(()) => panic!("the mutant {name} survived {killer} ({spec}: {wrong})"),
            Err(saw) => println!("mutant: {name} | {spec} | {wrong} | {killer} | {saw}"),
        }
    }
}

/// Makes tests of killers and their mutants.
///
/// ```text
/// a_killer(the real subject) {
///     a_mutant: "S17", "what it does wrong", the wrong subject;
/// }
/// ```
/// `a_killer` is a function in scope, from a borrowed subject to a [`Verdict`]. Behind the real subject may stand others
/// that have to pass: the mutants' algorithm without a mistake, so that the mistake alone is what is caught.
macro_rules! board {
    ($($killer:ident($($right:expr),+) {
        $($mutant:ident: $spec:literal, $wrong:literal, $subject:expr;)+
    })+) => {
        /// The names of the mutants.
        pub(super) const LISTED: &[&str] = &[$($(stringify!($mutant)),+),+];

        $(mod $killer {
            use super::*;

            fn right() -> Verdict {
                Ok(())$(.and_then(|()| super::$killer(&$right)))+
            }

            #[test]
            fn holds_on_the_real_code() {
                assert_eq!(right(), Ok(()));
            }

            $(#[test]
            fn $mutant() {
                let killer = module_path!().split_once("::").map_or("", |(_, path)| path);
                let (name, spec, wrong) = (stringify!($mutant), $spec, $wrong);
                let mutant = $crate::mutants::Mutant { name, spec, wrong, killer };
                mutant.face(right(), || super::$killer(&$subject));
            })+
        })+
    };
}
use board;

#[test]
fn the_board_is_listed_and_no_name_is_there_twice() {
    let families = [
        aliases::LISTED,
        copying::LISTED,
        descriptors::LISTED,
        exec::LISTED,
        frames::LISTED,
        freeing::LISTED,
        huge::LISTED,
        iommu::LISTED,
        iommu_addresses::LISTED,
        iommu_few::LISTED,
        iommu_listed::LISTED,
        lending::LISTED,
        long_arrays::LISTED,
        machine::LISTED,
        map_ram::LISTED,
        mappings::LISTED,
        moving::LISTED,
        page_arrays::LISTED,
        pinning::LISTED,
        placement::LISTED,
        pool::LISTED,
        purge::LISTED,
        reading::LISTED,
        registers::LISTED,
        resizing::LISTED,
        routing::LISTED,
        scattered::LISTED,
        sharing::LISTED,
        streaming::LISTED,
        temporary::LISTED,
        types::LISTED,
        undoing::LISTED,
        user::LISTED,
    ];
    let mut names = families.concat();
    println!("mutants listed: {}", names.join(" "));
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "{names:?}");
}
