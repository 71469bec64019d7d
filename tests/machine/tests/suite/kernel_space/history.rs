//! Random histories of the whole kernel space, by proptest. The steps, the model and what is compared after each step are
//! in `histories`, which the fuzzer uses as well.

use histories::bed::Bed;
use histories::history::{Audits, Mistake, Step, live};
use kerncore::{
    addr::{PAGE_SIZE, PageRange, Pfn, PhysAddr},
    machine::Machine,
};
use machine::{Behaviour, SoftCpu, pass_on};
use proptest::{collection::vec, prelude::*};

fn steps() -> impl Strategy<Value = Step> {
    let bytes = || prop_oneof![Just(1), Just(PAGE_SIZE), 1..5 * PAGE_SIZE];
    let mistake = prop_oneof![
        Just(Mistake::Misaligned),
        Just(Mistake::Interior),
        Just(Mistake::Guard),
        Just(Mistake::Twice),
        Just(Mistake::AnotherKind),
    ];
    let pick = any::<u32>;
    prop_oneof![
        4 => (bytes(), any::<bool>()).prop_map(|(bytes, zeroed)| Step::Vmalloc { bytes, zeroed }),
        3 => (pick(), 1..=5_u32, 0..=3_u32)
            .prop_map(|(first, count, stride)| Step::Vmap { first, count, stride }),
        2 => bytes().prop_map(|bytes| Step::Code { bytes }),
        2 => (1..=2_u32, 0..=3_u32).prop_map(|(large, small)| Step::Huge { large, small }),
        2 => (0..=17_u32, prop_oneof![Just(16), Just(32), 14..=32_u32])
            .prop_map(|(first, count)| Step::VmapRun { first, count }),
        4 => (pick(), prop_oneof![5 => 1..=5_u32, 1 => 60..=70_u32], 0..=3_u32)
            .prop_map(|(first, count, stride)| Step::MapRam { first, count, stride }),
        1 => Just(Step::CloseIdle),
        2 => (0..3 * PAGE_SIZE, bytes()).prop_map(|(offset, bytes)| Step::IoRemap { offset, bytes }),
        3 => bytes().prop_map(|bytes| Step::Coherent { bytes }),
        7 => pick().prop_map(|pick| Step::Remove { pick }),
        3 => (pick(), 0..2_usize).prop_map(|(pick, cpu)| Step::Write { pick, cpu }),
        2 => pick().prop_map(|pick| Step::DeviceWrite { pick }),
        2 => (pick(), mistake).prop_map(|(pick, how)| Step::WrongFree { pick, how }),
        1 => (0..6_u32).prop_map(|left| Step::Famine { left }),
        1 => pick().prop_map(|bytes| Step::Absurd { bytes }),
        2 => (pick(), 1..=5_u32).prop_map(|(first, count)| Step::Bare { first, count }),
        1 => (pick(), pick()).prop_map(|(pick, first)| Step::Remap { pick, first }),
        3 => (pick(), 1..=9_u32, any::<bool>())
            .prop_map(|(pick, pages, zeroed)| Step::Resize { pick, pages, zeroed }),
        2 => (0..0x2_0000_u32, 0..0x4_0000_u32, any::<bool>())
            .prop_map(|(from, bytes, writing)| Step::Copy { from, bytes, writing }),
    ]
}

fn behaviours() -> impl Strategy<Value = Behaviour> {
    prop_oneof![
        1 => Just(Behaviour::Hoarding),
        1 => Just(Behaviour::Forgetful),
        4 => any::<u64>().prop_map(Behaviour::Random),
    ]
}

#[test]
fn model_tables_cpus_and_device_agree_after_every_step() {
    let histories = (behaviours(), vec(steps(), 1..25));
    properties::run::prove(
        "-p machine --test suite",
        "kernel_space::history::model_tables_cpus_and_device_agree_after_every_step",
        24,
        &histories,
        |(behaviour, steps)| {
            live(&Bed::on(behaviour), &steps, Audits::AfterEachStep);
            Ok(())
        },
    );
}

/// A CPU that forgets one kind of step.
#[derive(Clone)]
struct Forgets {
    cpu: SoftCpu<'static>,
    step: Forgotten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgotten {
    Nothing,
    Invalidation,
    DescriptorClean,
    BufferClean,
    Zeroing,
}

impl Machine for Forgets {
    type Authority = ();

    fn clean_descriptors(&self, first: PhysAddr, count: u32) {
        if self.step != Forgotten::DescriptorClean {
            self.cpu.clean_descriptors(first, count);
        }
    }

    fn invalidate_tlb(&self, pages: PageRange) {
        if self.step != Forgotten::Invalidation {
            self.cpu.invalidate_tlb(pages);
        }
    }

    fn clean_and_invalidate(&self, pages: PageRange, first: Pfn) {
        if self.step != Forgotten::BufferClean {
            self.cpu.clean_and_invalidate(pages, first);
        }
    }

    fn zero_pages(&self, pages: PageRange) {
        if self.step != Forgotten::Zeroing {
            self.cpu.zero_pages(pages);
        }
    }

    pass_on!(cpu: read_descriptor write_descriptors barrier in_interrupt cpu);
}

/// The comparison has teeth: one short history on the hoarding machine finds each wrong CPU, and not the right one.
#[test]
fn a_cpu_that_forgets_a_step_disagrees() {
    let steps = [
        Step::Vmalloc { bytes: 2 * PAGE_SIZE, zeroed: false },
        Step::Write { pick: 0, cpu: 0 },
        Step::Remove { pick: 0 },
        Step::Vmalloc { bytes: 2 * PAGE_SIZE, zeroed: true },
        Step::Coherent { bytes: PAGE_SIZE },
        Step::DeviceWrite { pick: 1 },
    ];
    let survives = |step| {
        let lives = || {
            let bed = Bed::driven_by(Behaviour::Hoarding, |machine| Forgets {
                cpu: machine.cpu(0),
                step,
            });
            live(&bed, &steps, Audits::AfterEachStep);
        };
        std::panic::catch_unwind(lives).is_ok()
    };
    assert!(survives(Forgotten::Nothing));
    for step in [
        Forgotten::Invalidation,
        Forgotten::DescriptorClean,
        Forgotten::BufferClean,
        Forgotten::Zeroing,
    ] {
        assert!(!survives(step), "{step:?} was forgotten and nothing disagreed");
    }
}
