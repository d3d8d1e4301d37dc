//! What a dict is compared with: LMDB, a hash map of this process, and Redis.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::RwLock;
use std::time::{Duration, Instant};

use heed::types::{Bytes, Str};
use heed::{Database, Env, EnvFlags, EnvOpenOptions};

use super::Child;
use crate::{consumer, machine};

/// Where files are memory.
const MEMORY: &str = "/dev/shm";

/// A directory that is removed again.
pub(super) struct Dir(pub(super) PathBuf);

impl Dir {
    pub(super) fn new(parent: &Path, what: &str) -> io::Result<Dir> {
        let path = parent.join(format!("mmf-benches-{what}-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Dir(path))
    }

    pub(super) fn in_memory(what: &str) -> io::Result<Dir> {
        Dir::new(Path::new(MEMORY), what)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The same types in this process alone.
pub(super) type Map = RwLock<HashMap<String, Vec<u8>>>;

/// Copies a key's value.
pub(super) fn get(map: &Map, key: &str, into: &mut Vec<u8>) -> io::Result<()> {
    let map = map.read().map_err(|_| io::Error::other("poisoned"))?;
    let value = map.get(key).ok_or_else(missing)?;
    into.clear();
    into.extend_from_slice(value);
    Ok(())
}

/// As whoever has a key and a value of somebody else's puts them there.
pub(super) fn set(map: &Map, key: &str, value: &[u8]) -> io::Result<()> {
    let mut map = map.write().map_err(|_| io::Error::other("poisoned"))?;
    map.insert(key.to_owned(), value.to_vec());
    Ok(())
}

#[cold]
pub(super) fn missing() -> io::Error {
    io::Error::other("a key is not there")
}

/// LMDB without waiting for any disk, written through its map.
pub(super) struct Lmdb {
    pub(super) env: Env,
    pub(super) values: Database<Str, Bytes>,
    _dir: Dir,
}

impl Lmdb {
    /// With room for `bytes`.
    pub(super) fn new(bytes: usize) -> io::Result<Lmdb> {
        let dir = Dir::in_memory("lmdb")?;
        let mut options = EnvOpenOptions::new();
        options.map_size(bytes.next_multiple_of(1 << 20));
        // SAFETY: what these flags endanger is the file after the system died, and it is removed before.
        unsafe { options.flags(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP) };
        // SAFETY: the directory is this process's own, and nobody else opens or changes the file.
        let env = unsafe { options.open(&dir.0) }.map_err(io::Error::other)?;
        let mut txn = env.write_txn().map_err(io::Error::other)?;
        let values = env.create_database(&mut txn, None).map_err(io::Error::other)?;
        txn.commit().map_err(io::Error::other)?;
        Ok(Lmdb { env, values, _dir: dir })
    }

    /// Puts all of these, in one transaction.
    pub(super) fn put<'k>(&self, keys: impl Iterator<Item = &'k str>, value: &[u8]) -> Result<(), heed::Error> {
        let mut txn = self.env.write_txn()?;
        for key in keys {
            self.values.put(&mut txn, key, value)?;
        }
        txn.commit()
    }
}

/// Redis on a socket of its own.
pub(super) struct Redis {
    stream: UnixStream,
    request: Vec<u8>,
    reply: Vec<u8>,
    _server: Child,
    _dir: Dir,
}

impl Redis {
    /// `None` where it is not installed.
    pub(super) fn start() -> io::Result<Option<Redis>> {
        let dir = Dir::in_memory("redis")?;
        let socket = dir.0.join("socket");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        command.current_dir(&dir.0).stdin(Stdio::null()).stdout(Stdio::null());
        // A child begins on its parent's core.
        machine::pin(consumer::CORE);
        let server = command.spawn();
        machine::pin(0);
        let server = match server {
            Ok(server) => Child(server),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Some(Redis { stream, request: Vec::new(), reply: Vec::new(), _server: server, _dir: dir }))
    }

    pub(super) fn set(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        self.ask(&[b"SET", key.as_bytes(), value])?;
        self.read_to(b"\r\n".len())?;
        if self.reply.starts_with(b"+OK\r\n") { Ok(()) } else { Err(io::Error::other("Redis refused a key")) }
    }

    pub(super) fn get(&mut self, key: &str, into: &mut Vec<u8>) -> io::Result<()> {
        self.ask(&[b"GET", key.as_bytes()])?;
        self.read_to(b"$0\r\n".len())?;
        let end = loop {
            match self.reply.iter().position(|byte| *byte == b'\n') {
                Some(end) => break end + 1,
                None => self.read_to(self.reply.len() + 1)?,
            }
        };
        let digits = self.reply.get(1..end - 2).unwrap_or_default();
        let len: usize = std::str::from_utf8(digits).ok().and_then(|len| len.parse().ok()).ok_or_else(missing)?;
        self.read_to(end + len + 2)?;
        into.clear();
        into.extend_from_slice(&self.reply[end..end + len]);
        Ok(())
    }

    fn ask(&mut self, words: &[&[u8]]) -> io::Result<()> {
        self.request.clear();
        write!(self.request, "*{}\r\n", words.len())?;
        for word in words {
            write!(self.request, "${}\r\n", word.len())?;
            self.request.extend_from_slice(word);
            self.request.extend_from_slice(b"\r\n");
        }
        self.reply.clear();
        self.stream.write_all(&self.request)
    }

    /// Until there are so many bytes of the reply at least.
    fn read_to(&mut self, len: usize) -> io::Result<()> {
        let mut piece = [0; 8192];
        while self.reply.len() < len {
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.reply.extend_from_slice(&piece[..read]),
            }
        }
        Ok(())
    }
}
