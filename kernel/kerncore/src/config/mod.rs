//! The command line, parsed once into a typed configuration (S114).
//!
//! A parameter that cannot be used never stops the boot: it is reported in one line, by name, with the reason and
//! with what is used instead, and parsing goes on. The texts in a [`Config`] are borrowed from the line.
//!
//! | parameter | value | without it |
//! |---|---|---|
//! | `coherent_pool=` | size of the atomic DMA pool (S68) | 256 KiB |
//! | `cma=` | RAM set aside for contiguous buffers, and lent until they ask for it (S101) | none |
//! | `swiotlb=` | size of the bounce buffers, or `force`: copies are always made; or both, `1M,force` (S106) | 512 KiB |
//! | `dma_debug=` | `on`: misuse of streaming mappings is reported (S107); or `off` | `off` |
//! | `vmalloc=` | size of the vmalloc window | the whole window |
//! | `lowmem=` | RAM that has linear addresses; the rest is high memory | all of it |
//! | `numa=fake=` | nodes that memory is divided among, 1 or 2 | 1 |
//! | `mem=` | RAM to be used, or `probe`: as much as answers | what the board reports |
//! | `loglevel=` | 0 to 8: messages of smaller severity numbers are printed | 7 |
//! | `test=` | only tests whose name contains this (`=name`: that one; `!a,b`: those with no such part) | all tests |
//! | `seed=` | the number that shuffles the tests | drawn by the harness |
//! | `from=` | begin with this test of the shuffled order, counted from 1 | 1 |
//! | `fatal=` | run this one test, which stops the kernel | none |
//! | `fail_nth=` | the nth allocation of each test fails | none fails |
//! | `operations=` | how often a row of the benchmark is repeated | the row's own number |
//! | `list` | print the tests and end | – |
//! | `nohugevmalloc` | no large mappings: `vmalloc_huge` and vmap map small pages (S90) | – |
//! | `ioremap=` | `shared`: ioremap uses what is mapped already, if it can (S58); or `own` | `own` |
//! | `monitor` | read commands from the serial port when the work is done | – |
//! | `screen` | show how memory lies on the LCD controller's screen, until the work is done | – |
//! | `vmallocinfo` | print the areas of the vmalloc window when the work is done, or before the tests | – |
//! | `witness=` | the serial port at whose other end a host checks what tests map | none |
//!
//! As with Linux, `-` and `_` in a name are the same, and of a repeated parameter the last usable one counts, as a whole.

mod complaint;
mod size;
mod streaming;
#[cfg(test)]
mod tests;

pub use complaint::{Bound, Complaint, Instead, Why};
pub use size::{NumberError, memparse, number};
pub use streaming::{Copies, DmaChecks};

use core::num::NonZeroU32;

use crate::addr::PAGE_SIZE;
use crate::zones::Nodes;

/// Size of the atomic pool that nobody set (S68), in bytes.
pub const DEFAULT_COHERENT_POOL: u32 = 256 << 10;
/// Size of the bounce buffers that nobody set (S106), in bytes.
pub const DEFAULT_BOUNCE: u32 = 512 << 10;
/// The level of messages that nobody set: all but debugging.
pub const DEFAULT_LOG_LEVEL: u8 = 7;
/// The level at which everything is printed.
pub const MAX_LOG_LEVEL: u8 = 8;

