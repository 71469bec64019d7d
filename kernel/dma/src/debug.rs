//! The misuse checker (S107), on with `dma_debug=on`: every streaming mapping is listed, and a call that does not go with one is an error line
//! that names both parties, with a backtrace. The call is carried out, or refused, as it would be without. Coherent buffers are noted with their
//! device anyway ([`crate::listing`]): what one still has when it goes is told, too, and costs nothing before.
//!
//! Cache lines are compared in memory. Behind an IOMMU a mapping is watched as far as what it leads to lies in a row, from its first byte on:
//! of one piece of memory all of it; of a segment that a scatter list's scattered pages were joined to, the first run of them alone.

use alloc::vec::Vec;
use core::fmt;
use core::ptr;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU32};

use arch::lock::IrqSpinLock;
use kerncore::addr::{DmaAddr, PhysAddr, VirtAddr};
use kerncore::config::DmaChecks;
use kerncore::holder::Tag;
use kerncore::lock::Class;
use kerncore::misuse::{Buffer, Checker, Entry, Family, Mapping, Misuse, Party};
use mm::report::{Called, dump_stack};

use crate::device::Device;
use crate::iommu::Shared;
use crate::listing::{self, Line};
use crate::streaming::Call;

/// Mappings that there may be at once.
const PLACES: usize = 1024;

static CHECKER: IrqSpinLock<Checker<'static>> =
    IrqSpinLock::new(Class::MisuseChecker, Checker::off());

/// Whether it is worth a lock.
static ON: AtomicBool = AtomicBool::new(false);

static FOUND: AtomicU32 = AtomicU32::new(0);

/// Checking has ended, for lack of places.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Turns it on, if it is to be. At boot; or when checking has ended, to begin anew: what is mapped then is not known.
pub fn init(checks: DmaChecks) {
    if checks == DmaChecks::Off || is_on() {
        return;
    }
    if ENDED.swap(false, Relaxed) {
        CHECKER.with(Checker::begin_again);
        ON.store(true, Relaxed);
        return;
    }
    let mut entries = Vec::new();
    if entries.try_reserve_exact(PLACES).is_err() {
        log::error!("DMA: no memory to check mappings in");
        return;
    }
    entries.resize(PLACES, Entry::FREE);
    let entries = entries.leak();
    CHECKER.with(|checker| *checker = Checker::new(entries, mm::kernel().line_bytes()));
    ON.store(true, Relaxed);
    log::info!("DMA: mappings are checked, {PLACES} at a time");
}

/// Whether mappings are checked: not any more when there were more than there are places.
#[inline]
pub fn is_on() -> bool {
    ON.load(Relaxed)
}

/// How many mappings are listed.
pub fn mappings() -> usize {
    CHECKER.with(|checker| checker.mappings())
}

/// How many mappings `device`, which is behind an IOMMU, has there; `None` if they are not listed, or not all.
pub(crate) fn mappings_of(device: &Device) -> Option<usize> {
    let (party, space) = (party(device), space_of(device));
    CHECKER.with(|checker| checker.is_on().then(|| checker.mappings_of(party, space)))
}

/// How many misuses were found since boot.
pub fn found() -> u32 {
    FOUND.load(Relaxed)
}

fn party(device: &Device) -> Party {
    Party { id: ptr::from_ref(device).addr(), name: device.name() }
}

/// Whose addresses it sees: where that lies, which is another's when it has ended ([`space_ends`]).
fn space_of(device: &Device) -> usize {
    device.iommu().map_or(0, |iommu| ptr::from_ref(iommu).addr())
}

fn mapping(call: &Call<'_>, dma: DmaAddr, bytes: u32) -> Mapping {
    let Call { device, flow, caller, family, .. } = *call;
    let memory = match device.iommu() {
        None => (device.physical_address(dma), bytes),
        // What leads nowhere was not mapped, and is entered nowhere.
        Some(iommu) => iommu.stretch(dma, bytes).unwrap_or((PhysAddr::new(0), 0)),
    };
    let space = space_of(device);
    Mapping { device: party(device), family, space, dma, memory, bytes, flow, caller }
}

/// A misuse, with callers by their names, and the function that was called.
struct Told<'m>(&'m str, &'m Misuse);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.0)?;
        self.1.tell(f, Called)
    }
}

#[cold]
fn tell(name: &str, misuse: &Misuse) {
    FOUND.fetch_add(1, Relaxed);
    if matches!(misuse, Misuse::NoRoom { .. }) {
        ENDED.store(true, Relaxed);
        ON.store(false, Relaxed);
    }
    log::error!("DMA misuse: {}", Told(name, misuse));
    dump_stack();
}

