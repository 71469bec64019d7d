//! The suites in the kernel, on every machine that the project promises to serve.
//!
//! The image says first what tests it has. Every one of them must then have exactly one result on every machine: in one
//! boot, or, when a test kills the image, in several, each of which goes on after the test that killed the last.

mod session;

use std::iter;
use std::path::Path;

use ktest::Filter;

use crate::context::Context;
use crate::kernel::session::Session;
use crate::pool::Job;
use crate::qemu::{
    self, Console, DEFAULT_DISK, Equipment, KERNEL_TESTS, Machine, Start, Transport,
};
use crate::tally::Verdict;

/// All.
const ALL: &str = "::";

/// All but suites that no memory size and no way of booting changes, and that take long: the failures of each allocation in turn,
/// the names of functions, what the stub's instructions are, and a ring that goes round. They run on the usual machine and on four
/// CPUs once; failures that high memory changes run where there is some too.
const MOST: &str = "!failures,symbols::,stub::,ring_indices::";

/// The same with the failures of what finds high memory.
const MOST_HIGH: &str = "!failures::,symbols::,stub::,ring_indices::";

/// The same, but for what is about frames that the allocator gives to buffers: those of the contiguous region are others.
const MOST_CONTIGUOUS: &str = "!failures,symbols::,stub::,ring_indices::,coherent::";

/// A boot of its own for tests that mean something only there.
#[derive(Clone, Copy)]
struct Special {
    /// RAM of the machine, in MiB.
    memory: u32,
    /// CPUs of the machine.
    cpus: u32,
    /// RAM that the kernel is to find, in MiB.
    found: u32,
    /// Parameters of the kernel.
    parameters: &'static str,
    /// Which tests, as `test=` says it.
    filter: &'static str,
    /// The face of the disk.
    transport: Transport,
    /// What is started: the image, and further options of `scripts/qemu`.
    start: (&'static str, &'static [&'static str]),
    /// What its machine has.
    equipment: Equipment,
}

impl Special {
    /// On the usual machine, from the usual image.
    const fn with(parameters: &'static str, filter: &'static str) -> Self {
        let memory = Machine::USUAL.memory;
        let transport = Machine::USUAL.transport;
        let start = (KERNEL_TESTS, [].as_slice());
        let equipment = Equipment::Disk;
        Self { memory, cpus: 1, found: memory, parameters, filter, transport, start, equipment }
    }

    /// The same with the other face of the disk.
    const fn modern(self) -> Self {
        Self { transport: Transport::Modern, ..self }
    }

    /// The same with `memory` MiB of RAM.
    const fn on(self, memory: u32) -> Self {
        Self { memory, found: memory, ..self }
    }

    /// The same with `cpus` CPUs.
    const fn by(self, cpus: u32) -> Self {
        Self { cpus, ..self }
    }

    /// The same where the kernel is to find `found` MiB of RAM.
    const fn finding(self, found: u32) -> Self {
        Self { found, ..self }
    }

    fn start(&self) -> Start {
        let options = self.start.1.iter().map(|&option| option.to_owned()).collect();
        Start { options, equipment: self.equipment, ..Start::of(self.start.0) }
    }

    /// The same on a machine with all devices.
    const fn equipped(self) -> Self {
        Self { equipment: Equipment::Everything, ..self }
    }

    /// The same, started so.
    const fn started(self, options: &'static [&'static str]) -> Self {
        Self { start: (KERNEL_TESTS, options), ..self }
    }
}

/// All of them.
const SPECIAL: [Special; 45] = [
    // All sizes of memory: the smallest, one that is no power of two, all that the board has.
    Special::with("", ALL).by(4).modern(),
    Special::with("", MOST).on(1024),
    // With a contiguous region, from which buffers come.
    Special::with("cma=32M", MOST_CONTIGUOUS).on(777).equipped(),
    Special::with("", MOST).on(128),
    // Most of memory high, on two nodes: everything.
    Special::with("lowmem=64M numa=fake=2", MOST_HIGH).on(256),
    // Four CPUs that take turns by a clock that counts instructions, so that each run is like the last: nearly everything, of
    // a raw image with garbage where nothing was loaded, whose CPUs come out of the loader's pen.
    Special::with("loglevel=7", MOST)
        .by(4)
        .started(&["--boot", "atags", "--dirty", "--icount", "5"]),
    // What drives the disk, by its other face; the rest knows nothing of that, and meets it on four CPUs.
    Special::with("loglevel=7", "virtio").on(128).modern(),
    Special::with("loglevel=7", "virtio").modern().equipped(),
    Special::with("swiotlb=force", "virtio").on(777).modern().equipped(),
    Special::with("loglevel=7", "virtio").on(1024).modern(),
    // By Linux's boot protocol, with an initial RAM disk; further down everything that way.
    Special::with("loglevel=6", "handover::").on(128).by(4).started(&[
        "--boot",
        "atags",
        "--initrd",
        DEFAULT_DISK,
    ]),
    Special::with("loglevel=6", "boot::").on(777).by(4).started(&[
        "--boot",
        "dtb",
        "--dirty",
        "--initrd",
        DEFAULT_DISK,
    ]),
    Special::with("lowmem=64M numa=fake=2", "kmap::").on(256).by(4),
    // What is about several CPUs, of an ELF; by threads, out of the pen; and by two.
    Special::with("loglevel=6", "smp").by(4).started(&["--icount", "5"]),
    Special::with("loglevel=5", "smp").by(4).started(&["--boot", "atags"]),
    Special::with("loglevel=7", "smp").by(2),
    Special::with("loglevel=6", "smp").by(2).started(&["--icount", "5"]),
    Special::with("coherent_pool=1G", "without_a_pool"),
    Special::with("coherent_pool=1M", "atomic_pool::"),
    Special::with("coherent_pool=100K", "atomic_pool::"),
    // A contiguous region: on four CPUs (further up nearly everything with one); where it lies between low and high memory, on the
    // second node; and where all of RAM is asked for, so that there is none.
    Special::with("cma=32M", "cma").by(4),
    Special::with("cma=32M", "stress::").by(4),
    Special::with("cma=8M lowmem=64M numa=fake=2 coherent_pool=100K", "cma").on(256),
    Special::with("cma=512M", "cma::"),
    Special::with("cma=16M", "failures::coherent").modern(),
    Special::with("nohugevmalloc", "huge::"),
    // Whatever is mapped for a device is copied; and misuse of mappings is looked for, also the project's own.
    Special::with("swiotlb=force", "streaming"),
    Special::with("swiotlb=64K,force lowmem=64M", "streaming").on(256),
    Special::with("swiotlb=force dma_debug=on", "virtio").by(4).equipped(),
    // Hardly any room for copies, of which a network card has half.
    Special::with("swiotlb=64K,force", "virtio").equipped(),
    // Less of it than a request has at most.
    Special::with("swiotlb=16K,force", "virtio_write::").equipped(),
    Special::with("dma_debug=on", "misuse::"),
    Special::with("swiotlb=force dma_debug=on", "iommu"),
    Special::with("dma_debug=on", "iommu"),
    Special::with("dma_debug=on", "dma"),
    Special::with("dma_debug=on", "streaming").by(4),
    // Drivers share their registers, too.
    Special::with("ioremap=shared", "ioremap_shared::").by(4),
    // Alone, so that nobody has left tables where they come and go.
    Special::with("loglevel=6", "ioremap_large::"),
    // Two nodes, both of low memory: what is to be on the second could be on the first.
    Special::with("numa=fake=2", "versions::"),
    Special::with("numa=fake=2", "nodes::"),
    Special::with("vmalloc=256M", "command_line::"),
    Special::with("vmalloc=16M", "command_line::").on(128),
    Special::with("mem=48M", "ram::").finding(48),
    // All RAM that the board can have: beyond it lies nothing that a probe could touch.
    Special::with("mem=probe", "ram::").on(1024),
    Special::with("mem=probe", "boot::").on(1024),
];

/// What the test image has.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// `suite::name` of every test.
    pub(crate) tests: Vec<String>,
    /// Every test that ends the image, with the words that it must end with.
    pub(crate) fatal: Vec<(String, String)>,
}

