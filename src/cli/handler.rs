//! `trackless handler`: makes trackless the program that a desktop starts for `magnet:` links, and
//! undoes it. Follows the freedesktop.org rules for desktop entries and MIME associations by
//! editing this user's own files; no root, no other program.
//!
//! What had the links before is kept inside our own desktop entry, so that `remove` can give them
//! back without a state file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use directories::BaseDirs;
use serde_json::json;

use super::args::{HandlerAction, HandlerArgs};
use super::desktop::{self, DESKTOP_ID};
use super::exit::{Code, Failure};
use super::files;
use super::output::Console;

/// Runs the verb.
pub fn run(args: &HandlerArgs, console: &Console) -> Result<(), Failure> {
    if cfg!(not(any(target_os = "linux", target_os = "freebsd"))) {
        return Err(Failure::new(Code::Other, "only XDG desktops (Linux, BSD) are known so far"));
    }
    let desktop = Desktop::of_this_user()?;
    match args.action {
        HandlerAction::Install { dry_run } => desktop.install(dry_run, console),
        HandlerAction::Remove { dry_run } => desktop.remove(dry_run, console),
        HandlerAction::Status => desktop.status(console),
    }
}

// The files that decide.
struct Desktop {
    entry: PathBuf,
    associations: PathBuf,
    system_associations: Vec<PathBuf>,
}

impl Desktop {
    fn of_this_user() -> Result<Self, Failure> {
        let dirs = BaseDirs::new().ok_or_else(|| {
            Failure::new(Code::Other, "this user has no home directory").advise("set HOME")
        })?;
        let list = |variable: &str, default: &str| -> Vec<PathBuf> {
            let value = std::env::var(variable).ok().filter(|v| !v.is_empty());
            let value = value.unwrap_or_else(|| default.to_owned());
            value.split(':').map(PathBuf::from).filter(|p| p.is_absolute()).collect()
        };
        let configs = list("XDG_CONFIG_DIRS", "/etc/xdg");
        let data = list("XDG_DATA_DIRS", "/usr/local/share:/usr/share");
        let applications = dirs.data_dir().join("applications");
        let system_associations = configs
            .iter()
            .map(|dir| dir.join("mimeapps.list"))
            .chain([applications.join("mimeapps.list")])
            .chain(data.iter().map(|dir| dir.join("applications/mimeapps.list")))
            .collect();
        Ok(Self {
            entry: applications.join(DESKTOP_ID),
            associations: dirs.config_dir().join("mimeapps.list"),
            system_associations,
        })
    }

    fn install(&self, dry_run: bool, console: &Console) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(|e| Failure::io("own path", &e))?;
        let list = read(&self.associations)?.unwrap_or_default();
        let before = desktop::default_handler(&list);
        let previous = match &before {
            // Installed already: what came before us stands in our entry.
            Some(handler) if desktop::is_ours(handler) => {
                read(&self.entry)?.as_deref().and_then(desktop::previous)
            }
            other => other.clone(),
        };
        let entry = desktop::entry(&program, previous.as_deref());
        let list = desktop::with_default(&list, Some(&format!("{DESKTOP_ID};")));
        let changes =
            [(&self.entry, Some(entry.as_str())), (&self.associations, Some(list.as_str()))];
        let files = apply(&changes, dry_run)?;
        report(console, "install", &files, previous.as_deref(), dry_run);
        Ok(())
    }

    fn remove(&self, dry_run: bool, console: &Console) -> Result<(), Failure> {
        let entry = read(&self.entry)?;
        let previous = entry.as_deref().and_then(desktop::previous);
        let list = read(&self.associations)?.unwrap_or_default();
        let is_ours = desktop::default_handler(&list).is_some_and(|h| desktop::is_ours(&h));
        // Another program took the links in the meantime: they stay with it.
        let restored = is_ours.then(|| desktop::with_default(&list, previous.as_deref()));
        let mut changes = Vec::new();
        if let Some(list) = &restored {
            changes.push((&self.associations, Some(list.as_str())));
        }
        if entry.is_some() {
            changes.push((&self.entry, None));
        }
        let files = apply(&changes, dry_run)?;
        report(console, "remove", &files, previous.as_deref().filter(|_| is_ours), dry_run);
        Ok(())
    }

    fn status(&self, console: &Console) -> Result<(), Failure> {
        let mut handler = None;
        for file in std::iter::once(&self.associations).chain(&self.system_associations) {
            // A system file that cannot be read decides nothing.
            let list = fs::read_to_string(file).unwrap_or_default();
            handler = desktop::default_handler(&list);
            if handler.is_some() {
                break;
            }
        }
        let first = handler.as_deref().and_then(|h| h.split(';').next());
        let installed = self.entry.is_file() && first == Some(DESKTOP_ID);
        console.record(
            || first.unwrap_or("none").to_owned(),
            || json!({"code": 0, "installed": installed, "default": first}),
        );
        if !installed {
            console
                .note("trackless is not the program for magnet links: `trackless handler install`");
        }
        Ok(())
    }
}

// Writes (`Some`) and deletes (`None`) what differs; returns what was or would be touched.
fn apply(changes: &[(&PathBuf, Option<&str>)], dry_run: bool) -> Result<Vec<PathBuf>, Failure> {
    let mut touched = Vec::new();
    for &(path, content) in changes {
        if read(path)?.as_deref() == content {
            continue;
        }
        touched.push(path.clone());
        if dry_run {
            continue;
        }
        match content {
            Some(content) => replace(path, content),
            None => fs::remove_file(path),
        }
        .map_err(|e| Failure::io(path.display(), &e))?;
    }
    Ok(touched)
}

fn report(console: &Console, action: &str, files: &[PathBuf], previous: Option<&str>, dry: bool) {
    if console.is_json() {
        let files: Vec<_> = files.iter().map(|f| f.to_string_lossy()).collect();
        console.record(String::new, || {
            json!({"code": 0, "action": action, "files": files, "previous": previous, "dry_run": dry})
        });
        return;
    }
    for file in files {
        console.record(|| Console::path_text(file), || json!(null));
    }
    match (files.is_empty(), dry) {
        (true, _) => console.note("nothing to change"),
        (false, true) => console.note("these would be written; nothing was"),
        (false, false) => {}
    }
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(path.display(), &error)),
    }
}

fn replace(path: &Path, content: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    files::replace(path, content.as_bytes())
}
