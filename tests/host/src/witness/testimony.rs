//! A request of the kernel, read as a suspicious reader reads: what its own witnesses say.

use crate::witness::decode::Registers;

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Which request of this boot.
    pub(crate) number: u32,
    /// The CPU that asks, through whose tables everything is to be seen.
    pub(crate) cpu: u32,
    /// Its registers.
    pub(crate) registers: Registers,
    /// `suite::name` of the test that runs, or `-` between tests.
    pub(crate) test: String,
}

/// What is said of one address. Words, to be compared with the words of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Testimony {
    /// What it is by the kernel's books.
    pub(crate) kind: String,
    /// The address.
    pub(crate) address: u32,
    /// Our walker: physical address, size, rights, memory type, scope; or five dashes.
    pub(crate) walker: String,
    /// ATS1CPR: physical address or fault.
    pub(crate) read: String,
    /// ATS1CPW: the same.
    pub(crate) write: String,
    /// An access: a word, `touched`, a fault, or a dash.
    pub(crate) access: String,
}

impl Head {
    /// Reads `q NUMBER CPU TTBR0 TTBR1 TTBCR DACR SCTLR TEST`.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let &["q", number, cpu, ttbr0, ttbr1, ttbcr, dacr, sctlr, test] = words.as_slice() else {
            return None;
        };
        let registers = Registers {
            ttbr0: hex(ttbr0)?,
            ttbr1: hex(ttbr1)?,
            ttbcr: hex(ttbcr)?,
            dacr: hex(dacr)?,
            sctlr: hex(sctlr)?,
        };
        let (number, cpu) = (number.parse().ok()?, cpu.parse().ok()?);
        Some(Self { number, cpu, registers, test: test.into() })
    }

    /// The modules that the test lies in.
    pub(crate) fn suite(&self) -> &str {
        self.test.rsplit_once("::").map_or("-", |(suite, _)| suite)
    }
}

impl Testimony {
    /// Reads `r KIND ADDRESS`, five words of the walker's, and one each of the others.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let ["r", kind, address, walker @ .., read, write, access] = words.as_slice() else {
            return None;
        };
        (walker.len() == 5).then_some(())?;
        Some(Self {
            kind: (*kind).into(),
            address: hex(address)?,
            walker: walker.join(" "),
            read: (*read).into(),
            write: (*write).into(),
            access: (*access).into(),
        })
    }
}

/// `0x` and digits.
pub(crate) fn hex(word: &str) -> Option<u32> {
    u32::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_the_registers_in_order() {
        let head = Head::read("q 7 3 0x6000204a 0x6000404a 0x11 0x1 0x30c5187d vmap::maps")
            .expect("a head");
        assert_eq!((head.number, head.cpu, head.suite()), (7, 3, "vmap"));
        assert_eq!((head.registers.ttbr1, head.registers.dacr), (0x6000_404a, 1));
        for wrong in [
            "",
            "q 7 3 0x0 0x0 0x0 0x0 0x0",
            "q x 3 0x0 0x0 0x0 0x0 0x0 a::b",
            "q 7 3 0x0 0x0 0x0 0x0 1 a::b",
            "q 7 3 0x0 0x0 0x0 0x0 0x0 a::b more",
            "r 7 3 0x0 0x0 0x0 0x0 0x0 a::b",
        ] {
            assert_eq!(Head::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_testimony_has_the_words_of_four_witnesses() {
        let line = "r vmalloc 0xc0042000 0x60455000 small rw-/--- write-back global 0x60455000 \
                    Permission(Second) 0x0";
        let testimony = Testimony::read(line).expect("a testimony");
        assert_eq!((testimony.kind.as_str(), testimony.address), ("vmalloc", 0xc004_2000));
        assert_eq!(testimony.walker, "0x60455000 small rw-/--- write-back global");
        assert_eq!(testimony.write, "Permission(Second)");
        let absent = "r guard 0xc0045000 - - - - - Translation(Second) Translation(Second) -";
        assert_eq!(Testimony::read(absent).expect("a testimony").walker, "- - - - -");
        for wrong in [
            line.replace("r vm", "vm"),
            line.replace("0xc0042000", "c0042000"),
            line.replace(" global", ""),
            format!("{line} more"),
        ] {
            assert_eq!(Testimony::read(&wrong), None, "{wrong}");
        }
    }
}
