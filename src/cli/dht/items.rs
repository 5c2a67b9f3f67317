//! `dht get` and `dht put`: small values that the DHT stores itself (BEP 44).

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::keys::{self, hex};
use super::{nobody, summary};
use crate::base::Key;
use crate::base::limits::{ITEM_SALT_MAX, ITEM_VALUE_MAX};
use crate::cli::args::PutArgs;
use crate::cli::config::usage;
use crate::cli::exit::{Code, Failure};
use crate::cli::files;
use crate::cli::format::escape;
use crate::cli::output::Console;
use crate::cli::stage::plural;
use crate::dht::{Item, ItemError, ItemKey, SecretKey, string_value};
use crate::driver::{Dht, Outcome, Stage};

/// `get`.
#[derive(Debug)]
pub struct Get {
    key: ItemKey,
    output: Option<PathBuf>,
}

impl Get {
    /// Reads the flags.
    pub fn read(key: &str, salt: Option<&str>, output: Option<&PathBuf>) -> Result<Self, Failure> {
        Ok(Self { key: item_key(key, salt)?, output: output.cloned() })
    }

    /// Fetches the newest version.
    pub async fn run(self, dht: &Dht, console: &Console) -> Result<(), Failure> {
        let (item, outcome) = newest(dht, self.key).await?;
        summary(&outcome, console);
        let Some(item) = item else {
            if outcome.answered() == 0 {
                return Err(nobody(&outcome));
            }
            let asked = plural(outcome.asked(), "node");
            let failure = Failure::new(Code::NoPeers, format!("asked {asked}, none has this item"))
                .at(Stage::Nodes);
            return Err(failure
                .advise("nodes forget an item after two hours: whoever has it must put it again"));
        };
        let bytes = item.content().unwrap_or(item.value());
        match self.output.as_deref() {
            Some(path) if path != Path::new("-") => {
                files::replace(path, bytes).map_err(|e| Failure::io(path.display(), &e))?;
                if !console.is_json() {
                    return Ok(());
                }
            }
            Some(_) if !console.is_json() => {
                console.write(bytes);
                return Ok(());
            }
            Some(_) | None => {}
        }
        if !console.is_json() && std::str::from_utf8(bytes).is_err() {
            console.note("the value is no text: here it is in hex; -o FILE has its bytes");
        }
        console.record(
            || line(&item),
            || {
                let mut json = to_json(&item);
                json["code"] = 0.into();
                json["copies"] = outcome.reports.iter().map(|r| r.copies).sum::<usize>().into();
                json
            },
        );
        Ok(())
    }
}

/// `put`.
#[derive(Debug)]
pub struct Put {
    value: Vec<u8>,
    signing: Option<Signing>,
}

#[derive(Debug)]
struct Signing {
    key: SecretKey,
    salt: Vec<u8>,
    seq: Option<i64>,
    cas: Option<i64>,
}

impl Put {
    /// Reads the flags, the value, and the key; a new key is made here.
    pub fn read(args: &PutArgs, console: &Console) -> Result<Self, Failure> {
        if args.key.is_none() && args.new_key.is_none() {
            let flags = [
                ("--salt", args.salt.is_some()),
                ("--seq", args.seq.is_some()),
                ("--cas", args.cas.is_some()),
            ];
            if let Some((flag, _)) = flags.iter().find(|(_, given)| *given) {
                return Err(usage(format!(
                    "{flag} is for signed items: it needs --key or --new-key"
                )));
            }
        }
        let given = read_value(args)?;
        let value = if args.bencode { given } else { string_value(&given) };
        // What is wrong with it is said before a key is made.
        Item::immutable(value.clone()).map_err(unusable)?;
        let salt = args.salt.clone().unwrap_or_default().into_bytes();
        SecretKey::from_seed(&[0; 32]).sign(&salt, 0, value.clone()).map_err(unusable)?;
        let key = keys::read(args.key.as_deref(), args.new_key.as_ref(), console)?;
        let signing = key.map(|key| Signing { key, salt, seq: args.seq, cas: args.cas });
        Ok(Self { value, signing })
    }

    /// Stores it.
    pub async fn run(self, dht: &Dht, console: &Console) -> Result<(), Failure> {
        let (item, cas) = match self.signing {
            None => (Item::immutable(self.value).map_err(unusable)?, None),
            Some(signing) => signing.sign(self.value, dht).await?,
        };
        let mut newer = None;
        let mut put = dht.put_item(item.clone(), cas).await;
        while let Some(found) = put.next().await {
            newer = Some(found);
        }
        let outcome = put.finish().await?;
        summary(&outcome, console);
        if let Some(failure) = failure(&outcome, newer.as_ref()) {
            return Err(failure);
        }
        let stored = outcome.announced();
        console.note(&format!("stored by {}", plural(stored, "node")));
        console.record(
            || name(&item),
            || {
                let mut json = identity(&item);
                json["code"] = 0.into();
                json["stored"] = stored.into();
                json["asked"] = outcome.asked().into();
                json
            },
        );
        Ok(())
    }
}

