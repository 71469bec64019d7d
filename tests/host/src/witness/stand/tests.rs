//! Requests as a kernel might send them.

use super::*;

const HEAD: &str = "q 7 0 0x6000204a 0x6000404a 0x11 0x1 0x30c5187d vmap::maps";
const LINE: &str = "r guard 0xc0045000 - - - - - Translation(Second) Translation(Second) -";

fn read(lines: &[&str]) -> (Request, Option<Request>) {
    let mut request = Request::default();
    let mut whole = None;
    for line in lines {
        whole = request.take_in(line);
    }
    (request, whole)
}

#[test]
fn a_request_is_whole_with_its_last_line_and_the_next_begins_anew() {
    let (rest, whole) = read(&[HEAD, LINE, LINE, "e 7"]);
    let whole = whole.expect("whole");
    assert_eq!((whole.testimonies.len(), whole.wrong), (2, None));
    assert!(!rest.is_begun());
    let (rest, whole) = read(&[HEAD, LINE]);
    assert!(rest.is_begun() && whole.is_none());
}

#[test]
fn what_is_no_request_is_answered_all_the_same() {
    for (lines, wrong) in [
        ([HEAD, "r guard", "e 7"].as_slice(), "no part of a request"),
        (&[HEAD, HEAD, "e 7"], "no part of a request"),
        (&[HEAD, LINE, "e 8"], "did not begin so"),
        (&[LINE, "e 7"], "did not begin so"),
    ] {
        let (_, whole) = read(lines);
        let had = whole.expect("whole").wrong.expect("something wrong");
        assert!(had.contains(wrong), "{had}");
    }
}

#[test]
fn a_folder_with_a_long_name_is_no_hindrance() {
    let stand = Stand::open(Path::new(&"long/".repeat(40)), 0).expect("a stand elsewhere");
    assert!(stand.uart.as_os_str().len() <= LONGEST_NAME, "{}", stand.uart.display());
    let heard = stand.serve(&AtomicBool::new(true));
    assert_eq!((heard.requests, heard.faults), (0, vec![]));
}

#[test]
fn a_boot_that_never_connects_is_not_waited_for() {
    let folder = std::env::temp_dir().join(format!("witness-stand-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let stand = Stand::open(&folder, 0).expect("a stand");
    let heard = stand.serve(&AtomicBool::new(true));
    assert_eq!((heard.requests, heard.faults), (0, vec![]));
    fs::remove_dir_all(&folder).expect("it is empty");
}
