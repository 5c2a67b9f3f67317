use super::*;
use proptest::prelude::*;

fn info_of(text: impl AsRef<[u8]>) -> Result<Info, MetainfoError> {
    Info::decode(&Bytes::copy_from_slice(text.as_ref()))
}

fn hashes(n: usize) -> Vec<u8> {
    [format!("6:pieces{}:", n * 20).into_bytes(), vec![7; n * 20]].concat()
}

fn single(length: &str, piece_length: &str, count: usize) -> Vec<u8> {
    let head = format!("d6:lengthi{length}e4:name1:a12:piece lengthi{piece_length}e");
    [head.into_bytes(), hashes(count), b"e".to_vec()].concat()
}

fn multi(files: &str, count: usize) -> Vec<u8> {
    let head = format!("d5:filesl{files}e4:name1:a12:piece lengthi16384e");
    [head.into_bytes(), hashes(count), b"e".to_vec()].concat()
}

#[test]
fn single_file_is_read() {
    let info = info_of(single("20000", "16384", 2)).unwrap();
    assert_eq!((info.total_len(), info.piece_count(), info.single_file), (20000, 2, true));
    assert_eq!(info.piece_hash(1), Some([7; 20]));
    assert_eq!(info.piece_hash(2), None);
    assert_eq!(info.files[0].path, [b"a".to_vec()]);
    assert!(!info.private);
}

#[test]
fn many_files_padding_links_and_utf8_paths_are_read() {
    let files = "d6:lengthi10e4:pathl1:x10:path.utf-8l3:dir5:\u{00e9}\u{00e8}xee\
                 d4:attr1:p6:lengthi16374e4:pathl4:.pad5:16374eed6:lengthi1e4:pathl1:yee\
                 d4:attr1:l6:lengthi99e4:pathl4:linke12:symlink pathl1:yeed6:lengthi0e4:pathl1:zee";
    let files = files.replace("4:pathl1:x10:", "4:pathl1:xe10:");
    let info = info_of(multi(&files, 2)).unwrap();
    assert_eq!(info.files.len(), 5);
    assert_eq!(info.files[0].path, [b"dir".to_vec(), "\u{e9}\u{e8}x".into()]);
    assert_eq!(
        info.files.iter().map(|f| f.pad).collect::<Vec<_>>(),
        [false, true, false, true, false]
    );
    assert_eq!((info.total_len(), info.files[3].len), (16385, 0));
    assert!(!info.single_file);
}

#[test]
fn space_behind_a_torrent_is_no_part_of_it() {
    let info = single("20000", "16384", 2);
    let file = torrent_file(&info, &TorrentExtras::default());
    let whole = Metainfo::decode(&Bytes::from(file.clone())).unwrap();
    for space in ["\n", "\r\n", " \t\n\n"] {
        let with = Bytes::from([&file[..], space.as_bytes()].concat());
        assert_eq!(Metainfo::decode(&with), Ok(whole.clone()), "{space:?}");
    }
    for more in ["\nx", "\0"] {
        let with = Bytes::from([&file[..], more.as_bytes()].concat());
        assert!(Metainfo::decode(&with).is_err(), "{more:?}");
    }
    // Of an info dictionary every byte counts.
    assert!(info_of([&info[..], b"\n"].concat()).is_err());
}

#[test]
fn numbers_that_do_not_fit_are_refused() {
    use MetainfoError as E;
    let cases: Vec<(Vec<u8>, E)> = vec![
        (single("1", "0", 1), E::PieceLength(0)),
        (single("1", "-1", 1), E::PieceLength(-1)),
        (single("1", "268435457", 1), E::PieceLength(268_435_457)),
        (single("-1", "16384", 1), E::NegativeLength(0)),
        (single("16385", "16384", 1), E::PieceCount { total: 16385, need: 2, found: 1 }),
        (single("1", "16384", 2), E::PieceCount { total: 1, need: 1, found: 2 }),
        (single("0", "16384", 1), E::PieceCount { total: 0, need: 0, found: 1 }),
        (multi("", 0), E::NoFiles),
        (multi("d6:lengthi1e4:pathlee", 1), E::NoPath(0)),
        (multi("d6:lengthi1ee", 1), E::NoPath(0)),
        (multi("d6:lengthi1e4:pathli1eee", 1), E::WrongKind("path")),
        (multi("d4:pathl1:aee", 1), E::Missing("length")),
        (multi("i1e", 1), E::WrongKind("files")),
        (b"i1e".to_vec(), E::NotADict),
        (b"de".to_vec(), E::Missing("pieces")),
        (b"d6:lengthi1e4:name1:a12:piece lengthi16384e6:pieces3:abce".to_vec(), E::PiecesLength(3)),
        (b"d12:piece lengthi1e6:pieces0:e".to_vec(), E::Missing("name")),
        (b"d4:name1:a6:pieces0:e".to_vec(), E::Missing("length")),
        (b"d6:lengthi0e4:name1:a6:pieces0:e".to_vec(), E::Missing("piece length")),
        (b"d5:filesle6:lengthi0e4:name1:a6:pieces0:e".to_vec(), E::LengthAndFiles),
    ];
    for (bytes, want) in cases {
        assert_eq!(info_of(&bytes), Err(want), "{}", String::from_utf8_lossy(&bytes));
    }
    let half = "d6:lengthi9223372036854775807e4:pathl1:aee";
    assert_eq!(info_of(multi(&half.repeat(3), 1)), Err(E::TotalTooLarge));
    assert!(matches!(info_of(multi(half, 1)), Err(E::PieceCount { .. })));
}

