use super::*;

const LIMITS: Limits = Limits {
    coherent_pool: SizeLimit::up_to(64 << 20, Bound::AddressMap),
    contiguous: SizeLimit { least: 4 << 20, most: 1 << 30, unit: 4 << 20, bound: MAP },
    bounce: SizeLimit::up_to(4 << 20, Bound::LargestBlock),
    vmalloc: SizeLimit { least: 16 << 20, most: 768 << 20, unit: 1 << 20, bound: MAP },
    memory: SizeLimit { least: 16 << 20, most: 1 << 30, unit: PAGE_SIZE, bound: Bound::Board },
    low_memory: SizeLimit { least: 32 << 20, most: 1 << 30, unit: 4 << 20, bound: MAP },
};

const MAP: Bound = Bound::AddressMap;

/// The configuration and the lines that were complained of.
fn parse(line: &str) -> (Config<'_>, Vec<String>) {
    let mut lines = Vec::new();
    let config = Config::parse(line, &LIMITS, |complaint| lines.push(complaint.to_string()));
    (config, lines)
}

#[track_caller]
fn one_complaint(parameter: &str, line: &str) {
    let command = format!("kernel.elf seed=1 {parameter} from=2");
    let (config, lines) = parse(&command);
    assert_eq!(lines, [line]);
    let expected = Config { seed: Some(1), from: Some(2), ..Config::DEFAULT };
    assert_eq!(config, expected, "ignored, and the others still count");
}

#[test]
fn s114_every_parameter_lands_in_its_field() {
    let (config, lines) = parse(
        "target/kernel.elf coherent_pool=1M swiotlb=2M,force dma_debug=on cma=8M vmalloc=0x10000000 mem=512m lowmem=64M numa=fake=2 loglevel=4 test=vmalloc:: \
         seed=18446744073709551615 from=17 fatal=vfree_in_interrupt fail-nth=3 operations=5 list \
         nohugevmalloc ioremap=shared monitor screen vmallocinfo witness=uart1",
    );
    assert_eq!(lines, [""; 0]);
    let expected = Config {
        coherent_pool: 1 << 20,
        contiguous: Some(8 << 20),
        bounce: 2 << 20,
        copies: Copies::Always,
        dma_checks: DmaChecks::On,
        vmalloc: Some(256 << 20),
        memory: Memory::Bytes(512 << 20),
        low_memory: Some(64 << 20),
        nodes: Nodes::Two,
        log_level: 4,
        test_filter: Some("vmalloc::"),
        seed: Some(u64::MAX),
        from: Some(17),
        fatal: Some("vfree_in_interrupt"),
        fail_nth: NonZeroU32::new(3),
        operations: Some(5),
        list: true,
        large_mappings: LargeMappings::Forbidden,
        ioremap: IoMappings::Shared,
        monitor: true,
        screen: Screen::Memory,
        vmallocinfo: true,
        witness: Some("uart1"),
    };
    assert_eq!(config, expected);
}

