//! Claims about the KRPC codec.

use proptest::prelude::*;

use super::*;
use crate::base::Key;
use crate::wire::bencode::Writer;

const ID: NodeId = NodeId::new(*b"abcdefghij0123456789");
const HASH: InfoHash = InfoHash::new(*b"mnopqrstuvwxyz123456");

fn read(datagram: &[u8]) -> Message<'_> {
    Message::decode(datagram).unwrap()
}

fn query(datagram: &[u8]) -> Query<'_> {
    match read(datagram).body {
        Body::Query(query) => query,
        other => panic!("{other:?}"),
    }
}

fn fault(datagram: &[u8]) -> Fault {
    match read(datagram).body {
        Body::BadQuery(fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn queries_of_the_specification_are_read() {
    assert_eq!(
        query(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe").method,
        Method::Ping
    );
    let find = b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node1:t2:aa1:y1:qe";
    assert_eq!(
        query(find),
        Query { id: ID, method: Method::FindNode { target: HASH.key() }, want: None }
    );
    let get = b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers1:t2:aa1:y1:qe";
    assert_eq!(query(get).method, Method::get_peers(HASH));
    let announce = b"d1:ad2:id20:abcdefghij012345678912:implied_porti1e9:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe1:q13:announce_peer1:t2:aa1:y1:qe";
    let method = Method::AnnouncePeer {
        info_hash: HASH,
        port: 6881,
        implied_port: true,
        seed: false,
        token: b"aoeusnth",
    };
    assert_eq!(query(announce).method, method);
    assert_eq!(read(announce).tid, b"aa");
}

#[test]
fn answers_and_errors_of_the_specification_are_read() {
    let reply = b"d1:rd2:id20:abcdefghij01234567895:token8:aoeusnth6:valuesl6:axje.u6:idhtnmee1:t2:aa1:y1:re";
    let Body::Reply(reply) = read(reply).body else { panic!() };
    assert_eq!((reply.id, reply.token), (ID, Some(&b"aoeusnth"[..])));
    let peers: Vec<_> = reply.peers().map(|p| p.to_string()).collect();
    assert_eq!(peers, ["97.120.106.101:11893", "105.100.104.116:28269"]);
    let Body::Error(error) = read(b"d1:eli201e23:A Generic Error Ocurrede1:t2:aa1:y1:ee").body
    else {
        panic!()
    };
    assert_eq!((error.code, error.text), (201, &b"A Generic Error Ocurred"[..]));
}

#[test]
fn odd_but_clear_messages_are_taken() {
    // Keys in any order, no `v`, a one-byte transaction id, no `implied_port`.
    let loose = b"d1:y1:q1:t1:x1:q13:announce_peer1:ad5:token1:z4:porti9e9:info_hash20:mnopqrstuvwxyz1234562:id20:abcdefghij0123456789ee";
    let method = Method::AnnouncePeer {
        info_hash: HASH,
        port: 9,
        implied_port: false,
        seed: false,
        token: b"z",
    };
    assert_eq!(query(loose).method, method);
    // The first of two equal keys is the one.
    let twice = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:q3:foo1:t2:aa1:y1:qe";
    assert_eq!(query(twice).method, Method::Ping);
    let ro = |text: &str| {
        let text = format!("d1:ad2:id20:abcdefghij0123456789e1:q4:ping2:ro{text}1:t2:aa1:y1:qe");
        read(text.as_bytes()).read_only
    };
    assert!(ro("i1e") && ro("1:1") && ro("le") && !ro("i0e"));
    let seen = read(b"d2:ip4:abcd1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:re").seen_at;
    assert_eq!(seen, Some("97.98.99.100:0".parse().unwrap()));
}

#[test]
fn transaction_ids_of_1_to_32_bytes_are_taken() {
    let with = |len: usize| {
        let tid = "t".repeat(len);
        let text = format!("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t{len}:{tid}1:y1:qe");
        Message::decode(text.as_bytes()).map(|m| m.tid.len())
    };
    for len in [1, 2, 4, 8, 32] {
        assert_eq!(with(len), Ok(len));
    }
    for len in [0, 33, 1024] {
        assert_eq!(with(len), Err(KrpcError::TransactionId));
    }
    let int = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:ti5e1:y1:qe";
    assert_eq!(Message::decode(int), Err(KrpcError::TransactionId));
}

#[test]
fn wrong_arguments_are_a_fault_that_keeps_the_transaction_id() {
    for name in
        ["ping", "find_node", "get_peers", "announce_peer", "get", "put", "sample_infohashes"]
    {
        let q = format!("1:q{}:{name}1:t2:aa1:y1:qe", name.len());
        for (a, want) in [
            ("", Fault::NoArguments),
            ("1:ale", Fault::NoArguments),
            ("1:ai5e", Fault::NoArguments),
            ("1:a3:abc", Fault::NoArguments),
            ("1:ade", Fault::Id),
            ("1:ad2:idi7ee", Fault::Id),
            ("1:ad2:id0:e", Fault::Id),
            ("1:ad2:id19:abcdefghij012345678e", Fault::Id),
            ("1:ad2:id21:abcdefghij01234567890e", Fault::Id),
        ] {
            let text = format!("d{a}{q}");
            assert_eq!(fault(text.as_bytes()), want, "{text}");
            assert_eq!(read(text.as_bytes()).tid, b"aa");
        }
    }
    assert_eq!(fault(b"d1:ad2:id20:abcdefghij0123456789e1:t2:aa1:y1:qe"), Fault::NoMethod);
    let with = |name: &str, args: &str| {
        let q = format!("1:q{}:{name}1:t2:aa1:y1:qe", name.len());
        let text = format!("d1:ad2:id20:abcdefghij0123456789{args}e{q}");
        fault(text.as_bytes())
    };
    assert_eq!(with("find_node", "6:target19:mnopqrstuvwxyz12345"), Fault::Target);
    assert_eq!(with("find_node", "6:targetle"), Fault::Target);
    assert_eq!(with("get_peers", "9:info_hash21:mnopqrstuvwxyz1234567"), Fault::InfoHash);
    let hash = "9:info_hash20:mnopqrstuvwxyz123456";
    for port in ["", "4:porti0e", "4:porti65536e", "4:porti-1e", "4:port4:6881"] {
        assert_eq!(
            with("announce_peer", &format!("{hash}{port}5:token1:x")),
            Fault::Port,
            "{port}"
        );
    }
    assert_eq!(with("announce_peer", &format!("{hash}4:porti1e")), Fault::Token);
    assert_eq!(with("announce_peer", &format!("{hash}4:porti1e5:tokeni4e")), Fault::Token);
}

#[test]
fn put_that_is_wrong_says_why() {
    let put = |args: &str| {
        let text = format!("d1:ad2:id20:abcdefghij0123456789{args}e1:q3:put1:t2:aa1:y1:qe");
        match read(text.as_bytes()).body {
            Body::Query(Query { method: Method::Put(_), .. }) => Ok(()),
            Body::BadQuery(fault) => Err((fault, fault.code().number())),
            other => panic!("{other:?}"),
        }
    };
    let k = format!("1:k32:{}", "k".repeat(32));
    let sig = format!("3:sig64:{}", "s".repeat(64));
    let value = |len: usize| format!("1:v{}:{}", len - 4, "v".repeat(len - 4));
    let tail = "5:token1:t1:v1:x";
    for (args, want) in [
        (tail.to_string(), Ok(())),
        (format!("{k}3:seqi0e{sig}{tail}"), Ok(())),
        (format!("3:casi7e{k}4:salt3:abc3:seqi9223372036854775807e{sig}{tail}"), Ok(())),
        // A value of any kind, and of up to 1000 bytes.
        ("5:token1:t1:vd1:ai1e1:blee".to_string(), Ok(())),
        (format!("5:token1:t{}", value(1_000)), Ok(())),
        (format!("5:token1:t{}", value(1_001)), Err((Fault::ValueLength, 205))),
        ("5:token1:t".to_string(), Err((Fault::Value, 203))),
        ("1:v1:x".to_string(), Err((Fault::Token, 203))),
        ("5:token1:t1:vd1:bi1e1:ai1ee".to_string(), Err((Fault::Value, 203))),
        ("5:token1:t1:vld1:ai1e1:ai1eee".to_string(), Err((Fault::Value, 203))),
        (format!("{k}{sig}{tail}"), Err((Fault::Seq, 203))),
        (format!("{k}3:seqi-1e{sig}{tail}"), Err((Fault::Seq, 203))),
        (format!("{k}3:seq1:1{sig}{tail}"), Err((Fault::Seq, 203))),
        (format!("{k}3:seqi1e{tail}"), Err((Fault::Signature, 206))),
        (format!("{k}3:seqi1e3:sig63:{}{tail}", "s".repeat(63)), Err((Fault::Signature, 206))),
        (format!("1:k31:{}3:seqi1e{sig}{tail}", "k".repeat(31)), Err((Fault::PublicKey, 203))),
        (format!("1:ki1e3:seqi1e{sig}{tail}"), Err((Fault::PublicKey, 203))),
        (format!("{k}4:salti1e3:seqi1e{sig}{tail}"), Err((Fault::Salt, 203))),
        (
            format!("{k}4:salt65:{}3:seqi1e{sig}{tail}", "s".repeat(65)),
            Err((Fault::SaltLength, 207)),
        ),
        (format!("3:cas1:x{k}3:seqi1e{sig}{tail}"), Err((Fault::Cas, 203))),
    ] {
        assert_eq!(put(&args), want, "{args}");
    }
}

// With a token of 64 bytes, which is more than any node gives.
#[test]
fn largest_put_fits_its_datagram() {
    let value = [b"996:".to_vec(), vec![b'v'; 996]].concat();
    let signed = SignedPut {
        public_key: &[1; 32],
        salt: &[2; 64],
        seq: i64::MAX,
        signature: &[3; 64],
        cas: Some(i64::MIN),
    };
    let put = Put { token: &[4; 64], value: &value, signed: Some(signed) };
    let mut out = Vec::new();
    let head = QueryHead { tid: b"abcd", id: ID, read_only: true };
    encode_query(&mut out, head, &Method::Put(put));
    assert!(out.len() <= crate::base::limits::DATAGRAM_ITEM_MAX, "{}", out.len());
}

#[test]
fn samples_of_odd_lengths_and_numbers_are_bounded() {
    let samples = |len: usize, num: &str, interval: &str| {
        let hashes = "h".repeat(len);
        let text = format!(
            "d1:rd2:id20:abcdefghij01234567898:intervali{interval}e3:numi{num}e7:samples{len}:{hashes}e1:t2:aa1:y1:re"
        );
        let Body::Reply(reply) = read(text.as_bytes()).body else { panic!() };
        let samples = reply.samples.unwrap();
        (samples.info_hashes().count(), samples.total(), samples.interval())
    };
    assert_eq!(samples(40, "7", "300"), (2, 7, 300));
    assert_eq!(samples(0, "0", "0"), (0, 0, 0));
    assert_eq!(samples(19, "1", "-1"), (0, 1, 0));
    assert_eq!(samples(21, "-5", "1000000000"), (1, 1, 21_600));
    assert_eq!(samples(20_000, "9223372036854775807", "21600"), (1_000, i64::MAX as u64, 21_600));
    // A number beyond 64 bits is no bencode that we take.
    let beyond =
        b"d1:rd2:id20:abcdefghij01234567893:numi9223372036854775808e7:samples0:e1:t2:aa1:y1:re";
    assert!(Message::decode(beyond).is_err());
}

#[test]
fn filters_come_in_pairs_of_256_bytes() {
    let filters = |seeds: usize, peers: usize| {
        let (sd, pe) = ("s".repeat(seeds), "p".repeat(peers));
        let text = format!(
            "d1:rd4:BFpe{peers}:{pe}4:BFsd{seeds}:{sd}2:id20:abcdefghij0123456789e1:t2:aa1:y1:re"
        );
        let Body::Reply(reply) = read(text.as_bytes()).body else { panic!() };
        reply.filters.map(|(seeds, peers)| (seeds[0], peers[0]))
    };
    assert_eq!(filters(256, 256), Some((b's', b'p')));
    for (seeds, peers) in [(255, 256), (256, 257), (0, 0), (256, 0)] {
        assert_eq!(filters(seeds, peers), None);
    }
}

#[test]
fn unknown_method_keeps_its_target() {
    let get =
        b"d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q3:odd1:t2:aa1:y1:qe";
    let method = Method::Unknown { name: b"odd", target: Some(HASH.key()), writes: false };
    assert_eq!(query(get).method, method);
    let vote = b"d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234565:token1:xe1:q4:vote1:t2:aa1:y1:qe";
    let method = Method::Unknown { name: b"vote", target: Some(HASH.key()), writes: true };
    assert_eq!(query(vote).method, method);
}

#[test]
fn junk_is_no_message() {
    let good = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";
    for len in 0..good.len() {
        assert!(Message::decode(&good[..len]).is_err(), "cut at {len}");
    }
    for junk in [
        &b"le"[..],
        b"i1e",
        b"de",
        b"d1:t2:aae",
        b"d1:t2:aa1:y1:xe",
        b"d1:t2:aa1:yi1ee",
        b"d1:t2:aa1:y1:re",
        b"d1:rle1:t2:aa1:y1:re",
        b"d1:rd2:id19:abcdefghij012345678e1:t2:aa1:y1:re",
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qex",
        b"99999999999:x",
    ] {
        assert!(Message::decode(junk).is_err(), "{}", String::from_utf8_lossy(junk));
    }
    for nested in [b"l".repeat(1400), b"d1:a".repeat(300), b"l".repeat(65_000)] {
        assert!(Message::decode(&nested).is_err());
    }
    let inside =
        [b"d1:ad2:id20:abcdefghij01234567891:x".to_vec(), b"l".repeat(30_000), b"e".repeat(30_000)]
            .concat();
    assert!(Message::decode(&[&inside[..], b"e1:q4:ping1:t2:aa1:y1:qe"].concat()).is_err());
}

#[test]
fn values_of_odd_kinds_are_passed_over() {
    let text = [
        &b"d1:rd2:id20:abcdefghij01234567896:valuesl0:5:abcde6:abcdef7:abcdefg18:abcdefghijklmnopqri5ele"[..],
        b"6:ghijklee1:t2:aa1:y1:re",
    ]
    .concat();
    let Body::Reply(reply) = read(&text).body else { panic!() };
    assert_eq!(reply.peers().count(), 3);
}

#[test]
fn answer_never_exceeds_its_limit() {
    for (peer, node) in [("1.2.3.4:5", "1.2.3.4:6"), ("[2001:db8::1]:5", "[2001:db8::1]:6")] {
        let nodes = vec![(ID, node.parse().unwrap()); 8];
        let values: Vec<SocketAddr> = vec![peer.parse().unwrap(); 500];
        for tid_len in [1, 4, 32] {
            for limit in [500, 1024, 1200] {
                let answer = Answer {
                    tid: &[7; 32][..tid_len],
                    to: peer.parse().unwrap(),
                    id: ID,
                    nodes: Some(&nodes).filter(|_| peer.starts_with('1')).map(Vec::as_slice),
                    nodes6: Some(&nodes).filter(|_| peer.starts_with('[')).map(Vec::as_slice),
                    token: Some(b"12345678"),
                    values: &values,
                    extra: Extra::None,
                    brief: false,
                };
                let mut out = b"before".to_vec();
                encode_answer(&mut out, &answer, limit);
                let len = out.len() - 6;
                assert!(len <= limit && len + 22 > limit, "{len} of {limit}");
                let Body::Reply(reply) = read(&out[6..]).body else { panic!() };
                assert!(reply.peers().count() > 0);
            }
        }
    }
}

// Whatever else is in an answer is whole, in its place, and leaves the rest its room.
#[test]
fn extras_are_written_whole_and_in_order() {
    let nodes = vec![(ID, "1.2.3.4:6".parse().unwrap()); 8];
    let nodes6 = vec![(ID, "[2001:db8::1]:6".parse().unwrap()); 8];
    let values: Vec<SocketAddr> = vec!["1.2.3.4:5".parse().unwrap(); 500];
    let value = [b"700:".to_vec(), vec![b'x'; 700]].concat();
    let signed = Signed { public_key: &[1; 32], signature: &[2; 64] };
    for extra in [
        Extra::None,
        Extra::Scrape { seeds: &[3; 256], peers: &[4; 256] },
        Extra::Item { signed: Some(signed), seq: Some(i64::MIN), value: Some(&value) },
        Extra::Item { signed: None, seq: Some(7), value: None },
        Extra::Item { signed: None, seq: None, value: Some(b"3:abc") },
        Extra::Samples { interval: 60, total: 12_345, samples: &[5; 400] },
    ] {
        let answer = Answer {
            tid: b"abcd",
            to: "9.9.9.9:9".parse().unwrap(),
            id: ID,
            nodes: Some(&nodes),
            nodes6: Some(&nodes6),
            token: Some(b"12345678"),
            values: &values,
            extra,
            brief: false,
        };
        let mut out = Vec::new();
        encode_answer(&mut out, &answer, 1200);
        assert!(out.len() <= 1200 && canonical(&out), "{extra:?}: {}", out.len());
        let top = bencode::parse(&out, Limits::MESSAGE).unwrap().dict().unwrap();
        let r = top.get(b"r").unwrap().dict().unwrap();
        let bytes = |key: &[u8]| r.get(key).and_then(Value::bytes);
        let int = |key: &[u8]| r.get(key).and_then(Value::int);
        match extra {
            Extra::None => assert_eq!(r.iter().count(), 5),
            Extra::Scrape { seeds, peers } => {
                assert_eq!((bytes(b"BFsd"), bytes(b"BFpe")), (Some(seeds), Some(peers)));
            }
            Extra::Item { signed, seq, value } => {
                assert_eq!(bytes(b"k"), signed.map(|s| s.public_key));
                assert_eq!(bytes(b"sig"), signed.map(|s| s.signature));
                assert_eq!(int(b"seq"), seq);
                let value = value.map(|v| bencode::parse(v, Limits::MESSAGE).unwrap());
                assert_eq!(r.get(b"v"), value);
            }
            Extra::Samples { interval, total, samples } => {
                assert_eq!((int(b"interval"), int(b"num")), (Some(interval), Some(total)));
                assert_eq!(bytes(b"samples"), Some(samples));
            }
        }
        assert!(!bytes(b"nodes").unwrap().is_empty(), "{extra:?}");
    }
}

fn canonical(bytes: &[u8]) -> bool {
    bencode::parse(bytes, Limits::MESSAGE).unwrap().is_canonical()
}

proptest! {
    #[test]
    fn queries_read_back(
        tid in prop::collection::vec(any::<u8>(), 1..=32),
        id in any::<[u8; 20]>(),
        key in any::<[u8; 20]>(),
        port in 1..=u16::MAX,
        token in prop::collection::vec(any::<u8>(), 0..40),
        which in 0..9,
        flag in any::<bool>(),
        seq in prop::option::of(0..=i64::MAX),
        cas in prop::option::of(any::<i64>()),
        salt in prop::collection::vec(any::<u8>(), 0..=64),
        text in prop::collection::vec(any::<u8>(), 0..=900),
    ) {
        let info_hash = InfoHash::new(key);
        let mut value = Vec::new();
        Writer::new(&mut value).list().bytes(&text).int(cas.unwrap_or(1)).end();
        let (public_key, signature) = ([id[0]; 32], [key[0]; 64]);
        let signed = SignedPut {
            public_key: &public_key,
            salt: &salt,
            seq: seq.unwrap_or(7),
            signature: &signature,
            cas,
        };
        let method = match which {
            0 => Method::Ping,
            1 => Method::FindNode { target: Key::new(key) },
            2 => Method::GetPeers { info_hash, noseed: flag, scrape: !flag },
            3 => Method::AnnouncePeer { info_hash, port, implied_port: flag, seed: !flag, token: &token },
            4 => Method::Get { target: Key::new(key), seq },
            5 => Method::Put(Put { token: &token, value: &value, signed: None }),
            6 => Method::Put(Put { token: &token, value: &value, signed: Some(signed) }),
            7 => Method::SampleInfohashes { target: Key::new(key) },
            _ => Method::Unknown { name: b"sample", target: Some(Key::new(key)), writes: flag },
        };
        let head = QueryHead { tid: &tid, id: NodeId::new(id), read_only: flag };
        let want = cas.map(|n| Want { v4: n % 2 == 0, v6: flag });
        let mut out = Vec::new();
        encode_query_wanting(&mut out, head, &method, want);
        prop_assert!(canonical(&out));
        prop_assert!(out.len() <= crate::base::limits::DATAGRAM_ITEM_MAX);
        let back = Message::decode(&out).unwrap();
        let query = Query { id: NodeId::new(id), method, want };
        prop_assert_eq!(back.body, Body::Query(query));
        prop_assert_eq!((back.tid, back.read_only), (&tid[..], flag));
        prop_assert_eq!(back.version, Some(&VERSION[..]));
    }

    #[test]
    fn answers_read_back(
        tid in prop::collection::vec(any::<u8>(), 1..=32),
        id in any::<[u8; 20]>(),
        to in any::<([u8; 4], u16)>(),
        nodes in prop::option::of(prop::collection::vec(any::<([u8; 20], [u8; 4], u16)>(), 0..=8)),
        nodes6 in prop::option::of(prop::collection::vec(any::<([u8; 20], [u8; 16], u16)>(), 0..=8)),
        token in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        v4 in prop::collection::vec(any::<([u8; 4], u16)>(), 0..10),
        v6 in prop::collection::vec(any::<([u8; 16], u16)>(), 0..10),
    ) {
        let nodes: Option<Vec<_>> = nodes.map(|nodes| nodes.into_iter()
            .map(|(id, ip, port)| (NodeId::new(id), SocketAddr::from((ip, port)))).collect());
        let nodes6: Option<Vec<_>> = nodes6.map(|nodes| nodes.into_iter()
            .map(|(id, ip, port)| (NodeId::new(id), SocketAddr::from((ip, port)))).collect());
        let values: Vec<SocketAddr> =
            v4.into_iter().map(SocketAddr::from).chain(v6.into_iter().map(SocketAddr::from)).collect();
        let answer = Answer {
            tid: &tid,
            to: SocketAddr::from(to),
            id: NodeId::new(id),
            nodes: nodes.as_deref(),
            nodes6: nodes6.as_deref(),
            extra: Extra::None,
            brief: false,
            token: token.as_deref(),
            values: &values,
        };
        let mut out = Vec::new();
        encode_answer(&mut out, &answer, 1200);
        prop_assert!(canonical(&out));
        let back = Message::decode(&out).unwrap();
        let Body::Reply(reply) = back.body else { panic!() };
        prop_assert_eq!((back.tid, back.seen_at), (&tid[..], Some(SocketAddr::from(to))));
        prop_assert_eq!((reply.id, reply.token), (NodeId::new(id), token.as_deref()));
        prop_assert_eq!(reply.contacts(Family::V4).collect::<Vec<_>>(), nodes.unwrap_or_default());
        prop_assert_eq!(reply.contacts(Family::V6).collect::<Vec<_>>(), nodes6.unwrap_or_default());
        prop_assert_eq!(reply.peers().collect::<Vec<_>>(), values);
    }

    #[test]
    fn extras_read_back(
        which in 0..4,
        key in any::<[u8; 32]>(),
        signature in any::<[u8; 32]>(),
        seq in prop::option::of(any::<i64>()),
        text in prop::option::of(prop::collection::vec(any::<u8>(), 0..900)),
        total in 0..=i64::MAX,
        interval in 0..=21_600u32,
        hashes in prop::collection::vec(any::<[u8; 20]>(), 0..20),
    ) {
        let value = text.map(|text| {
            let mut value = Vec::new();
            Writer::new(&mut value).list().bytes(&text).end();
            value
        });
        let signature: [u8; 64] = [signature, key].concat().try_into().unwrap();
        let (seeds, peers) = ([key[0]; 256], [key[1]; 256]);
        let signed = Some(Signed { public_key: &key, signature: &signature });
        let extra = match which {
            0 => Extra::Scrape { seeds: &seeds, peers: &peers },
            1 => Extra::Item { signed, seq, value: value.as_deref() },
            2 => Extra::Item { signed: None, seq: None, value: value.as_deref() },
            _ => Extra::Samples {
                interval: i64::from(interval),
                total,
                samples: hashes.as_flattened(),
            },
        };
        let to = "9.9.9.9:9".parse().unwrap();
        let (nodes, nodes6, token, values) = (None, None, None, &[][..]);
        let answer = Answer { tid: b"abcd", to, id: ID, nodes, nodes6, token, values, extra, brief: false };
        let mut out = Vec::new();
        encode_answer(&mut out, &answer, 1200);
        prop_assert!(canonical(&out));
        let Body::Reply(reply) = read(&out).body else { panic!() };
        prop_assert_eq!(reply.filters, (which == 0).then_some((&seeds, &peers)));
        let item = match which {
            1 => ItemReply {
                value: value.as_deref(),
                public_key: Some(&key),
                seq,
                signature: Some(&signature),
            },
            2 => ItemReply { value: value.as_deref(), ..ItemReply::default() },
            _ => ItemReply::default(),
        };
        prop_assert_eq!(reply.item, item);
        let told = reply.samples.map(|s| {
            let hashes: Vec<_> = s.info_hashes().map(|hash| *hash.as_bytes()).collect();
            (hashes, s.total(), s.interval())
        });
        let total = u64::try_from(total).unwrap().max(hashes.len() as u64);
        prop_assert_eq!(told, (which == 3).then_some((hashes, total, interval)));
    }

    #[test]
    fn errors_read_back(tid in prop::collection::vec(any::<u8>(), 1..=32), text in "[ -~]{0,40}") {
        let mut out = Vec::new();
        encode_error(&mut out, &tid, ErrorCode::Protocol, &text);
        prop_assert!(canonical(&out));
        let back = Message::decode(&out).unwrap();
        prop_assert_eq!(back.body, Body::Error(ErrorReply { code: 203, text: text.as_bytes() }));
    }

    #[test]
    fn no_bytes_whatsoever_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert!((1..=TRANSACTION_ID_MAX).contains(&message.tid.len()));
        }
    }

    #[test]
    fn a_flipped_message_never_panics(at in any::<usize>(), flip in any::<u8>(), cut in any::<usize>()) {
        let nodes = vec![(ID, "1.2.3.4:5".parse().unwrap()); 3];
        let answer = Answer {
            tid: b"abcd",
            to: "9.9.9.9:9".parse().unwrap(),
            id: ID,
            nodes: Some(&nodes),
            nodes6: None,
            token: Some(b"token"),
            values: &["1.1.1.1:1".parse().unwrap()],
            extra: Extra::None,
            brief: false,
        };
        let mut out = Vec::new();
        encode_answer(&mut out, &answer, 1200);
        let at = at % out.len();
        out[at] ^= flip;
        out.truncate(out.len() - cut % 3);
        if let Ok(Message { body: Body::Reply(reply), .. }) = Message::decode(&out) {
            reply.peers().count();
            reply.contacts(Family::V4).count();
            reply.contacts(Family::V6).count();
        }
    }
}
