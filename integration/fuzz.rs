//! Every fuzz target over its committed corpus, and over a fixed number of mutations of it: what
//! libFuzzer once found stays fixed, on a stable compiler, in seconds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use trackless::base::Rng;

use crate::rig;

#[path = "../fuzz/src/lib.rs"]
mod targets;

/// Mutations of one run, of each target. `TRACKLESS_FUZZ_RUNS` asks for more.
const MUTATIONS: usize = 3_000;

#[test]
fn corpora_and_their_mutations_break_no_promise() {
    let runs = std::env::var("TRACKLESS_FUZZ_RUNS").ok().and_then(|n| n.parse().ok());
    let runs: usize = runs.unwrap_or(MUTATIONS);
    for (name, target) in targets::TARGETS {
        let folder = rig::repository().join("fuzz/corpus").join(name);
        let corpus = read_corpus(&folder);
        for (entry, data) in &corpus {
            hold(target, data, &format!("fuzz/corpus/{name}/{entry}"));
        }
        let corpus: Vec<Vec<u8>> = corpus.into_iter().map(|(_, data)| data).collect();
        let mut rng = Rng::from_seed([7; 32]);
        for number in 0..runs {
            let data = targets::mutate::mutant(&corpus, &mut rng);
            hold(target, &data, &format!("{name}, mutation {number}"));
        }
    }
}

// Runs one input. What breaks a promise is shown as a Rust literal: a corpus entry to be.
fn hold(target: targets::Target, data: &[u8], what: &str) {
    if catch_unwind(AssertUnwindSafe(|| target(data))).is_err() {
        panic!("{what}: b\"{}\"", data.escape_ascii());
    }
}

fn read_corpus(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut corpus: Vec<(String, Vec<u8>)> = files
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())
        })
        .collect();
    corpus.sort();
    assert!(!corpus.is_empty(), "{} is empty", folder.display());
    corpus
}

#[test]
fn every_target_has_its_way_in_and_its_corpus() {
    let fuzz = rig::repository().join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let mut ways: Vec<String> = rig::rust_files(&fuzz.join("fuzz_targets"))
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut names: Vec<String> = targets::TARGETS.iter().map(|(name, _)| (*name).into()).collect();
    names.sort();
    ways.sort();
    assert_eq!(names, ways);
    for name in &names {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is no target of cargo-fuzz"
        );
        let way = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(way.contains(&format!("trackless_fuzz::{name}(data)")));
    }
    let bytes: u64 = names
        .iter()
        .flat_map(|n| read_corpus(&fuzz.join("corpus").join(n)))
        .map(|(_, data)| data.len() as u64)
        .sum();
    assert!(bytes < 1 << 20, "the corpora are meant to be small, not {bytes} bytes");
}
