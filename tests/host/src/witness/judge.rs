//! Whether the witnesses agree: the kernel's, the emulator's walker, and the decoder over physical memory.

use crate::witness::decode::{self, Fault, Mapping, Memory, Size};
use crate::witness::screen;
use crate::witness::testimony::{Head, Testimony, hex};

/// The emulator, stopped.
pub(crate) trait Emulator: Memory {
    /// Where a privileged load by `cpu` would be led; `None` if it would fault.
    fn translate(&mut self, cpu: u32, address: u32) -> Result<Option<u64>, String>;
}

/// What a kind of address must be, whoever asks: where it lies, and what is mapped there.
struct Rule {
    kind: &'static str,
    /// The first and the last address that may be of this kind.
    region: (u32, u32),
    mapped: Mapped,
}

/// What must be mapped at an address of a kind.
enum Mapped {
    /// Nothing.
    Nothing,
    /// RAM at its fixed place, as ordinary memory with these rights.
    Linear(&'static str),
    /// Some RAM, with these rights and of this type.
    Ram(&'static str, &'static str),
    /// Some RAM that nobody may execute.
    AnyRam,
    /// The same, by an entry of this size.
    RamBy(Size),
    /// No RAM, and nobody may execute it, but for on-chip memory that nobody may write.
    NoRam,
}

/// Where RAM begins.
pub(crate) const RAM: u64 = 0x6000_0000;
/// The board's static memory, from which code may be run.
const ON_CHIP: std::ops::Range<u64> = 0x4800_0000..0x4a00_0000;
/// From a linear address to a physical one.
const LINEAR: u64 = 0x2000_0000;

const fn rule(kind: &'static str, region: (u32, u32), mapped: Mapped) -> Rule {
    Rule { kind, region, mapped }
}

const USER: (u32, u32) = (0, 0x7fff_ffff);
const LOW: (u32, u32) = (0x8000_0000, 0xbfff_ffff);
const WINDOW: (u32, u32) = (0xc000_0000, 0xefff_ffff);
const HEAP: (u32, u32) = (0xf000_0000, 0xf7ff_ffff);
const TOP: (u32, u32) = (0xf800_0000, 0xffff_ffff);

const RULES: [Rule; 30] = [
    rule("text", LOW, Mapped::Linear("r-x/---")),
    rule("constants", LOW, Mapped::Linear("r--/---")),
    rule("data", LOW, Mapped::Linear("rw-/---")),
    rule("stack", LOW, Mapped::Linear("rw-/---")),
    rule("tables", LOW, Mapped::Linear("rw-/---")),
    rule("linear", LOW, Mapped::Linear("rw-/---")),
    rule("vmalloc", WINDOW, Mapped::Ram("rw-/---", "write-back")),
    rule("code", WINDOW, Mapped::Ram("rw-/---", "write-back")),
    rule("sealed", WINDOW, Mapped::Ram("r-x/---", "write-back")),
    rule("vmap", WINDOW, Mapped::AnyRam),
    rule("large-page", WINDOW, Mapped::RamBy(Size::Large)),
    rule("section", WINDOW, Mapped::RamBy(Size::Section)),
    rule("ioremap", WINDOW, Mapped::NoRam),
    rule("coherent", WINDOW, Mapped::Ram("rw-/---", "non-cacheable")),
    rule("scattered", WINDOW, Mapped::Ram("rw-/---", "non-cacheable")),
    rule("snooped", WINDOW, Mapped::Ram("rw-/---", "write-back")),
    rule("pool", WINDOW, Mapped::Ram("rw-/---", "non-cacheable")),
    rule("heap", HEAP, Mapped::Ram("rw-/---", "write-back")),
    rule("stack-guard", LOW, Mapped::Nothing),
    rule("guard", WINDOW, Mapped::Nothing),
    rule("freed", WINDOW, Mapped::Nothing),
    rule("unused", WINDOW, Mapped::Nothing),
    rule("lent", LOW, Mapped::Nothing),
    rule("beyond-ram", LOW, Mapped::Nothing),
    rule("above-heap", HEAP, Mapped::Nothing),
    rule("fixed", TOP, Mapped::Nothing),
    rule("static", TOP, Mapped::NoRam),
    rule("temporary", TOP, Mapped::Ram("rw-/---", "write-back")),
    rule("user", USER, Mapped::Nothing),
    rule("device", USER, Mapped::AnyRam),
];

/// Every kind that there is: of mappings, and what the screen shows.
pub(crate) fn kinds() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.kind).chain([screen::KIND])
}

