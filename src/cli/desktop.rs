//! The two freedesktop.org file formats that `handler` edits, as text in and text out: the desktop
//! entry and `mimeapps.list`. What we do not know in them stays as it is.

use std::path::Path;

/// The name of our desktop entry.
pub const DESKTOP_ID: &str = "trackless.desktop";
/// What a magnet link is to a desktop.
pub const MAGNET: &str = "x-scheme-handler/magnet";

/// Our desktop entry. `previous` is what had the links before.
pub fn entry(program: &Path, previous: Option<&str>) -> String {
    let mut text = format!(
        "[Desktop Entry]\n\
         Type=Application\n\
         Name=trackless\n\
         Comment=Download magnet links over the Mainline DHT\n\
         Exec={} open %u\n\
         Terminal=true\n\
         NoDisplay=true\n\
         Categories=Network;FileTransfer;P2P;\n\
         MimeType={MAGNET};\n",
        quoted(&program.to_string_lossy())
    );
    if let Some(previous) = previous {
        text.push_str(&format!("{PREVIOUS}={previous}\n"));
    }
    text
}

/// What our entry remembers as the program before us.
pub fn previous(entry: &str) -> Option<String> {
    value_in(entry, "[Desktop Entry]", PREVIOUS)
}

/// Who has magnet links by this `mimeapps.list`: a list of desktop entries, best first.
pub fn default_handler(list: &str) -> Option<String> {
    value_in(list, DEFAULTS, MAGNET)
}

/// Is the first of these desktop entries ours?
pub fn is_ours(handlers: &str) -> bool {
    handlers.split(';').next() == Some(DESKTOP_ID)
}

/// The list with another default for magnet links, or with none.
pub fn with_default(list: &str, handlers: Option<&str>) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut inside = false;
    let mut group_at = None;
    let mut placed = false;
    for line in list.lines() {
        if line.trim_start().starts_with('[') {
            inside = line.trim() == DEFAULTS;
            if inside {
                group_at.get_or_insert(lines.len());
            }
        } else if inside && key_of(line) == Some(MAGNET) {
            // In its old place; a second one would be read by nobody.
            if let (false, Some(handlers)) = (placed, handlers) {
                lines.push(format!("{MAGNET}={handlers}"));
                placed = true;
            }
            continue;
        }
        lines.push(line.to_owned());
    }
    if let (false, Some(at), Some(handlers)) = (placed, group_at, handlers) {
        lines.insert(at + 1, format!("{MAGNET}={handlers}"));
        placed = true;
    }
    if let (false, Some(handlers)) = (placed, handlers) {
        if lines.last().is_some_and(|l| !l.is_empty()) {
            lines.push(String::new());
        }
        lines.push(DEFAULTS.to_owned());
        lines.push(format!("{MAGNET}={handlers}"));
    }
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn value_in(text: &str, group: &str, key: &str) -> Option<String> {
    let mut inside = false;
    for line in text.lines() {
        if line.trim_start().starts_with('[') {
            inside = line.trim() == group;
        } else if inside && key_of(line) == Some(key) {
            let value = line.split_once('=')?.1.trim();
            return (!value.is_empty()).then(|| value.to_owned());
        }
    }
    None
}

fn key_of(line: &str) -> Option<&str> {
    (!line.trim_start().starts_with('#')).then(|| line.split_once('='))?.map(|(key, _)| key.trim())
}

// The Exec key: quotes, with `"`, backtick, `$` and `\` escaped, once more for the string type of
// the file itself, and `%` doubled, as field codes begin with it.
fn quoted(program: &str) -> String {
    let mut quoted = String::from("\"");
    for c in program.chars() {
        match c {
            '"' | '`' | '$' => quoted.extend(['\\', '\\', c]),
            '\\' => quoted.push_str("\\\\\\\\"),
            '%' => quoted.push_str("%%"),
            '\n' => quoted.push_str("\\n"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

const DEFAULTS: &str = "[Default Applications]";
const PREVIOUS: &str = "X-Trackless-Previous";

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# mine\n[Added Associations]\nx-scheme-handler/magnet=a.desktop;\n\n\
                        [Default Applications]\ntext/html=b.desktop\nx-scheme-handler/magnet=qb.desktop;t.desktop;\n";

    #[test]
    fn default_is_replaced_and_given_back_with_all_else_untouched() {
        assert_eq!(default_handler(LIST).as_deref(), Some("qb.desktop;t.desktop;"));
        let ours = with_default(LIST, Some("trackless.desktop;"));
        assert!(is_ours(&default_handler(&ours).unwrap()));
        assert!(ours.contains("text/html=b.desktop"));
        assert!(
            ours.starts_with("# mine\n[Added Associations]\nx-scheme-handler/magnet=a.desktop;")
        );
        assert_eq!(with_default(&ours, Some("trackless.desktop;")), ours, "twice changes nothing");
        let back = with_default(&ours, Some("qb.desktop;t.desktop;"));
        assert_eq!(default_handler(&back), default_handler(LIST));
        assert_eq!(default_handler(&with_default(&ours, None)), None);
    }

    #[test]
    fn missing_group_is_made() {
        for list in ["", "[Added Associations]\na=b\n"] {
            let ours = with_default(list, Some("trackless.desktop;"));
            assert_eq!(default_handler(&ours).as_deref(), Some("trackless.desktop;"), "{list:?}");
            assert!(ours.starts_with(list));
        }
        assert_eq!(with_default("", None), "");
    }

    #[test]
    fn comments_and_other_groups_are_not_read() {
        let list = "[Other]\nx-scheme-handler/magnet=a\n[Default Applications]\n#x-scheme-handler/magnet=b\n";
        assert_eq!(default_handler(list), None);
    }

    #[test]
    fn entry_remembers_who_came_before() {
        let text = entry(Path::new("/opt/track less/bin"), Some("qb.desktop;"));
        assert!(text.contains("Exec=\"/opt/track less/bin\" open %u\n"), "{text}");
        assert!(text.contains("MimeType=x-scheme-handler/magnet;\n"));
        assert_eq!(previous(&text).as_deref(), Some("qb.desktop;"));
        assert_eq!(previous(&entry(Path::new("/x"), None)), None);
    }

    #[test]
    fn program_path_cannot_break_out_of_its_quotes() {
        assert_eq!(quoted("/a\"b$c`d\\e%f"), "\"/a\\\\\"b\\\\$c\\\\`d\\\\\\\\e%%f\"");
    }
}
