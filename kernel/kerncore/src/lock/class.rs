//! The written lock order.

use core::fmt;

/// What a lock is for. The variants stand in the order in which locks may be taken, outermost first: under a lock only
/// those of later classes may be taken, and no two of one class are ever held together.
///
/// It is one list, and not a rank beside each lock, because an order is a property of the whole kernel: the names of
/// upper layers stand here, and nothing else of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Locks of tests that call the kernel while they hold them, in an order of their own.
    OuterTest(u8),
    /// The buffer that the command line lives in (`image::start`).
    CommandLine,
    /// Which user address spaces live (`mm::user`).
    UserSpaces,
    /// Which domains of devices live (`mm::domain`); their audit reports under it.
    Domains,
    /// The windows of a user address space (`kerncore::user`); its audit reports under it.
    UserWindows,
    /// The log, while a test reads along (`image::capture`): messages are put into words under it.
    LogCapture,
    /// The host's last answer about a mapping (`witness`).
    WitnessAnswer,
    /// The way to the host that is asked about mappings (`witness`).
    WitnessChannel,
    /// The console (`image::console`). All locks of memory come later: nothing prints while it holds one.
    Console,
    /// `linked_list_allocator`'s heap and its region (`mm::heap`).
    Heap,
    /// A first-level slot's step from empty to a table (`kerncore::page_table`).
    MakingTables,
    /// The frame that is being cut into second-level tables (`kerncore::kernel_space`).
    TableMemory,
    /// The set of areas and the slab of their records (`kerncore::kernel_space`).
    Areas,
    /// Dying areas whose memory is not freed yet (`kerncore::kernel_space`).
    DeferredFrees,
    /// The buddy allocator (`kerncore::zones`).
    Frames,
    /// Where movable pages are, and who has them pinned (`kerncore::contiguous`); unpinned ones are copied under it.
    MovablePages,
    /// Who has which page of the contiguous region (`kerncore::contiguous`).
    Contiguous,
    /// Who has coherent buffers at linear addresses (`dma::direct`).
    DirectBuffers,
    /// Which devices have memory of their own (`dma::declared`).
    DevicesWithMemory,
    /// Which pages of the atomic pool are taken (`dma::atomic_pool`).
    AtomicPool,
    /// Which pages of a device's own memory are taken (`dma::declared`).
    DeclaredMemory,
    /// Which addresses of an IOMMU domain are taken (`kerncore::iommu`).
    DeviceAddresses,
    /// Which blocks of a DMA pool are taken (`dma::dma_pool`).
    DmaBlocks,
    /// The cookies of coherent buffers without a mapping (`dma::attributes`).
    HiddenBuffers,
    /// Which coherent buffers devices see through an IOMMU, and where (`dma::iommu`).
    SeenBuffers,
    /// Which memory is cut into blocks by which DMA pool (`dma::dma_pool`).
    DmaPoolNames,
    /// Which slots of the bounce buffers are taken (`dma::bounce`).
    BounceBuffers,
    /// What is mapped for devices, where that is checked (`dma::debug`).
    MisuseChecker,
    /// Whether a device's coherent buffers go the shortest way (`dma::device`).
    ShortestWay,
    /// Which user address space has which number (`kerncore::user`).
    SpaceNumbers,
    /// What a device's handler and those who set it up share (`drivers::virtio`).
    DeviceHandler,
    /// The interrupt controller's distributor and the handlers (`drivers::interrupts`).
    InterruptController,
    /// A CPU's interface to the interrupt controller (`drivers::interrupts`).
    InterruptInterface,
    /// Who has the temporary address that is kept for steps that may not fail (`kerncore::kmap`).
    LastAddress,
    /// The registers of the outer cache's controller (`drivers::pl310`).
    OuterCache,
    /// Whose which cache line is, in builds of tests (`arch::lines`).
    CacheLines,
    /// Locks of tests under which nothing of the kernel's is taken, in an order of their own.
    Test(u8),
}