/// Compares what all of them say of one address, on a machine with `ram` bytes. What they say comes along if they do not
/// agree.
pub(crate) fn judge(
    ram: u64,
    head: &Head,
    said: &Testimony,
    emulator: &mut dyn Emulator,
) -> Result<(), String> {
    let address = said.address;
    let of = format!("{} {address:#010x}", said.kind);
    let Some(rule) = RULES.iter().find(|rule| rule.kind == said.kind) else {
        return Err(format!("{of}: there is no such kind"));
    };
    let lost = |why: &dyn ToString| format!("{of}: {}", why.to_string());
    let decoded =
        decode::walk(head.registers, emulator, address).map_err(|unclear| lost(&unclear))?;
    let emulated = emulator.translate(head.cpu, address).map_err(|error| lost(&error))?;

    let load = decoded.and_then(|mapping| mapping.read());
    let store = decoded.and_then(|mapping| mapping.write());
    let mut wrong = Vec::new();
    let mut differs = |is: bool, what: &'static str| {
        if is {
            wrong.push(what);
        }
    };
    differs(said.walker != entry(decoded), "our walker's entry");
    differs(said.read != outcome(load), "ATS1CPR");
    differs(said.write != outcome(store), "ATS1CPW");
    differs(emulated != load.ok(), "gva2gpa");
    let found = found(said, load, emulator).map_err(|error| lost(&error))?;
    differs(!found.agrees, "the access");
    differs(!holds(rule, ram, address, decoded.ok()), "the rule for this kind");
    if wrong.is_empty() {
        return Ok(());
    }
    let emulated = emulated.map_or("Unmapped".into(), |physical| format!("{physical:#010x}"));
    Err(format!(
        "{of}: {} against the decoder; our walker says {}, ATS1CPR {}, ATS1CPW {}, the access {}, \
         gva2gpa {emulated}, the decoder {}, loads {}, stores {}{}",
        wrong.join(", "),
        said.walker,
        said.read,
        said.write,
        said.access,
        entry(decoded),
        outcome(load),
        outcome(store),
        found.note,
    ))
}

/// An entry in the words of our walker.
fn entry(decoded: Result<Mapping, Fault>) -> String {
    match decoded {
        Err(_) => "- - - - -".into(),
        Ok(mapping) => format!(
            "{:#010x} {} {} {} {}",
            mapping.physical,
            mapping.size.word(),
            mapping.rights(),
            mapping.memory_type(),
            if mapping.non_global { "non-global" } else { "global" },
        ),
    }
}

fn outcome(access: Result<u64, Fault>) -> String {
    match access {
        Ok(physical) => format!("{physical:#010x}"),
        Err(fault) => fault.to_string(),
    }
}

/// What an access found, beside what lies where the tables lead.
struct Found {
    agrees: bool,
    note: String,
}

fn found(
    said: &Testimony,
    load: Result<u64, Fault>,
    memory: &mut dyn Emulator,
) -> Result<Found, String> {
    let quiet = |agrees| Ok(Found { agrees, note: String::new() });
    match (said.access.as_str(), load) {
        ("-", _) => quiet(true),
        ("touched", load) => quiet(load.is_ok()),
        (access, Err(fault)) => quiet(access == fault.to_string()),
        (access, Ok(physical)) => {
            let at = physical & !3;
            let words = memory.words(at & !63)?;
            let word = words[usize::try_from(at % 64 / 4).unwrap_or(0)];
            let note = format!(", and {word:#010x} lies there");
            Ok(Found { agrees: hex(access) == Some(word), note })
        }
    }
}

/// Whether the entry is one that an address of this kind may have.
fn holds(rule: &Rule, ram: u64, address: u32, entry: Option<Mapping>) -> bool {
    let in_region = (rule.region.0..=rule.region.1).contains(&address);
    let in_ram = |mapping: &Mapping| (RAM..RAM + ram).contains(&mapping.physical);
    in_region
        && match (&rule.mapped, entry) {
            (Mapped::Nothing, entry) => entry.is_none(),
            (_, None) => false,
            (Mapped::Linear(rights), Some(entry)) => {
                entry.physical + LINEAR == u64::from(address)
                    && entry.rights() == *rights
                    && entry.memory_type() == "write-back"
            }
            (Mapped::Ram(rights, memory), Some(entry)) => {
                in_ram(&entry) && entry.rights() == *rights && entry.memory_type() == *memory
            }
            (Mapped::AnyRam, Some(entry)) => in_ram(&entry) && entry.execute_never,
            (Mapped::RamBy(size), Some(entry)) => {
                in_ram(&entry) && entry.execute_never && entry.size == *size
            }
            (Mapped::NoRam, Some(entry)) => {
                !in_ram(&entry) && (entry.execute_never || is_code_on_chip(&entry))
            }
        }
}

/// Whether it maps on-chip memory as `ioremap_exec` does: to be executed, and written by nobody (S93, S112).
fn is_code_on_chip(mapping: &Mapping) -> bool {
    ON_CHIP.contains(&mapping.physical)
        && mapping.rights() == "r-x/---"
        && mapping.memory_type() == "non-cacheable"
}

#[cfg(test)]
#[path = "judge/tests.rs"]
mod tests;
