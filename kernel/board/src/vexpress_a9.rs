//! Arm Versatile Express with the A9x4 CPU tile, as QEMU's `vexpress-a9` models it.
//!
//! ```text
//! 0xA000_0000 ┌──────────────────────────────────────────────────────────────┐
//!             │ RAM, up to 1 GiB                                             │
//! 0x6000_0000 ├──────────────────────────────────────────────────────────────┤
//!             │ NOR flash 0 and 1, SRAM (0x4800…), VRAM (0x4C00…), Ethernet  │
//! 0x4000_0000 ├──────────────────────────────────────────────────────────────┤
//!             │ A9 private: SCU   , GIC, timers; PL310 at 0x1E00_A000       │
//! 0x1E00_0000 ├──────────────────────────────────────────────────────────────┤
//!             │ daughterboard: PL111, SP804 (0x100E_4000)                    │
//! 0x1002_0000 ├──────────────────────────────────────────────────────────────┤
//!             │ motherboard: system registers, UARTs, SP804, virtio, PL111   │
//! 0x1000_0000 ├──────────────────────────────────────────────────────────────┤
//!             │ NOR flash 0 again: a null jump runs its zeros                │
//! 0x0000_0000 └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! A physical address between these aborts nothing on this board under QEMU: it reads as zero and swallows writes.
//! That is why these lists exist: a mapping of a hole cannot be found out by touching it.
//!
//! Sources: **V2M** = Motherboard Express V2M-P1 TRM (ARM DUI 0447), legacy memory map;
//! **CT** = the CPU tile's TRM (ARM DUI 0448); **MP** = Cortex-A9 multiprocessor TRM (ARM DDI 0407), by section;
//! **QEMU** = read from the emulator's memory tree (`info mtree`, version 7.2) or measured there by a program.

use kerncore::attributes::Attributes;
use kerncore::bus::BusRange;
use kerncore::kernel_space::StaticRequest;

use crate::{Interrupt, Region};

/// Where RAM starts. Its size is what `-m` says, and is found at boot. (CT; QEMU)
pub const RAM_BASE: kerncore::addr::PhysAddr = kerncore::addr::PhysAddr::new(0x6000_0000);
/// The most RAM the board takes, in bytes: QEMU refuses `-m 1025M`. (CT; QEMU)
pub const RAM_MAX: u32 = 1 << 30;
/// All of the address space that RAM can lie in; how much of it is there is found at boot.
pub const RAM: Region = Region::new("System RAM", RAM_BASE.raw(), RAM_MAX);

/// The number by which Linux's boot protocol knows the board: a loader leaves it in r1. (QEMU)
pub const MACHINE_NUMBER: u32 = 0x8e0;

/// System registers: identification, LEDs, flags, the 24 MHz counter. (V2M)
pub const SYSTEM_REGISTERS: Region = Region::new("system registers", 0x1000_0000, 0x1000);
/// `SYS_FLAGS` (read), `SYS_FLAGSSET` (write): where a secondary CPU that the boot monitor holds looks for its
/// entry address. (V2M; QEMU: used by the pen of the raw image only)
pub const SYS_FLAGS: Region = SYSTEM_REGISTERS.part("SYS_FLAGS", 0x30, 4);
/// `SYS_FLAGSCLR`: clears the bits written as one. (V2M)
pub const SYS_FLAGS_CLEAR: Region = SYSTEM_REGISTERS.part("SYS_FLAGSCLR", 0x34, 4);
/// `SYS_24MHZ`: counts up at 24 MHz. (V2M; QEMU). `SYS_100HZ` at 0x24 stands still under QEMU.
pub const SYS_24MHZ: Region = SYSTEM_REGISTERS.part("SYS_24MHZ", 0x5c, 4);

/// The four PL011 UARTs. (V2M; QEMU)
pub const UARTS: [Region; 4] = [
    Region::new("uart0", 0x1000_9000, 0x1000),
    Region::new("uart1", 0x1000_a000, 0x1000),
    Region::new("uart2", 0x1000_b000, 0x1000),
    Region::new("uart3", 0x1000_c000, 0x1000),
];
/// Their interrupts, board inputs 5 to 8. (V2M; QEMU: UART0 arrives as 37)
pub const UART_INTERRUPTS: [Interrupt; 4] =
    [Interrupt::shared(5), Interrupt::shared(6), Interrupt::shared(7), Interrupt::shared(8)];
/// The UARTs' reference clock in hertz. (V2M)
pub const UART_CLOCK_HZ: u32 = 24_000_000;

