//! Two and more whole sessions on loopback, with real sockets and files.

use std::io::{Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::base::hash::sha1;
use crate::base::{InfoHash, Rng};
use crate::swarm::{Event, Phase, StopCause};
use crate::wire::bencode::Writer;

const PIECE: usize = 32 * 1024;

struct Content {
    info: Bytes,
    info_hash: InfoHash,
    data: Vec<u8>,
}

fn content(len: usize) -> Content {
    let mut data = vec![0; len];
    Rng::from_seed([3; 32]).fill(&mut data);
    let hashes: Vec<u8> = data.chunks(PIECE).flat_map(sha1).collect();
    let mut info = Vec::new();
    let mut w = Writer::new(&mut info);
    w.dict().bytes(b"length").int(i64::try_from(len).unwrap());
    w.bytes(b"name").bytes(b"content.bin");
    w.bytes(b"piece length").int(i64::try_from(PIECE).unwrap());
    w.bytes(b"pieces").bytes(&hashes).end();
    let info_hash = InfoHash::new(sha1(&info));
    Content { info: info.into(), info_hash, data }
}

async fn session(bootstrap: &[SocketAddr]) -> Session {
    Session::start(SessionConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        bootstrap: bootstrap.iter().map(SocketAddr::to_string).collect(),
        ..SessionConfig::default()
    })
    .await
    .unwrap()
}

async fn seed(session: &Session, content: &Content, dir: &Path) -> Torrent {
    std::fs::write(dir.join("content.bin"), &content.data).unwrap();
    let mut add = AddTorrent::new(content.info_hash);
    add.info = Some(content.info.clone());
    add.output = Output::Seed(dir.to_owned());
    session.add(add).await.unwrap()
}

