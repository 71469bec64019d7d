//! What a mapping promises: memory type, permissions, scope.
//!
//! The words are the manual's (ARM DDI 0406C, A3.5 for memory types, B3.7 for permissions); the bits are
//! [`crate::descriptor`]'s business. Two combinations have no [`Attributes`] at all, so that no later layer can
//! write them into a table by mistake:
//!
//! * writable and executable (S112): whoever can write an address must not make the processor run it;
//! * executable Device or Strongly-ordered memory: a speculative instruction fetch would read a register with
//!   side effects (B3.7.2, "Execute-never restrictions on instruction fetching").

use core::fmt;

/// How the processor may order, merge, repeat and cache accesses (A3.5.1).
///
/// Normal memory is always shareable here: four CPUs and devices look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryType {
    /// Every access in program order, exactly as written, and complete before the next one.
    StronglyOrdered,
    /// Every access in program order and exactly as written; writes may be buffered. Shareable.
    Device,
    /// Memory that no cache holds; accesses may be merged, repeated and reordered (write-combining).
    NormalNonCacheable,
    /// Cached for reading; every write goes on to memory.
    NormalWriteThrough,
    /// Cached, allocating on reads and writes: ordinary memory, and the linear map's type.
    NormalWriteBack,
}

impl MemoryType {
    /// Whether a cache may hold lines of memory mapped so.
    pub const fn is_cacheable(self) -> bool {
        matches!(self, Self::NormalWriteThrough | Self::NormalWriteBack)
    }

    /// Whether this is one of the Normal types, from which instructions may be fetched.
    pub const fn is_normal(self) -> bool {
        !matches!(self, Self::StronglyOrdered | Self::Device)
    }
}

/// Who may read and write (B3.7.1, with SCTLR.AFE = 0). What the user may do, the kernel may do too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// The kernel reads; the user has no access.
    KernelReadOnly,
    /// The kernel reads and writes; the user has no access.
    KernelReadWrite,
    /// Both read, neither writes: the only user access that may be executable.
    UserReadOnly,
    /// The user reads; the kernel reads and writes.
    UserReadOnlyKernelReadWrite,
    /// Both read and write.
    UserReadWrite,
}

impl Access {
    /// Whether anybody may write.
    pub const fn is_writable(self) -> bool {
        matches!(
            self,
            Self::KernelReadWrite | Self::UserReadOnlyKernelReadWrite | Self::UserReadWrite
        )
    }

    /// Whether unprivileged code has any access.
    pub const fn is_user(self) -> bool {
        !matches!(self, Self::KernelReadOnly | Self::KernelReadWrite)
    }
}

/// Whether instructions may be fetched (the XN bit, B3.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Execute {
    /// Execute-never.
    Never,
    /// Whoever may read may execute.
    Allowed,
}

/// Whether a TLB entry serves every address space or the one with the current ASID (the nG bit, B3.9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// For every address space: the kernel's half.
    Global,
    /// For the current ASID only.
    NonGlobal,
}

/// A combination of the four that may stand in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    memory: MemoryType,
    access: Access,
    execute: Execute,
    scope: Scope,
}

/// Why four promises do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributesError {
    /// Somebody could write what somebody may execute (S112).
    WritableAndExecutable(Access),
    /// Instruction fetches from memory whose reads have effects.
    ExecutableButNotNormal(MemoryType),
}

impl Attributes {
    /// Ordinary kernel memory.
    pub const KERNEL_DATA: Self = Self {
        memory: MemoryType::NormalWriteBack,
        access: Access::KernelReadWrite,
        execute: Execute::Never,
        scope: Scope::Global,
    };
    /// Constants of the kernel.
    pub const KERNEL_RODATA: Self = Self { access: Access::KernelReadOnly, ..Self::KERNEL_DATA };
    /// Code of the kernel.
    pub const KERNEL_TEXT: Self = Self { execute: Execute::Allowed, ..Self::KERNEL_RODATA };
    /// Device registers: what `ioremap` gives (S93).
    pub const DEVICE: Self = Self { memory: MemoryType::Device, ..Self::KERNEL_DATA };
    /// Device registers whose writes must not be posted: what `ioremap_np` gives (S93).
    pub const STRONGLY_ORDERED: Self =
        Self { memory: MemoryType::StronglyOrdered, ..Self::KERNEL_DATA };
    /// Buffers shared with devices, frame buffers: `ioremap_wc`, coherent DMA (S93, S85).
    pub const WRITE_COMBINE: Self =
        Self { memory: MemoryType::NormalNonCacheable, ..Self::KERNEL_DATA };
    /// Memory cached for reading only (S93).
    pub const WRITE_THROUGH: Self =
        Self { memory: MemoryType::NormalWriteThrough, ..Self::KERNEL_DATA };

