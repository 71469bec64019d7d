//! As many emulators at once as the host has CPUs.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::junit::Suite;
use crate::progress::Progress;
use crate::tally::Verdict;

/// Work that ends in verdicts.
pub(crate) struct Job {
    /// What the progress calls it; the tests in it have names of their own.
    title: String,
    is_one_test: bool,
    work: Work,
}

/// What a job does; its verdicts are the tests that it ran.
type Work = Box<dyn FnOnce(&Context) -> Vec<Verdict> + Send>;

impl Job {
    /// A job of many tests, which asks the context itself which are wanted.
    pub(crate) fn new(
        title: impl Into<String>,
        work: impl FnOnce(&Context) -> Vec<Verdict> + Send + 'static,
    ) -> Self {
        Self { title: title.into(), is_one_test: false, work: Box::new(work) }
    }

    /// A job that is one test.
    pub(crate) fn test(
        name: impl Into<String>,
        test: impl FnOnce(&Context) -> Result<(), String> + Send + 'static,
    ) -> Self {
        let name = name.into();
        let title = name.clone();
        let work = move |context: &Context| vec![Verdict::of(name, test(context))];
        Self { title, is_one_test: true, work: Box::new(work) }
    }

    /// Whether it can have a test that was asked for.
    pub(crate) fn is_wanted(&self, context: &Context) -> bool {
        !self.is_one_test || context.wants(&self.title)
    }
}

/// Does all jobs and gathers their verdicts: those that are one test together, the others each for itself.
pub(crate) fn run(context: &Context, jobs: Vec<Job>) -> Vec<Suite> {
    let total = jobs.len();
    let mut progress = Progress::new(total);
    let mut alone = Suite { name: "alone".into(), time: Duration::ZERO, verdicts: vec![] };
    let mut suites = Vec::new();
    let queue = Mutex::new(VecDeque::from(jobs));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (sender, done) = mpsc::channel();
    thread::scope(|scope| {
        // No more than there is work for: whoever asks for a million gets no million threads.
        for _ in 0..context.jobs.min(total) {
            let sender = sender.clone();
            scope.spawn(move || {
                while let Some(job) = next() {
                    let started = Instant::now();
                    let verdicts = (job.work)(context);
                    let suite = Suite { name: job.title, time: started.elapsed(), verdicts };
                    // The receiver outlives all senders.
                    let _ = sender.send((suite, job.is_one_test));
                }
            });
        }
        drop(sender);
        for (mut suite, is_one_test) in done {
            progress.done(&suite.name, &suite.verdicts);
            if is_one_test {
                let timed = |verdict| Verdict { time: Some(suite.time), ..verdict };
                alone.verdicts.extend(suite.verdicts.drain(..).map(timed));
                alone.time += suite.time;
            } else {
                suites.push(suite);
            }
        }
    });
    suites.push(alone);
    suites
}
