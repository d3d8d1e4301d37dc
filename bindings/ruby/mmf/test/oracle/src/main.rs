//! `oracle write FILE` sets a key of each type in a dict; `oracle read FILE` makes sure that they hold the same.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::process::ExitCode;

use mmf::Dict;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Point {
    x: i32,
    label: Option<String>,
}

/// Sets or checks, and is told every value once.
enum Task<'a> {
    Write(&'a Dict),
    Read(&'a Dict),
}

impl Task<'_> {
    fn each<T: Serialize + DeserializeOwned + PartialEq + Debug>(&self, key: &str, value: T) -> Outcome {
        match self {
            Task::Write(dict) => drop(dict.set(key, &value)?),
            Task::Read(dict) => {
                let found = dict.get::<T>(key)?;
                if found.as_ref() != Some(&value) {
                    return Err(format!("{key}: {found:?} where {value:?} should be").into());
                }
            }
        }
        Ok(())
    }

    fn all(&self) -> Outcome {
        self.each("nil", None::<u8>)?;
        self.each("true", true)?;
        self.each("false", false)?;
        let edges = [0, 1, 127, 128, 255, 256, 65_535, 65_536, 4_294_967_295, 4_294_967_296, i64::MAX];
        for number in edges {
            self.each(&format!("int {number}"), number)?;
        }
        for number in [-1, -32, -33, -128, -129, -32_768, -32_769, -2_147_483_648, -2_147_483_649, i64::MIN] {
            self.each(&format!("int {number}"), number)?;
        }
        self.each(&format!("int {}", u64::MAX), u64::MAX)?;
        self.each("float", 1.5_f64)?;
        self.each("infinity", f64::INFINITY)?;
        for len in [0, 31, 32, 255, 256, 65_535, 65_536] {
            self.each(&format!("text {len}"), "x".repeat(len))?;
        }
        self.each("unicode", "grüße €".to_owned())?;
        for len in [0_u32, 15, 16, 65_535, 65_536] {
            self.each(&format!("list {len}"), (0..len).collect::<Vec<u32>>())?;
        }
        for len in [0_u32, 15, 16, 65_536] {
            self.each(&format!("map {len}"), (0..len).map(|n| (n, n + 1)).collect::<BTreeMap<u32, u32>>())?;
        }
        self.each("point", Point { x: -5, label: Some("here".to_owned()) })?;
        self.each("nested", vec![vec![Point { x: 1, label: None }]])
    }
}

fn run() -> Outcome {
    let mut args = std::env::args().skip(1);
    let (task, file) = (args.next().unwrap_or_default(), args.next().unwrap_or_default());
    let dict = Dict::open(std::path::Path::new(&file))?;
    if task == "write" {
        dict.set_bytes("bytes", &[0, 255])?;
        return Task::Write(&dict).all();
    }
    if dict.get_bytes("bytes")?.as_deref() != Some(&[0xc4, 2, 0, 255]) {
        return Err("bytes are something else".into());
    }
    Task::Read(&dict).all()
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
