//! As many emulators at once as the host has CPUs.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use crate::context::Context;
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

/// Does all jobs and gathers their verdicts.
pub(crate) fn run(context: &Context, jobs: Vec<Job>) -> Vec<Verdict> {
    let mut progress = Progress::new(jobs.len());
    let mut verdicts = Vec::new();
    let queue = Mutex::new(VecDeque::from(jobs));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (sender, done) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..context.jobs {
            let sender = sender.clone();
            scope.spawn(move || {
                while let Some(job) = next() {
                    let title = job.title;
                    // The receiver outlives all senders.
                    let _ = sender.send((title, (job.work)(context)));
                }
            });
        }
        drop(sender);
        for (title, of_job) in done {
            progress.done(&title, &of_job);
            verdicts.extend(of_job);
        }
    });
    verdicts
}
