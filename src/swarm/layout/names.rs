//! Safe file names from a stranger's torrent.
//!
//! The rule: a name that this system could hold and show stays as it is, so that a shared folder
//! arrives as it left; everything else is changed the same way on each run, or the torrent is
//! refused. Changed are: names that are empty, `.` or `..`; separators and NUL inside a component;
//! control and text-direction characters, which hide what a name says; bytes that are not UTF-8;
//! components above 255 bytes; on Windows its reserved names, characters and endings. Two files of
//! one path, or a file where another one needs a folder, are told apart by a number; on systems
//! that usually ignore case or Unicode normal form so are names that differ in nothing else.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;

use unicode_normalization::UnicodeNormalization as _;

use crate::base::hash;
use crate::swarm::layout::LayoutError;
use crate::wire::metainfo::Info;

/// What names have to obey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// Names come from our own disk: take them as they are, or refuse.
    pub verbatim: bool,
    /// Windows' characters, endings and reserved names.
    pub windows: bool,
    /// Names that differ only in case or normal form are the same file.
    pub fold: bool,
}

impl Rules {
    /// Those of the system this is built for.
    pub(super) const HOST: Rules = Rules {
        verbatim: false,
        windows: cfg!(windows),
        fold: cfg!(any(windows, target_vendor = "apple")),
    };
    /// Those for names that this system made itself.
    pub(super) const VERBATIM: Rules = Rules { verbatim: true, windows: false, fold: false };
}

/// The tree of names that are taken. Folders are numbered, so that memory grows with the bytes of
/// the names and not with depth times files.
pub(super) struct Names {
    rules: Rules,
    known: BTreeMap<(u32, Vec<u8>), Known>,
    next_number: BTreeMap<(u32, Vec<u8>), u32>,
    folders: u32,
}

enum Known {
    Folder(u32),
    File,
}

impl Names {
    /// The torrent's name, and one path a file; an empty one for padding.
    pub(super) fn lay_out(
        info: &Info,
        rules: Rules,
    ) -> Result<(String, Vec<PathBuf>), LayoutError> {
        let top = top_name(info, rules)?;
        let shown = String::from_utf8_lossy(&top).into_owned();
        if info.single_file {
            return Ok((shown, vec![PathBuf::from(os_name(&top))]));
        }
        let mut names =
            Names { rules, known: BTreeMap::new(), next_number: BTreeMap::new(), folders: 1 };
        // Folders first: where a file and a folder want one name, the file gets another.
        let parents = names.add_folders(info)?;
        let mut paths = Vec::with_capacity(info.files.len());
        for (index, (file, parent)) in info.files.iter().zip(parents).enumerate() {
            let Some((leaf, folders)) = file.path.split_last().filter(|_| !file.pad) else {
                paths.push(PathBuf::new());
                continue;
            };
            let mut path = top.clone();
            for folder in folders {
                path.push(b'/');
                path.extend_from_slice(&names.component(folder, index)?);
            }
            path.push(b'/');
            let leaf = names.component(leaf, index)?.into_owned();
            path.extend_from_slice(&names.take(parent, leaf, index)?);
            if path.len() > PATH_LEN_MAX {
                return Err(LayoutError::TooLong { file: index, len: path.len() });
            }
            paths.push(PathBuf::from(os_name(&path)));
        }
        Ok((shown, paths))
    }

    // The number of the folder that each file is in.
    fn add_folders(&mut self, info: &Info) -> Result<Vec<u32>, LayoutError> {
        let mut parents = Vec::with_capacity(info.files.len());
        let mut last: (&[Vec<u8>], u32) = (&[], 0);
        for (index, file) in info.files.iter().enumerate() {
            let Some((_, folders)) = file.path.split_last().filter(|_| !file.pad) else {
                parents.push(0);
                continue;
            };
            if file.path.len() > PATH_DEPTH_MAX {
                return Err(LayoutError::TooDeep { file: index, depth: file.path.len() });
            }
            // Files of one folder mostly stand together.
            if folders != last.0 {
                let mut parent = 0;
                for folder in folders {
                    let name = self.component(folder, index)?;
                    parent = self.folder(parent, self.key(&name));
                }
                last = (folders, parent);
            }
            parents.push(last.1);
        }
        Ok(parents)
    }

    fn folder(&mut self, parent: u32, key: Vec<u8>) -> u32 {
        let folders = &mut self.folders;
        let known = self.known.entry((parent, key)).or_insert_with(|| {
            let number = *folders;
            *folders += 1;
            Known::Folder(number)
        });
        match known {
            Known::Folder(number) => *number,
            Known::File => unreachable!("folders are added before files"),
        }
    }

