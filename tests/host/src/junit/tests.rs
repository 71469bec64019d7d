//! The file, read back by a parser that is not ours.

use std::path::PathBuf;

use roxmltree::Document;

use super::*;
use crate::context::Options;

fn context() -> Context {
    Context::test(Options::default(), PathBuf::from("nowhere"))
}

fn suite(verdicts: Vec<Verdict>) -> Suite {
    Suite { name: "kernel 512M <legacy>".into(), time: Duration::from_millis(1500), verdicts }
}

#[test]
fn a_parser_finds_every_verdict_where_it_was_reached() {
    let skipped = Verdict::new("a::c", Outcome::Skipped("one \"CPU\"".into()));
    let timed = Verdict { time: Some(Duration::from_millis(250)), ..Verdict::passed("a::b::d") };
    let suites = [suite(vec![timed, skipped, Verdict::failed("a::e", "no\nroom")]), suite(vec![])];
    let text = document(&context(), &suites);
    let xml = Document::parse(&text).expect("it is XML");

    let named = |tag| xml.descendants().filter(move |node| node.has_tag_name(tag));
    let suite = named("testsuite").next().expect("a suite");
    let numbers = ["tests", "failures", "skipped", "time"].map(|name| suite.attribute(name));
    assert_eq!(numbers, [Some("3"), Some("1"), Some("1"), Some("1.500")]);
    assert_eq!(named("testsuite").count(), 1, "one without tests is left out");
    let cases: Vec<_> = named("testcase").collect();
    assert_eq!(cases[0].attribute("classname"), Some("kernel 512M <legacy>.a.b"));
    assert_eq!(
        (cases[0].attribute("name"), cases[0].attribute("time")),
        (Some("d"), Some("0.250"))
    );
    let reason = named("skipped").next().and_then(|node| node.attribute("message"));
    assert_eq!(reason, Some("one \"CPU\""));
    let failure = named("failure").next().expect("a failure");
    assert_eq!(failure.attribute("message"), Some("no"));
    assert_eq!(failure.text(), Some("no\nroom\nagain: make test SEED=7 FILTER=a::e"));
}

#[test]
fn no_character_that_an_image_may_print_breaks_the_file() {
    let all: String = (0..=0x1_0000).filter_map(char::from_u32).collect();
    let text = document(&context(), &[suite(vec![Verdict::failed("a::b", format!("]]>{all}"))])]);
    let xml = Document::parse(&text).expect("it is XML");
    let failure = xml.descendants().find(|node| node.has_tag_name("failure")).expect("a failure");
    let read = failure.text().expect("it has a text");
    for part in ["]]>", "\\u{0}", "\\u{1b}", "&", "<", "\"", "\\u{ffff}", "\u{10000}"] {
        assert!(read.contains(part), "{part:?}");
    }
}
