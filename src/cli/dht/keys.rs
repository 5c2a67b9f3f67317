//! The keys that sign items (BEP 44): 32 secret bytes in a file of their own, as hex.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::cli::config::usage;
use crate::cli::exit::{Code, Failure};
use crate::cli::files;
use crate::cli::output::Console;
use crate::dht::SecretKey;
use crate::driver::entropy;

/// The key that `--key` or `--new-key` names, if any is.
pub fn read(
    key: Option<&str>,
    new_key: Option<&PathBuf>,
    console: &Console,
) -> Result<Option<SecretKey>, Failure> {
    match (key, new_key) {
        (None, None) => Ok(None),
        (Some(key), _) => match bytes(key) {
            Some(seed) => Ok(Some(SecretKey::from_seed(&seed))),
            None => from_file(Path::new(key), console).map(Some),
        },
        (None, Some(path)) => make(path, console).map(Some),
    }
}

fn from_file(path: &Path, console: &Console) -> Result<SecretKey, Failure> {
    let failed = |e: std::io::Error| {
        let failure = Failure::io(path.display(), &e);
        match e.kind() {
            std::io::ErrorKind::NotFound => failure.advise("--new-key FILE makes a key"),
            _ => failure,
        }
    };
    let file = File::open(path).map_err(failed)?;
    if files::is_readable_by_others(&file) {
        console.warn(&format!("{}: others may read this key: chmod 600", path.display()));
    }
    let mut content = Vec::new();
    file.take(FILE_LEN_MAX).read_to_end(&mut content).map_err(failed)?;
    let text = std::str::from_utf8(&content).unwrap_or_default();
    let seed = bytes(text.trim()).or_else(|| content.try_into().ok());
    let expected = "expected an ed25519 seed: 64 hex digits, or 32 bytes";
    seed.map(|seed| SecretKey::from_seed(&seed))
        .ok_or_else(|| usage(format!("{}: {expected}", path.display())))
}

fn make(path: &Path, console: &Console) -> Result<SecretKey, Failure> {
    let seed = entropy::seed()
        .map_err(|e| Failure::new(Code::Other, format!("no randomness from the system: {e}")))?;
    let text = format!("{}\n", hex(&seed));
    files::create_secret(path, text.as_bytes()).map_err(|e| {
        let failure = Failure::io(path.display(), &e);
        match e.kind() {
            std::io::ErrorKind::AlreadyExists => {
                failure.advise("to sign with the key that is there, use --key")
            }
            _ => failure,
        }
    })?;
    console.note(&format!("a new key is in {}: keep it, and keep it secret", path.display()));
    Ok(SecretKey::from_seed(&seed))
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of exactly so many hex digits.
pub fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(out)
}

// A seed in hex, its line end, and room to see that there is more.
const FILE_LEN_MAX: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_as_it_is_written_and_nothing_else_is() {
        assert_eq!(bytes(&hex(&[0x00, 0x7f, 0xff])), Some([0x00, 0x7f, 0xff]));
        assert_eq!(bytes("AbCd"), Some([0xab, 0xcd]));
        for bad in ["", "abc", "abcde", "abcdef", "xxyy", "+1-1", "é1é"] {
            assert_eq!(bytes::<2>(bad), None, "{bad}");
        }
    }
}
