//! Any options over any source, and any operations then: a vector of bytes must agree with what the mapping does.

#![no_main]

mod model;

use std::fs;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mmf::{Access, ErrorKind, FaultPolicy, LargePages, Mapping, MappingOptions, Name, Permissions};
use model::{Model, Number, Operation};
use testkit::{TempDir, unique_name};

#[derive(Arbitrary, Debug)]
struct Input {
    source: From,
    how: How,
    options: Asked,
    operations: Vec<Operation>,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum From {
    /// A file of so many bytes, or none.
    File(Option<u16>),
    Local,
    Exact,
    Anonymous,
    Passed(u16),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum How {
    Create,
    Open,
    OpenOrCreate,
}

#[derive(Arbitrary, Debug)]
struct Asked {
    access: u8,
    policy: u8,
    size: Option<Number>,
    reserve: Option<Number>,
    part: Option<(Number, Option<Number>)>,
    permissions: Option<u16>,
    base_address: Option<Number>,
    flags: u8,
}

impl Asked {
    fn access(&self) -> Access {
        [Access::ReadWrite, Access::ReadOnly, Access::CopyOnWrite][usize::from(self.access % 3)]
    }

    /// Plain access too: nothing here is taken away.
    fn policy(&self) -> FaultPolicy {
        [FaultPolicy::Trap, FaultPolicy::SystemCalls, FaultPolicy::Unguarded][usize::from(self.policy % 3)]
    }

    fn options(&self) -> MappingOptions {
        let flag = |bit: u8| self.flags & 1 << bit != 0;
        let mut options = Mapping::options().access(self.access()).fault_policy(self.policy());
        options = options.prefault(flag(0)).inheritable(flag(1)).allow_other_owners(flag(2));
        if flag(3) {
            options = options.large_pages(LargePages::Prefer);
        }
        if let Some(size) = self.size {
            options = options.size(size.bytes());
        }
        if let Some(reserve) = self.reserve {
            options = options.reserve(reserve.bytes());
        }
        match self.part {
            Some((from, Some(to))) => options = options.part(from.bytes()..to.bytes()),
            Some((from, None)) => options = options.part(from.bytes()..),
            None => {}
        }
        if let Some(mode) = self.permissions {
            options = options.permissions(Permissions::Mode(u32::from(mode)));
        }
        if let Some(address) = self.base_address {
            // Far from what is mapped here, so that nothing but the address decides.
            options = options.base_address((1 << 44) + usize::try_from(address.bytes() % (1 << 30)).unwrap_or(0));
        }
        options
    }
}

fuzz_target!(|input: Input| {
    let options = input.options.options();
    let dir = matches!(input.source, From::File(_)).then(TempDir::new);
    let path = dir.as_ref().map(|dir| dir.join("file"));
    let mut before = None;
    let opened = match (input.source, &path) {
        (From::File(len), Some(path)) => {
            if let Some(len) = len {
                let bytes = model::pattern(usize::from(len));
                fs::write(path, &bytes).unwrap_or_else(|error| panic!("{error}"));
                before = Some(bytes);
            }
            match input.how {
                How::Create => options.create_new(path),
                How::Open => options.open(path),
                How::OpenOrCreate => options.open_or_create(path),
            }
        }
        (From::Local | From::Exact, _) => {
            let name = fresh(input.source);
            let opened = match input.how {
                How::Create => options.create_new(&name),
                How::Open => options.open(&name),
                How::OpenOrCreate => options.open_or_create(&name),
            };
            if input.source == From::Exact && cfg!(unix) {
                let _ = name.unlink();
            }
            opened
        }
        (From::Passed(len), _) => {
            let bytes = model::pattern(usize::from(len) + 1);
            let whole = Mapping::anonymous(bytes.len() as u64).unwrap_or_else(|error| panic!("{error}"));
            whole.write_at(0, &bytes).unwrap_or_else(|error| panic!("{error}"));
            before = Some(whole.read_to_vec(0, whole.len()).unwrap_or_else(|error| panic!("{error}")));
            options.from_handle(whole.into_handle())
        }
        _ => options.anonymous(),
    };
    match opened {
        Ok(map) => {
            let asked = &input.options;
            let from = asked.part.map_or(0, |(from, _)| usize::try_from(from.bytes()).unwrap_or(0));
            let mut model = Model::of(&map, from, before.as_deref(), asked.part.is_some());
            for operation in &input.operations {
                model.apply(&map, operation);
            }
            model.compare(&map, path.as_deref(), before.as_deref());
        }
        Err(error) => {
            let told = !matches!(error.kind(), ErrorKind::Other | ErrorKind::Fault { .. } | ErrorKind::Busy);
            assert!(told, "{error}");
            if let (Some(path), Some(before)) = (&path, before) {
                assert!(fs::read(path).is_ok_and(|now| now == before), "{error}: the file was changed");
            }
        }
    }
});

fn fresh(source: From) -> Name {
    let text = unique_name("fuzz");
    let name = match source {
        From::Exact if cfg!(windows) => Name::exact(format!("Local\\{text}")),
        From::Exact => Name::exact(format!("/{text}")),
        _ => Name::local(text),
    };
    name.unwrap_or_else(|error| panic!("{error}"))
}