/// Asks the image what it has.
pub(crate) fn list(start: &Start) -> Result<Listed, String> {
    let words = ["list".to_owned()];
    let disk = Path::new(DEFAULT_DISK);
    let ended = qemu::boot(Machine::USUAL, Console::Test, start, disk, &words)?;
    ended.expect_status(0)?;
    read_list(&ended.output)
}

/// Reads `test NAME` and `fatal NAME WORDS`, each on a line, and diagnostics, which do not matter.
fn read_list(text: &str) -> Result<Listed, String> {
    let mut listed = Listed::default();
    for line in text.lines() {
        let words = line.trim_end().splitn(3, ' ').collect::<Vec<_>>();
        match words.as_slice() {
            ["test", name] if name.contains("::") => listed.tests.push((*name).into()),
            ["fatal", name, message] if name.contains("::") && !message.trim().is_empty() => {
                listed.fatal.push(((*name).into(), (*message).into()));
            }
            ["#", ..] => {}
            _ => return Err(format!("this line is no part of a list of tests: {line}")),
        }
    }
    if listed.tests.is_empty() {
        return Err("the image lists no tests".into());
    }
    let mut names: Vec<&String> =
        listed.tests.iter().chain(listed.fatal.iter().map(|(name, _)| name)).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("{} is listed twice", pair[0])),
        None => Ok(listed),
    }
}

