//! [`Log`] and [`Logs`]: what processes note, one line an event, and who reads it while they still write.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::event::{Entry, Event, now};

/// The log of one process. A line is written by one call and buffered by nobody but the kernel, so it survives `kill -9`.
#[derive(Debug)]
pub(crate) struct Log(Mutex<File>);

impl Log {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new(OpenOptions::new().create(true).append(true).open(path)?)))
    }

    /// Notes an event.
    ///
    /// # Panics
    /// If the disk is full: without its log, a history proves nothing.
    pub(crate) fn note(&self, event: Event) {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = serde_json::to_vec(&Entry { at: now(), event }).expect("events are JSON");
        line.push(b'\n');
        file.write_all(&line).expect("a log that can be written");
    }
}

/// Reads the logs of several processes as they grow.
#[derive(Debug, Default)]
pub(crate) struct Logs(Vec<Tail>);

#[derive(Debug)]
struct Tail {
    process: String,
    path: PathBuf,
    /// How much of it was read.
    read: u64,
}

impl Logs {
    pub(crate) fn follow(&mut self, process: &str, path: PathBuf) {
        self.0.push(Tail { process: process.to_owned(), path, read: 0 });
    }

    /// What was written since the last time, by process. A line whose end is missing is read the next time.
    pub(crate) fn read(&mut self) -> io::Result<Vec<(String, Entry)>> {
        let mut entries = Vec::new();
        for tail in &mut self.0 {
            let mut file = match File::open(&tail.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // it has not begun
                file => file?,
            };
            file.seek(SeekFrom::Start(tail.read))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            tail.read += whole as u64;
            for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                entries.push((tail.process.clone(), serde_json::from_slice(line)?));
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_lines_are_read_when_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one");
        let mut logs = Logs::default();
        logs.follow("one", path.clone());
        assert!(logs.read().unwrap().is_empty(), "there is no file yet");

        let log = Log::open(&path).unwrap();
        log.note(Event::Healed);
        assert_eq!(logs.read().unwrap().len(), 1);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"at\":1,\"event\":").unwrap();
        assert!(logs.read().unwrap().is_empty());
        file.write_all(b"\"Healed\"}\n").unwrap();
        let read = logs.read().unwrap();
        assert_eq!((read.len(), read[0].1.at), (1, 1));
    }
}