#[test]
fn odd_piece_length_and_no_bytes_at_all_are_fine() {
    assert_eq!(info_of(single("100", "33", 4)).unwrap().piece_count(), 4);
    assert_eq!(info_of(single("0", "16384", 0)).unwrap().piece_count(), 0);
}

#[test]
fn version_2_is_named_and_a_hybrid_is_used_if_it_agrees() {
    let tree = "9:file treed1:ad0:d6:lengthi5e11:pieces root32:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaeee";
    let v2 = format!("d{tree}12:meta versioni2e4:name1:a12:piece lengthi16384ee");
    assert_eq!(info_of(v2), Err(MetainfoError::V2Only));
    assert_eq!(info_of("d12:meta versioni3ee"), Err(MetainfoError::Version(3)));
    let hybrid = |tree: &str, length: &str| {
        let head =
            format!("d{tree}6:lengthi{length}e12:meta versioni2e4:name1:a12:piece lengthi16384e");
        info_of([head.into_bytes(), hashes(1), b"e".to_vec()].concat())
    };
    assert_eq!(hybrid(tree, "5").unwrap().files.len(), 1);
    assert_eq!(hybrid(tree, "6"), Err(MetainfoError::HybridMismatch));
    assert_eq!(hybrid(&tree.replace("d1:ad", "d1:bd"), "5"), Err(MetainfoError::HybridMismatch));
    assert_eq!(hybrid("", "5"), Err(MetainfoError::HybridMismatch));
    assert_eq!(hybrid("9:file treede", "5"), Err(MetainfoError::HybridMismatch));
}

#[test]
fn hash_is_over_the_bytes_as_they_came() {
    let info =
        [b"d4:name1:a6:lengthi5e1:zi1e12:piece lengthi16384e".to_vec(), hashes(1), b"e".to_vec()]
            .concat();
    let file = [
        b"d8:announce3:url4:info".to_vec(),
        info.clone(),
        b"5:nodesll1:hi80eel1:hi0eee8:url-list1:we".to_vec(),
    ]
    .concat();
    let meta = Metainfo::decode(&Bytes::from(file)).unwrap();
    assert_eq!(meta.info_bytes, info);
    assert_eq!(*meta.info_hash.as_bytes(), hash::sha1(&info));
    assert_eq!((meta.trackers, meta.webseeds), (vec!["url".to_owned()], vec!["w".to_owned()]));
    assert_eq!(meta.nodes, [("h".to_owned(), 80)]);
}

#[test]
fn written_torrent_file_reads_back() {
    let extras = TorrentExtras {
        trackers: vec!["http://a".into(), "http://b".into()],
        webseeds: vec!["http://w/".into()],
        nodes: vec![("h".into(), 6881)],
        comment: Some("hello".into()),
        created_by: Some("me".into()),
        creation_date: Some(-3),
    };
    let info = single("5", "16384", 1);
    let meta = Metainfo::decode(&Bytes::from(torrent_file(&info, &extras))).unwrap();
    assert_eq!(meta.info_bytes, info);
    assert_eq!(
        (meta.trackers, meta.webseeds, meta.nodes),
        (extras.trackers, extras.webseeds, extras.nodes)
    );
    assert_eq!(
        (meta.comment, meta.created_by, meta.creation_date),
        (extras.comment, extras.created_by, extras.creation_date)
    );
    let bare =
        Metainfo::decode(&Bytes::from(torrent_file(&info, &TorrentExtras::default()))).unwrap();
    assert_eq!((bare.trackers.len(), bare.comment), (0, None));
}

proptest! {
    #[test]
    fn damaged_torrents_never_panic(at in any::<usize>(), flip in 1u8.., cut in any::<usize>()) {
        let files = "d6:lengthi10e4:pathl1:xee d4:attr1:p6:lengthi16374e4:pathl4:.pad5:16374ee".replace(' ', "");
        let file = torrent_file(&multi(&files, 1), &TorrentExtras { comment: Some("c".into()), ..Default::default() });
        prop_assert!(Metainfo::decode(&Bytes::from(file.clone())).is_ok());
        let mut bad = file.clone();
        let at = at % bad.len();
        bad[at] ^= flip;
        let _ = Metainfo::decode(&Bytes::from(bad));
        prop_assert!(Metainfo::decode(&Bytes::from(file[..cut % file.len()].to_vec())).is_err());
    }

    #[test]
    fn no_bytes_whatsoever_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Metainfo::decode(&Bytes::from(bytes.clone()));
        let _ = Info::decode(&Bytes::from(bytes));
    }
}
