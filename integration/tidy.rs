//! The house rules that a program can check.

use std::path::Path;

use crate::rig;

/// Lines that one file may have; a longer one is two files.
const FILE_LINES_MAX: usize = 600;

// Spelled in two parts, so that this file does not find itself.
const LEFTOVERS: &[&str] = &[
    concat!("dbg", "!("),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("under con", "struction"),
];

#[test]
fn every_file_says_what_it_is() {
    each_source(&mut |file, text| {
        let first = text.lines().next().unwrap_or_default();
        // The façade's text is the map; a `tests.rs` belongs to the file that declares it.
        let is_told_elsewhere = file.ends_with("src/lib.rs") || file.ends_with("tests.rs");
        (!first.starts_with("//! ") && !is_told_elsewhere)
            .then(|| "starts with no `//!` header".to_owned())
    });
}

#[test]
fn nothing_unfinished_is_left() {
    each_source(&mut |_, text| {
        let (number, line) =
            text.lines().enumerate().find(|(_, l)| LEFTOVERS.iter().any(|w| l.contains(w)))?;
        Some(format!("line {}: {}", number + 1, line.trim()))
    });
}

#[test]
fn files_stay_short() {
    each_source(&mut |_, text| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{lines} lines: split it by responsibility"))
    });
}

#[test]
fn sources_name_no_path_of_a_developers_machine() {
    let home = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/home", "/")];
    each_source(&mut |_, text| {
        let found = home.iter().find(|path| text.contains(**path))?;
        Some(format!("names {found}"))
    });
}

#[test]
fn the_map_names_every_room_and_every_top_level_module() {
    let src = rig::repository().join("src");
    let map = std::fs::read_to_string(src.join("ARCHITECTURE.md")).unwrap();
    let mut missing = Vec::new();
    for room in std::fs::read_dir(&src).unwrap() {
        let room = room.unwrap();
        let name = room.file_name().into_string().unwrap();
        if !room.file_type().unwrap().is_dir() {
            continue;
        }
        if !map.contains(&format!("`{name}/`")) {
            missing.push(format!("{name}/"));
        }
        for module in std::fs::read_dir(room.path()).unwrap() {
            let module = module.unwrap().file_name().into_string().unwrap();
            let stem = module.trim_end_matches(".rs");
            if stem != "mod" && stem != "tests" && !map.contains(&format!("`{stem}`")) {
                missing.push(format!("{name}/{module}"));
            }
        }
    }
    missing.sort();
    missing.dedup();
    assert!(missing.is_empty(), "src/ARCHITECTURE.md does not name: {}", missing.join(", "));
}

#[test]
fn unsafe_code_is_forbidden() {
    let facade = std::fs::read_to_string(rig::repository().join("src/lib.rs")).unwrap();
    assert!(facade.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn licences_are_both_there() {
    let root = rig::repository();
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    assert!(read("LICENSE-MIT").contains("Permission is hereby granted"));
    assert!(read("LICENSE-APACHE").contains("Apache License"));
    assert!(read("Cargo.toml").contains("license = \"MIT OR Apache-2.0\""));
}

// Runs `check` over every Rust file of ours and fails with all complaints at once.
fn each_source(check: &mut dyn FnMut(&Path, &str) -> Option<String>) {
    let root = rig::repository();
    let mut complaints = Vec::new();
    let mut seen = 0;
    for folder in ["src", "integration", "benches", "examples", "fuzz/src", "fuzz/fuzz_targets"] {
        for file in rig::rust_files(&root.join(folder)) {
            seen += 1;
            let text = std::fs::read_to_string(&file).unwrap();
            if let Some(complaint) = check(&file, &text) {
                let file = file.strip_prefix(&root).unwrap_or(&file);
                complaints.push(format!("{}: {complaint}", file.display()));
            }
        }
    }
    assert!(seen > 20, "only {seen} files were seen");
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
