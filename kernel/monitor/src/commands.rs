//! What can be typed, and what it shows.

use core::fmt::{self, Write};

use dma::atomic_pool::{self, PoolUse};
use dma::listing;
use kerncore::addr::PAGE_SIZE;
use kerncore::frames::FrameOwner;
use kerncore::zones::ZoneSummary;
use mm::{area_list, audit, heap, memory_map};

use crate::CommandError;

/// One command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// What is typed.
    pub name: &'static str,
    /// What it shows, in a few words.
    pub help: &'static str,
    /// Shows it.
    pub(crate) run: fn(&mut dyn Write) -> Result<(), CommandError<'static>>,
}

/// All commands, in the order of their names.
pub const COMMANDS: &[Command] = &[
    Command { name: "areas", help: "the areas of the vmalloc window", run: areas },
    Command { name: "audit", help: "checks every descriptor against its owner", run: audit },
    Command { name: "dma", help: "who has which memory for devices", run: dma_buffers },
    Command { name: "dma-mappings", help: "as dma, by its old name", run: dma_buffers },
    Command { name: "frames", help: "the page frames, by owner", run: frames },
    Command { name: "heap", help: "the global allocator", run: heap },
    Command { name: "help", help: "this list", run: help },
    Command { name: "map", help: "what the tables map", run: map },
    Command { name: "pool", help: "the atomic DMA pool", run: pool },
    Command { name: "vmallocinfo", help: "as areas, by its Linux name", run: areas },
];

/// Writes line after line until one is not taken.
struct Lines<'out> {
    out: &'out mut dyn Write,
    result: fmt::Result,
}

impl<'out> Lines<'out> {
    fn new(out: &'out mut dyn Write) -> Self {
        Self { out, result: Ok(()) }
    }

    fn line(&mut self, line: &dyn fmt::Display) {
        if self.result.is_ok() {
            self.result = writeln!(self.out, "{line}");
        }
    }

    fn end(self) -> Result<(), CommandError<'static>> {
        self.result.map_err(CommandError::from)
    }
}

fn help(out: &mut dyn Write) -> Result<(), CommandError<'static>> {
    for command in COMMANDS {
        writeln!(out, "{:<14}{}", command.name, command.help)?;
    }
    Ok(())
}

fn map(out: &mut dyn Write) -> Result<(), CommandError<'static>> {
    let mut lines = Lines::new(out);
    memory_map::for_each_line(|line| lines.line(line));
    memory_map::for_each_high(|high| lines.line(high));
    lines.end()
}

fn areas(out: &mut dyn Write) -> Result<(), CommandError<'static>> {
    let mut lines = Lines::new(out);
    let totals = area_list::for_each_line(|line| lines.line(line));
    lines.line(&totals);
    lines.end()
}

fn frames(out: &mut dyn Write) -> Result<(), CommandError<'static>> {
    let zones = mm::kernel().zones();
    let census = zones.census();
    for owner in FrameOwner::ALL {
        let pages = census.of(owner);
        if pages != 0 {
            let kibibytes = u64::from(pages) * u64::from(PAGE_SIZE >> 10);
            writeln!(out, "{:<14}{pages:>8} frames {kibibytes:>9} KiB", owner.name())?;
        }
    }
    let mut written = Ok(());
    zones.for_each_zone(|ZoneSummary { node, kind, first, pages, free }| {
        let line = format_args!("{node} {kind:<7} from {first}: {pages:>8} frames, {free:>8} free");
        written = written.and_then(|()| writeln!(out, "{line}"));
    });
    written?;
    write!(out, "free blocks of 4 KiB and up:")?;
    for blocks in census.free_blocks {
        write!(out, " {blocks}")?;
    }
    writeln!(out)?;
    Ok(())
}

fn heap(out: &mut dyn Write) -> Result<(), CommandError<'static>> {
    let heap::HeapUse { used, pages } = heap::usage();
    writeln!(out, "{used} bytes in use, {} KiB mapped", pages * (PAGE_SIZE >> 10))?;
    Ok(())
}

fn dma_buffers(out: &mut dyn Write) -> Result<(), CommandError<'static>> {
    let mut lines = Lines::new(out);
    let totals = listing::for_each_line(|line| lines.line(line));
    lines.line(&totals);
    lines.end()
}

/// The part of boot first, then what it has grown by.
fn pool(out: &mut dyn Write) -> Result<(), CommandError<'static>> {
    let mut lines = Lines::new(out);
    let mut parts = 0;
    atomic_pool::for_each_part(|part| {
        let PoolUse { pages, taken, largest, base } = part;
        let grown = if parts == 0 { "" } else { ", grown" };
        parts += 1;
        lines.line(&format_args!(
            "{taken} of {pages} pages at {base} are taken, the largest run left has {largest}{grown}"
        ));
    });
    if parts == 0 {
        lines.line(&"there is none");
    }
    lines.end()
}

fn audit(out: &mut dyn Write) -> Result<(), CommandError<'static>> {
    let mut lines = Lines::new(out);
    let summary = audit::audit(&mut |finding| lines.line(&finding));
    lines.line(&summary);
    lines.end()?;
    match summary.violations {
        0 => Ok(()),
        count => Err(CommandError::Violations { count }),
    }
}