/// What the command line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config<'c> {
    /// `coherent_pool=`, in bytes, whole pages.
    pub coherent_pool: u32,
    /// `cma=`, in bytes.
    pub contiguous: Option<u32>,
    /// `swiotlb=`: their size in bytes, whole pages.
    pub bounce: u32,
    /// `swiotlb=force`.
    pub copies: Copies,
    /// `dma_debug=`.
    pub dma_checks: DmaChecks,
    /// `vmalloc=`, in bytes.
    pub vmalloc: Option<u32>,
    /// `mem=`.
    pub memory: Memory,
    /// `lowmem=`, in bytes.
    pub low_memory: Option<u32>,
    /// `numa=fake=`.
    pub nodes: Nodes,
    /// `loglevel=`: messages whose severity number (0 emergency, 3 error, 4 warning, 6 information, 7 debugging) is
    /// smaller are printed.
    pub log_level: u8,
    /// `test=`.
    pub test_filter: Option<&'c str>,
    /// `seed=`.
    pub seed: Option<u64>,
    /// `from=`, counted from 1.
    pub from: Option<u32>,
    /// `fatal=`.
    pub fatal: Option<&'c str>,
    /// `fail_nth=`, counted from 1.
    pub fail_nth: Option<NonZeroU32>,
    /// `operations=`, at least 1.
    pub operations: Option<u32>,
    /// `list`.
    pub list: bool,
    /// `nohugevmalloc`.
    pub large_mappings: LargeMappings,
    /// `ioremap=`.
    pub ioremap: IoMappings,
    /// `monitor`.
    pub monitor: bool,
    /// `screen`.
    pub screen: Screen,
    /// `vmallocinfo`.
    pub vmallocinfo: bool,
    /// `witness=`.
    pub witness: Option<&'c str>,
}

/// Whose what ioremap maps is, where its caller does not say (S57).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoMappings {
    /// Its caller's own.
    Own,
    /// Shared with whoever maps the same.
    Shared,
}

/// Whether large mappings are made (S90).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargeMappings {
    /// By whoever asks for them.
    Allowed,
    /// By nobody.
    Forbidden,
}

/// What the LCD controller's screen shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Nothing.
    Dark,
    /// How memory lies.
    Memory,
}

/// How much RAM is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// What the board reports.
    Reported,
    /// This many bytes.
    Bytes(u32),
    /// What answers when it is written and read, whatever the board reports.
    Probed,
}

/// Which sizes a parameter may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeLimit {
    /// The least, in bytes.
    pub least: u32,
    /// The most, in bytes.
    pub most: u32,
    /// What the size must be a multiple of, in bytes: a power of two.
    pub unit: u32,
    /// What sets the most.
    pub bound: Bound,
}

impl SizeLimit {
    /// From one page to `most` bytes, which `bound` sets, in pages.
    pub const fn up_to(most: u32, bound: Bound) -> Self {
        Self { least: PAGE_SIZE, most, unit: PAGE_SIZE, bound }
    }
}

/// Which sizes there can be on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For `coherent_pool=`.
    pub coherent_pool: SizeLimit,
    /// For `cma=`.
    pub contiguous: SizeLimit,
    /// For `swiotlb=`.
    pub bounce: SizeLimit,
    /// For `vmalloc=`.
    pub vmalloc: SizeLimit,
    /// For `mem=`.
    pub memory: SizeLimit,
    /// For `lowmem=`.
    pub low_memory: SizeLimit,
}

impl Config<'_> {
    /// What holds without a command line.
    pub const DEFAULT: Self = Self {
        coherent_pool: DEFAULT_COHERENT_POOL,
        bounce: DEFAULT_BOUNCE,
        copies: Copies::WhereNeeded,
        dma_checks: DmaChecks::Off,
        contiguous: None,
        vmalloc: None,
        memory: Memory::Reported,
        low_memory: None,
        nodes: Nodes::One,
        log_level: DEFAULT_LOG_LEVEL,
        test_filter: None,
        seed: None,
        from: None,
        fatal: None,
        fail_nth: None,
        operations: None,
        list: false,
        large_mappings: LargeMappings::Allowed,
        ioremap: IoMappings::Own,
        monitor: false,
        screen: Screen::Dark,
        vmallocinfo: false,
        witness: None,
    };
}