fn judge(name: &str, step: impl FnOnce(&mut Checker<'static>) -> Result<(), Misuse>) {
    if let Err(misuse) = CHECKER.with(step) {
        tell(name, &misuse);
    }
}

/// What `step` makes of what `call` says of `bytes` at `dma`, if mappings are checked.
fn judge_call(
    call: &Call<'_>,
    (dma, bytes): (DmaAddr, u32),
    step: impl FnOnce(&mut Checker<'static>, Mapping) -> Result<(), Misuse>,
) {
    if is_on() {
        let said = mapping(call, dma, bytes);
        judge(call.name, |checker| step(checker, said));
    }
}

/// `call` has mapped `bytes` at `dma`.
pub(crate) fn mapped(call: &Call<'_>, dma: DmaAddr, bytes: u32) {
    judge_call(call, (dma, bytes), Checker::mapped);
}

/// `call` ends the mapping of `bytes` at `dma`.
pub(crate) fn unmapped(call: &Call<'_>, dma: DmaAddr, bytes: u32) {
    judge_call(call, (dma, bytes), Checker::unmapped);
}

/// `call` was to end the mapping of `bytes` at `dma`, and was refused: what is mapped stands.
#[cold]
#[inline(never)]
pub(crate) fn refused(call: &Call<'_>, dma: DmaAddr, bytes: u32) {
    judge_call(call, (dma, bytes), |checker, said| checker.refused(said));
}

/// `call` synchronises `bytes` from `dma` on.
pub(crate) fn synced(call: &Call<'_>, dma: DmaAddr, bytes: u32) {
    judge_call(call, (dma, bytes), |checker, said| checker.synced(said));
}

/// The coherent buffer of `bytes` at `address`, of memory that may be mapped for transfers, is about to be free: `device` has it from
/// `caller`, and it lies at `physical` on the bus.
pub(crate) fn freed(
    device: &Device,
    (address, physical): (VirtAddr, PhysAddr),
    bytes: u32,
    caller: VirtAddr,
) {
    if is_on() {
        let buffer = Buffer { device: party(device), address, memory: (physical, bytes), caller };
        judge("a coherent buffer goes", |checker| checker.freed(buffer));
    }
}

/// The coherent buffer at `address`, if it is another device's than `device`, which is about to free it. Any context.
#[cold]
pub(crate) fn anothers(device: &Device, address: VirtAddr) -> Option<Line> {
    let own = device.known_tag();
    let mut found = None;
    listing::for_each_line(|line| {
        if line.address == address && !own.is_some_and(|own| line.holder.tag.is_of(own)) {
            found = Some(*line);
        }
    });
    found
}

/// `device` has freed the buffer of `line`, which [`anothers`] has found.
#[cold]
pub(crate) fn freed_by_another(device: &Device, line: &Line) {
    let &Line { address, physical, bytes, holder, .. } = line;
    let memory = (physical, bytes);
    let buffer = Buffer { device: party(device), address, memory, caller: holder.caller };
    tell("a coherent buffer goes", &Misuse::FreedByAnother { buffer, owner: line.device() });
}

/// The driver of `device` has asked whether `dma` stands for a failure.
pub fn asked(device: &Device, dma: DmaAddr) {
    if is_on() {
        let at = (space_of(device), dma);
        CHECKER.with(|checker| checker.asked(party(device), at));
    }
}

/// The driver lets `device` go: mappings that are left are counted, one is named, and they are forgotten; coherent buffers that it has
/// are named. Where one may print.
pub fn device_goes(device: &Device) {
    // Buffers are noted also when mappings are checked no more.
    if !is_on() && !ENDED.load(Relaxed) {
        return;
    }
    judge("a device goes", |checker| checker.gone(party(device)));
    // A device without a tag never had a buffer.
    if let Some(tag) = device.known_tag() {
        tell_buffers(device, tag);
    }
}

/// `iommu` ends, of which nobody is a holder any more: mappings that are left in it are counted, one is named, and they are forgotten. Where
/// it lies another may lie at once.
pub(crate) fn space_ends(iommu: &Shared) {
    if is_on() {
        let space = ptr::from_ref(iommu).addr();
        judge("an IOMMU mapping ends", |checker| checker.space_ended(space));
    }
}

/// Names the coherent buffers that `device` has, with size and caller.
#[cold]
fn tell_buffers(device: &Device, tag: Tag) {
    let each = |act: &mut dyn FnMut(&Line)| {
        listing::for_each_line(|line| {
            if line.holder.tag.is_of(tag) {
                act(line);
            }
        });
    };
    let mut count = 0;
    each(&mut |_| count += 1);
    if count == 0 {
        return;
    }
    FOUND.fetch_add(1, Relaxed);
    let name = device.name();
    log::error!("DMA misuse: a device goes: {name} goes and {count} of its coherent buffers stay:");
    each(&mut |line| log::error!("DMA:   {line}"));
    dump_stack();
}

/// A family for whoever has no other.
pub(crate) const OWNED: Family = Family::Single;