/// One job a machine.
pub(crate) fn jobs(context: &Context, listed: &Listed) -> Vec<Job> {
    let wanted: Vec<String> =
        listed.tests.iter().filter(|name| context.wants(name)).cloned().collect();
    if wanted.is_empty() {
        return vec![];
    }
    let on = |machine: Machine| {
        let wanted = wanted.clone();
        Job::new(format!("kernel {machine}"), move |context| {
            let verdicts = Session::new(machine, context, wanted).run(context);
            label(&machine.to_string(), machine.memory, verdicts)
        })
    };
    let special = SPECIAL.into_iter().filter_map(|row| {
        let Special { memory, cpus, found, parameters, filter, transport, .. } = row;
        // Where nearly all are meant, those that were asked for are.
        let filter = match &context.filter {
            Some(asked) if [ALL, MOST, MOST_HIGH, MOST_CONTIGUOUS].contains(&filter) => {
                asked.clone()
            }
            _ => filter.to_owned(),
        };
        let meant = |name: &&String| Filter::parse(&filter).accepts(name);
        let wanted: Vec<String> = listed.tests.iter().filter(meant).cloned().collect();
        let asked_for = wanted.iter().any(|name| context.wants(name))
            && context.memory.is_none_or(|only| only == memory);
        let machine = Machine { memory, cpus, transport };
        asked_for.then(|| {
            let name = format!("{machine} {parameters}").trim_end().to_owned();
            Job::new(format!("kernel {name}"), move |context| {
                let session = Session::new(machine, context, wanted)
                    .with(parameters, &filter, found)
                    .started(row.start());
                label(&name, memory, session.run(context))
            })
        })
    });
    if context.image.is_some() {
        return vec![on(Machine::USUAL)];
    }
    iter::once(on(usual(context.memory))).chain(special).collect()
}

/// The machine that runs everything.
fn usual(memory: Option<u32>) -> Machine {
    Machine { memory: memory.unwrap_or(Machine::USUAL.memory), ..Machine::USUAL }
}

/// Says of each verdict where it was reached.
fn label(machine: &str, memory: u32, verdicts: Vec<Verdict>) -> Vec<Verdict> {
    let label =
        |verdict| Verdict { machine: Some(machine.to_owned()), memory: Some(memory), ..verdict };
    verdicts.into_iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_promised_memory_size_meets_both_transports_and_some_machines_have_four_cpus() {
        let row = |memory, filter| {
            SPECIAL.iter().find(|row| row.memory == memory && row.cpus == 1 && row.filter == filter)
        };
        let whole = usual(None);
        assert_eq!(whole, Machine::USUAL);
        for memory in [128, 512, 777, 1024] {
            let most = row(memory, MOST).or_else(|| row(memory, MOST_CONTIGUOUS));
            assert_eq!(most.map_or(whole.transport, |row| row.transport), whole.transport);
            assert!(most.is_some() || whole.memory == memory);
            assert_eq!(row(memory, "virtio").map(|row| row.transport), Some(Transport::Modern));
        }
        let with_four = SPECIAL.iter().filter(|row| row.cpus == 4);
        let by_count = |row: &Special| (row.filter, row.start.1.contains(&"--icount"));
        let whole = with_four.map(by_count).filter(|(filter, _)| [ALL, MOST].contains(filter));
        assert_eq!(whole.collect::<Vec<_>>(), [(ALL, false), (MOST, true)]);
    }

    /// What [`MOST`] leaves out is not much, and each of its parts leaves something out.
    #[test]
    fn a_word_for_most_tests_begins_with_its_mark_and_names_whole_suites() {
        let parts = MOST.strip_prefix('!').expect("the mark");
        for part in parts.split(',') {
            assert!(!Filter::parse(MOST).accepts(&format!("{part}linux::a")));
            assert!(!part.is_empty(), "{MOST}");
        }
        assert!(Filter::parse(MOST).accepts("vmalloc::a"));
        assert!(Filter::parse(ALL).accepts("failures::a"));
    }

    #[test]
    fn one_memory_size_is_all_that_is_tested_when_it_is_asked_for() {
        assert_eq!(usual(Some(300)), Machine { memory: 300, ..Machine::USUAL });
    }

    #[test]
    fn a_list_names_tests_and_fatal_tests_with_their_last_words() {
        let text = "# the tests\ntest a::b\nfatal a::c double free of frame 0x1\ntest d::e\n";
        let expected = Listed {
            tests: vec!["a::b".into(), "d::e".into()],
            fatal: vec![("a::c".into(), "double free of frame 0x1".into())],
        };
        assert_eq!(read_list(text), Ok(expected));
    }

    #[test]
    fn a_list_with_anything_else_in_it_is_refused() {
        let wrong = [
            "",
            "fatal a::c why\n",
            "test a\n",
            "test a::b more\n",
            "test a::b\nfatal a::c\n",
            "test a::b\nfatal a::c \n",
            "test a::b\ntest a::b\n",
            "test a::b\nfatal a::b why\n",
            "test a::b\npanicked\n",
            "test a::b\n\n",
        ];
        for text in wrong {
            assert!(read_list(text).is_err(), "{text:?}");
        }
    }
}
