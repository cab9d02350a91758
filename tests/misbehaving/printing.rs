//! Workers that print too much, or too little.

use std::fs;

use crate::fleet::Fleet;

#[test]
fn a_flood_of_output_is_bounded_by_rotation() {
    let fleet = Fleet::running(
        &["print=before", "flood=30", "print=after", "hang"],
        "ready = { log = \"after\" }\nlog = { max_size = \"4M\", keep = 2 }",
    );
    assert!(fleet.printed().contains("after"), "the last line is there");
    let logs = fleet.file("logs").join("web");
    let sizes: Vec<u64> = fs::read_dir(&logs)
        .expect("it has logged")
        .map(|entry| entry.and_then(|entry| entry.metadata()).expect("a log file").len())
        .collect();
    let (total, most) = (sizes.iter().sum::<u64>(), sizes.iter().max().copied().unwrap_or(0));
    assert!(sizes.len() > 3 && total < 20 << 20, "{total} bytes are kept, in {sizes:?}");
    assert!(most < 6 << 20, "files are rotated at 4 MiB, one has {most} bytes");
}

#[test]
fn what_is_printed_without_a_newline_shows_up() {
    let fleet = Fleet::running(&["print-unended=half a line", "hang"], "ready = { log = \"half\" }");
    assert!(fleet.printed().contains("half a line"));
}

#[test]
fn the_last_words_without_a_newline_of_a_worker_that_crashed_show_up() {
    let fleet = Fleet::new();
    fleet.plain(&["print-unended=so long", "exit=3"], "restart = { policy = \"never\" }\nready = { notify = true }");
    let result = fleet.failing_start();
    assert_eq!(result.log_tail.last().map(String::as_str), Some("so long"), "{result:#?}");
    assert!(fleet.printed().contains("so long"));
}
