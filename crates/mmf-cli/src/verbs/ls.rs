//! `mmf ls`.

use mmf::{Access, Listed, Region};
use serde::Serialize;

use crate::cli::LsArgs;
use crate::failure::Result;
use crate::object::Object;
use crate::output::{Align, Sizes, Table, print, print_json};

pub(crate) fn run(args: LsArgs) -> Result<()> {
    let objects = mmf::list()?;
    if args.json {
        return print_json(&objects.into_iter().map(Row::from).collect::<Vec<_>>());
    }
    if objects.is_empty() {
        return Ok(());
    }
    let sizes = Sizes::for_stdout(args.bytes);
    let mut table = Table::new([
        ("NAME", Align::Left),
        ("KIND", Align::Left),
        ("SIZE", Align::Right),
        ("OWNER", Align::Left),
        ("PERMISSIONS", Align::Left),
    ]);
    for object in objects {
        let kind = kind(&object).unwrap_or("?");
        let (owner, permissions) = match object.info {
            Some(info) => (info.owner, info.permissions),
            None => ("?".to_owned(), "?".to_owned()),
        };
        let size = object.size.map_or_else(|| "?".to_owned(), |size| sizes.show(size));
        table.row([object.name.to_string(), kind.to_owned(), size, owner, permissions]);
    }
    print(&table.text())
}

/// Its kind, if it still exists and this user may open it.
fn kind(listed: &Listed) -> Option<&'static str> {
    let object = Object::named(listed.name.clone());
    object.open_as_is(Access::ReadOnly, true, Region::DEFAULT_TIMEOUT).ok().map(|opened| opened.kind())
}

/// An object as JSON; `null` stands for what this user may not read.
#[derive(Serialize)]
struct Row {
    object: String,
    kind: Option<&'static str>,
    size: Option<u64>,
    owner: Option<String>,
    permissions: Option<String>,
    location: Option<String>,
}

impl From<Listed> for Row {
    fn from(listed: Listed) -> Self {
        let kind = kind(&listed);
        let info = listed.info.unwrap_or_default();
        let known = |text: String| Some(text).filter(|text| !text.is_empty());
        Row {
            object: listed.name.to_string(),
            kind,
            size: listed.size,
            owner: known(info.owner),
            permissions: known(info.permissions),
            location: info.location,
        }
    }
}