impl Signing {
    // Without a version number, what is stored is looked at first, and only that is replaced: of two
    // who write at the same time, one hears of it.
    async fn sign(self, value: Vec<u8>, dht: &Dht) -> Result<(Item, Option<i64>), Failure> {
        let Signing { key, salt, seq, mut cas } = self;
        let seq = match seq {
            Some(seq) => seq,
            None => {
                let public_key = key.public_key();
                let known = ItemKey::Mutable { public_key, salt: salt.clone() };
                let (newest, outcome) = newest(dht, known).await?;
                if outcome.answered() == 0 {
                    return Err(nobody(&outcome));
                }
                let found = newest.and_then(|item| item.seq());
                cas = cas.or(found);
                let last = "the last version number there can be is stored already";
                found
                    .map_or(Some(1), |seq| seq.checked_add(1))
                    .ok_or_else(|| Failure::new(Code::Refused, last).advise("use another key"))?
            }
        };
        Ok((key.sign(&salt, seq, value).map_err(unusable)?, cas))
    }
}

// Why it is not stored, or not in a way that it would be found.
fn failure(outcome: &Outcome, newer: Option<&Item>) -> Option<Failure> {
    let stored = outcome.announced();
    let count = |wanted: &[i64]| outcome.refused().filter(|code| wanted.contains(code)).count();
    let (outdated, conflicting, forged) = (count(&[302]), count(&[301]), count(&[205, 206, 207]));
    let but = match stored {
        0 => String::new(),
        stored => format!(", and {} took it", plural(stored, "node")),
    };
    let found = newer.and_then(Item::seq).map(|seq| format!(": version {seq} is stored"));
    let found = found.unwrap_or_default();
    let refusal = |error: String| Some(Failure::new(Code::Refused, error).at(Stage::Nodes));
    if outdated > 0 {
        return refusal(format!("refused as no newer than what is stored{found}{but}"));
    }
    if conflicting > 0 {
        return refusal(format!("what is stored is not the version of --cas{found}{but}"));
    }
    if stored > 0 {
        return None;
    }
    if forged > 0 {
        return refusal(format!("{} refused the signature or the size", plural(forged, "node")));
    }
    if outcome.answered() == 0 {
        return Some(nobody(outcome));
    }
    let asked = plural(outcome.asked(), "node");
    Some(Failure::new(Code::NoPeers, format!("asked {asked}, none stores items")).at(Stage::Nodes))
}

/// The newest version of an item that can be found.
async fn newest(dht: &Dht, key: ItemKey) -> Result<(Option<Item>, Outcome), Failure> {
    let mut items = dht.get_item(key).await;
    let mut newest: Option<Item> = None;
    while let Some(item) = items.next().await {
        // Each address family has a newest of its own.
        if newest.as_ref().is_none_or(|known| known.seq() < item.seq()) {
            newest = Some(item);
        }
    }
    Ok((newest, items.finish().await?))
}

/// Reads what `put` printed, and a salt.
pub fn item_key(key: &str, salt: Option<&str>) -> Result<ItemKey, Failure> {
    if let Some(public_key) = keys::bytes(key) {
        let salt = salt.unwrap_or_default().as_bytes().to_vec();
        // Nobody can have stored such an item.
        if salt.len() > ITEM_SALT_MAX {
            return Err(unusable(ItemError::SaltLength));
        }
        return Ok(ItemKey::Mutable { public_key, salt });
    }
    let expected = "expected the 40 hex digits of a target, or the 64 of a public key";
    let target: Key = key.parse().map_err(|_| usage(format!("{key}: {expected}")))?;
    match salt {
        None => Ok(ItemKey::Immutable(target)),
        Some(_) => Err(usage("--salt is for signed items: give the public key")),
    }
}

/// What an item is known by, in one word.
pub fn name(item: &Item) -> String {
    match item {
        Item::Immutable { .. } => item.target().to_string(),
        Item::Mutable { public_key, .. } => hex(public_key),
    }
}

/// The value for eyes, in one line.
pub fn line(item: &Item) -> String {
    let bytes = item.content().unwrap_or(item.value());
    match std::str::from_utf8(bytes) {
        Ok(text) if std::io::stdout().is_terminal() => escape(text).into_owned(),
        Ok(text) => text.to_owned(),
        Err(_) => hex(bytes),
    }
}

/// An item for programs.
pub fn to_json(item: &Item) -> Value {
    let content = item.content();
    let mut json = identity(item);
    json["text"] = content.and_then(|c| std::str::from_utf8(c).ok()).into();
    json["hex"] = content.map(hex).into();
    json["bencode"] = hex(item.value()).into();
    json
}

fn identity(item: &Item) -> Value {
    let mut json = json!({"target": item.target().to_string()});
    if let Item::Mutable { public_key, salt, seq, .. } = item {
        json["key"] = hex(public_key).into();
        json["salt"] = String::from_utf8_lossy(salt).into();
        json["seq"] = (*seq).into();
    }
    json
}

fn read_value(args: &PutArgs) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    // One byte more shows that it is too long.
    let limit = ITEM_VALUE_MAX as u64 + 1;
    match (&args.value, args.file.as_deref()) {
        (Some(value), _) if value != "-" => bytes = value.clone().into_bytes(),
        (None, Some(path)) if path != Path::new("-") => {
            let file = std::fs::File::open(path);
            file.and_then(|file| file.take(limit).read_to_end(&mut bytes))
                .map_err(|e| Failure::io(path.display(), &e))?;
        }
        (_, _) => {
            let stdin = std::io::stdin().lock();
            stdin.take(limit).read_to_end(&mut bytes).map_err(|e| Failure::io("stdin", &e))?;
        }
    }
    Ok(bytes)
}

fn unusable(error: ItemError) -> Failure {
    usage(error.to_string())
}
