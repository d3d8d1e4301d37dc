//! Pipes, Unix sockets (named pipes on Windows) and localhost TCP from a process to one that it
//! started, with buffers of up to 1 MiB.
//!
//! This folder asks which system it is for, since no portable interface sets the buffers of pipes
//! and sockets.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

pub use system::{LOCAL_NAME, alone, peak_memory};

/// Room that is asked for in pipes and sockets. Systems give less where an administrator set a
/// limit.
const BUFFER: usize = 1 << 20;

/// A way of bytes from one process to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The child's standard input.
    Pipe,
    /// A Unix socket; a named pipe on Windows.
    Local,
    /// A TCP connection within this machine.
    Tcp,
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Pipe, Way::Local, Way::Tcp];

    /// For the command line of a child.
    pub fn word(self) -> &'static str {
        match self {
            Way::Pipe => "pipe",
            Way::Local => "local",
            Way::Tcp => "tcp",
        }
    }

    pub fn from_word(word: &str) -> Option<Way> {
        Way::ALL.into_iter().find(|way| way.word() == word)
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Way::Pipe => "pipe",
            Way::Local => LOCAL_NAME,
            Way::Tcp => "localhost TCP",
        }
    }
}

/// The writing end of a way. Dropping it ends the stream.
pub type Outlet = Box<dyn Write + Send>;

/// The reading end of a way.
pub type Inlet = Box<dyn Read + Send>;

/// Starts a child that will call [`inlet`], and connects to it. Its standard output is what it says
/// beside that.
pub fn start(way: Way, command: &mut Command) -> io::Result<(Child, BufReader<ChildStdout>, Outlet)> {
    command.stdout(Stdio::piped());
    let (mut child, outlet) = match way {
        Way::Pipe => system::start_with_pipe(command)?,
        Way::Local => system::start_with_local(command)?,
        Way::Tcp => (command.stdin(Stdio::piped()).spawn()?, None),
    };
    let connected = child_output(&mut child).and_then(|mut output| {
        let outlet = match outlet {
            Some(outlet) => outlet,
            None => connect(way, &line(&mut output)?)?,
        };
        Ok((output, outlet))
    });
    match connected {
        Ok((output, outlet)) => Ok((child, output, outlet)),
        Err(error) => {
            // No other process knows this child, which may wait for the connection for ever.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// In a child: the bytes that its starter sends.
pub fn inlet(way: Way) -> io::Result<Inlet> {
    match way {
        Way::Pipe => Ok(Box::new(io::stdin())),
        Way::Local => system::local_inlet(),
        Way::Tcp => {
            // The reader listens and the sender connects: so no stranger can come first and be sent
            // the bytes.
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            say(&listener.local_addr()?.to_string())?;
            let (stream, _) = listener.accept()?;
            Ok(Box::new(stream))
        }
    }
}

fn connect(way: Way, address: &str) -> io::Result<Outlet> {
    if way == Way::Local {
        return system::connect_local(address);
    }
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    system::widen_tcp(&stream);
    Ok(Box::new(stream))
}

/// The child's standard output.
pub fn child_output(child: &mut Child) -> io::Result<BufReader<ChildStdout>> {
    child.stdout.take().map(BufReader::new).ok_or_else(|| io::Error::other("the child has no standard output"))
}

/// The next line of a child, which has ended too early if there is none.
pub fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.trim_end_matches('\r').to_owned()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a child process ended before its work was done")),
    }
}

/// Says a line to the process that started this one.
pub fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
