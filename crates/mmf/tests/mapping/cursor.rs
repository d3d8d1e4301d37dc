//! The cursor behaves as `std::io` requires of a stream of a fixed length.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Cursor as Model, ErrorKind, Read, Seek, SeekFrom, Write};

use mmf::{Access, FaultPolicy, Mapping, page_size};
use testkit::TempDir;

use crate::support::cases::{Case, Kind, POLICIES, pattern};
use crate::support::stories::stories;

stories! {
    what_is_written_is_read_again,
    it_does_what_a_cursor_over_a_slice_does,
    bytes_stream_between_files_and_mappings,
    it_ends_where_the_mapping_ends,
    it_seeks_anywhere_but_before_the_start,
    it_sees_growth,
    a_reader_refuses_to_write,
    an_empty_file_has_nothing_to_read,
    each_cursor_has_a_position_of_its_own,
    what_it_wrote_is_in_the_file,
}

fn what_is_written_is_read_again() {
    for case in Case::all() {
        let made = case.make();
        let mut writer = made.view.cursor();
        let bytes = pattern(1, made.view.len());
        for piece in bytes.chunks(1001) {
            writer.write_all(piece).unwrap();
        }
        assert_eq!(writer.position(), bytes.len() as u64, "{case:?}");
        assert_eq!(made.whole.read_to_vec(made.from(), bytes.len()).unwrap(), bytes, "{case:?}");
        let mut seen = Vec::new();
        assert_eq!(made.view.cursor().read_to_end(&mut seen).unwrap(), bytes.len(), "{case:?}");
        assert_eq!(seen, bytes, "{case:?}");
    }
}

fn it_does_what_a_cursor_over_a_slice_does() {
    let size = 2 * page_size();
    let map = Mapping::anonymous(size as u64).unwrap();
    let (mut ours, mut model) = (map.cursor(), Model::new(vec![0_u8; size].into_boxed_slice()));
    // Enough steps to meet both ends many times.
    let steps = pattern(2, 30_000);
    for step in steps.chunks(6) {
        let n = usize::from(step[1]) * usize::from(step[2] % 32);
        let by = i64::from(i16::from_le_bytes([step[3], step[4]])) / 4;
        match step[0] % 5 {
            0 => {
                let (mut a, mut b) = (vec![1; n], vec![1; n]);
                assert_eq!(ours.read(&mut a).unwrap(), model.read(&mut b).unwrap());
                assert_eq!(a, b);
            }
            1 => {
                let bytes = pattern(step[5], n);
                assert_eq!(ours.write(&bytes).unwrap(), model.write(&bytes).unwrap());
            }
            two @ 2..=4 => {
                let to = match two {
                    2 => SeekFrom::Start(by.unsigned_abs()),
                    3 => SeekFrom::Current(by),
                    _ => SeekFrom::End(by),
                };
                assert_eq!(ours.seek(to).ok(), model.seek(to).ok(), "{to:?}");
            }
            _ => unreachable!(),
        }
        assert_eq!(ours.position(), model.position());
    }
    assert_eq!(map.read_to_vec(0, size).unwrap(), **model.get_ref());
}

fn bytes_stream_between_files_and_mappings() {
    let dir = TempDir::new();
    let text: String = (0..3000).map(|number| format!("line {number}\n")).collect();
    fs::write(dir.join("in"), &text).unwrap();
    for policy in POLICIES {
        let map = Mapping::options().fault_policy(policy).size(text.len() as u64).anonymous().unwrap();
        let copied = io::copy(&mut File::open(dir.join("in")).unwrap(), &mut map.cursor()).unwrap();
        assert_eq!(copied, text.len() as u64);
        let lines = BufReader::new(map.cursor().take(copied)).lines();
        assert_eq!(lines.map(|line| line.unwrap() + "\n").collect::<String>(), text);

        let mut out = BufWriter::new(File::create(dir.join("out")).unwrap());
        io::copy(&mut map.cursor().take(copied), &mut out).unwrap();
        out.flush().unwrap();
        assert_eq!(fs::read_to_string(dir.join("out")).unwrap(), text);
    }
}

fn it_ends_where_the_mapping_ends() {
    for case in Case::all() {
        let made = case.make();
        let len = made.view.len() as u64;
        let mut cursor = made.view.cursor();
        cursor.seek(SeekFrom::End(-3)).unwrap();
        assert_eq!(cursor.write(b"12345").unwrap(), 3, "{case:?}");
        assert_eq!((cursor.write(b"4").unwrap(), cursor.position()), (0, len), "{case:?}");
        assert_eq!(cursor.write_all(b"4").unwrap_err().kind(), ErrorKind::WriteZero, "{case:?}");
        cursor.seek(SeekFrom::Current(-3)).unwrap();
        let mut buffer = [0; 5];
        assert_eq!((cursor.read(&mut buffer).unwrap(), &buffer), (3, b"123\0\0"), "{case:?}");
        assert_eq!(cursor.read(&mut buffer).unwrap(), 0, "{case:?}");
        assert_eq!(cursor.read_exact(&mut buffer).unwrap_err().kind(), ErrorKind::UnexpectedEof, "{case:?}");
        assert_eq!(cursor.position(), len, "{case:?}");
    }
}

