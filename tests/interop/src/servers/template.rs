//! What takes a database seconds to prepare: done once, and copied for each server.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::give;

/// A folder with data, made when it is first asked for. It is gone with the process.
pub(crate) struct Template(OnceLock<(tempfile::TempDir, Child)>);

impl Template {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Makes "data" in `folder`, a copy of what `make` once made in a folder of that user's.
    pub(crate) fn copy(&self, folder: &Path, user: Option<&str>, make: impl FnOnce(&Path)) {
        let (template, _guard) = self.0.get_or_init(|| {
            let template = tempfile::tempdir().unwrap();
            let guard = guard(template.path()).unwrap();
            give(template.path(), user);
            make(&template.path().join("data"));
            (template, guard)
        });
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(template.path().join("data")).arg(folder.join("data"));
        run(&mut copy);
    }
}

/// Removes the folder when this process has ended: what is static is not dropped. It reads from a
/// pipe whose other end is ours alone.
fn guard(folder: &Path) -> io::Result<Child> {
    let mut guard = Command::new("sh");
    guard.args(["-c", "read -r _; rm -rf \"$0\""]).arg(folder);
    guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// Runs a program to its end, which must be a good one.
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}
