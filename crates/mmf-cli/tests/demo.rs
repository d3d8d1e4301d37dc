//! `mmf demo` tells what it verified, and ends.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a failed check is a failed test")]

mod common;

use common::mmf;

#[test]
fn bytes_and_attributes_are_shared_and_deaths_cost_nothing() {
    let told = mmf(["demo", "--size", "1M", "--readers", "1", "--json"]).exits(0).json();
    assert_eq!(told["rows"].as_array().unwrap().len(), 5);
    let dict = &told["dict"];
    assert_eq!(dict["killed"], 5);
    for figure in ["transactions", "reads", "changes"] {
        assert!(dict[figure].as_u64() > Some(0), "{figure}: {dict}");
    }
}

#[test]
fn people_are_told_in_sentences() {
    let told = mmf(["demo", "--size", "1M", "--readers", "1"]).exits(0).text();
    for part in ["Sharing 1 MiB", "localhost TCP", "in a dict", "No value was torn", "was killed at it"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
