//! `mmf info`.

use mmf::{Access, ErrorKind, Mapping};
use serde::Serialize;

use crate::cli::InfoArgs;
use crate::failure::Result;
use crate::output::{Align, Table, print, print_json};
use crate::size::human;

pub(crate) fn run(args: InfoArgs) -> Result<()> {
    let object = &args.object;
    let map = object.open(Access::ReadOnly, args.any_owner)?;
    let writable = Mapping::options().allow_other_owners(args.any_owner).open(object.source());
    let access = match writable.as_ref().map_err(mmf::Error::kind) {
        Ok(_) => "read and write",
        Err(ErrorKind::PermissionDenied | ErrorKind::ReadOnly) => "read only",
        Err(_) => "read; writing fails",
    };
    let info = map.info()?;
    let size = map.len() as u64;
    if args.json {
        return print_json(&About {
            object: object.to_string(),
            size,
            page_size: mmf::page_size(),
            owner: info.owner,
            permissions: info.permissions,
            writable: writable.is_ok(),
            location: info.location,
        });
    }
    let mut table = Table::new([("object", Align::Left), (&object.to_string(), Align::Left)]);
    let exact = if size < 1024 { format!("{size} bytes") } else { format!("{size} bytes ({})", human(size)) };
    let mut tell = |what: &str, value: String| table.row([what.to_owned(), value]);
    tell("size", exact);
    tell("pages of", format!("{} bytes", mmf::page_size()));
    tell("owner", info.owner);
    tell("permissions", info.permissions);
    tell("you may", access.to_owned());
    if let Some(location) = info.location {
        tell("location", location);
    }
    print(&table.text())
}

/// An object as JSON.
#[derive(Serialize)]
struct About {
    object: String,
    size: u64,
    page_size: usize,
    owner: String,
    permissions: String,
    writable: bool,
    location: Option<String>,
}
