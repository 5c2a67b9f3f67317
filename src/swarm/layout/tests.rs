use super::*;
use crate::wire::metainfo::FileEntry;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Component;

fn entry(path: &[&str], len: u64) -> FileEntry {
    FileEntry { path: path.iter().map(|c| c.as_bytes().to_vec()).collect(), len, pad: false }
}

fn info(files: Vec<FileEntry>, piece_length: u32) -> Info {
    let total: u64 = files.iter().map(|f| f.len).sum();
    let pieces = usize::try_from(total.div_ceil(u64::from(piece_length))).unwrap();
    let (name, pieces) = (b"top".to_vec(), Bytes::from(vec![0; pieces * 20]));
    Info { name, piece_length, pieces, files, single_file: false, private: false }
}

fn paths(files: Vec<FileEntry>, rules: Rules) -> Vec<String> {
    let layout = Layout::with(&info(files, 16384), rules).unwrap();
    layout.files().iter().map(|f| f.path.to_str().unwrap().to_owned()).collect()
}

const LINUX: Rules = Rules { verbatim: false, windows: false, fold: false };
const FOLDING: Rules = Rules { verbatim: false, windows: false, fold: true };

#[test]
fn pieces_blocks_and_files_are_cut() {
    let layout = Layout::new(&info(
        vec![entry(&["a"], 0), entry(&["b"], 40_000), entry(&["c"], 0), entry(&["d"], 3)],
        32768,
    ))
    .unwrap();
    let (first, last) = (layout.piece(0).unwrap(), layout.piece(1).unwrap());
    assert_eq!(layout.piece(2), None);
    assert_eq!((layout.piece_len(first), layout.piece_len(last)), (32768, 40_003 - 32768));
    assert_eq!(
        (layout.block_count(first), layout.block_len(first, 1), layout.block_len(first, 2)),
        (2, 16384, 0)
    );
    assert_eq!((layout.block_count(last), layout.block_len(last, 0)), (1, 7235));
    let spans: Vec<_> = layout.spans(last, 7230, 5).collect();
    assert_eq!(
        spans,
        [
            Span { file: 1, file_offset: 39_998, at: 0, len: 2 },
            Span { file: 3, file_offset: 0, at: 2, len: 3 },
        ]
    );
    assert_eq!([0, 1, 2, 3, 9].map(|f| layout.pieces_of_file(f)), [0..0, 0..2, 0..0, 1..2, 0..0]);
    let wanted = |w: &[bool]| layout.wanted_pieces(Some(w)).iter().collect::<Vec<_>>();
    assert_eq!(wanted(&[true, false, true, true]), [1]);
    assert_eq!(wanted(&[]), [0u32; 0]);
    assert!(layout.wanted_pieces(None).is_all());
}

#[test]
fn torrent_without_bytes_has_no_pieces() {
    let layout = Layout::new(&info(vec![entry(&["a"], 0)], 16384)).unwrap();
    assert_eq!((layout.piece_count(), layout.piece(0), layout.total_len()), (0, None, 0));
    assert!(layout.wanted_pieces(None).is_all());
}

#[test]
fn equal_paths_and_folders_are_told_apart() {
    let files = vec![
        entry(&["a.txt"], 1),
        entry(&["a.txt"], 1),
        entry(&["a (2).txt"], 1),
        entry(&["d"], 1),
        entry(&["d", "x"], 1),
        entry(&["..", "x"], 1),
        entry(&["__", "x"], 1),
        entry(&["d", "x", "y"], 1),
    ];
    let want =
        ["a.txt", "a (2).txt", "a (2) (2).txt", "d (2)", "d/x (2)", "__/x", "__/x (2)", "d/x/y"];
    assert_eq!(paths(files, LINUX), want.map(|p| format!("top/{p}")));
}

#[test]
fn case_and_normal_form_clash_only_where_the_system_folds() {
    let files = vec![
        entry(&["\u{e9}"], 1),
        entry(&["e\u{301}"], 1),
        entry(&["E\u{301}"], 1),
        entry(&["A", "b"], 1),
        entry(&["a", "B"], 1),
    ];
    assert_eq!(
        paths(files.clone(), LINUX),
        ["top/\u{e9}", "top/e\u{301}", "top/E\u{301}", "top/A/b", "top/a/B"]
    );
    assert_eq!(
        paths(files, FOLDING),
        ["top/\u{e9}", "top/e\u{301} (2)", "top/E\u{301} (3)", "top/A/b", "top/a/B (2)"]
    );
}

#[test]
fn depth_and_length_are_bounded() {
    let deep = vec!["d"; 1000];
    let err = |files| Layout::new(&info(files, 16384)).unwrap_err();
    assert_eq!(
        err(vec![entry(&["a"], 1), entry(&deep, 1)]),
        LayoutError::TooDeep { file: 1, depth: 1000 }
    );
    let long = "x".repeat(200);
    assert!(matches!(
        err(vec![entry(&[long.as_str(); 50], 1)]),
        LayoutError::TooLong { file: 0, .. }
    ));
    let mut wrong = info(vec![entry(&["a"], 1)], 16384);
    wrong.pieces = Bytes::new();
    assert_eq!(Layout::new(&wrong), Err(LayoutError::Sizes));
}