/// Dual timers 0 and 1 (SP804), 1 MHz. (V2M; QEMU)
pub const TIMER_01: Region = Region::new("sp804 timer0/1", 0x1001_1000, 0x1000);
/// Dual timers 2 and 3 (SP804), 1 MHz. (V2M; QEMU)
pub const TIMER_23: Region = Region::new("sp804 timer2/3", 0x1001_2000, 0x1000);
/// The daughterboard's dual timer (SP804). (CT; QEMU)
pub const TIMER_DAUGHTERBOARD: Region = Region::new("sp804 daughterboard", 0x100e_4000, 0x1000);
/// The interrupt of [`TIMER_01`]. (V2M; QEMU: arrives as 34)
pub const TIMER_01_INTERRUPT: Interrupt = Interrupt::shared(2);
/// The interrupt of [`TIMER_23`]. (V2M)
pub const TIMER_23_INTERRUPT: Interrupt = Interrupt::shared(3);
/// What the SP804 timers count, in hertz. (V2M; QEMU)
pub const TIMER_CLOCK_HZ: u32 = 1_000_000;

/// Bytes of registers and configuration space that a virtio-mmio transport has. (QEMU)
pub const VIRTIO_SLOT_SIZE: u32 = 0x200;
/// All virtio-mmio transports: they share a page. Not on the real board. (QEMU)
pub const VIRTIO: Region = Region::new("virtio-mmio", 0x1001_3000, 4 * VIRTIO_SLOT_SIZE);
/// The transports one by one. `-device` without `bus=` fills them from the last down. (QEMU)
pub const VIRTIO_SLOTS: [Region; 4] = [
    VIRTIO.part("virtio-mmio.0", 0, VIRTIO_SLOT_SIZE),
    VIRTIO.part("virtio-mmio.1", VIRTIO_SLOT_SIZE, VIRTIO_SLOT_SIZE),
    VIRTIO.part("virtio-mmio.2", 2 * VIRTIO_SLOT_SIZE, VIRTIO_SLOT_SIZE),
    VIRTIO.part("virtio-mmio.3", 3 * VIRTIO_SLOT_SIZE, VIRTIO_SLOT_SIZE),
];
/// The transports' interrupts. (QEMU: 72 to 75)
pub const VIRTIO_INTERRUPTS: [Interrupt; 4] =
    [Interrupt::shared(40), Interrupt::shared(41), Interrupt::shared(42), Interrupt::shared(43)];

/// The daughterboard's LCD controller (PL111), QEMU's console 0. (CT; QEMU)
pub const LCD: Region = Region::new("pl111", 0x1002_0000, 0x1000);
/// The motherboard's LCD controller (PL111), QEMU's console 1, which `screendump` does not show. (V2M; QEMU)
pub const LCD_MOTHERBOARD: Region = Region::new("pl111 motherboard", 0x1001_f000, 0x1000);

/// The Cortex-A9's private memory region: SCU, GIC, timers. `CBAR` reads its base. (MP 1.5; QEMU)
pub const PRIVATE_PERIPHERALS: Region = Region::new("mpcore", 0x1e00_0000, 0x2000);
/// Snoop control unit. (MP 2.2)
pub const SCU: Region = PRIVATE_PERIPHERALS.part("scu", 0, 0x100);
/// GIC CPU interface, banked by CPU. (MP 3.4)
pub const GIC_CPU: Region = PRIVATE_PERIPHERALS.part("gic cpu interface", 0x100, 0x100);
/// Global timer, 64 bits, shared by the CPUs; the compare registers are banked. (MP 4.4)
pub const GLOBAL_TIMER: Region = PRIVATE_PERIPHERALS.part("global timer", 0x200, 0x100);
/// Private timer and watchdog, banked by CPU. (MP 4.2)
pub const PRIVATE_TIMER: Region = PRIVATE_PERIPHERALS.part("private timer", 0x600, 0x100);
/// GIC distributor. (MP 3.3)
pub const GIC_DISTRIBUTOR: Region = PRIVATE_PERIPHERALS.part("gic distributor", 0x1000, 0x1000);
/// The compare interrupt of [`GLOBAL_TIMER`]. (MP 3.1.2; QEMU)
pub const GLOBAL_TIMER_INTERRUPT: Interrupt = Interrupt::private(27);
/// The interrupt of [`PRIVATE_TIMER`]. (MP 3.1.2; QEMU)
pub const PRIVATE_TIMER_INTERRUPT: Interrupt = Interrupt::private(29);
/// What the global and the private timers count with prescaler 0, in hertz: 10 ns a tick. (QEMU)
pub const MPCORE_TIMER_HZ: u32 = 100_000_000;
/// How many interrupt numbers the distributor has. (QEMU: `GICD_TYPER` says 96)
pub const INTERRUPTS: u16 = 96;
/// The PL310 L2 cache controller: registers only, QEMU models no cache. (CT; QEMU)
pub const L2_CACHE_CONTROLLER: Region = Region::new("pl310", 0x1e00_a000, 0x1000);