async fn wait_for(torrent: &mut Torrent, wanted: impl Fn(&Event) -> bool) -> Event {
    let search = async {
        loop {
            match torrent.next_event().await.expect("the session goes on") {
                TorrentEvent::Swarm(event) if wanted(&event) => return event,
                TorrentEvent::Swarm(_) | TorrentEvent::LookupDone(_) | TorrentEvent::Missed(_) => {}
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), search).await {
        Ok(event) => event,
        Err(_) => panic!("not in time: {:?}", torrent.status().await),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn magnet_becomes_a_verified_file_over_the_dht_alone() {
    let content = content(1_000_000);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let router = session(&[]).await;
    let known = router.local_addrs();
    let seeder = session(&known).await;
    let mut seeded = seed(&seeder, &content, from.path()).await;
    // The announce is out once a lookup says that somebody holds it.
    loop {
        match seeded.next_event().await.unwrap() {
            TorrentEvent::LookupDone(report) if report.announced > 0 => break,
            TorrentEvent::LookupDone(_) | TorrentEvent::Swarm(_) | TorrentEvent::Missed(_) => {}
        }
    }
    let leecher = session(&known).await;
    let mut add = AddTorrent::new(content.info_hash);
    add.output = Output::Download(to.path().to_owned());
    let mut torrent = leecher.add(add).await.unwrap();
    wait_for(&mut torrent, |e| *e == Event::Finished).await;
    let got = std::fs::read(to.path().join("content.bin")).unwrap();
    assert!(got == content.data);
    let status = torrent.status().await.unwrap();
    assert_eq!(status.swarm.phase, Phase::Seeding);
    assert_eq!(status.swarm.verified_bytes, 1_000_000);
    assert!(status.dht.unwrap().peers_found >= 1);
    for s in [leecher, seeder, router] {
        s.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn info_dictionary_is_resolved_from_a_given_peer_without_a_dht() {
    let content = content(200_000);
    let dir = tempfile::tempdir().unwrap();
    let config = |accept| SessionConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        dht: false,
        accept,
        ..SessionConfig::default()
    };
    let seeder = Session::start(config(true)).await.unwrap();
    let _seeded = seed(&seeder, &content, dir.path()).await;
    let resolver = Session::start(config(false)).await.unwrap();
    let mut add = AddTorrent::new(content.info_hash);
    add.peers = seeder.local_addrs();
    let mut torrent = resolver.add(add).await.unwrap();
    let ready = wait_for(&mut torrent, |e| matches!(e, Event::MetadataReady { .. })).await;
    assert_eq!(ready, Event::MetadataReady { info: content.info });
    seeder.shutdown().await;
    resolver.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_remembers_its_id_and_contacts() {
    let dir = tempfile::tempdir().unwrap();
    let router = session(&[]).await;
    let config = |bootstrap: Vec<String>| SessionConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        bootstrap,
        state_dir: Some(dir.path().to_owned()),
        ..SessionConfig::default()
    };
    let known = router.local_addrs()[0].to_string();
    let first = Session::start(config(vec![known])).await.unwrap();
    let id = first.status().await.unwrap().nodes[0].id;
    // A lookup that ends has an answer from the router, which is in the table from then on.
    first.dht().get_peers(InfoHash::new([1; 20])).await.finish().await.unwrap();
    assert_eq!(first.status().await.unwrap().nodes[0].contacts, 1);
    first.shutdown().await;

    let second = Session::start(config(Vec::new())).await.unwrap();
    assert_eq!(second.status().await.unwrap().nodes[0].id, id);
    let outcome = second.dht().get_peers(InfoHash::new([2; 20])).await.finish().await.unwrap();
    assert_eq!(outcome.answered(), 1, "the saved contact answers without any bootstrap node");
    second.shutdown().await;
    router.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_programs_on_one_state_directory_do_not_share_an_id() {
    let dir = tempfile::tempdir().unwrap();
    let router = session(&[]).await;
    let config = || SessionConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        bootstrap: vec![router.local_addrs()[0].to_string()],
        state_dir: Some(dir.path().to_owned()),
        ..SessionConfig::default()
    };
    let id = async |session: &Session| session.status().await.unwrap().nodes[0].id;
    let first = Session::start(config()).await.unwrap();
    first.dht().get_peers(InfoHash::new([1; 20])).await.finish().await.unwrap();
    let first_id = id(&first).await;
    first.shutdown().await;

    let again = Session::start(config()).await.unwrap();
    let second = Session::start(config()).await.unwrap();
    assert_eq!(id(&again).await, first_id);
    assert_ne!(id(&second).await, first_id);
    // The first to come keeps its id whoever leaves last.
    again.shutdown().await;
    second.shutdown().await;
    let last = Session::start(config()).await.unwrap();
    assert_eq!(id(&last).await, first_id);
    last.shutdown().await;
    router.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_port_is_named() {
    let first = session(&[]).await;
    let config = SessionConfig { listen: first.local_addrs(), ..SessionConfig::default() };
    let error = Session::start(config).await.err().map(|e| e.to_string()).unwrap();
    assert!(error.contains(&first.local_addrs()[0].to_string()), "{error}");
    first.shutdown().await;
}

// Answers, announces and the rule against datagrams to ourselves need our port, wherever we listen.
#[test]
fn node_that_listens_everywhere_knows_its_own_port() {
    for text in ["0.0.0.0:7001", "[::]:7001", "127.0.0.1:7001"] {
        let addr = text.parse().unwrap();
        let node = super::session::node_config(
            crate::engine::SocketId(0),
            addr,
            &SessionConfig::default(),
        );
        assert_eq!(node.own_addrs[0], addr);
        assert!(node.own_addrs.iter().all(|own| own.port() == 7001), "{:?}", node.own_addrs);
        assert!(!node.own_addrs[1..].iter().any(|own| own.ip().is_unspecified()));
    }
}

fn quiet() -> SessionConfig {
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    SessionConfig { listen, dht: false, ..SessionConfig::default() }
}

async fn expect(events: &mut Events, wanted: impl Fn(&SessionEvent) -> bool) {
    let search = async { while !wanted(&events.next().await.expect("the session goes on")) {} };
    tokio::time::timeout(Duration::from_secs(20), search).await.expect("it happens in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn session_tells_of_all_torrents_and_finds_them_again() {
    let content = content(300_000);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let seeder = Session::start(quiet()).await.unwrap();
    let _seeded = seed(&seeder, &content, from.path()).await;
    let leecher = Session::start(quiet()).await.unwrap();
    let mut events = leecher.events().await;
    let hash = content.info_hash;
    let link = format!("magnet:?xt=urn:btih:{hash}&x.pe={}", seeder.local_addrs()[0]);
    let mut add = AddTorrent::magnet(&link).unwrap().into_dir(to.path());
    add.paused = true;
    // The handle may go: the torrent stays.
    drop(leecher.add(add.clone()).await.unwrap());
    assert!(matches!(leecher.add(add).await, Err(AddError::Duplicate(_))));
    expect(&mut events, |e| *e == SessionEvent::Added(hash)).await;
    let torrent = leecher.torrent(hash).await.unwrap();
    assert!(leecher.torrent(InfoHash::new([9; 20])).await.is_none());
    let all = leecher.torrents().await;
    assert_eq!(all.iter().map(|t| t.swarm.info_hash).collect::<Vec<_>>(), [hash]);
    assert!(all[0].swarm.paused && all[0].swarm.peers_tried == 0);
    // It rests already: that is no news.
    torrent.pause().await;
    torrent.resume().await;
    assert_eq!(events.next().await, Some(SessionEvent::Resumed(hash)));
    let finished = TorrentEvent::Swarm(Event::Finished);
    let finished = SessionEvent::Torrent { info_hash: hash, event: finished };
    expect(&mut events, |e| *e == finished).await;
    assert!(std::fs::read(to.path().join("content.bin")).unwrap() == content.data);
    torrent.pause().await;
    expect(&mut events, |e| *e == SessionEvent::Paused(hash)).await;
    assert_eq!(torrent.status().await.unwrap().swarm.connected, 0);
    torrent.remove().await;
    expect(&mut events, |e| *e == SessionEvent::Removed(hash)).await;
    assert!(leecher.torrents().await.is_empty() && leecher.torrent(hash).await.is_none());
    leecher.shutdown().await;
    assert_eq!(events.next().await, None);
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn torrent_whose_storage_failed_goes_on_when_it_is_resumed() {
    let content = content(300_000);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let seeder = Session::start(quiet()).await.unwrap();
    let _seeded = seed(&seeder, &content, from.path()).await;
    let leecher = Session::start(quiet()).await.unwrap();
    // A file is where the folder is to be.
    let folder = to.path().join("folder");
    std::fs::write(&folder, "in the way").unwrap();
    let mut add = AddTorrent::new(content.info_hash).into_dir(&folder);
    add.info = Some(content.info.clone());
    add.peers = seeder.local_addrs();
    let mut torrent = leecher.add(add).await.unwrap();
    let failed = wait_for(&mut torrent, |e| matches!(e, Event::Failed(_))).await;
    let status = torrent.status().await.unwrap().swarm;
    let Some(StopCause::Storage(error)) = status.stopped_by else { panic!("no cause") };
    assert_eq!((status.phase, Event::Failed(error)), (Phase::Stopped, failed));
    // Still in the way.
    torrent.resume().await;
    wait_for(&mut torrent, |e| matches!(e, Event::Failed(_))).await;
    std::fs::remove_file(&folder).unwrap();
    torrent.resume().await;
    wait_for(&mut torrent, |e| *e == Event::Finished).await;
    assert!(std::fs::read(folder.join("content.bin")).unwrap() == content.data);
    leecher.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recheck_finds_what_was_damaged_behind_our_back() {
    let content = content(300_000);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let seeder = Session::start(quiet()).await.unwrap();
    let mut seeded = seed(&seeder, &content, from.path()).await;
    let leecher = Session::start(quiet()).await.unwrap();
    let mut add = AddTorrent::new(content.info_hash).into_dir(to.path());
    add.info = Some(content.info.clone());
    add.peers = seeder.local_addrs();
    let mut torrent = leecher.add(add).await.unwrap();
    wait_for(&mut torrent, |e| *e == Event::Finished).await;
    let damage = |dir: &Path| {
        let mut file =
            std::fs::OpenOptions::new().write(true).open(dir.join("content.bin")).unwrap();
        file.seek(SeekFrom::Start(2 * PIECE as u64 + 7)).unwrap();
        file.write_all(b"damage").unwrap();
    };
    damage(to.path());
    assert!(torrent.recheck().await);
    let opened = wait_for(&mut torrent, |e| matches!(e, Event::Opened { .. })).await;
    assert_eq!(opened, Event::Opened { have: 9, pieces: 10 });
    wait_for(&mut torrent, |e| *e == Event::Finished).await;
    assert!(std::fs::read(to.path().join("content.bin")).unwrap() == content.data);
    // What is only shared is not mended: it belongs to somebody else.
    damage(from.path());
    assert!(seeded.recheck().await);
    wait_for(&mut seeded, |e| matches!(e, Event::Opened { have: 9, .. })).await;
    let status = seeded.status().await.unwrap().swarm;
    assert_eq!((status.phase, status.pieces_have), (Phase::Seeding, 9));
    leecher.shutdown().await;
    seeder.shutdown().await;
    assert!(std::fs::read(from.path().join("content.bin")).unwrap() != content.data);
}

// How fast data really flows is measured in virtual time; here, that the limits arrive.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "what may have come depends on the time it took")]
async fn limits_of_session_and_torrent_reach_the_data() {
    let content = content(4_000_000);
    let dir = tempfile::tempdir().unwrap();
    let seeder = Session::start(quiet()).await.unwrap();
    let _seeded = seed(&seeder, &content, dir.path()).await;
    let slow = RateLimits { down: std::num::NonZeroU64::new(20_000), up: None };
    for of_session in [true, false] {
        let to = tempfile::tempdir().unwrap();
        let mut config = quiet();
        config.limits = if of_session { slow } else { RateLimits::default() };
        let leecher = Session::start(config).await.unwrap();
        let started = std::time::Instant::now();
        let mut add = AddTorrent::new(content.info_hash).into_dir(to.path());
        add.peers = seeder.local_addrs();
        add.limits = if of_session { RateLimits::default() } else { slow };
        let mut torrent = leecher.add(add).await.unwrap();
        wait_for(&mut torrent, |e| matches!(e, Event::Opened { .. })).await;
        let status = loop {
            let status = torrent.status().await.unwrap().swarm;
            if status.downloaded > 60_000 {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        // Two blocks at once, then 20 kB/s; the clock may only be late.
        let allowed = 20_000.0 * started.elapsed().as_secs_f64() + 3.0 * 16_384.0;
        assert!((status.downloaded as f64) < allowed, "{status:?} {allowed}");
        match of_session {
            true => leecher.set_limits(RateLimits::default()).await,
            false => torrent.set_limits(RateLimits::default()).await,
        }
        wait_for(&mut torrent, |e| *e == Event::Finished).await;
        leecher.shutdown().await;
    }
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_is_read_while_it_comes_from_wherever_it_is_wanted() {
    use tokio::io::{AsyncReadExt, AsyncSeekExt};
    let content = content(3_000_001);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let seeder = Session::start(quiet()).await.unwrap();
    let seeded = seed(&seeder, &content, from.path()).await;
    let leecher = Session::start(quiet()).await.unwrap();
    let mut add = AddTorrent::new(content.info_hash).into_dir(to.path());
    // Nothing comes before there is somebody to bring it.
    let mut torrent = leecher.add(add.clone()).await.unwrap();
    assert_eq!(torrent.reader(0).await.err(), Some(ReadError::NoMetadata));
    torrent.add_peers(seeder.local_addrs()).await;
    wait_for(&mut torrent, |e| matches!(e, Event::MetadataReady { .. })).await;
    let mut reader = torrent.reader(0).await.unwrap();
    assert_eq!((reader.len(), reader.is_empty()), (3_000_001, false));
    let mut tail = [0; 1000];
    reader.seek(std::io::SeekFrom::End(-1000)).await.unwrap();
    reader.read_exact(&mut tail).await.unwrap();
    assert_eq!(tail[..], content.data[content.data.len() - 1000..]);
    assert_eq!(reader.read(&mut tail).await.unwrap(), 0, "the end");
    reader.seek(std::io::SeekFrom::Start(5)).await.unwrap();
    let mut some = [0; 70_000];
    reader.read_exact(&mut some).await.unwrap();
    assert!(some[..] == content.data[5..70_005]);
    assert_eq!(reader.seek(std::io::SeekFrom::Current(-70_005)).await.unwrap(), 0);
    assert!(reader.seek(std::io::SeekFrom::Current(-1)).await.is_err());
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut other = torrent.reader(0).await.unwrap();
    let (one, two) = tokio::join!(reader.read_to_end(&mut first), other.read_to_end(&mut second));
    one.unwrap();
    two.unwrap();
    assert!(first == content.data && second == content.data);
    assert_eq!(torrent.reader(1).await.err(), Some(ReadError::NoFile(1)));
    // A seed reads its own data as well.
    let mut own = seeded.reader(0).await.unwrap();
    first.clear();
    own.read_to_end(&mut first).await.unwrap();
    assert!(first == content.data);
    torrent.remove().await;
    reader.seek(std::io::SeekFrom::Start(0)).await.unwrap();
    let error = reader.read(&mut tail).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{error}");

    add.wanted = Some(vec![false]);
    add.info = Some(content.info.clone());
    let elsewhere = tempfile::tempdir().unwrap();
    let unwanted = leecher.add(add.into_dir(elsewhere.path())).await.unwrap();
    let mut events = leecher.events().await;
    // Before the storage is open it is not known what is here.
    while unwanted.status().await.unwrap().swarm.phase == Phase::Checking {
        tokio::time::timeout(Duration::from_millis(50), events.next()).await.ok();
    }
    assert_eq!(unwanted.reader(0).await.err(), Some(ReadError::NotSelected));
    leecher.shutdown().await;
    seeder.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_of_a_torrent_that_goes_away_hears_of_it() {
    use tokio::io::AsyncReadExt;
    let content = content(100_000);
    let dir = tempfile::tempdir().unwrap();
    let session = Session::start(quiet()).await.unwrap();
    let mut add = AddTorrent::new(content.info_hash).into_dir(dir.path());
    add.info = Some(content.info.clone());
    // Nobody has it: the reader waits.
    let torrent = session.add(add).await.unwrap();
    let mut reader = torrent.reader(0).await.unwrap();
    let mut buffer = [0; 10];
    let waiting = tokio::spawn(async move { reader.read(&mut buffer).await });
    tokio::task::yield_now().await;
    torrent.remove().await;
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "{error}");
    let resolving = session.add(AddTorrent::new(InfoHash::new([8; 20]))).await.unwrap();
    assert_eq!(resolving.reader(0).await.err(), Some(ReadError::NoMetadata));
    session.shutdown().await;
    assert_eq!(resolving.reader(0).await.err(), Some(ReadError::Ended));
}

#[tokio::test(flavor = "multi_thread")]
async fn torrent_is_removed_with_the_data_that_it_downloaded_and_no_other() {
    let content = content(500_000);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let seeder = session(&[]).await;
    let seeded = seed(&seeder, &content, from.path()).await;
    let leecher = session(&[]).await;
    let mut add = AddTorrent::new(content.info_hash).into_dir(to.path());
    add.peers = seeder.local_addrs();
    let mut torrent = leecher.add(add).await.unwrap();
    wait_for(&mut torrent, |e| *e == Event::Finished).await;
    std::fs::write(to.path().join("mine"), "mine").unwrap();
    let erased = torrent.remove_with_data().await.unwrap();
    assert_eq!((erased.files, erased.bytes, erased.kept.len()), (1, 500_000, 0));
    assert!(leecher.torrents().await.is_empty());
    let left: Vec<_> =
        std::fs::read_dir(to.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["mine"]);
    // It can be added again, and what is only shared is never deleted.
    let add = AddTorrent::new(content.info_hash).into_dir(to.path());
    assert!(leecher.add(add).await.is_ok());
    assert_eq!(seeded.remove_with_data().await.unwrap(), Erased::default());
    assert!(from.path().join("content.bin").exists());
    leecher.shutdown().await;
    seeder.shutdown().await;
}