#[test]
fn padding_and_names_of_single_files() {
    let mut files = vec![entry(&["a"], 1), entry(&[".pad", "1"], 16383), entry(&["b"], 1)];
    files[1].pad = true;
    let layout = Layout::new(&info(files, 16384)).unwrap();
    assert_eq!(layout.files()[1].path, PathBuf::new());
    assert_eq!(layout.wanted_pieces(Some(&[false, true, true])).iter().collect::<Vec<_>>(), [1]);
    let mut one = info(vec![entry(&["ignored"], 1)], 16384);
    one.single_file = true;
    one.name = b"../x".to_vec();
    let layout = Layout::new(&one).unwrap();
    assert_eq!((layout.name(), layout.files()[0].path.to_str()), (".._x", Some(".._x")));
    one.name = Vec::new();
    assert!(Layout::new(&one).unwrap().name().starts_with("unnamed-"));
    assert!(Layout::verbatim(&one).is_err());
}

#[test]
fn hundred_thousand_files_and_equal_names_are_quick() {
    let many: Vec<_> = (0..100_000)
        .map(|i| entry(&["dir", &format!("{}", i / 100), &format!("file{i}")], 1))
        .collect();
    assert_eq!(Layout::new(&info(many, 16384)).unwrap().files().len(), 100_000);
    let same = paths((0..20_000).map(|_| entry(&["same.txt"], 1)).collect(), FOLDING);
    assert_eq!(same[19_999], "top/same (20000).txt");
}

fn any_files() -> impl Strategy<Value = (Vec<FileEntry>, u32)> {
    let name = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6),
        prop::sample::select(vec![
            b"..".to_vec(),
            b".".to_vec(),
            b"a".to_vec(),
            b"A".to_vec(),
            b"a/b".to_vec(),
            b"\\".to_vec(),
            b"con".to_vec()
        ]),
    ];
    let file = (
        prop::collection::vec(name, 1..4),
        prop_oneof![Just(0u64), 0..100u64, 0..100_000u64],
        any::<bool>(),
    )
        .prop_map(|(path, len, pad)| FileEntry { path, len, pad: pad && len % 3 == 0 });
    (prop::collection::vec(file, 1..12), prop_oneof![1..50u32, 1..70_000u32])
}

proptest! {
    #[test]
    fn spans_cover_every_piece_exactly((files, piece_length) in any_files()) {
        let total: u64 = files.iter().map(|f| f.len).sum();
        // Few enough pieces to walk all of them.
        let piece_length = piece_length.max(u32::try_from(total / 500).unwrap());
        if piece_length == 0 { return Ok(()); }
        let layout = Layout::new(&info(files, piece_length)).unwrap();
        let mut position = 0u64;
        let mut of_file = vec![BTreeSet::new(); layout.files().len()];
        for piece in layout.all_pieces() {
            let mut at = 0;
            for block in 0..layout.block_count(piece) {
                let (begin, len) = (block * BLOCK_LEN, layout.block_len(piece, block));
                let mut inside = 0;
                for span in layout.spans(piece, begin, len) {
                    let file = &layout.files()[span.file];
                    prop_assert!(span.len > 0 && span.file_offset + u64::from(span.len) <= file.len);
                    prop_assert_eq!((span.at, file.offset + span.file_offset), (inside, position));
                    inside += span.len;
                    position += u64::from(span.len);
                    of_file[span.file].insert(piece.get());
                }
                prop_assert_eq!(inside, len);
                at += len;
            }
            prop_assert_eq!(at, layout.piece_len(piece));
        }
        prop_assert_eq!(position, layout.total_len());
        for (index, pieces) in of_file.iter().enumerate() {
            prop_assert!(layout.pieces_of_file(index).eq(pieces.iter().copied()));
        }
    }

    #[test]
    fn paths_are_unique_and_never_leave_the_folder((files, _) in any_files(), fold in any::<bool>(), windows in any::<bool>()) {
        let rules = Rules { verbatim: false, windows, fold };
        let layout = Layout::with(&info(files.clone(), 100_000), rules).unwrap();
        prop_assert_eq!(&layout, &Layout::with(&info(files, 100_000), rules).unwrap());
        let mut seen = BTreeSet::new();
        for file in layout.files().iter().filter(|f| !f.pad) {
            let parts: Vec<_> = file.path.components().collect();
            prop_assert!(parts.iter().all(|c| matches!(c, Component::Normal(_))));
            prop_assert!(file.path.starts_with("top") && parts.len() > 1);
            let text = file.path.to_str().unwrap().to_owned();
            prop_assert!(!text.chars().any(char::is_control));
            let key = if fold { text.to_lowercase() } else { text };
            prop_assert!(seen.insert(key));
        }
        for file in layout.files().iter().filter(|f| !f.pad) {
            prop_assert!(!layout.files().iter().any(|f| f.path != file.path && f.path.starts_with(&file.path)));
        }
    }
}
