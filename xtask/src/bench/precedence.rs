//! This module takes precedence over what else the machine does, for all that is measured: peers as
//! well as ourselves.

use std::fs;

use rustix::process::{getpriority_process, setpriority_process};

/// Nice value of moderate strength: kernel threads that serve terminals must still get a processor.
const NICE: i32 = -10;
/// Path of the session's nice value; where Linux schedules by session, a process's own nice value
/// counts within its session only.
const SESSION: &str = "/proc/self/autogroup";

/// The processes with precedence: this one, those it starts from now on, and the session they are
/// in. Dropping it gives precedence up.
#[derive(Debug)]
pub(crate) struct Precedence {
    process: Option<i32>,
    session: Option<i32>,
}

impl Precedence {
    /// Takes precedence; a user who may not have it measures all the same.
    pub(crate) fn take() -> Self {
        let process = getpriority_process(None).ok();
        let process = process.filter(|_| setpriority_process(None, NICE).is_ok());
        let session = fs::read_to_string(SESSION).ok().and_then(|text| nice(&text));
        let session = session.filter(|_| fs::write(SESSION, NICE.to_string()).is_ok());
        Self { process, session }
    }
}

impl Drop for Precedence {
    fn drop(&mut self) {
        if let Some(session) = self.session
            && let Err(error) = fs::write(SESSION, session.to_string())
        {
            eprintln!("xtask: cannot write {session} back to {SESSION}: {error}");
        }
        // A process may always lower its precedence.
        let _ = self.process.map(|process| setpriority_process(None, process));
    }
}

/// Reads the nice value of a line such as "/autogroup-121 nice 0".
fn nice(text: &str) -> Option<i32> {
    text.rsplit_once("nice ")?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::nice;

    #[test]
    fn a_sessions_nice_value_is_read() {
        assert_eq!(nice("/autogroup-121 nice -5\n"), Some(-5));
        assert_eq!(nice("/autogroup-121"), None);
        assert_eq!(nice(""), None);
    }
}