impl Default for Config<'_> {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl<'c> Config<'c> {
    /// Parses `line`, whose first word is the kernel's own path, and tells `complain` of every parameter that is not
    /// used as given.
    pub fn parse(line: &'c str, limits: &Limits, complain: impl FnMut(Complaint<'c>)) -> Self {
        Self::parse_words(line.split_ascii_whitespace().skip(1), limits, complain)
    }

    /// Parses a boot loader's `line`, all of whose words are parameters; otherwise as [`Self::parse`].
    pub fn parse_parameters(
        line: &'c str,
        limits: &Limits,
        complain: impl FnMut(Complaint<'c>),
    ) -> Self {
        Self::parse_words(line.split_ascii_whitespace(), limits, complain)
    }

    fn parse_words(
        words: impl Iterator<Item = &'c str>,
        limits: &Limits,
        mut complain: impl FnMut(Complaint<'c>),
    ) -> Self {
        let mut config = Self::DEFAULT;
        for word in words {
            if let Err((why, instead)) = config.apply(word, limits) {
                complain(Complaint { word, why, instead });
            }
        }
        config
    }

    /// Takes in one word.
    fn apply(&mut self, word: &'c str, limits: &Limits) -> Result<(), (Why, Instead)> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let named = |known: &str| {
            let plain = |byte: u8| if byte == b'-' { b'_' } else { byte };
            name.bytes().map(plain).eq(known.bytes())
        };
        if let Some(settled) = self.set_size(named, value, limits) {
            settled
        } else if let Some(settled) = self.set_streaming(named, value, limits) {
            settled
        } else if named("mem") {
            if value == Some("probe") {
                self.memory = Memory::Probed;
                return Ok(());
            }
            let size = size(value, limits.memory);
            let kept = if let Memory::Bytes(bytes) = self.memory { Some(bytes) } else { None };
            settle(size, kept, |bytes| self.memory = Memory::Bytes(bytes))
        } else if named("lowmem") {
            let high = |cut| {
                if let Why::NotAMultiple { unit } = cut { Why::HighFrom { unit } } else { cut }
            };
            let size = size(value, limits.low_memory).map(|(bytes, cut)| (bytes, cut.map(high)));
            settle(size, self.low_memory, |bytes| self.low_memory = Some(bytes))
        } else if named("numa") {
            let kept = Instead::Number(self.nodes.count().into());
            let count = value.and_then(|value| value.strip_prefix("fake="));
            let most = Nodes::Two.count();
            self.nodes = match ranged(count, 1, most).map_err(|why| (why, kept))? {
                1 => Nodes::One,
                _ => Nodes::Two,
            };
            Ok(())
        } else if named("loglevel") {
            let kept = Instead::Number(self.log_level.into());
            self.log_level = ranged(value, 0, MAX_LOG_LEVEL).map_err(|why| (why, kept))?;
            Ok(())
        } else if named("test") {
            self.test_filter = Some(text(value)?);
            Ok(())
        } else if named("seed") {
            let kept = self.seed.map_or(Instead::Default, Instead::Number);
            self.seed = Some(ranged(value, 0, u64::MAX).map_err(|why| (why, kept))?);
            Ok(())
        } else if named("from") {
            let kept = Instead::Number(self.from.unwrap_or(1).into());
            self.from = Some(ranged(value, 1, u32::MAX).map_err(|why| (why, kept))?);
            Ok(())
        } else if named("operations") {
            let kept =
                self.operations.map_or(Instead::Default, |kept| Instead::Number(kept.into()));
            self.operations = Some(ranged(value, 1, u32::MAX).map_err(|why| (why, kept))?);
            Ok(())
        } else if named("fail_nth") {
            let kept =
                self.fail_nth.map_or(Instead::Default, |kept| Instead::Number(kept.get().into()));
            let nth = ranged(value, 1, u32::MAX).map_err(|why| (why, kept))?;
            self.fail_nth = NonZeroU32::new(nth);
            Ok(())
        } else if named("fatal") {
            self.fatal = Some(text(value)?);
            Ok(())
        } else if named("ioremap") {
            self.ioremap = match text(value)? {
                "own" => IoMappings::Own,
                "shared" => IoMappings::Shared,
                _ => return Err((Why::NotOneOf("own, shared"), Instead::Ignored)),
            };
            Ok(())
        } else if named("witness") {
            self.witness = Some(text(value)?);
            Ok(())
        } else {
            self.set_flag(named, value)
        }
    }

    /// Takes in a word that says how large a part of memory is to be, if it does.
    fn set_size(
        &mut self,
        named: impl Fn(&str) -> bool,
        value: Option<&str>,
        limits: &Limits,
    ) -> Option<Result<(), (Why, Instead)>> {
        Some(if named("coherent_pool") {
            let size = size(value, limits.coherent_pool);
            settle(size, self.coherent_pool, |bytes| self.coherent_pool = bytes)
        } else if named("cma") {
            let size = size(value, limits.contiguous);
            settle(size, self.contiguous, |bytes| self.contiguous = Some(bytes))
        } else if named("vmalloc") {
            let size = size(value, limits.vmalloc);
            settle(size, self.vmalloc, |bytes| self.vmalloc = Some(bytes))
        } else {
            return None;
        })
    }

    /// Takes in a word that says all by being there.
    fn set_flag(
        &mut self,
        named: impl Fn(&str) -> bool,
        value: Option<&str>,
    ) -> Result<(), (Why, Instead)> {
        if named("list") {
            self.list = true;
        } else if named("nohugevmalloc") {
            self.large_mappings = LargeMappings::Forbidden;
        } else if named("monitor") {
            self.monitor = true;
        } else if named("screen") {
            self.screen = Screen::Memory;
        } else if named("vmallocinfo") {
            self.vmallocinfo = true;
        } else {
            return Err((Why::Unknown, Instead::Ignored));
        }
        flag(value)
    }
}

