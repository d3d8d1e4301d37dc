//! A second user of the machine plants files, and links to other files, in the place of files that
//! the first user is about to create.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use mmf::{Dict, ErrorKind, Mapping, Region};
use testkit::TempDir;

use crate::support::actor::actor;
use crate::support::intruder::{Intruder, intruder};
use crate::support::second_user::{INTRUDER, SIZE, foreign, linked_error, owner};
use crate::support::stories::{story, tells};
use crate::support::system::NOBODY;

testkit::peers! { actor, intruder, paths }

#[test]
#[ignore = "needs root: becomes other users"]
fn open_or_create_takes_no_file_of_another_user_in_a_directory_that_all_may_write_to() {
    story("paths");
}

fn paths(_: &[&str]) {
    tells(|| {
        let dir = TempDir::new();
        let shared = dir.join("shared");
        let own = dir.join("own");
        for dir in [&shared, &own] {
            fs::create_dir(dir).unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(&own, Some(NOBODY), None).unwrap();
        let mut intruder = Intruder::of(INTRUDER);
        let mut owner = owner();
        for mode in [0o1777, 0o777, 0o1770] {
            fs::set_permissions(&shared, fs::Permissions::from_mode(mode)).unwrap();
            // The intruder and the owner have this group, where it counts.
            chown(&shared, Some(0), Some(0)).unwrap();
            let (planted, link, mine, hard) =
                (shared.join("planted"), shared.join("link"), own.join("mine"), shared.join("hard"));
            let [planted, link, mine, hard] = [&planted, &link, &mine, &hard].map(|path| path.to_str().unwrap());
            owner.does(&format!("create file:{mine} size={SIZE}"));
            owner.does("write 0 precious");
            owner.does("drop");
            if mode == 0o1770 {
                // Root plants in the other's stead: root alone may search the directory.
                fs::write(planted, [0; SIZE]).unwrap();
                chown(planted, Some(INTRUDER), None).unwrap();
                let text = refused(&Mapping::open_or_create(Path::new(planted), 16));
                assert!(text.contains("65533"), "{text}");
                fs::remove_file(planted).unwrap();
                fs::remove_file(mine).unwrap();
                continue;
            }
            intruder.does(&format!("make {planted} 666"));
            intruder.does(&format!("symlink {mine} {link}"));
            for path in [planted, link] {
                let text = owner.is_refused(&format!("make file:{path} size=16"), &foreign());
                assert!(text.contains("user 65533") && text.contains(path), "{text}");
                // Opening a file of another's is what every program may do.
                owner.does(&format!("open file:{path}"));
                owner.does("drop");
                owner.does(&format!("make file:{path} size=16 foreign"));
                owner.does("drop");
            }
            // A link that leads nowhere makes no file, and is told of.
            intruder.does(&format!("remove {link}"));
            intruder.does(&format!("symlink {mine}-missing {link}"));
            owner.is_refused(&format!("make file:{link} size=16"), &foreign());
            assert!(!Path::new(&format!("{mine}-missing")).exists());
            intruder.does(&format!("remove {link}"));
            // The owner's own file, under a name that another user gave it.
            fs::hard_link(mine, hard).unwrap();
            owner.is_refused(&format!("make file:{hard} size=16"), &linked_error());
            owner.does(&format!("open file:{hard}"));
            assert_eq!(owner.does("read 0 8"), "precious");
            owner.does("drop");
            fs::remove_file(hard).unwrap();
            // Where others cannot write, an owner's links are the owner's business.
            let second = format!("{mine}-2");
            fs::hard_link(mine, &second).unwrap();
            owner.does(&format!("make file:{second} size=16"));
            owner.does("drop");
            fs::remove_file(&second).unwrap();
            // Segments follow the same rule; root, whose files all trust, is as careful.
            let path = Path::new(planted);
            refused(&Region::options().capacity(4096).open_or_create(path));
            refused(&Dict::open_or_create(path, 1 << 20));
            // Its own it makes and finds.
            for _ in 0..2 {
                owner.does(&format!("make file:{}/new size=16", shared.display()));
                owner.does("drop");
            }
            fs::remove_file(shared.join("new")).unwrap();
            intruder.does(&format!("remove {planted}"));
            fs::remove_file(mine).unwrap();
        }
        owner.leaves();
        intruder.leaves();
    });
}

#[track_caller]
fn refused<T>(outcome: &mmf::Result<T>) -> String {
    let error = outcome.as_ref().err().expect("another user's");
    assert!(matches!(error.kind(), ErrorKind::ForeignOwner { .. }), "{error}");
    error.to_string()
}
