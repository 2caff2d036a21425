//! This module collects lines from a descriptor that is read only when something is there.

use crate::{Error, Result};
use std::os::fd::AsFd;

/// Length of the longest line that is accepted, in bytes.
const LONGEST: usize = 1 << 20;

/// Collects bytes until a line is complete.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    /// Reads once, and waits if nothing is there. Returns false at the end of input.
    pub(super) fn fill(&mut self, input: impl AsFd) -> Result<bool> {
        let mut chunk = [0; 8192];
        match rustix::io::read(input, &mut chunk) {
            Ok(0) => Ok(false),
            Ok(len) => {
                self.bytes.extend_from_slice(chunk.get(..len).unwrap_or_default());
                if self.bytes.len() > LONGEST {
                    return Err(Error::Command(format!("a line of more than {LONGEST} bytes")));
                }
                Ok(true)
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(true),
            Err(e) => Err(Error::io("reading commands", e)),
        }
    }

    /// Returns the next complete line that is not blank.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = self.bytes.iter().position(|b| *b == b'\n')?;
            let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
            line.pop();
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_the_end_is_told() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut lines = Lines::default();
        rustix::io::write(&writer, b"one\n\n  \ntw").unwrap();
        assert!(lines.fill(&reader).unwrap());
        assert_eq!(lines.next().as_deref(), Some(&b"one"[..]));
        assert_eq!(lines.next(), None);
        rustix::io::write(&writer, b"o\n").unwrap();
        assert!(lines.fill(&reader).unwrap());
        assert_eq!(lines.next().as_deref(), Some(&b"two"[..]));
        drop(writer);
        assert!(!lines.fill(&reader).unwrap());
    }
}
