//! `mmf ls`.

use mmf::Listed;
use serde_json::json;

use crate::cli::LsArgs;
use crate::failure::Result;
use crate::output::{Align, Sizes, Table, print, print_json};

pub(crate) fn run(args: LsArgs) -> Result<()> {
    let objects = mmf::list()?;
    if args.json {
        return print_json(&objects.iter().map(as_json).collect::<Vec<_>>());
    }
    if objects.is_empty() {
        return Ok(());
    }
    let sizes = Sizes::for_stdout(args.bytes);
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("SIZE", Align::Right),
        ("OWNER", Align::Left),
        ("PERMISSIONS", Align::Left),
    ]);
    for object in objects {
        let (owner, permissions) = match object.info {
            Some(info) => (info.owner, info.permissions),
            None => ("?".to_owned(), "?".to_owned()),
        };
        let size = object.size.map_or_else(|| "?".to_owned(), |size| sizes.show(size));
        table.row([object.name.to_string(), size, owner, permissions]);
    }
    print(&table.text())
}

fn as_json(object: &Listed) -> serde_json::Value {
    let info = object.info.as_ref();
    json!({
        "object": object.name.to_string(),
        "size": object.size,
        "owner": info.map(|info| &info.owner),
        "permissions": info.map(|info| &info.permissions),
        "location": info.and_then(|info| info.location.as_ref()),
    })
}