impl Class {
    /// All classes of the kernel, in their order.
    pub const ALL: [Self; 35] = [
        Self::CommandLine,
        Self::UserSpaces,
        Self::Domains,
        Self::UserWindows,
        Self::LogCapture,
        Self::WitnessAnswer,
        Self::WitnessChannel,
        Self::Console,
        Self::Heap,
        Self::MakingTables,
        Self::TableMemory,
        Self::Areas,
        Self::DeferredFrees,
        Self::Frames,
        Self::MovablePages,
        Self::Contiguous,
        Self::DirectBuffers,
        Self::DevicesWithMemory,
        Self::AtomicPool,
        Self::DeclaredMemory,
        Self::DeviceAddresses,
        Self::DmaBlocks,
        Self::HiddenBuffers,
        Self::SeenBuffers,
        Self::DmaPoolNames,
        Self::BounceBuffers,
        Self::MisuseChecker,
        Self::ShortestWay,
        Self::SpaceNumbers,
        Self::DeviceHandler,
        Self::InterruptController,
        Self::InterruptInterface,
        Self::LastAddress,
        Self::OuterCache,
        Self::CacheLines,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::CommandLine => "command line",
            Self::UserSpaces => "user spaces",
            Self::Domains => "domains",
            Self::UserWindows => "user windows",
            Self::LogCapture => "log capture",
            Self::WitnessAnswer => "witness answer",
            Self::WitnessChannel => "witness channel",
            Self::Console => "console",
            Self::Heap => "heap",
            Self::MakingTables => "making of tables",
            Self::TableMemory => "table memory",
            Self::Areas => "areas",
            Self::DeferredFrees => "deferred frees",
            Self::Frames => "frames",
            Self::MovablePages => "movable pages",
            Self::Contiguous => "contiguous region",
            Self::DirectBuffers => "direct buffers",
            Self::DevicesWithMemory => "devices with memory",
            Self::AtomicPool => "atomic pool",
            Self::DeclaredMemory => "declared memory",
            Self::DeviceAddresses => "device addresses",
            Self::DmaBlocks => "dma blocks",
            Self::HiddenBuffers => "hidden buffers",
            Self::SeenBuffers => "seen buffers",
            Self::DmaPoolNames => "names of dma pools",
            Self::BounceBuffers => "bounce buffers",
            Self::MisuseChecker => "misuse checker",
            Self::ShortestWay => "shortest way",
            Self::SpaceNumbers => "space numbers",
            Self::DeviceHandler => "device handler",
            Self::InterruptController => "interrupt controller",
            Self::InterruptInterface => "interrupt interface",
            Self::LastAddress => "last temporary address",
            Self::OuterCache => "outer cache",
            Self::CacheLines => "cache lines",
            Self::OuterTest(_) => "outer test",
            Self::Test(_) => "test",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::OuterTest(number) | Self::Test(number) => write!(f, " {number}"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCHITECTURE: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../ARCHITECTURE.md"));

    #[test]
    fn the_list_is_in_order_between_the_locks_of_tests() {
        assert!(Class::ALL.is_sorted_by(|outer, inner| outer < inner));
        for class in Class::ALL {
            assert!(Class::OuterTest(u8::MAX) < class && class < Class::Test(0), "{class}");
        }
        assert!(Class::OuterTest(1) < Class::OuterTest(2) && Class::Test(1) < Class::Test(2));
        assert_eq!(Class::OuterTest(6).to_string(), "outer test 6");
        assert_eq!(Class::Test(7).to_string(), "test 7");
        assert_eq!(Class::Areas.to_string(), "areas");
    }

    #[test]
    fn the_documentation_has_the_same_order() {
        let section = ARCHITECTURE.split("\n## Locks\n").nth(1).expect("a section on locks");
        let section = section.split("\n## ").next().unwrap_or_default();
        // `| lock | guards | where |`, below a line of dashes.
        let rows = section.lines().skip_while(|line| !line.starts_with("|---"));
        let written: Vec<&str> =
            rows.filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()).collect();
        let wanted = Class::ALL.map(Class::name);
        assert_eq!(written, wanted);
    }
}