    // `leaf`, or a numbered variant of it that is still free in that folder.
    fn take(&mut self, parent: u32, leaf: Vec<u8>, file: usize) -> Result<Vec<u8>, LayoutError> {
        let key = (parent, self.key(&leaf));
        if let Entry::Vacant(free) = self.known.entry(key.clone()) {
            free.insert(Known::File);
            return Ok(leaf);
        }
        if self.rules.verbatim {
            return Err(LayoutError::BadName { file });
        }
        // The count goes on where it stopped, so that n equal names cost n steps and not n².
        let mut number = self.next_number.get(&key).copied().unwrap_or(2);
        loop {
            let name = numbered(&leaf, number);
            number += 1;
            let candidate = (parent, self.key(&name));
            if let Entry::Vacant(free) = self.known.entry(candidate) {
                free.insert(Known::File);
                self.next_number.insert(key, number);
                return Ok(name);
            }
        }
    }

    fn key(&self, name: &[u8]) -> Vec<u8> {
        match std::str::from_utf8(name) {
            Ok(text) if self.rules.fold => {
                text.nfc().flat_map(char::to_lowercase).nfc().collect::<String>().into_bytes()
            }
            _ => name.to_vec(),
        }
    }

    fn component<'a>(&self, raw: &'a [u8], file: usize) -> Result<Cow<'a, [u8]>, LayoutError> {
        component(raw, self.rules).ok_or(LayoutError::BadName { file })
    }
}

fn top_name(info: &Info, rules: Rules) -> Result<Vec<u8>, LayoutError> {
    if info.name.is_empty() && !rules.verbatim {
        // A name has to be made up; by its content, so that two such torrents get along.
        let [a, b, c, d, ..] = hash::sha1(&info.pieces);
        return Ok(format!("unnamed-{a:02x}{b:02x}{c:02x}{d:02x}").into_bytes());
    }
    component(&info.name, rules).map(Cow::into_owned).ok_or(LayoutError::BadName { file: 0 })
}

// A component that is safe to hand to the system; `None` if it is not and may not be changed.
fn component(raw: &[u8], rules: Rules) -> Option<Cow<'_, [u8]>> {
    let path_like = |b: &u8| matches!(b, b'/' | 0) || (*b == b'\\' && rules.windows);
    let special = matches!(raw, b"" | b"." | b"..");
    if rules.verbatim {
        let usable = !special && !raw.iter().any(path_like) && raw.len() <= NAME_LEN_MAX;
        return usable.then_some(Cow::Borrowed(raw));
    }
    if special {
        return Some(Cow::Owned(b"_".repeat(raw.len().max(1))));
    }
    let plain = |b: &u8| (0x20..0x7f).contains(b) && *b != b'/';
    if !rules.windows && raw.len() <= NAME_LEN_MAX && raw.iter().all(plain) {
        return Some(Cow::Borrowed(raw));
    }
    let mut name: String = String::from_utf8_lossy(raw)
        .chars()
        .map(|c| if is_unsafe(c, rules) { '_' } else { c })
        .collect();
    if rules.windows {
        name = windows_name(name);
    }
    if name.len() > NAME_LEN_MAX {
        name = shortened(&name, raw);
    }
    Some(Cow::Owned(name.into_bytes()))
}

fn is_unsafe(c: char, rules: Rules) -> bool {
    match c {
        '/' | char::REPLACEMENT_CHARACTER => true,
        // Line and paragraph separators, and what turns the direction of text: `gpj.exe` must not
        // show as `exe.jpg`.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            true
        }
        '<' | '>' | ':' | '"' | '|' | '?' | '*' | '\\' => rules.windows,
        c => c.is_control(),
    }
}

// Windows drops dots and spaces at the end, and opens devices by these names with any extension.
fn windows_name(mut name: String) -> String {
    let kept = name.trim_end_matches(['.', ' ']).len();
    if kept < name.len() {
        let dropped = name.len() - kept;
        name.truncate(kept);
        name.push_str(&"_".repeat(dropped));
    }
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let is_port = |prefix: &str| {
        let number = stem.strip_prefix(prefix).map(|n| n.chars().collect::<Vec<_>>());
        matches!(number.as_deref(), Some(['0'..='9' | '¹' | '²' | '³']))
    };
    let is_device = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$");
    if is_device || is_port("COM") || is_port("LPT") { format!("_{name}") } else { name }
}

// Keeps the start and the extension; a hash of the whole keeps long names apart.
fn shortened(name: &str, raw: &[u8]) -> String {
    let [a, b, c, d, ..] = hash::sha1(raw);
    let mark = format!("~{a:02x}{b:02x}{c:02x}{d:02x}");
    let extension = extension(name);
    let stem = cut(name, NAME_LEN_MAX - mark.len() - extension.len());
    format!("{stem}{mark}{extension}")
}