/// What stands for itself.
fn flag(value: Option<&str>) -> Result<(), (Why, Instead)> {
    if value.is_none() { Ok(()) } else { Err((Why::NotAValue, Instead::Ignored)) }
}

/// A size within its limit, and what there was to complain of when it was cut to whole units.
fn size(value: Option<&str>, limit: SizeLimit) -> Result<(u32, Option<Why>), Why> {
    let bytes = match memparse(value.ok_or(Why::NoValue)?) {
        Ok(bytes) => bytes,
        Err(NumberError::Empty) => return Err(Why::NoValue),
        Err(error) => return Err(Why::NotASize(error)),
    };
    let too_large = Why::TooLarge { most: limit.most, bound: limit.bound };
    if bytes > limit.most.into() {
        return Err(too_large);
    }
    let bytes = u32::try_from(bytes).map_err(|_| too_large)?;
    let whole = bytes & !(limit.unit - 1);
    if whole < limit.least {
        return Err(Why::TooSmall { least: limit.least });
    }
    let cut = (whole != bytes).then_some(Why::NotAMultiple { unit: limit.unit });
    Ok((whole, cut))
}

/// Sets a size that can be used; otherwise says that `kept` stays.
fn settle(
    size: Result<(u32, Option<Why>), Why>,
    kept: impl Into<Option<u32>>,
    set: impl FnOnce(u32),
) -> Result<(), (Why, Instead)> {
    match size {
        Ok((bytes, cut)) => {
            set(bytes);
            cut.map_or(Ok(()), |why| Err((why, Instead::Bytes(bytes))))
        }
        Err(why) => Err((why, kept.into().map_or(Instead::Default, Instead::Bytes))),
    }
}

/// A number from `least` to `most`.
fn ranged<N>(value: Option<&str>, least: N, most: N) -> Result<N, Why>
where
    N: Copy + PartialOrd + Into<u64> + TryFrom<u64>,
{
    let parsed = match number(value.ok_or(Why::NoValue)?) {
        Ok(parsed) => parsed,
        Err(NumberError::Empty) => return Err(Why::NoValue),
        Err(error) => return Err(Why::NotANumber(error)),
    };
    let allowed = N::try_from(parsed).ok().filter(|number| (least..=most).contains(number));
    allowed.ok_or(Why::OutOfRange { least: least.into(), most: most.into() })
}

/// A text that says something.
fn text(value: Option<&str>) -> Result<&str, (Why, Instead)> {
    value.filter(|text| !text.is_empty()).ok_or((Why::NoValue, Instead::Ignored))
}