    /// Puts the four together.
    ///
    /// # Errors
    /// [`AttributesError`] for the two combinations that must not exist.
    pub const fn new(
        memory: MemoryType,
        access: Access,
        execute: Execute,
        scope: Scope,
    ) -> Result<Self, AttributesError> {
        if matches!(execute, Execute::Allowed) {
            if access.is_writable() {
                return Err(AttributesError::WritableAndExecutable(access));
            }
            if !memory.is_normal() {
                return Err(AttributesError::ExecutableButNotNormal(memory));
            }
        }
        Ok(Self { memory, access, execute, scope })
    }

    /// The memory type.
    pub const fn memory(self) -> MemoryType {
        self.memory
    }

    /// Who may read and write.
    pub const fn access(self) -> Access {
        self.access
    }

    /// Whether instructions may be fetched.
    pub const fn execute(self) -> Execute {
        self.execute
    }

    /// Which address spaces it serves.
    pub const fn scope(self) -> Scope {
        self.scope
    }

    /// Whether anybody may write.
    pub const fn is_writable(self) -> bool {
        self.access.is_writable()
    }

    /// Whether anybody may execute.
    pub const fn is_executable(self) -> bool {
        matches!(self.execute, Execute::Allowed)
    }
}

impl fmt::Display for MemoryType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::StronglyOrdered => "strongly-ordered",
            Self::Device => "device",
            Self::NormalNonCacheable => "non-cacheable",
            Self::NormalWriteThrough => "write-through",
            Self::NormalWriteBack => "write-back",
        })
    }
}

/// Kernel's and user's rights as `rwx/rwx`, the memory type, and `nG` if it is not global.
impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kernel, user) = match self.access {
            Access::KernelReadOnly => ("r-", "--"),
            Access::KernelReadWrite => ("rw", "--"),
            Access::UserReadOnly => ("r-", "r-"),
            Access::UserReadOnlyKernelReadWrite => ("rw", "r-"),
            Access::UserReadWrite => ("rw", "rw"),
        };
        let kernel_execute = if self.is_executable() { "x" } else { "-" };
        let user_execute = if self.is_executable() && self.access.is_user() { "x" } else { "-" };
        write!(f, "{kernel}{kernel_execute}/{user}{user_execute} {}", self.memory)?;
        match self.scope {
            Scope::Global => Ok(()),
            Scope::NonGlobal => f.write_str(" nG"),
        }
    }
}

