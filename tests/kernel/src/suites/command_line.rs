//! The running configuration is what the command line says (S114). Odd lines are the parser's tests on the host.

use image::start;
use kerncore::config::{Config, DEFAULT_COHERENT_POOL, Memory, memparse, number};
use kerncore::layout::{VMALLOC_DEFAULT, VMALLOC_END};
use ktest::{Completion, ktest};
use log::LevelFilter;

fn config() -> &'static Config<'static> {
    &start::started().expect("the kernel has started").config
}

/// Gives `check` the value of `name=` on the command line as the host tells it now, of the last if there are several.
fn with_word<R>(name: &str, check: impl FnOnce(Option<&str>) -> R) -> R {
    let mut buffer = [0; 2048];
    let line = arch::semihosting::command_line(&mut buffer).expect("a host that tells");
    let values =
        line.split(' ').skip(1).filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    check(values.last())
}

#[ktest]
fn the_first_word_is_the_kernel_s_path_and_no_parameter() {
    let mut buffer = [0; 2048];
    let line = arch::semihosting::command_line(&mut buffer).expect("a host that tells");
    let path = line.split(' ').next().expect("a first word");
    assert!(!path.is_empty() && !path.contains('='), "{path}");
}

#[ktest]
fn the_seed_is_the_one_given() {
    let given =
        with_word("seed", |word| word.map(|word| number(word).expect("the host writes numbers")));
    assert_eq!(config().seed, given);
}

#[ktest]
fn the_filter_is_the_one_given() {
    with_word("test", |word| {
        assert_eq!(config().test_filter, word.filter(|word| !word.is_empty()));
    });
}

#[ktest]
fn the_first_test_is_the_one_given() {
    let given =
        with_word("from", |word| word.map(|word| number(word).expect("the host writes numbers")));
    assert_eq!(config().from.map(u64::from), given);
}

/// A running test is neither a listing nor one that ends the kernel.
#[ktest]
fn tests_run_in_a_boot_that_is_for_running_tests() {
    assert!(!config().list);
    assert_eq!(config().fatal, None);
}

#[ktest]
fn the_window_is_as_large_as_vmalloc_says_or_the_whole() {
    let window = mm::kernel().window();
    let wanted = config().vmalloc.unwrap_or(VMALLOC_DEFAULT);
    assert_eq!(window.bytes(), wanted);
    assert_eq!(window.end(), VMALLOC_END.page_number(), "its start moves and its end stays");
}

#[ktest]
fn a_usable_vmalloc_is_used() -> Completion {
    let given = with_word("vmalloc", |word| memparse(word?).ok());
    let Some(bytes) = given.and_then(|bytes| u32::try_from(bytes).ok()) else {
        return Completion::Skipped("no usable vmalloc= is given");
    };
    if !(16 << 20..=VMALLOC_DEFAULT).contains(&bytes) {
        return Completion::Skipped("vmalloc= is outside its limits");
    }
    assert_eq!(config().vmalloc, Some(bytes & !0xf_ffff), "whole sections");
    Completion::Ran
}

#[ktest]
fn memory_is_what_mem_says_and_never_more_than_there_is() {
    let ram = start::started().expect("the kernel has started").ram;
    let there = ram.told.unwrap_or(ram.used);
    let wanted = match config().memory {
        Memory::Reported => there,
        Memory::Bytes(bytes) => bytes.min(there),
        Memory::Probed => ram.probed,
    };
    assert_eq!(ram.used, wanted);
    assert_eq!(mm::kernel().zones().total(), ram.used / 4096);
}

#[ktest]
fn the_atomic_pool_is_as_large_as_coherent_pool_says() {
    let given = with_word("coherent_pool", |word| memparse(word?).ok());
    let configured = config().coherent_pool;
    match given {
        None => assert_eq!(configured, DEFAULT_COHERENT_POOL, "S68"),
        Some(bytes) if (4096..=0x4000_0000).contains(&bytes) => {
            assert_eq!(u64::from(configured), bytes & !0xfff);
        }
        Some(_) => assert_eq!(configured, DEFAULT_COHERENT_POOL, "an unusable one is ignored"),
    }
    if let Some(pool) = dma::atomic_pool::usage() {
        assert_eq!(pool.pages, configured / 4096);
    }
}

#[ktest]
fn the_log_is_filtered_as_loglevel_says() {
    let wanted = match config().log_level {
        0..=3 => LevelFilter::Off,
        4 => LevelFilter::Error,
        5 => LevelFilter::Warn,
        6 | 7 => LevelFilter::Info,
        _ => LevelFilter::Trace,
    };
    assert_eq!(log::max_level(), wanted);
}
