//! Every interleaving of a few users, one after the other.
//!
//! ```text
//!   user 0   ├─step─┤      ├─step─┤├─step─┤            one runs at a time, from one point to the next:
//!   user 1          ├─step─┤              ├─step─┤     whoever reaches a point hands the baton to the next of the plan
//! ```
//! Users are threads that run the real code. A point is where what others do meanwhile can matter: before a lock is taken
//! ([`crate::HostLocks`] says so) and wherever a machine or a test calls [`point`]. Between two points a user runs alone; a critical
//! section has no points inside, so nobody ever waits for a lock, and what is a step here is a step for every other user.
//!
//! [`explore`] runs all plans: depth first, each run repeats the choices of the last one up to its last choice that has
//! another way to go. It ends, for users end; and it is exact, for nothing but the plan decides who runs.
//!
//! It is code of our own, small as it is, since the two crates that are there for this want the code under test to be written
//! against their own locks, atomics and threads: loom's objects live within its `model` only, so that no `const` and no
//! `static` can be made of them, and its kernel would have to be made anew in every execution of which it allows a limited number
//! of branches; shuttle picks schedules at random, or explores them all only of what uses its own primitives. Here the kernel asks
//! for its locks by trait already, which is all that it takes.

use std::{
    cell::{Cell, RefCell},
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// A user: what it does, told its own number.
pub type User<'a> = &'a (dyn Fn() + Sync);

/// What a run is to do at its choices, and what it did.
#[derive(Debug, Default)]
struct Plan {
    /// The ways to take at the first choices; the first way at those behind.
    given: Vec<usize>,
    /// Of each choice: the way taken, and how many there were.
    taken: Vec<(usize, usize)>,
    /// How often somebody was stopped who could have gone on.
    preemptions: u32,
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    /// Whose turn it is: a user's, or nobody's any more.
    turn: Option<usize>,
    /// Who has not ended this run.
    alive: Vec<bool>,
    /// No run follows.
    over: bool,
    /// Who went where, in words.
    story: Vec<(usize, &'static str)>,
    failures: Vec<String>,
}

/// What the users of one run share.
#[derive(Debug)]
struct Baton {
    state: Mutex<State>,
    /// For each user: it is his turn. The last one is for whoever waits for the end of the run.
    passed: Vec<Condvar>,
    most_preemptions: u32,
    /// How many of the users may begin.
    beginners: usize,
}

/// Whether it matters which user is which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// Each has something of its own to do: every one of them begins in some schedules.
    Different,
    /// All do the same. A schedule in which another than the first begins is one in which the first does, with other names for
    /// them, and is not run.
    Alike,
}

impl Baton {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses who is next, after `last` has reached a point or has ended, and waits until it is `last`'s turn again.
    fn pass(&self, last: usize, at: Option<&'static str>) {
        let mut state = self.state();
        match at {
            Some(at) => state.story.push((last, at)),
            None => state.alive[last] = false,
        }
        // Whoever goes on is the first way, so that the first plan is one user after the other.
        let mut ways: Vec<usize> = at.map(|_| last).into_iter().collect();
        if at.is_none() || state.plan.preemptions < self.most_preemptions {
            ways.extend((0..state.alive.len()).filter(|&user| user != last && state.alive[user]));
        }
        if ways.is_empty() {
            state.turn = None;
            self.passed[state.alive.len()].notify_one();
            return;
        }
        let choice = state.plan.taken.len();
        let way = state.plan.given.get(choice).copied().unwrap_or(0);
        state.plan.taken.push((way, ways.len()));
        let next = ways[way];
        state.plan.preemptions += u32::from(at.is_some() && next != last);
        state.turn = Some(next);
        if next != last {
            self.passed[next].notify_one();
            if at.is_some() {
                drop(self.wait(state, last));
            }
        }
    }

    /// Waits for the user's turn, or for the end of all.
    fn wait<'b>(&'b self, mut state: MutexGuard<'b, State>, user: usize) -> MutexGuard<'b, State> {
        while state.turn != Some(user) && !state.over {
            state = self.passed[user].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// One run, by that plan: what came of it.
    fn run(&self, given: Vec<usize>) -> State {
        let mut state = self.state();
        let users = state.alive.len();
        // Who begins is a choice, too.
        let first = given.first().copied().unwrap_or(0);
        let plan = Plan { given, taken: vec![(first, self.beginners)], preemptions: 0 };
        *state = State { plan, alive: vec![true; users], turn: Some(first), ..State::default() };
        self.passed[first].notify_one();
        while state.turn.is_some() {
            state = self.passed[users].wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let alive = vec![false; users];
        std::mem::replace(&mut state, State { alive, ..State::default() })
    }

    /// What the thread of a user does.
    fn serve(self: &Arc<Self>, number: usize, user: User<'_>) {
        RUN.set(Some((number, Arc::clone(self))));
        while !self.wait(self.state(), number).over {
            if catch_unwind(AssertUnwindSafe(user)).is_err() {
                self.state().failures.push(format!("user {number} panicked"));
            }
            self.pass(number, None);
        }
        RUN.set(None);
    }
}

thread_local! {
    /// The run that this thread is a user of.
    static RUN: RefCell<Option<(usize, Arc<Baton>)>> = const { RefCell::new(None) };
    /// How many critical sections this thread is in.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// A point at which others may go on, called `what`. Nothing, where nobody explores, or inside a critical section.
pub fn point(what: &'static str) {
    if INSIDE.get() == 0 {
        let run = RUN.with_borrow(Clone::clone);
        if let Some((user, baton)) = run {
            baton.pass(user, Some(what));
        }
    }
}

/// Says that what was seen is wrong; the user goes on.
///
/// # Panics
/// Where nobody explores.
pub fn fail(saw: String) {
    let run = RUN.with_borrow(Clone::clone);
    match run {
        Some((_, baton)) => baton.state().failures.push(saw),
        None => panic!("{saw}"),
    }
}

/// A critical section, as long as this lives.
pub(crate) struct Inside(());

impl Inside {
    pub(crate) fn enter() -> Self {
        INSIDE.set(INSIDE.get() + 1);
        Self(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(INSIDE.get() - 1);
    }
}

/// What came of all interleavings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explored {
    /// How many there are.
    pub schedules: u64,
    /// The longest, in points.
    pub longest: usize,
}

/// A schedule in which something went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Who went where, and when: `0: lock areas, 1: …`.
    pub schedule: String,
    /// What was wrong.
    pub saw: String,
    /// How many schedules went well before.
    pub after: u64,
}

/// Runs `users`, who are as `who` says, in every interleaving in which nobody is stopped more than `most_preemptions` times in
/// all. Before each run `begin` makes the world ready, and after it `judge` looks at what is left.
///
/// # Errors
/// The first schedule that `judge`, a user's panic, or [`fail`] says is lost.
pub fn explore(
    users: &[User<'_>],
    who: Users,
    most_preemptions: u32,
    begin: impl FnMut(),
    judge: impl FnMut() -> Result<(), String>,
) -> Result<Explored, Lost> {
    let alive = vec![false; users.len()];
    let baton = Arc::new(Baton {
        state: Mutex::new(State { alive, ..State::default() }),
        passed: (0..=users.len()).map(|_| Condvar::new()).collect(),
        most_preemptions,
        beginners: match who {
            Users::Different => users.len(),
            Users::Alike => users.len().min(1),
        },
    });
    thread::scope(|scope| {
        // On one CPU, whose turn it is only ever goes from one thread to the next.
        let _here = OneCpu::enter();
        for (number, user) in users.iter().enumerate() {
            let baton = Arc::clone(&baton);
            scope.spawn(move || baton.serve(number, *user));
        }
        let explored = all_plans(&baton, begin, judge);
        baton.state().over = true;
        baton.passed.iter().for_each(Condvar::notify_one);
        explored
    })
}

/// As long as this lives, its thread, and those that it begins, run on one CPU: only one of them has anything to do at a time, and
/// to wake one on another CPU costs more than what it then does. Where that cannot be had, they run wherever they like.
struct OneCpu(#[cfg(target_os = "linux")] Option<nix::sched::CpuSet>);

/// Whoever asks.
#[cfg(target_os = "linux")]
const THIS_THREAD: nix::unistd::Pid = nix::unistd::Pid::from_raw(0);

impl OneCpu {
    #[cfg(target_os = "linux")]
    fn enter() -> Self {
        use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

        let here = || {
            let mut here = CpuSet::new();
            here.set(sched_getcpu()?)?;
            let before = sched_getaffinity(THIS_THREAD)?;
            sched_setaffinity(THIS_THREAD, &here).map(|()| before)
        };
        Self(here().ok())
    }

    #[cfg(not(target_os = "linux"))]
    fn enter() -> Self {
        Self()
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some(before) = &self.0 {
            // Whoever is refused stays where it is.
            let _ = nix::sched::sched_setaffinity(THIS_THREAD, before);
        }
    }
}

/// Runs one plan after the other.
fn all_plans(
    baton: &Baton,
    mut begin: impl FnMut(),
    mut judge: impl FnMut() -> Result<(), String>,
) -> Result<Explored, Lost> {
    let mut given = Vec::new();
    let mut explored = Explored { schedules: 0, longest: 0 };
    loop {
        begin();
        let state = baton.run(given);
        let saw = state.failures.first().cloned().map_or_else(&mut judge, Err);
        if let Err(saw) = saw {
            let schedule = told(&state.story);
            return Err(Lost { schedule, saw, after: explored.schedules });
        }
        explored.schedules += 1;
        explored.longest = explored.longest.max(state.story.len());
        let mut taken = state.plan.taken;
        given = loop {
            match taken.pop() {
                None => return Ok(explored),
                Some((way, ways)) if way + 1 < ways => {
                    break taken.iter().map(|(way, _)| *way).chain([way + 1]).collect();
                }
                Some(_) => {}
            }
        };
    }
}

/// A story in one line: what one user passed before the next went on.
fn told(story: &[(usize, &'static str)]) -> String {
    let mut line = String::new();
    let mut last = None;
    for (user, at) in story {
        let _ = match last {
            Some(before) if before == *user => write!(line, ", {at}"),
            Some(_) => write!(line, "; {user}: {at}"),
            None => write!(line, "{user}: {at}"),
        };
        last = Some(*user);
    }
    line
}
