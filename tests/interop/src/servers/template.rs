//! What takes a database seconds to prepare: done once, and copied for each server.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::give;
use super::guard::Guard;

/// A folder with data, made when it is first asked for. It is gone with the process: what is static
/// is not dropped, but it has a guard.
pub(crate) struct Template(OnceLock<(tempfile::TempDir, Guard)>);

impl Template {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Makes "data" in `folder`, a copy of what `make` once made in a folder of that user's.
    pub(crate) fn copy(&self, folder: &Path, user: Option<&str>, make: impl FnOnce(&Path)) {
        let (template, _guard) = self.0.get_or_init(|| {
            let template = tempfile::tempdir().unwrap();
            let guard = Guard::of_folder(template.path());
            give(template.path(), user);
            make(&template.path().join("data"));
            (template, guard)
        });
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(template.path().join("data")).arg(folder.join("data"));
        run(&mut copy);
    }
}

/// Runs a program to its end, which must be a good one.
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}
