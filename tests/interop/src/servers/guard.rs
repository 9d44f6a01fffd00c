//! What is to be done once this process has ended, however it has.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A shell that does it, should this process end before the guard is dropped.
pub(crate) struct Guard(Child);

impl Guard {
    /// One that ends a process. It is woken first, should it be stopped: it would not hear.
    pub(crate) fn of_process(process: &Child, signal: i32) -> Self {
        let process = process.id();
        let order = format!("kill -{signal} {process}; kill -CONT {process}");
        Self::new(&order, Path::new("sh"))
    }

    /// One that removes a folder. A server that is about to end may still write there.
    pub(crate) fn of_folder(folder: &Path) -> Self {
        let order = "left=200
            while [ -e \"$0\" ] && [ $left -gt 0 ]; do
                rm -rf -- \"$0\" || sleep 0.1
                left=$((left - 1))
            done";
        Self::new(order, folder)
    }

    fn new(order: &str, argument: &Path) -> Self {
        // It reads from a pipe whose other end is ours alone: the system closes that with us.
        let order = format!("trap '' INT TERM HUP\nread -r _\n{order}");
        let mut guard = Command::new("sh");
        guard.arg("-c").arg(order).arg(argument).stdin(Stdio::piped());
        // What a terminal sends to the group of this process is not for the guard.
        guard.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
        Self(guard.spawn().unwrap())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}