/// Bank 0 of NOR flash; also seen at address 0. (V2M; QEMU)
pub const NOR_FLASH_0: Region = Region::new("nor flash 0", 0x4000_0000, 64 << 20);
/// Bank 1 of NOR flash. (V2M; QEMU)
pub const NOR_FLASH_1: Region = Region::new("nor flash 1", 0x4400_0000, 64 << 20);
/// [`NOR_FLASH_0`] once more, at address 0: a jump through null lands here and runs zeros, silently. (QEMU)
pub const NOR_FLASH_ALIAS: Region = Region::new("nor flash 0 alias", 0, 64 << 20);
/// Static RAM. With a raw image the secondaries' pen lies at its start. (V2M; QEMU)
pub const SRAM: Region = Region::new("sram", 0x4800_0000, 32 << 20);
/// Video RAM. (V2M; QEMU)
pub const VRAM: Region = Region::new("vram", 0x4c00_0000, 8 << 20);
/// Ethernet (LAN9118); no bus master. (V2M; QEMU)
pub const ETHERNET: Region = Region::new("lan9118", 0x4e00_0000, 0x1000);

/// Every register block above, in ascending order, none overlapping another: what `ioremap` may be asked for as
/// Device memory. Parts of a block, such as the SCU in the
/// private region, are not listed again.
pub const DEVICES: &[Region] = &[
    SYSTEM_REGISTERS,
    UARTS[0],
    UARTS[1],
    UARTS[2],
    UARTS[3],
    TIMER_01,
    TIMER_23,
    VIRTIO,
    LCD_MOTHERBOARD,
    LCD,
    TIMER_DAUGHTERBOARD,
    PRIVATE_PERIPHERALS,
    L2_CACHE_CONTROLLER,
    ETHERNET,
];

/// Memory that is not RAM, in ascending order: it may be mapped Normal non-cacheable (`ioremap_wc`), and never
/// belongs to the page-frame allocator.
pub const STATIC_MEMORY: &[Region] = &[NOR_FLASH_ALIAS, NOR_FLASH_0, NOR_FLASH_1, SRAM, VRAM];

/// Registers that are mapped at boot, for good (S95): those that whoever maintains caches may need anywhere.
pub const STATIC_MAPPINGS: &[StaticRequest] =
    &[StaticRequest { range: L2_CACHE_CONTROLLER.on_bus(), attributes: Attributes::DEVICE }];

/// Memory on the board's own chips from which code may be run.
pub const ON_CHIP: &[BusRange] = &[SRAM.on_bus()];

#[cfg(test)]
mod tests {
    use super::*;
    use kerncore::addr::PhysAddr;

    /// All top-level regions.
    fn all() -> impl Iterator<Item = Region> + Clone {
        DEVICES.iter().chain(STATIC_MEMORY).copied().chain([RAM])
    }

    #[test]
    fn no_two_regions_overlap() {
        for (index, one) in all().enumerate() {
            for other in all().skip(index + 1) {
                assert!(!one.overlaps(other), "{one} overlaps {other}");
            }
        }
    }

    #[test]
    fn lists_ascend() {
        for list in [DEVICES, STATIC_MEMORY] {
            assert!(list.is_sorted_by_key(|region| region.base), "{list:?}");
        }
    }

    #[test]
    fn every_region_is_whole_pages_but_the_virtio_slots() {
        for region in all() {
            assert!(region.base.is_page_aligned(), "{region}");
            assert!(region == VIRTIO || region.is_page_aligned(), "{region}");
        }
    }

    #[test]
    fn the_virtio_slots_tile_their_region() {
        let mut next = VIRTIO.base;
        for slot in VIRTIO_SLOTS {
            assert_eq!(slot.base, next);
            next = next.checked_add(slot.size).expect("below 4 GiB");
        }
        assert_eq!(next.checked_sub(VIRTIO.base), Some(VIRTIO.size));
        assert_eq!(VIRTIO_INTERRUPTS.map(Interrupt::id), [72, 73, 74, 75]);
    }

    #[test]
    fn the_private_peripherals_do_not_overlap_one_another() {
        let parts = [SCU, GIC_CPU, GLOBAL_TIMER, PRIVATE_TIMER, GIC_DISTRIBUTOR];
        for pair in parts.windows(2) {
            assert!(pair[0].last() < pair[1].base, "{} reaches {}", pair[0], pair[1]);
        }
        assert_eq!(GIC_CPU.base, PhysAddr::new(0x1e00_0100));
        assert_eq!(GIC_DISTRIBUTOR.base, PhysAddr::new(0x1e00_1000));
    }

    #[test]
    fn interrupts_are_those_that_were_measured() {
        assert_eq!(UART_INTERRUPTS.map(Interrupt::id), [37, 38, 39, 40]);
        assert_eq!(TIMER_01_INTERRUPT.id(), 34);
        assert!(GLOBAL_TIMER_INTERRUPT.is_private() && PRIVATE_TIMER_INTERRUPT.is_private());
        for shared in UART_INTERRUPTS.into_iter().chain(VIRTIO_INTERRUPTS) {
            assert!(!shared.is_private() && shared.id() < INTERRUPTS);
        }
    }

    #[test]
    fn ram_ends_where_the_largest_machine_ends() {
        assert_eq!(RAM.last(), PhysAddr::new(0x9fff_ffff));
    }
}
