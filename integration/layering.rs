//! Who may import whom, and what a core may not touch. Reads the sources as text: `use crate::..`
//! and `crate::..` paths, so that a path written out in full counts too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::rig;

/// Each room with the rooms that it may name. A room may always name itself.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("wire", &["base"]),
    ("dht", &["base", "wire"]),
    ("peer", &["base", "wire"]),
    ("swarm", &["base", "wire", "peer"]),
    ("engine", &["base", "wire", "dht", "peer", "swarm"]),
    ("driver", &["base", "wire", "dht", "peer", "swarm", "engine"]),
    ("sim", &["base", "wire", "dht", "peer", "swarm", "engine"]),
    ("cli", &["base", "wire", "dht", "peer", "swarm", "engine", "driver", "sim"]),
];

/// Rooms that decide and therefore own no socket, file, thread, lock, clock or chance.
const CORES: &[&str] = &["base", "wire", "dht", "peer", "swarm", "engine", "sim"];

/// What no core may name, with what it should do instead.
const BANNED_IN_CORES: &[(&str, &str)] = &[
    ("tokio", "a core is driven, it does not wait"),
    ("std::fs", "ask the host: Disk outputs"),
    ("std::io::std", "a core talks to its host alone"),
    ("std::env", "settings come in a Config"),
    ("std::process", "a core talks to its host alone"),
    ("std::thread", "a core runs where its host calls it"),
    ("std::sync", "a core is owned by one task"),
    ("std::time::Instant", "`now` is an argument: base::time::Instant"),
    ("std::time::SystemTime", "`now` is an argument: base::time::Instant"),
    ("TcpStream", "ask the host: Connect and Send outputs"),
    ("TcpListener", "the host accepts and calls handle_accepted"),
    ("UdpSocket", "ask the host: Transmit outputs"),
    ("ToSocketAddrs", "the host looks names up"),
    ("rand::rng()", "draw from the Rng that was given"),
    ("SysRng", "draw from the Rng that was given"),
    ("thread_rng", "draw from the Rng that was given"),
    ("RandomState", "its seed is the system's chance"),
    ("Arc<", "a core owns its state"),
    ("Rc<", "a core owns its state"),
    ("RefCell<", "a core owns its state"),
    ("Mutex<", "a core is owned by one task"),
    ("async fn", "a core is driven, it does not wait"),
    ("println!", "a core talks to its host alone"),
];

#[test]
fn rooms_import_only_what_lies_below_them() {
    let mut violations = Vec::new();
    let mut checked = 0;
    for (room, file) in rooms() {
        let allowed = MAY_IMPORT
            .iter()
            .find(|(name, _)| *name == room)
            .unwrap_or_else(|| panic!("src/{room} has no row in MAY_IMPORT"))
            .1;
        for (number, line) in code_lines(&file) {
            for named in rooms_named(&line) {
                checked += 1;
                if named != room && !allowed.contains(&named.as_str()) {
                    violations.push(format!("{}:{number}: {room} -> {named}", file.display()));
                }
            }
        }
    }
    assert!(checked > 30, "only {checked} imports were seen: is the reader broken?");
    assert!(violations.is_empty(), "upward imports:\n{}", violations.join("\n"));
}

#[test]
fn cores_touch_no_socket_file_thread_clock_or_chance() {
    let mut violations = Vec::new();
    for (_, file) in rooms().into_iter().filter(|(room, _)| CORES.contains(&room.as_str())) {
        for (number, line) in code_lines(&file) {
            for (word, instead) in BANNED_IN_CORES {
                if has_word(&line, word) {
                    violations.push(format!("{}:{number}: `{word}`: {instead}", file.display()));
                }
            }
        }
    }
    assert!(violations.is_empty(), "not for cores:\n{}", violations.join("\n"));
}

#[test]
fn every_room_of_the_source_tree_has_a_row() {
    let found: BTreeSet<_> = rooms().into_iter().map(|(room, _)| room).collect();
    let known: BTreeSet<_> = MAY_IMPORT.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(found, known);
}

#[test]
fn the_reader_sees_nested_and_full_paths() {
    let named = |line: &str| rooms_named(line);
    assert_eq!(named("use crate::base::{Rng, Seed};"), ["base"]);
    assert_eq!(named("let x = crate::driver::clock::now(); // crate"), ["driver"]);
    assert_eq!(named("use crate::{base::Rng, wire::krpc::{self, Message}};"), ["base", "wire"]);
    assert_eq!(named("pub(in crate::dht) fn f() {}"), ["dht"]);
    assert_eq!(named("use super::crates::x;"), Vec::<String>::new());
    assert!(has_word("use tokio::net;", "tokio") && !has_word("my_tokio_like", "tokio"));
}

// Every source file below a room, with the room's name.
fn rooms() -> Vec<(String, PathBuf)> {
    let src = rig::repository().join("src");
    let room = |file: &Path| {
        let first = file.strip_prefix(&src).ok()?.components().next()?;
        let name = Path::new(first.as_os_str()).file_stem()?.to_str()?.to_owned();
        (name != "lib" && name != "main").then_some(name)
    };
    rig::rust_files(&src).into_iter().filter_map(|f| Some((room(&f)?, f))).collect()
}

// The lines of a file up to its tests, without comments, multi-line `use` joined into one.
fn code_lines(file: &Path) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    if file.file_name().is_some_and(|n| n == "tests.rs")
        || file.components().any(|c| c.as_os_str() == "tests")
    {
        return Vec::new();
    }
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open_use = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim() == "mod tests {" {
            break;
        }
        let code = line.split("//").next().unwrap_or_default().trim();
        if code.is_empty() {
            continue;
        }
        match lines.last_mut() {
            Some((_, joined)) if open_use => joined.push_str(code),
            _ => lines.push((index + 1, code.to_owned())),
        }
        let starts_use = code.starts_with("use ") || code.starts_with("pub use ");
        open_use = (open_use || starts_use) && !code.ends_with(';');
    }
    lines
}

// The rooms that a line names through `crate::`.
fn rooms_named(line: &str) -> Vec<String> {
    let mut named = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let before = line[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => named.extend(top_level_names(group)),
            None => named.extend(first_name(rest)),
        }
    }
    named
}

// The first segment of each path in `a::b, c::{d, e}, f}`.
fn top_level_names(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut names = Vec::new();
    let mut expects_name = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects_name = true,
            c if depth == 0 && expects_name && !c.is_whitespace() => {
                names.extend(first_name(&group[at..]));
                expects_name = false;
            }
            _ => {}
        }
    }
    names
}

fn first_name(path: &str) -> Option<String> {
    let name: String = path.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}
