//! Rules of the source that the compiler does not know. Each can fail: see the last tests.

use std::fs;
use std::path::{Path, PathBuf};

use warmline::{CloseReason, Verdict};

/// A file of `src`: its path below that, and its text without test modules and comments.
struct Source {
    path: String,
    code: Vec<(usize, String)>,
    lines: usize,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), code: code_of(text), lines: text.lines().count() }
    }

    /// The module below the root that it belongs to; "lib" for the root itself.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn find_word(&self, word: &str, rule: &str) -> Vec<String> {
        let is_hit = |line: &str| line.split(|c: char| !c.is_alphanumeric()).any(|it| it == word);
        let hits = self.code.iter().filter(|(_, line)| is_hit(line));
        hits.map(|(at, line)| format!("{}:{at}: {rule}: {}", self.path, line.trim())).collect()
    }

    fn find(&self, forbidden: &[&str], rule: &str) -> Vec<String> {
        let hits = self.code.iter().filter(|(_, line)| forbidden.iter().any(|f| line.contains(f)));
        hits.map(|(at, line)| format!("{}:{at}: {rule}: {}", self.path, line.trim())).collect()
    }
}

/// Lines of code with their numbers: no comments, and nothing from a `#[cfg(test)]` item.
fn code_of(text: &str) -> Vec<(usize, String)> {
    let mut code = Vec::new();
    let mut skipping: Option<usize> = None;
    let mut is_test_next = false;
    for (at, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let trimmed = line.trim_start();
        if let Some(outer) = skipping {
            if indent == outer && trimmed.starts_with('}') {
                skipping = None;
            }
            continue;
        }
        if trimmed.starts_with("#[cfg(test)]") {
            is_test_next = true;
            continue;
        }
        if trimmed.starts_with("//") || trimmed.is_empty() {
            continue;
        }
        if is_test_next {
            if trimmed.starts_with("#[") {
                continue;
            }
            is_test_next = false;
            if trimmed.ends_with('{') {
                skipping = Some(indent);
            }
            continue;
        }
        let line = line.split(" // ").next().unwrap_or_default();
        code.push((at + 1, line.to_owned()));
    }
    code
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![src()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let name = path.strip_prefix(src()).unwrap().to_str().unwrap().to_owned();
                found.push(Source::new(&name, &text));
            }
        }
    }
    assert!(found.len() > 20, "the source was not found");
    found.retain(|source| !is_test(&source.path));
    found
}

/// Files that only tests are built from.
fn is_test(path: &str) -> bool {
    let is_named = |part: &str| part == "tests" || part == "tests.rs" || part == "sound.rs";
    path.split('/').any(is_named) || path.ends_with("_tests.rs")
}

/// The modules in the order of lib.rs, bottom first.
fn layers(root: &Source) -> Vec<String> {
    let name = |line: &str| {
        // Those with a leading underscore hold documents, no code.
        let name = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?;
        let name = name.trim_end_matches([';', ' ', '{']);
        (!name.starts_with('_')).then(|| name.to_owned())
    };
    root.code.iter().filter_map(|(_, line)| name(line)).collect()
}

/// Names of modules that a line of code reaches by `crate::`.
fn reached(line: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let after = line.split("crate::").skip(1).filter(|rest| !rest.starts_with(|c| !is_name(c)));
    after.map(|rest| rest.split(|c| !is_name(c)).next().unwrap_or_default().to_owned()).collect()
}

fn upward_imports(sources: &[Source], layers: &[String]) -> Vec<String> {
    let rank = |name: &str| layers.iter().position(|layer| layer == name);
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| source.module() != "lib") {
        let Some(own) = rank(source.module()) else {
            wrong.push(format!("{}: not in the list of lib.rs", source.path));
            continue;
        };
        for (at, line) in &source.code {
            for name in reached(line) {
                // What is no module is an item that lib.rs exports again: found by `root_items`.
                if rank(&name).is_some_and(|theirs| theirs > own) {
                    wrong.push(format!("{}:{at}: uses {name}, which is above it", source.path));
                }
            }
        }
    }
    wrong
}

