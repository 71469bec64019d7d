//! A program: an address space and registers.

use core::fmt;

use arch::exception::Fault;
use arch::user::{Trap, UserContext, run};
use kerncore::addr::VirtAddr;

use crate::user::AddressSpace;

/// The instruction `svc #0`, in ARM and in Thumb state.
const ARM_CALL: u32 = 0x0f00_0000;
const THUMB_CALL: u32 = 0xdf00;

/// A system call: `svc #0` with its number in r7, as in Linux's interface for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// r7.
    pub number: u32,
    /// r0 to r5.
    pub arguments: [u32; 6],
}

/// What the kernel says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The program goes on, with this in r0.
    Return(u32),
    /// The program has ended, with this status.
    Exit(u32),
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a call, with this status.
    Exited(u32),
    /// It did what it may not.
    Killed(Fault),
    /// It executed an SVC that is no call of this kernel's: semihosting's, for one.
    NoCall {
        /// Where.
        instruction: VirtAddr,
        /// The number in the instruction.
        immediate: u32,
    },
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with {status}"),
            Self::Killed(fault) => write!(f, "killed: {fault}"),
            Self::NoCall { instruction, immediate } => {
                write!(f, "killed: svc {immediate:#x} at {instruction} is no call")
            }
        }
    }
}

/// A program that runs when it is told to, on whichever CPU tells it.
#[derive(Debug)]
pub struct Program {
    space: AddressSpace,
    context: UserContext,
}

impl Program {
    /// The program in `space` that begins at `entry` (in Thumb state, if bit 0 is set) with its stack at `stack`.
    pub fn new(space: AddressSpace, entry: VirtAddr, stack: VirtAddr) -> Self {
        Self { space, context: UserContext::new(entry, stack) }
    }

    /// Its address space.
    pub const fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// Gives its address space back, for another program or a look.
    pub fn into_space(self) -> AddressSpace {
        self.space
    }

    /// Its registers, r0 to r12.
    pub const fn registers_mut(&mut self) -> &mut [u32; 13] {
        self.context.registers_mut()
    }

    /// Runs it until it ends; `answer` is what the kernel says to its calls. Not in interrupt context.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn run(&mut self, mut answer: impl FnMut(&AddressSpace, Call) -> Answer) -> End {
        loop {
            let call = match self.resume() {
                Ok(call) => call,
                Err(end) => return end,
            };
            match answer(&self.space, call) {
                Answer::Return(value) => self.context.registers_mut()[0] = value,
                Answer::Exit(status) => return End::Exited(status),
            }
        }
    }

    /// Runs it until it calls, or cannot go on.
    ///
    /// # Errors
    /// [`End`]: it was killed.
    ///
    /// # Panics
    /// In interrupt context.
    pub fn resume(&mut self) -> Result<Call, End> {
        arch::lock::might_sleep("running a program");
        let Self { space, context } = self;
        loop {
            match space.space().with_open(|| run(context)) {
                // It stands where it was, and tries again.
                Trap::Fault(fault) if space.is_over(&fault) => {}
                Trap::Fault(fault) => return Err(End::Killed(fault)),
                Trap::SystemCall => return self.call(),
            }
        }
    }

    /// What the SVC that it has just executed asks for.
    fn call(&self) -> Result<Call, End> {
        let (instruction, bytes) = self.context.last_call();
        let mut word = [0; 4];
        // It was fetched a moment ago. If another CPU has unmapped it since, nobody knows what it was: no call.
        let read = self.space.copy_from(&mut word[..bytes as usize], instruction);
        let (word, is_call) = match (u32::from_le_bytes(word), bytes) {
            (word, 4) => (word & 0x00ff_ffff, word & 0x0fff_ffff == ARM_CALL),
            (half, _) => (half & 0xff, half == THUMB_CALL),
        };
        if read.is_err() || !is_call {
            return Err(End::NoCall { instruction, immediate: word });
        }
        let [r0, r1, r2, r3, r4, r5, _, number, ..] = *self.context.registers();
        Ok(Call { number, arguments: [r0, r1, r2, r3, r4, r5] })
    }
}