fn it_seeks_anywhere_but_before_the_start() {
    let map = Mapping::anonymous(page_size() as u64).unwrap();
    let mut cursor = map.cursor();
    for far in [page_size() as u64 + 1, i64::MAX as u64, u64::MAX] {
        assert_eq!(cursor.seek(SeekFrom::Start(far)).unwrap(), far);
        assert_eq!(cursor.stream_position().unwrap(), far);
        assert_eq!(cursor.read(&mut [0; 9]).unwrap(), 0);
        assert_eq!(cursor.write(&[0; 9]).unwrap(), 0);
        assert_eq!(cursor.position(), far);
    }
    assert_eq!(cursor.seek(SeekFrom::Current(1)).unwrap_err().kind(), ErrorKind::InvalidInput);
    for before in [SeekFrom::End(-(page_size() as i64) - 1), SeekFrom::End(i64::MIN), SeekFrom::Current(i64::MIN)] {
        cursor.seek(SeekFrom::Start(5)).unwrap();
        assert_eq!(cursor.seek(before).unwrap_err().kind(), ErrorKind::InvalidInput, "{before:?}");
        assert_eq!(cursor.position(), 5, "a refused seek stays");
    }
    assert_eq!(cursor.seek(SeekFrom::End(-1)).unwrap(), page_size() as u64 - 1);
    cursor.rewind().unwrap();
    assert_eq!(cursor.position(), 0);
}

fn it_sees_growth() {
    let page = page_size();
    for kind in Kind::all().into_iter().filter(|kind| *kind != Kind::Anonymous) {
        let case = Case { kind, part: None, policy: FaultPolicy::Trap, access: Access::ReadWrite };
        let made = case.make_with(page, Mapping::options().reserve(8 * page as u64));
        let mut cursor = made.view.cursor();
        assert_eq!(cursor.seek(SeekFrom::End(0)).unwrap(), page as u64);
        assert_eq!(cursor.read(&mut [0]).unwrap(), 0);
        made.whole.grow(2 * page).unwrap();
        made.whole.write_at(page, b"behind the old end").unwrap();
        let mut text = [0; 18];
        cursor.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"behind the old end", "{kind:?}");
        made.whole.grow(3 * page).unwrap();
        assert_eq!(cursor.seek(SeekFrom::End(-1)).unwrap(), 3 * page as u64 - 1, "{kind:?}");
        cursor.write_all(b"!").unwrap();
        assert_eq!(made.whole.read_to_vec(3 * page - 1, 1).unwrap(), b"!", "{kind:?}");
    }
}

fn a_reader_refuses_to_write() {
    for case in Case::all().into_iter().filter(|case| case.kind != Kind::Anonymous) {
        let made = Case { access: Access::ReadOnly, ..case }.make();
        let mut cursor = made.view.cursor();
        let error = cursor.write(b"no").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{case:?}");
        let inner = error.get_ref().unwrap().downcast_ref::<mmf::Error>().unwrap();
        assert_eq!(*inner.kind(), mmf::ErrorKind::ReadOnly, "{case:?}");
        assert_eq!(cursor.position(), 0, "{case:?}");
        cursor.read_exact(&mut [0; 2]).unwrap();
        cursor.flush().unwrap();
    }
}

fn an_empty_file_has_nothing_to_read() {
    let dir = TempDir::new();
    File::create(dir.join("empty")).unwrap();
    let map = Mapping::open(dir.join("empty")).unwrap();
    let mut cursor = map.cursor();
    assert_eq!(cursor.read(&mut [0; 9]).unwrap(), 0);
    assert_eq!(cursor.write(&[0; 9]).unwrap(), 0);
    assert_eq!(cursor.seek(SeekFrom::End(0)).unwrap(), 0);
    cursor.flush().unwrap();
    map.grow(9).unwrap();
    assert_eq!(cursor.write(&[7; 19]).unwrap(), 9);
    assert_eq!(fs::read(dir.join("empty")).unwrap(), [7; 9]);
}

fn each_cursor_has_a_position_of_its_own() {
    let map = Mapping::anonymous(100).unwrap();
    let mut one = map.cursor();
    one.write_all(b"one").unwrap();
    let mut two = one.clone();
    two.write_all(b"two").unwrap();
    assert_eq!((one.position(), two.position(), map.cursor().position()), (3, 6, 0));
    one.write_all(b"ONE").unwrap();
    assert_eq!(map.read_to_vec(0, 7).unwrap(), b"oneONE\0");
}

fn what_it_wrote_is_in_the_file() {
    let dir = TempDir::new();
    let map = Mapping::create_new(dir.join("file"), 100).unwrap();
    let mut cursor = map.cursor();
    write!(cursor, "{}-{}", 1, 2).unwrap();
    cursor.flush().unwrap();
    assert_eq!(&fs::read(dir.join("file")).unwrap()[..4], b"1-2\0");
}