/// Uses of items through the root, which would hide the module they come from.
fn root_items(sources: &[Source], layers: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| source.module() != "lib") {
        for (at, line) in &source.code {
            let is_item = |name: &String| !layers.contains(name) && !line.contains("$crate");
            wrong.extend(reached(line).into_iter().filter(is_item).map(|name| {
                format!("{}:{at}: names {name} through the root, not its module", source.path)
            }));
        }
    }
    wrong
}

/// Everything that must stand in one place, or nowhere.
fn misplaced(sources: &[Source]) -> Vec<String> {
    const CLOCK: &[&str] = &["Instant::now", "SystemTime::now", "clock_gettime", ".elapsed()"];
    const THREADS: &[&str] = &["thread::spawn", "thread::Builder", "thread::scope"];
    const LOCKS: &[&str] =
        &["parking_lot", "sync::Mutex<", "std::sync::Mutex", "std::sync::RwLock"];
    // What a simulation replaces; and where it looks whether all is sound.
    const SIMULATED: &[&str] = &[
        "sim/",
        "sys/",
        "sync",
        "clock.rs",
        "lib.rs",
        "core/",
        "shared/mod.rs",
        "driver/roster.rs",
    ];
    const STD_SYNC: &[&str] = &["std::sync::", "crossbeam_"];
    let mut wrong = Vec::new();
    for source in sources {
        // The simulation stands in the place of clocks, threads and locks.
        let is_platform = source.module() == "sim";
        if source.path != "clock.rs" && !is_platform {
            wrong.extend(source.find(CLOCK, "only clock.rs reads the time"));
        }
        if source.module() != "sync" && !is_platform {
            wrong.extend(source.find(THREADS, "only sync.rs starts threads"));
            wrong.extend(source.find(LOCKS, "only sync.rs names locks"));
            let mut shared = source.find(STD_SYNC, "only sync.rs names what threads share");
            shared.retain(|line| !line.contains("crate::sync::")); // taken from there
            wrong.extend(shared);
        }
        if source.module() == "core" {
            wrong.extend(source.find(&["log::", "catch_unwind"], "core decides, and does nothing"));
            wrong.extend(source.find_word("Connector", "core knows no connectors"));
        }
        if source.path != "lib.rs" {
            wrong.extend(source.find(&["cfg(feature"], "features add modules, in lib.rs"));
        }
        wrong.extend(source.find(&["todo!", "dbg!", "unimplemented!"], "not finished"));
        if !is_platform {
            wrong.extend(source.find(&["println!", "print!("], "a library does not print"));
        }
        if !SIMULATED.iter().any(|place| source.path.starts_with(place)) {
            wrong.extend(source.find(&["warmline_sim"], "the same code in a simulation"));
        }
        if source.lines > 500 {
            wrong.push(format!("{}: {} lines, more than 500", source.path, source.lines));
        }
    }
    wrong
}

fn undocumented(reasons: &[&str], docs: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let words: Vec<_> = docs.split(|c| !is_word(c)).collect();
    let missing = reasons.iter().filter(|reason| !words.contains(reason));
    missing.map(|&reason| reason.to_owned()).collect()
}

fn root(sources: &[Source]) -> &Source {
    sources.iter().find(|source| source.path == "lib.rs").unwrap()
}

#[test]
fn imports_point_down_only() {
    let sources = sources();
    let layers = layers(root(&sources));
    assert!(layers.len() >= 12, "{layers:?}");
    let wrong = upward_imports(&sources, &layers);
    assert!(wrong.is_empty(), "in the order of lib.rs:\n{}", wrong.join("\n"));
}

#[test]
fn modules_name_each_other_and_not_the_root() {
    let sources = sources();
    let wrong = root_items(&sources, &layers(root(&sources)));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn time_threads_and_locks_have_one_place_each_and_files_are_short() {
    let wrong = misplaced(&sources());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_of_tests_is_short() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("Cargo.lock") {
                let lines = fs::read_to_string(&path).map_or(0, |text| text.lines().count());
                assert!(lines <= 500, "{}: {lines} lines", path.display());
            }
        }
    }
}