impl fmt::Display for AttributesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WritableAndExecutable(access) => {
                write!(f, "{access:?} memory must not be executable")
            }
            Self::ExecutableButNotNormal(memory) => {
                write!(f, "{memory} memory must not be executable")
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MEMORY_TYPES: [MemoryType; 5] = [
        MemoryType::StronglyOrdered,
        MemoryType::Device,
        MemoryType::NormalNonCacheable,
        MemoryType::NormalWriteThrough,
        MemoryType::NormalWriteBack,
    ];
    pub(crate) const ACCESSES: [Access; 5] = [
        Access::KernelReadOnly,
        Access::KernelReadWrite,
        Access::UserReadOnly,
        Access::UserReadOnlyKernelReadWrite,
        Access::UserReadWrite,
    ];

    /// Every combination of the four, allowed or not.
    pub(crate) fn every_combination() -> impl Iterator<Item = (MemoryType, Access, Execute, Scope)>
    {
        MEMORY_TYPES.into_iter().flat_map(|memory| {
            ACCESSES.into_iter().flat_map(move |access| {
                [Execute::Never, Execute::Allowed].into_iter().flat_map(move |execute| {
                    [Scope::Global, Scope::NonGlobal].map(|scope| (memory, access, execute, scope))
                })
            })
        })
    }

    /// Every combination that may stand in a table.
    pub(crate) fn every_attribute() -> impl Iterator<Item = Attributes> {
        every_combination().filter_map(|(m, a, x, s)| Attributes::new(m, a, x, s).ok())
    }

    /// S112: no address is both writable and executable.
    #[test]
    fn writable_and_executable_is_refused_for_every_access_that_writes() {
        for (memory, access, execute, scope) in every_combination() {
            let made = Attributes::new(memory, access, execute, scope);
            match (execute, access.is_writable(), memory.is_normal()) {
                (Execute::Allowed, true, _) => {
                    assert_eq!(made, Err(AttributesError::WritableAndExecutable(access)));
                }
                (Execute::Allowed, false, false) => {
                    assert_eq!(made, Err(AttributesError::ExecutableButNotNormal(memory)));
                }
                _ => assert!(made.is_ok(), "{memory:?} {access:?} {execute:?}"),
            }
        }
        assert_eq!(every_attribute().count(), 5 * 5 * 2 + 3 * 2 * 2);
    }

    #[test]
    fn the_constants_pass_their_own_check() {
        for attributes in [
            Attributes::KERNEL_DATA,
            Attributes::KERNEL_RODATA,
            Attributes::KERNEL_TEXT,
            Attributes::DEVICE,
            Attributes::STRONGLY_ORDERED,
            Attributes::WRITE_COMBINE,
            Attributes::WRITE_THROUGH,
        ] {
            let again = Attributes::new(
                attributes.memory(),
                attributes.access(),
                attributes.execute(),
                attributes.scope(),
            );
            assert_eq!(again, Ok(attributes));
            assert_eq!(attributes.scope(), Scope::Global);
        }
        assert!(Attributes::KERNEL_TEXT.is_executable() && !Attributes::KERNEL_TEXT.is_writable());
        assert!(!Attributes::KERNEL_RODATA.is_executable());
    }

    #[test]
    fn attributes_print_as_rights_and_type() {
        assert_eq!(Attributes::KERNEL_TEXT.to_string(), "r-x/--- write-back");
        assert_eq!(Attributes::DEVICE.to_string(), "rw-/--- device");
        let printed = |access, execute| {
            Attributes::new(MemoryType::NormalNonCacheable, access, execute, Scope::NonGlobal)
                .expect("not both writable and executable")
                .to_string()
        };
        for (access, execute, rights) in [
            (Access::KernelReadOnly, Execute::Never, "r--/---"),
            (Access::UserReadOnly, Execute::Never, "r--/r--"),
            (Access::UserReadOnly, Execute::Allowed, "r-x/r-x"),
            (Access::UserReadOnlyKernelReadWrite, Execute::Never, "rw-/r--"),
            (Access::UserReadWrite, Execute::Never, "rw-/rw-"),
        ] {
            assert_eq!(printed(access, execute), format!("{rights} non-cacheable nG"));
        }
    }

    #[test]
    fn memory_types_are_what_the_manual_says_of_them() {
        let types = MEMORY_TYPES
            .map(|memory| (memory.to_string(), memory.is_normal(), memory.is_cacheable()));
        let expected = [
            ("strongly-ordered", false, false),
            ("device", false, false),
            ("non-cacheable", true, false),
            ("write-through", true, true),
            ("write-back", true, true),
        ];
        assert_eq!(types, expected.map(|(name, normal, cached)| (name.into(), normal, cached)));
    }

    /// Table B3-8, as rights: whether anybody may write, and whether the user has any.
    #[test]
    fn attributes_answer_for_their_access() {
        let answers = [(false, false), (true, false), (false, true), (true, true), (true, true)];
        for (access, (writable, user)) in ACCESSES.into_iter().zip(answers) {
            let attributes =
                Attributes::new(MemoryType::Device, access, Execute::Never, Scope::Global);
            assert_eq!(attributes.map(Attributes::is_writable), Ok(writable), "{access:?}");
            assert_eq!(access.is_user(), user, "{access:?}");
        }
    }

    #[test]
    fn a_refusal_names_what_was_asked_for() {
        let refused = |memory, access| {
            let made = Attributes::new(memory, access, Execute::Allowed, Scope::Global);
            made.expect_err("not allowed").to_string()
        };
        assert_eq!(
            refused(MemoryType::NormalWriteBack, Access::KernelReadWrite),
            "KernelReadWrite memory must not be executable"
        );
        assert_eq!(
            refused(MemoryType::Device, Access::KernelReadOnly),
            "device memory must not be executable"
        );
    }
}