#[test]
fn bounce_buffers_have_a_size_or_are_forced_or_both_s106() {
    for (line, bounce, copies) in [
        ("swiotlb=1M", 1 << 20, Copies::WhereNeeded),
        ("swiotlb=force", DEFAULT_BOUNCE, Copies::Always),
        ("swiotlb=64K,force", 64 << 10, Copies::Always),
        // Of several the last one counts, and what the others said besides does not.
        ("swiotlb=force swiotlb=8K", 8 << 10, Copies::WhereNeeded),
        ("swiotlb=4M,force swiotlb=64K", 64 << 10, Copies::WhereNeeded),
        ("swiotlb=4M swiotlb=force", DEFAULT_BOUNCE, Copies::Always),
        ("swiotlb=64K swiotlb=4M,force", 4 << 20, Copies::Always),
        ("", DEFAULT_BOUNCE, Copies::WhereNeeded),
    ] {
        let words = format!("kernel.elf {line}");
        assert_eq!(parse(&words), (Config { bounce, copies, ..Config::DEFAULT }, Vec::new()));
    }
    let words = "not one of: a size, force, both with a comma, ignored";
    for wrong in ["swiotlb=1M,1M", "swiotlb=1M,", "swiotlb=force,1M"] {
        one_complaint(wrong, &format!("{wrong}: {words}"));
    }
    one_complaint(
        "swiotlb=fast",
        "swiotlb=fast: not a size (digits, then at most one of K, M, G), using 512 KiB",
    );
    // What cannot be used changes nothing.
    for wrong in ["fast", "8M", "8M,force", "1M,1M"] {
        let line = format!("k swiotlb=64K,force swiotlb={wrong}");
        let (config, lines) = parse(&line);
        assert_eq!((config.bounce, config.copies), (64 << 10, Copies::Always));
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
    one_complaint("swiotlb", "swiotlb: a value is missing, using 512 KiB");
    one_complaint("dma_debug=1", "dma_debug=1: not one of: on, off, ignored");
}

/// They are one block of adjacent frames: who wants more is told that, and from the first byte on.
#[test]
fn bounce_buffers_have_the_largest_block_at_most_s106() {
    assert_eq!(parse("k swiotlb=4M").0.bounce, 4 << 20);
    for wrong in ["8M", "4097K", "0x400001", "4194305", "4G", "0x100001000", "15E"] {
        let word = format!("swiotlb={wrong}");
        let line = format!(
            "{word}: more than the largest block of adjacent frames has (4 MiB), using 512 KiB"
        );
        one_complaint(&word, &line);
    }
    for wrong in ["0", "1", "4095", "07777"] {
        let word = format!("swiotlb={wrong}");
        one_complaint(&word, &format!("{word}: less than 4 KiB, using 512 KiB"));
    }
    let (config, lines) = parse("k swiotlb=8193,force");
    assert_eq!((config.bounce, config.copies), (8192, Copies::Always));
    let line = "swiotlb=8193,force: not a multiple of 4 KiB, the rest is unusable, using 8 KiB";
    assert_eq!(lines, [line]);
    // `force` does not stand where its size falls.
    for (line, bounce) in
        [("k swiotlb=8M,force", DEFAULT_BOUNCE), ("k swiotlb=64K swiotlb=8M,force", 64 << 10)]
    {
        let (config, lines) = parse(line);
        assert_eq!((config.bounce, config.copies), (bounce, Copies::WhereNeeded), "{line}");
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}

#[test]
fn sizes_are_named_in_the_largest_unit_that_divides_them() {
    for (bytes, words) in [
        (0, "0 bytes"),
        (1, "1 bytes"),
        (1000, "1000 bytes"),
        (1 << 10, "1 KiB"),
        (1536, "1536 bytes"),
        (3 << 19, "1536 KiB"),
        (5 << 20, "5 MiB"),
        (3 << 29, "1536 MiB"),
        (1 << 30, "1 GiB"),
    ] {
        let complaint = Complaint { word: "w", why: Why::Unknown, instead: Instead::Bytes(bytes) };
        assert_eq!(complaint.to_string(), format!("w: unknown parameter, using {words}"));
    }
}

#[test]
fn the_first_word_is_the_kernels_path_whatever_it_looks_like() {
    for line in ["", "   ", "kernel.elf", "mem=64M", "  list  ", "\tfrom=0\n"] {
        assert_eq!(parse(line), (Config::DEFAULT, vec![]), "{line:?}");
    }
    assert_eq!(parse("list list").0, Config { list: true, ..Config::DEFAULT });
}

#[test]
fn s114_unknown_words_are_named_and_passed_over() {
    one_complaint("colour=red", "colour=red: unknown parameter, ignored");
    one_complaint("quiet", "quiet: unknown parameter, ignored");
    one_complaint("=5", "=5: unknown parameter, ignored");
    one_complaint("memory=64M", "memory=64M: unknown parameter, ignored");
    one_complaint("MEM=64M", "MEM=64M: unknown parameter, ignored");
}

#[test]
fn s114_malformed_values_are_ignored_with_the_reason() {
    one_complaint("mem=", "mem=: a value is missing, using the default");
    one_complaint("mem", "mem: a value is missing, using the default");
    one_complaint(
        "vmalloc=big",
        "vmalloc=big: not a size (digits, then at most one of K, M, G), using the default",
    );
    one_complaint(
        "coherent_pool=4Mx",
        "coherent_pool=4Mx: not a size (digits, then at most one of K, M, G), using 256 KiB",
    );
    one_complaint(
        "mem=99999999999999999999",
        "mem=99999999999999999999: does not fit 64 bits, using the default",
    );
    one_complaint("mem=16E", "mem=16E: does not fit 64 bits, using the default");
    one_complaint("test=", "test=: a value is missing, ignored");
    one_complaint("fatal", "fatal: a value is missing, ignored");
    one_complaint("operations", "operations: a value is missing, using the default");
    one_complaint("fail_nth=0", "fail_nth=0: not between 1 and 4294967295, using the default");
}

#[test]
fn s101_the_contiguous_region_has_whole_blocks() {
    one_complaint("cma=", "cma=: a value is missing, using the default");
    one_complaint(
        "cma=lots",
        "cma=lots: not a size (digits, then at most one of K, M, G), using the default",
    );
    one_complaint("cma=3M", "cma=3M: less than 4 MiB, using the default");
    one_complaint("cma=2G", "cma=2G: more than the address map allows (1 GiB), using the default");
    let (config, lines) = parse("kernel.elf cma=8M cma=9M");
    assert_eq!(config.contiguous, Some(8 << 20));
    assert_eq!(lines, ["cma=9M: not a multiple of 4 MiB, the rest is unusable, using 8 MiB"]);
    assert_eq!(parse("kernel.elf").0.contiguous, None);
}

#[test]
fn s114_sizes_that_the_address_map_does_not_allow_are_ignored() {
    // 4 GiB and 64 KiB: cut to 32 bits it would pass.
    one_complaint(
        "coherent_pool=0x100010000",
        "coherent_pool=0x100010000: more than the address map allows (64 MiB), using 256 KiB",
    );
    one_complaint(
        "vmalloc=769M",
        "vmalloc=769M: more than the address map allows (768 MiB), using the default",
    );
    one_complaint("mem=2G", "mem=2G: more than the board can have (1 GiB), using the default");
    one_complaint("mem=15M", "mem=15M: less than 16 MiB, using the default");
    assert_eq!(
        parse("k mem=1G vmalloc=768M coherent_pool=64M").1,
        [""; 0],
        "the limits themselves"
    );
}

#[test]
fn s69_a_pool_of_nothing_is_refused_and_a_tail_is_cut_off() {
    one_complaint("coherent_pool=0", "coherent_pool=0: less than 4 KiB, using 256 KiB");
    one_complaint("coherent_pool=4095", "coherent_pool=4095: less than 4 KiB, using 256 KiB");
    let (config, lines) = parse("k coherent_pool=8193");
    assert_eq!(config.coherent_pool, 8192);
    let line = "coherent_pool=8193: not a multiple of 4 KiB, the rest is unusable, using 8 KiB";
    assert_eq!(lines, [line]);
    let (config, lines) = parse("k vmalloc=17000K");
    assert_eq!(config.vmalloc, Some(16 << 20));
    assert_eq!(lines.len(), 1);
}

#[test]
fn numbers_out_of_their_range_keep_what_was_there() {
    let (config, lines) = parse("k loglevel=3 loglevel=9 from=0 seed=-1 seed=0x20 seed=");
    assert_eq!((config.log_level, config.from, config.seed), (3, None, Some(32)));
    assert_eq!(
        lines,
        [
            "loglevel=9: not between 0 and 8, using 3",
            "from=0: not between 1 and 4294967295, using 1",
            "seed=-1: not a number, using the default",
            "seed=: a value is missing, using 32",
        ]
    );
}

#[test]
fn ram_may_be_reported_given_or_probed_s114() {
    assert_eq!(parse("k").0.memory, Memory::Reported);
    assert_eq!(
        parse("k mem=probe"),
        (Config { memory: Memory::Probed, ..Config::DEFAULT }, vec![])
    );
    assert_eq!(parse("k mem=probe mem=64M").0.memory, Memory::Bytes(64 << 20));
    let (config, lines) = parse("k mem=probe mem=64Q");
    assert_eq!(config.memory, Memory::Probed);
    assert_eq!(lines.len(), 1);
}

#[test]
fn of_a_repeated_parameter_the_last_usable_one_counts() {
    let (config, lines) = parse("k mem=64M mem=128M mem=junk test=a test=b coherent-pool=8K");
    assert_eq!(config.memory, Memory::Bytes(128 << 20));
    assert_eq!(config.test_filter, Some("b"));
    assert_eq!(config.coherent_pool, 8192, "- and _ are the same in a name");
    assert_eq!(
        lines,
        ["mem=junk: not a size (digits, then at most one of K, M, G), using 128 MiB"]
    );
    assert_eq!(parse("k list=1").1, ["list=1: takes no value, ignored"]);
    assert_eq!(parse("k monitor=on").1, ["monitor=on: takes no value, ignored"]);
    assert_eq!(parse("k vmallocinfo=1").1, ["vmallocinfo=1: takes no value, ignored"]);
}

#[test]
fn a_value_may_contain_the_equals_sign() {
    assert_eq!(parse("k test=a=b").0.test_filter, Some("a=b"));
}

/// S117.
#[test]
fn low_memory_and_nodes_are_refused_or_cut_by_name() {
    for (parameter, line) in [
        ("lowmem=", "lowmem=: a value is missing, using the default"),
        ("lowmem=31M", "lowmem=31M: less than 32 MiB, using the default"),
        ("lowmem=2G", "lowmem=2G: more than the address map allows (1 GiB), using the default"),
        ("numa=fake=3", "numa=fake=3: not between 1 and 2, using 1"),
        ("numa=fake=0", "numa=fake=0: not between 1 and 2, using 1"),
        ("numa=off", "numa=off: a value is missing, using 1"),
        ("numa", "numa: a value is missing, using 1"),
    ] {
        one_complaint(parameter, line);
    }
    let (config, lines) = parse("kernel.elf lowmem=66M numa=fake=1");
    assert_eq!(config.low_memory, Some(64 << 20), "borders of zones are borders of largest blocks");
    assert_eq!(config.nodes, Nodes::One);
    assert_eq!(
        lines,
        ["lowmem=66M: not a multiple of 4 MiB, the rest is high memory, using 64 MiB"]
    );
}

/// S57: whose what ioremap maps is; a word that is neither changes nothing.
#[test]
fn ioremap_is_shared_or_its_callers_own() {
    for (line, wanted, complaints) in [
        ("k", IoMappings::Own, 0),
        ("k ioremap=shared", IoMappings::Shared, 0),
        ("k ioremap=shared ioremap=own", IoMappings::Own, 0),
        ("k ioremap=shared ioremap=both", IoMappings::Shared, 1),
        ("k ioremap", IoMappings::Own, 1),
        ("k ioremap=", IoMappings::Own, 1),
    ] {
        let (config, lines) = parse(line);
        assert_eq!((config.ioremap, lines.len()), (wanted, complaints), "{line}: {lines:?}");
    }
    let (_, lines) = parse("k ioremap=both");
    assert!(lines[0].contains("own, shared"), "{lines:?}");
}