#[test]
fn every_reason_to_close_and_every_verdict_is_explained_to_users() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let mut docs = fs::read_to_string(readme).unwrap_or_default();
    for entry in fs::read_dir(src().join("docs")).into_iter().flatten() {
        docs += &fs::read_to_string(entry.unwrap().path()).unwrap();
    }
    let reasons = CloseReason::ALL.iter().map(|reason| format!("{reason:?}"));
    let verdicts = Verdict::ALL.iter().map(|verdict| format!("{verdict:?}"));
    let names: Vec<_> = reasons.chain(verdicts).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let missing = undocumented(&names, &docs);
    assert!(missing.is_empty(), "neither in README.md nor in src/docs: {missing:?}");
}

#[test]
fn the_rule_for_imports_can_fail() {
    let root = Source::new("lib.rs", "mod low;\npub mod high;\n");
    let layers = layers(&root);
    assert_eq!(layers, ["low", "high"]);
    let upward = |path, text| upward_imports(&[Source::new(path, text)], &layers);
    assert_eq!(upward("low.rs", "use crate::high::Thing;").len(), 1);
    assert_eq!(upward("low/deep.rs", "fn f() { crate::high::f() }").len(), 1);
    assert_eq!(upward("other.rs", "").len(), 1, "a module that is not in the list");
    assert!(upward("high.rs", "use crate::low::Thing;").is_empty());
    assert!(upward("low.rs", "/// See [`crate::high`].\nuse crate::low::deep;").is_empty());
    let test = "#[cfg(test)]\nmod tests {\n    use crate::high;\n}\n";
    assert!(upward("low.rs", test).is_empty(), "tests may look up");
    assert_eq!(upward("low.rs", &format!("{test}use crate::high;")).len(), 1, "code after them");
    let through_root = |text| root_items(&[Source::new("low.rs", text)], &layers);
    assert_eq!(through_root("use crate::Thing;").len(), 1);
    assert!(through_root("use crate::low::Thing;").is_empty());
}

#[test]
fn the_rules_for_places_can_fail() {
    let breaks = |path: &str, text: &str| !misplaced(&[Source::new(path, text)]).is_empty();
    for bad in [
        "let now = Instant::now();",
        "let now = rustix::time::clock_gettime(id);",
        "std::thread::spawn(|| {});",
        "thread::Builder::new()",
        "use parking_lot::Mutex;",
        "use std::sync::Mutex;",
        "use std::sync::Arc;",
        "#[cfg(feature = \"tls\")]",
        "#[cfg(warmline_sim)]",
        "todo!()",
        "dbg!(1);",
        "println!(\"\");",
    ] {
        assert!(breaks("pool.rs", bad), "{bad}");
        assert!(!breaks("pool.rs", &format!("// {bad}")), "a comment: {bad}");
        assert!(!breaks("pool.rs", &format!("#[cfg(test)]\nmod tests {{\n    {bad}\n}}")));
    }
    assert!(breaks("core/mod.rs", "fn f<C: Connector>() {}"));
    assert!(!breaks("core/mod.rs", "CloseReason::ConnectorPanicked"));
    assert!(breaks("pool.rs", &"\n".repeat(501)));
    assert!(
        !breaks("clock.rs", "clock_gettime(id)") && !breaks("sync.rs", "use parking_lot::Mutex;")
    );
    assert!(!breaks("pool.rs", "fn f<C: Connector>() {}"));
    assert!(!breaks("lib.rs", "#[cfg(feature = \"tls\")]"));
}

#[test]
fn the_rule_for_reasons_can_fail() {
    let docs = "closed for `IdleTimeout` or MaxUsesUp";
    assert_eq!(undocumented(&["IdleTimeout", "MaxUses"], docs), ["MaxUses"]);
}
