//! Which tests run, and in what order.
//!
//! The linker's order means nothing and changes with the build, so the names are sorted first; the seed then shuffles
//! them. The same seed and the same selection therefore give the same order, and a test that passes only after another
//! one is found out by some seed.

use crate::test::Test;

/// The most tests that an image may hold.
pub const MAX_TESTS: usize = 1024;

/// Places of tests in the registered slice, in the order in which to run them.
#[derive(Debug)]
pub(crate) struct Order {
    places: [u16; MAX_TESTS],
    len: usize,
}

/// Why no order can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrderError {
    /// The image holds this many tests, more than [`MAX_TESTS`].
    TooMany(usize),
    /// Two tests have this full name, so that a report could mean either.
    Duplicate(&'static str),
}

impl Order {
    /// The tests that `wanted` accepts, sorted by full name.
    pub(crate) fn sorted(
        tests: &[Test],
        wanted: impl Fn(&Test) -> bool,
    ) -> Result<Self, OrderError> {
        if tests.len() > MAX_TESTS {
            return Err(OrderError::TooMany(tests.len()));
        }
        let mut order = Self { places: [0; MAX_TESTS], len: 0 };
        for (test, place) in tests.iter().zip(0_u16..) {
            if wanted(test) {
                order.places[order.len] = place;
                order.len += 1;
            }
        }
        let name = |place: u16| tests[usize::from(place)].full_name();
        let places = &mut order.places[..order.len];
        places.sort_unstable_by_key(|&place| name(place));
        match places.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
            Some(pair) => Err(OrderError::Duplicate(name(pair[0]))),
            None => Ok(order),
        }
    }

    /// The same tests in the order that `seed` draws: Fisher and Yates' shuffle, every order as likely as any other.
    pub(crate) fn shuffled(mut self, seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        for last in (1..self.len).rev() {
            self.places.swap(last, random.at_most(last));
        }
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = usize> {
        self.places[..self.len].iter().copied().map(usize::from)
    }
}

/// Steele, Lea and Flood's `SplitMix64` (OOPSLA 2014, figure 14): eight lines, and any seed will do, zero included.
struct SplitMix(u64);

impl SplitMix {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `last`. The bias of the remainder is below 2⁻⁵⁰ for as few tests as there can be.
    fn at_most(&mut self, last: usize) -> usize {
        let count = last as u64 + 1;
        usize::try_from(self.next() % count).expect("a remainder by a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::Kind;

    const fn test(path: &'static str) -> Test {
        Test::new(path, Kind::Normal, |_| ())
    }

    static TESTS: [Test; 6] = [
        test("k::b::two"),
        test("k::a::one"),
        test("k::c::x"),
        test("k::a::zero"),
        test("k::b::one"),
        test("k::d::y"),
    ];

    fn names(order: &Order) -> Vec<&'static str> {
        order.places().map(|place| TESTS[place].full_name()).collect()
    }

    fn all() -> Order {
        Order::sorted(&TESTS, |_| true).expect("six tests")
    }

    #[test]
    fn the_linkers_order_does_not_matter() {
        assert_eq!(names(&all()), ["a::one", "a::zero", "b::one", "b::two", "c::x", "d::y"]);
    }

    #[test]
    fn the_same_seed_and_the_same_set_give_the_same_order() {
        assert_eq!(names(&all().shuffled(7)), names(&all().shuffled(7)));
    }

    #[test]
    fn seeds_reach_every_order_of_three_tests() {
        let seen: std::collections::BTreeSet<_> = (0..200)
            .map(|seed| {
                let some = Order::sorted(&TESTS, |test| test.suite() != "b" && test.suite() != "d");
                names(&some.expect("three tests").shuffled(seed))
            })
            .collect();
        assert_eq!(seen.len(), 6, "{seen:?}");
    }

    #[test]
    fn every_place_is_as_likely_as_any_other() {
        let mut first = [0_u32; TESTS.len()];
        for seed in 0..6000 {
            first[all().shuffled(seed).places().next().expect("a first")] += 1;
        }
        assert!(first.iter().all(|&count| (850..1150).contains(&count)), "{first:?}");
    }

    #[test]
    fn shuffling_loses_and_doubles_no_test() {
        for seed in 0..50 {
            let mut shuffled = names(&all().shuffled(seed));
            shuffled.sort_unstable();
            assert_eq!(shuffled, names(&all()));
        }
    }

    #[test]
    fn nothing_selected_is_an_order_too() {
        assert_eq!(Order::sorted(&TESTS, |_| false).expect("nothing").shuffled(1).len(), 0);
    }

    #[test]
    fn two_tests_of_one_name_are_refused() {
        let twice = [test("k::a::one"), test("k::b::one"), test("other::a::one")];
        assert_eq!(
            Order::sorted(&twice, |_| true).expect_err("a double"),
            OrderError::Duplicate("a::one")
        );
    }

    #[test]
    fn more_tests_than_fit_are_refused_and_not_dropped() {
        let many: Vec<Test> = (0..=MAX_TESTS).map(|_| test("k::a::one")).collect();
        assert_eq!(
            Order::sorted(&many, |_| true).expect_err("too many"),
            OrderError::TooMany(MAX_TESTS + 1)
        );
    }

    /// The first two values for seed 1234567 as the generator's published implementations give them.
    #[test]
    fn the_generator_is_splitmix64() {
        let mut random = SplitMix::new(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }
}
