//! Every history of a few spaces on two CPUs with few numbers, with TLBs that forget nothing.

use super::*;

const CPUS: usize = 2;
const SPACES: usize = 3;
/// The kernel's, and two for programs.
const COUNT: usize = 3;

/// Numbers and TLBs, and what a space leaves in the TLB of the CPU that it runs on: an entry under its number.
#[derive(Debug)]
struct World {
    asids: Asids<CPUS, COUNT>,
    /// Each place holds one space after the other.
    spaces: [(SpaceId, Current); SPACES],
    /// Which space was behind the last entry under each number, of each CPU.
    tlbs: [[Option<SpaceId>; COUNT]; CPUS],
    inside: [Option<usize>; CPUS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Enter {
        cpu: usize,
        space: usize,
    },
    Leave {
        cpu: usize,
    },
    /// The space dies and another takes its place.
    Replace {
        space: usize,
    },
}

fn steps() -> impl Iterator<Item = Step> {
    let enter = (0..CPUS).flat_map(|cpu| (0..SPACES).map(move |space| Step::Enter { cpu, space }));
    let leave = (0..CPUS).map(|cpu| Step::Leave { cpu });
    enter.chain(leave).chain((0..SPACES).map(|space| Step::Replace { space }))
}

impl World {
    fn new() -> Self {
        let mut asids = Asids::new();
        let spaces = core::array::from_fn(|_| (asids.register(), Current::new()));
        Self { asids, spaces, tlbs: [[None; COUNT]; CPUS], inside: [None; CPUS] }
    }

    fn copy(&self) -> Self {
        let Self { asids, spaces, tlbs, inside } = self;
        let copy = |(id, current): &(SpaceId, Current)| {
            (*id, Current(AtomicU8::new(current.asid().number())))
        };
        let spaces = core::array::from_fn(|place| copy(&spaces[place]));
        Self { asids: asids.clone(), spaces, tlbs: *tlbs, inside: *inside }
    }

    /// Takes the step if it is one that a kernel could take now; says whether it was.
    fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Enter { cpu, space } if self.inside[cpu].is_none() => self.enter(cpu, space),
            Step::Leave { cpu } if self.inside[cpu].is_some() => {
                self.inside[cpu] = None;
                self.asids.leave(cpu);
            }
            Step::Replace { space } if !self.inside.contains(&Some(space)) => self.replace(space),
            _ => return false,
        }
        self.run();
        true
    }

    fn enter(&mut self, cpu: usize, place: usize) {
        let (space, current) = &self.spaces[place];
        let tlbs = &mut self.tlbs;
        let asid = self.asids.enter(cpu, *space, current, || *tlbs = Default::default());
        assert_ne!(asid, Asid::KERNEL);
        assert_eq!(current.asid(), asid);
        self.inside[cpu] = Some(place);
    }

    /// What the space's owner does: it forgets what was tagged with the number that `Current` says, and retires it.
    fn replace(&mut self, place: usize) {
        let (space, current) = &self.spaces[place];
        for tlb in &mut self.tlbs {
            tlb[usize::from(current.asid().number())] = None;
        }
        self.asids.retire(*space, current);
        for tlb in &self.tlbs {
            assert!(!tlb.contains(&Some(*space)), "an entry of a dead space is left: {self:?}");
        }
        self.spaces[place] = (self.asids.register(), Current::new());
    }

    /// Every CPU that is inside finds what its TLB has under its number, which must be its own space's, and leaves more.
    fn run(&mut self) {
        for cpu in 0..CPUS {
            let Some(place) = self.inside[cpu] else { continue };
            let (space, current) = &self.spaces[place];
            let found = &mut self.tlbs[cpu][usize::from(current.asid().number())];
            assert!(found.is_none_or(|found| found == *space), "another space's entry serves");
            *found = Some(*space);
        }
        let numbers: Vec<_> = self.inside.iter().flatten().copied().collect();
        if let [one, other] = numbers[..] {
            let of = |place: usize| self.spaces[place].1.asid();
            assert_eq!(one == other, of(one) == of(other), "one number for each space: {self:?}");
        }
    }
}

/// Takes every step from here, `depth` deep, and says how many histories that are; `rollovers` has the most that one saw.
fn explore(world: &World, steps: &[Step], depth: u32, rollovers: &mut u64) -> u32 {
    *rollovers = world.asids.rollovers().max(*rollovers);
    if depth == 0 {
        return 1;
    }
    let taken = steps.iter().filter_map(|&step| {
        let mut next = world.copy();
        next.take(step).then_some(next)
    });
    taken.map(|next| explore(&next, steps, depth - 1, rollovers)).sum()
}

/// S118: no program is ever served by an entry that another left, on whichever CPU, through rollovers and deaths.
#[test]
fn in_every_history_of_seven_steps_a_number_serves_one_space() {
    let steps: Vec<Step> = steps().collect();
    let mut rollovers = 0;
    let histories = explore(&World::new(), &steps, 7, &mut rollovers);
    assert!(histories > 100_000, "{histories}");
    assert!(rollovers >= 2, "{rollovers}");
}

#[test]
fn a_space_keeps_its_number_until_a_rollover_and_one_that_runs_keeps_it_through() {
    let mut asids = Asids::<1, 4>::new();
    let spaces: [_; 4] = core::array::from_fn(|_| (asids.register(), Current::new()));
    let mut emptied = 0;
    let mut visit = |asids: &mut Asids<1, 4>, place: usize| {
        let (space, current) = &spaces[place];
        let asid = asids.enter(0, *space, current, || emptied += 1);
        asids.leave(0);
        asid.number()
    };
    assert_eq!([0, 1, 2, 0, 1].map(|place| visit(&mut asids, place)), [1, 2, 3, 1, 2]);
    assert_eq!((asids.taken(), asids.rollovers()), (3, 0));
    assert_eq!(visit(&mut asids, 3), 1, "the fourth takes all away");
    assert_eq!((asids.taken(), asids.rollovers()), (1, 1));
    assert_eq!(visit(&mut asids, 0), 2, "who lost its number gets another");
    assert_eq!(emptied, 1);
}

#[test]
fn a_number_that_comes_back_is_used_after_those_that_nobody_had() {
    let mut asids = Asids::<1, 4>::new();
    let mut number_of_a_new_space = |dies: bool| {
        let (space, current) = (asids.register(), Current::new());
        let asid = asids.enter(0, space, &current, || panic!("numbers are free"));
        asids.leave(0);
        if dies {
            asids.retire(space, &current);
        }
        asid.number()
    };
    assert_eq!([(); 5].map(|()| number_of_a_new_space(true)), [1, 2, 3, 1, 2]);
    assert_eq!([(); 3].map(|()| number_of_a_new_space(false)), [3, 1, 2]);
    assert_eq!(asids.taken(), 3);
}

#[test]
#[should_panic(expected = "a space dies while a CPU runs in it")]
fn a_space_that_runs_does_not_die() {
    let mut asids = Asids::<1>::new();
    let (space, current) = (asids.register(), Current::new());
    asids.enter(0, space, &current, || ());
    asids.retire(space, &current);
}

#[test]
#[should_panic(expected = "CPU 0 is in user memory already")]
fn one_cpu_is_in_one_space_at_a_time() {
    let mut asids = Asids::<1>::new();
    let (space, current) = (asids.register(), Current::new());
    asids.enter(0, space, &current, || ());
    asids.enter(0, space, &current, || ());
}
