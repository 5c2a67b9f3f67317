//! `trackless handler`: makes trackless the program that a desktop starts for `magnet:` links, and
//! undoes it (freedesktop.org: desktop entries, MIME associations). `xdg-mime` does it where it is
//! installed; elsewhere this user's own `mimeapps.list` is edited. No root.
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
use super::format::escape;
use super::output::Console;
use super::xdg_mime::{self, XdgMime};

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
        let folders = configs
            .into_iter()
            .chain([applications.clone()])
            .chain(data.iter().map(|dir| dir.join("applications")));
        let system_associations = folders.map(|dir| dir.join("mimeapps.list")).collect();
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
        let taken = desktop::with_default(&list, Some(&format!("{DESKTOP_ID};")));
        let mut done = Done { previous, dry_run, ..Done::default() };
        // xdg-mime gives links only to what is installed.
        done.apply(&self.entry, Some(&entry))?;
        let is_ours = before.as_deref().is_some_and(desktop::is_ours);
        let is_unseen = dry_run && !self.entry.is_file();
        if let Some(tool) = XdgMime::find()
            && !(is_ours && (tool.is_ours() || is_unseen))
        {
            done.hand_over(DESKTOP_ID, console);
        }
        let now = read(&self.associations)?.unwrap_or_default();
        let is_ours = desktop::default_handler(&now).is_some_and(|h| desktop::is_ours(&h));
        if is_ours {
            done.note_changed(&self.associations, list != now);
        } else {
            done.apply(&self.associations, Some(&taken))?;
        }
        done.report("install", console);
        Ok(())
    }

    fn remove(&self, dry_run: bool, console: &Console) -> Result<(), Failure> {
        let entry = read(&self.entry)?;
        let previous = entry.as_deref().and_then(desktop::previous);
        let list = read(&self.associations)?.unwrap_or_default();
        // Another program took the links in the meantime: they stay with it.
        let is_listed = desktop::default_handler(&list).is_some_and(|h| desktop::is_ours(&h));
        let tool = XdgMime::find();
        let is_ours = is_listed || tool.as_ref().is_some_and(XdgMime::is_ours);
        let mut done = Done { previous: previous.filter(|_| is_ours), dry_run, ..Done::default() };
        if let (Some(_), Some(previous)) = (tool, done.previous.clone()) {
            done.hand_over(first(&previous), console);
        }
        if is_listed {
            // xdg-mime knows one program and no "none": the list becomes what it was.
            let restored = desktop::with_default(&list, done.previous.as_deref());
            done.apply(&self.associations, Some(&restored))?;
        }
        if entry.is_some() {
            done.apply(&self.entry, None)?;
        }
        done.report("remove", console);
        Ok(())
    }

    fn status(&self, console: &Console) -> Result<(), Failure> {
        let tool = XdgMime::find().and_then(|tool| tool.default);
        let handler = tool.or_else(|| self.listed());
        let first = handler.as_deref().map(first);
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

    // What the lists say, in the order in which desktops read them.
    fn listed(&self) -> Option<String> {
        let lists = std::iter::once(&self.associations).chain(&self.system_associations);
        // A file that cannot be read decides nothing.
        let mut texts = lists.map(|file| fs::read_to_string(file).unwrap_or_default());
        texts.find_map(|list| desktop::default_handler(&list))
    }
}

fn first(handlers: &str) -> &str {
    handlers.split(';').next().unwrap_or_default()
}

// What was changed, or would be.
#[derive(Default)]
struct Done {
    dry_run: bool,
    files: Vec<PathBuf>,
    commands: Vec<String>,
    previous: Option<String>,
}

impl Done {
    // Writes (`Some`) or deletes (`None`) a file that is not so yet.
    fn apply(&mut self, path: &Path, content: Option<&str>) -> Result<(), Failure> {
        if read(path)?.as_deref() == content {
            return Ok(());
        }
        self.note_changed(path, true);
        if self.dry_run {
            return Ok(());
        }
        match content {
            Some(content) => replace(path, content),
            None => fs::remove_file(path),
        }
        .map_err(|e| Failure::io(path.display(), &e))
    }

    // Has xdg-mime give the links to an entry. The list is edited afterwards as far as that has not
    // happened.
    fn hand_over(&mut self, entry: &str, console: &Console) {
        let command = xdg_mime::command_line(entry);
        if !self.dry_run
            && let Err(error) = xdg_mime::set_default(entry)
        {
            console.warn(&format!("{command}: {error}: editing mimeapps.list instead"));
            return;
        }
        self.commands.push(command);
    }

    fn note_changed(&mut self, path: &Path, has_changed: bool) {
        if has_changed && !self.files.iter().any(|file| file == path) {
            self.files.push(path.to_owned());
        }
    }

    fn report(&self, action: &str, console: &Console) {
        if console.is_json() {
            let files: Vec<_> = self.files.iter().map(|f| f.to_string_lossy()).collect();
            console.record(String::new, || {
                json!({
                    "code": 0,
                    "action": action,
                    "files": files,
                    "commands": self.commands,
                    "previous": self.previous,
                    "dry_run": self.dry_run,
                })
            });
            return;
        }
        for file in &self.files {
            console.record(|| Console::path_text(file), || json!(null));
        }
        let verb = if self.dry_run { "would run" } else { "ran" };
        for command in &self.commands {
            console.note(&format!("{verb}: {}", escape(command)));
        }
        match (self.files.is_empty() && self.commands.is_empty(), self.dry_run) {
            (true, _) => console.note("nothing to change"),
            (false, true) => console.note("these would be written; nothing was"),
            (false, false) => {}
        }
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