fn numbered(leaf: &[u8], number: u32) -> Vec<u8> {
    let leaf = String::from_utf8_lossy(leaf);
    let mark = format!(" ({number})");
    let extension = extension(&leaf);
    let stem = &leaf[..leaf.len() - extension.len()];
    let stem = cut(stem, NAME_LEN_MAX - mark.len() - extension.len());
    format!("{stem}{mark}{extension}").into_bytes()
}

// At most `len_max` bytes from the start, and whole characters only.
fn cut(text: &str, len_max: usize) -> &str {
    let mut end = text.len().min(len_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

// `.txt` of `a.txt`; nothing for `.hidden`, `a.` or what is too long to be one.
fn extension(name: &str) -> &str {
    match name.rfind('.') {
        Some(dot) if dot > 0 && (2..=16).contains(&(name.len() - dot)) => &name[dot..],
        _ => "",
    }
}

#[cfg(unix)]
fn os_name(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

#[cfg(not(unix))]
fn os_name(bytes: &[u8]) -> std::ffi::OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

/// Bytes of one component that every common file system takes.
const NAME_LEN_MAX: usize = 255;
/// Components of one path. The deepest tree in real torrents has about 20.
const PATH_DEPTH_MAX: usize = 100;
/// Bytes of one path: with a directory of 1 KiB before it, it still fits PATH_MAX (4096).
const PATH_LEN_MAX: usize = 3_000;

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX: Rules = Rules { verbatim: false, windows: false, fold: false };
    const WINDOWS: Rules = Rules { verbatim: false, windows: true, fold: true };

    fn clean(raw: impl AsRef<[u8]>, rules: Rules) -> String {
        String::from_utf8(component(raw.as_ref(), rules).unwrap().into_owned()).unwrap()
    }

    #[test]
    fn ordinary_names_stay_as_they_are() {
        for name in [
            "...",
            "a.b.c",
            ".hidden",
            " x",
            "x ",
            "x.",
            "aux.c",
            "a:b",
            "dev\\x2d",
            "naïve",
            "日本",
            "👩‍💻",
        ] {
            assert_eq!(clean(name, LINUX), name);
        }
    }

    #[test]
    fn unsafe_names_are_changed() {
        for (raw, want) in [
            (&b""[..], "_"),
            (b".", "_"),
            (b"..", "__"),
            (b"a/../b", "a_.._b"),
            (b"/etc", "_etc"),
            (b"a\0b", "a_b"),
            (b"a\nb\x7f\x1b[31m", "a_b__[31m"),
            (b"caf\xe9", "caf_"),
            (b"\xc0\xae\xc0\xae", "____"),
            (b"\xed\xa0\x80", "___"),
            (b"a\xe2\x80\xaegpj.exe", "a_gpj.exe"),
            (b"\xc2\x85", "_"),
        ] {
            assert_eq!(clean(raw, LINUX), want, "{raw:?}");
        }
    }

    #[test]
    fn windows_devices_and_endings_are_changed_there() {
        for (raw, want) in [
            ("con", "_con"),
            ("NUL.txt", "_NUL.txt"),
            ("com1", "_com1"),
            ("com10", "com10"),
            ("LPT³.x", "_LPT³.x"),
            ("a.", "a_"),
            ("a. .", "a___"),
            ("...", "___"),
            ("a:b|c", "a_b_c"),
            ("a\\..\\b", "a_.._b"),
            ("ok.txt", "ok.txt"),
        ] {
            assert_eq!(clean(raw, WINDOWS), want);
        }
    }

    #[test]
    fn long_names_are_cut_at_a_character_and_stay_apart() {
        let (a, b) = ("é".repeat(300) + "a.flac", "é".repeat(300) + "b.flac");
        let (short_a, short_b) = (clean(&a, LINUX), clean(&b, LINUX));
        assert!(short_a.len() <= 255 && short_a.len() > 250 && short_a.ends_with(".flac"));
        assert_ne!(short_a, short_b);
        assert_eq!(short_a, clean(&a, LINUX));
        assert_eq!(clean("x".repeat(255), LINUX), "x".repeat(255));
    }

    #[test]
    fn numbers_go_before_the_extension() {
        let name = |leaf: &str, n| String::from_utf8(numbered(leaf.as_bytes(), n)).unwrap();
        assert_eq!(name("a.txt", 2), "a (2).txt");
        assert_eq!(name(".bashrc", 3), ".bashrc (3)");
        assert!(name(&"é".repeat(127), 4_000_000_000).len() <= 255);
    }

    #[test]
    fn verbatim_names_are_taken_or_refused() {
        assert_eq!(component(b"caf\xe9\n", Rules::VERBATIM).as_deref(), Some(&b"caf\xe9\n"[..]));
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            assert_eq!(component(bad, Rules::VERBATIM), None);
        }
    }
}
