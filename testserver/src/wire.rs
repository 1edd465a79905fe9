//! Just enough of PostgreSQL's protocol, version 3, to run statements on a server that trusts us: a startup message, one
//! simple query, and its rows as text. Messages from the server are a type byte, a length that counts itself, and a body.
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use std::{
    io::{self, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::{Error, Result, port::local};

/// How long the server may keep silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest message that is read.
const MAX_MESSAGE: usize = 64 << 20;

/// Runs `text` in `database` of the server on `port`, and returns the rows of all its statements: columns separated by
/// tabs, rows by newlines, NULL as nothing. Blocks.
pub(crate) fn query(port: u16, database: &str, text: &str) -> Result<String> {
    let result = TcpStream::connect_timeout(&local(port), PATIENCE).and_then(|stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut connection = BufReader::new(stream);
        let startup = format!("user\0postgres\0database\0{database}\0application_name\0pgqueue-testserver\0\0");
        let version = 3_i32 << 16;
        let started = send(&mut connection, None, &[&version.to_be_bytes(), startup.as_bytes()])
            .and_then(|()| until_ready(&mut connection))?;
        let answer = match started {
            Ok(_) => send(&mut connection, Some(b'Q'), &[text.as_bytes(), b"\0"])
                .and_then(|()| until_ready(&mut connection))?,
            refused => refused,
        };
        drop(send(&mut connection, Some(b'X'), &[])); // a farewell; the connection closes either way
        Ok(answer)
    });
    match result {
        Ok(Ok(rows)) => Ok(rows.join("\n")),
        Ok(Err(Refusal { code, message })) => Err(Error::Sql { database: database.into(), code, message }),
        Err(source) => Err(Error::io(format!("talk to the server on port {port}"))(source)),
    }
}

/// What an ErrorResponse says.
struct Refusal {
    code: String,
    message: String,
}

/// Sends one message; the startup message has no type.
pub(crate) fn send(connection: &mut BufReader<TcpStream>, kind: Option<u8>, body: &[&[u8]]) -> io::Result<()> {
    let body = body.concat();
    let length = u32::try_from(body.len() + 4).map_err(|_| invalid("a message of 4 GiB"))?;
    let message: Vec<u8> = kind.into_iter().chain(length.to_be_bytes()).chain(body).collect();
    connection.get_mut().write_all(&message)
}

/// Reads until ReadyForQuery, or until the end that follows a refused startup, and returns the rows on the way.
fn until_ready(connection: &mut BufReader<TcpStream>) -> io::Result<Result<Vec<String>, Refusal>> {
    let mut rows = Vec::new();
    let mut refusal = None;
    loop {
        let (kind, body) = match receive(connection) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && refusal.is_some() => (b'Z', Vec::new()),
            received => received?,
        };
        let mut body = Body(&body);
        match kind {
            b'D' => rows.push(body.row()?),
            b'E' => refusal = Some(body.refusal()),
            b'Z' => return Ok(refusal.map_or(Ok(rows), Err)),
            b'R' if body.number::<4>()? != 0 => return Err(invalid("a server that asks for a password")),
            b'G' | b'H' | b'W' => return Err(invalid("COPY, which is not supported here")),
            _ => {} // parameters, notices, descriptions and tags
        }
    }
}

/// Reads one message.
pub(crate) fn receive(connection: &mut BufReader<TcpStream>) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    connection.read_exact(&mut head)?;
    let length = Body(&head[1..]).number::<4>()?;
    let length = usize::try_from(length).ok().and_then(|length| length.checked_sub(4));
    let mut body = vec![0; length.filter(|length| *length <= MAX_MESSAGE).ok_or_else(|| invalid("such a length"))?];
    connection.read_exact(&mut body)?;
    Ok((head[0], body))
}

/// What is left of a message's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    /// The next `length` bytes.
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| invalid("a message that ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next `BYTES` bytes as a signed number; at most four.
    fn number<const BYTES: usize>(&mut self) -> io::Result<i64> {
        let unsigned = self.take(BYTES)?.iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
        let bits = 8 * BYTES;
        Ok(if unsigned >> (bits - 1) == 1 { unsigned - (1 << bits) } else { unsigned })
    }

    /// A DataRow: a count, then for each column a length, -1 for NULL, and the text.
    fn row(&mut self) -> io::Result<String> {
        let mut columns = Vec::new();
        for _ in 0..self.number::<2>()? {
            let length = usize::try_from(self.number::<4>()?).unwrap_or(0);
            columns.push(String::from_utf8_lossy(self.take(length)?));
        }
        Ok(columns.join("\t"))
    }

    /// An ErrorResponse: fields of a type byte and a text that ends with a zero; a field without either ends it.
    fn refusal(&self) -> Refusal {
        let fields = || self.0.split(|byte| *byte == 0).filter_map(<[u8]>::split_first);
        let field = |kind| fields().find(|(found, _)| **found == kind).map(|(_, text)| String::from_utf8_lossy(text));
        let text = |kind| field(kind).unwrap_or_default().into_owned();
        Refusal { code: text(b'C'), message: text(b'M') }
    }
}

pub(crate) fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("met {what}"))
}
