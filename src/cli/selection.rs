//! Which files of a torrent are wanted: `--files` by index, range or pattern, or `so=` in the link
//! (BEP 53).

use std::ops::RangeInclusive;

use glob::{MatchOptions, Pattern};

use super::config::usage;
use super::exit::{Code, Failure};
use crate::swarm::layout::Layout;
use crate::wire::magnet::Link;

/// A choice of files, not yet applied to a torrent.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    choices: Vec<Choice>,
    // A link may be older or newer than what it names; somebody who types means it.
    is_typed: bool,
}

#[derive(Debug, Clone)]
enum Choice {
    Indexes(RangeInclusive<u32>),
    Paths(Pattern),
}

impl Selection {
    /// Reads the values of `--files`.
    pub fn parse(texts: &[String]) -> Result<Self, Failure> {
        let choices = texts.iter().map(|t| choice(t.trim())).collect::<Result<_, _>>()?;
        Ok(Self { choices, is_typed: true })
    }

    /// The choice that a link makes, if any.
    pub fn of_link(link: &Link) -> Self {
        let ranges = link.select.iter().flatten();
        let choices = ranges.map(|r| Choice::Indexes(r.clone())).collect();
        Self { choices, is_typed: false }
    }

    /// Is everything wanted?
    pub fn is_all(&self) -> bool {
        self.choices.is_empty()
    }

    /// One flag a file; `None` if all are wanted. A typed choice that matches nothing is an error:
    /// the user meant something by it.
    pub fn apply(&self, layout: &Layout) -> Result<Option<Vec<bool>>, Failure> {
        if self.is_all() {
            return Ok(None);
        }
        let files = layout.files();
        let mut wanted = vec![false; files.len()];
        for choice in &self.choices {
            if self.is_typed && choice.is_beyond(files.len()) {
                return Err(beyond(choice, files.len()));
            }
            let mut matched = false;
            for (index, file) in files.iter().enumerate().filter(|(_, file)| !file.pad) {
                if choice.matches(index, &file.path.to_string_lossy()) {
                    wanted[index] = true;
                    matched = true;
                }
            }
            if !matched && self.is_typed {
                return Err(self.no_match(choice));
            }
        }
        if wanted.contains(&true) { Ok(Some(wanted)) } else { Err(self.no_match(&self.choices[0])) }
    }

    fn no_match(&self, choice: &Choice) -> Failure {
        Failure::new(Code::Usage, format!("no file of this torrent matches `{}`", choice.text()))
            .advise("see the files with --list")
    }
}

fn beyond(choice: &Choice, count: usize) -> Failure {
    let there = match count {
        1 => "one file, numbered 0".to_owned(),
        n => format!("{n} files, numbered 0 to {}", n - 1),
    };
    usage(format!("--files {}: this torrent has {there}", choice.text()))
        .advise("see the files with --list")
}

impl Choice {
    fn text(&self) -> String {
        match self {
            Choice::Indexes(range) if range.start() == range.end() => range.start().to_string(),
            Choice::Indexes(range) => format!("{}-{}", range.start(), range.end()),
            Choice::Paths(pattern) => pattern.as_str().to_owned(),
        }
    }

    fn is_beyond(&self, count: usize) -> bool {
        match self {
            Choice::Indexes(range) => usize::try_from(*range.end()).is_ok_and(|end| end >= count),
            Choice::Paths(_) => false,
        }
    }

    // A pattern may mean the whole path, the path below the torrent's folder, or the name alone.
    fn matches(&self, index: usize, path: &str) -> bool {
        match self {
            Choice::Indexes(range) => u32::try_from(index).is_ok_and(|i| range.contains(&i)),
            Choice::Paths(pattern) => {
                let options = MatchOptions {
                    case_sensitive: false,
                    require_literal_separator: false,
                    require_literal_leading_dot: false,
                };
                let below = path.split_once('/').map_or(path, |(_, below)| below);
                let name = path.rsplit('/').next().unwrap_or(path);
                [path, below, name].iter().any(|p| pattern.matches_with(p, options))
            }
        }
    }
}

fn choice(text: &str) -> Result<Choice, Failure> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    if let (Ok(from), Ok(to)) = (from.trim().parse(), to.trim().parse()) {
        return if from <= to {
            Ok(Choice::Indexes(from..=to))
        } else {
            Err(usage(format!("--files {text}: the range ends before it begins")))
        };
    }
    Pattern::new(text).map(Choice::Paths).map_err(|e| usage(format!("--files {text}: {}", e.msg)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::metainfo::Info;

    // Three files: show/a.mkv, show/extra/b.mkv, show/extra/readme.TXT.
    fn layout() -> Layout {
        let info = b"d5:filesl\
            d6:lengthi1e4:pathl5:a.mkvee\
            d6:lengthi1e4:pathl5:extra5:b.mkvee\
            d6:lengthi1e4:pathl5:extra10:readme.TXTee\
            e4:name4:show12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
        Layout::new(&Info::decode(&Bytes::from_static(info)).unwrap()).unwrap()
    }

    fn wanted(texts: &[&str]) -> Result<Option<Vec<bool>>, Failure> {
        let texts: Vec<_> = texts.iter().map(|t| (*t).to_owned()).collect();
        Selection::parse(&texts)?.apply(&layout())
    }

    #[test]
    fn indexes_ranges_and_patterns_add_up() {
        assert_eq!(wanted(&[]), Ok(None));
        assert_eq!(wanted(&["0"]), Ok(Some(vec![true, false, false])));
        assert_eq!(wanted(&["1-2"]), Ok(Some(vec![false, true, true])));
        assert_eq!(wanted(&["*.mkv"]), Ok(Some(vec![true, true, false])));
        assert_eq!(wanted(&["readme.txt"]), Ok(Some(vec![false, false, true])));
        assert_eq!(wanted(&["extra/*"]), Ok(Some(vec![false, true, true])));
        assert_eq!(wanted(&["show/a.mkv", "2"]), Ok(Some(vec![true, false, true])));
    }

    #[test]
    fn what_matches_nothing_is_named() {
        for text in ["7", "*.iso"] {
            assert!(wanted(&["0", text]).unwrap_err().error.contains(text), "beside a good one");
            let failure = wanted(&[text]).unwrap_err();
            assert_eq!(failure.code, Code::Usage);
            assert!(failure.error.contains(text), "{}", failure.error);
        }
        for text in ["3", "1-3", "0-99"] {
            let failure = wanted(&["0", text]).unwrap_err();
            assert_eq!(failure.code, Code::Usage);
            let told = format!("--files {text}: this torrent has 3 files, numbered 0 to 2");
            assert_eq!(failure.error, told);
        }
        assert_eq!(wanted(&["5-2"]).unwrap_err().code, Code::Usage);
        assert_eq!(wanted(&["[x"]).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn link_with_so_selects() {
        let link =
            Link::parse("magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&so=0,2,9")
                .unwrap();
        let selection = Selection::of_link(&link);
        assert_eq!(selection.apply(&layout()), Ok(Some(vec![true, false, true])));
    }
}
