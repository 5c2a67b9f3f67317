//! Claims about the store of items.

use super::*;
use crate::wire::bencode::Writer;
use crate::wire::item::SecretKey;

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn store() -> ItemStore {
    ItemStore::new(NodeId::new([0; 20]))
}

fn value(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::new(&mut out).bytes(text.as_bytes());
    out
}

fn immutable(n: usize) -> Item {
    Item::immutable(value(&format!("item {n}"))).unwrap()
}

fn signed(salt: &[u8], seq: i64, text: &str) -> Item {
    SecretKey::from_seed(&[7; 32]).sign(salt, seq, value(text)).unwrap()
}

// Public addresses, each in a /16 of its own while `n` is small.
fn from(n: usize) -> IpAddr {
    let n = u32::try_from(n).unwrap();
    IpAddr::from(std::net::Ipv4Addr::from(0x0101_0101 + n % 12_000 * 0x1_0000 % 0x3000_0000))
}

fn put(
    store: &mut ItemStore,
    now: Instant,
    item: &Item,
    cas: Option<i64>,
) -> Result<Taken, PutError> {
    store.put(now, &item.to_put(b"", cas), from(1))
}

#[test]
fn version_only_ever_rises_and_has_one_value() {
    let mut store = store();
    let mut put = |item: &Item, cas| put(&mut store, at(0), item, cas);
    assert_eq!(put(&signed(b"", 5, "one"), None), Ok(Taken::Stored));
    assert_eq!(put(&signed(b"", 5, "one"), None), Ok(Taken::Refreshed));
    assert_eq!(put(&signed(b"", 5, "two"), None), Err(PutError::OldSequence(5)));
    assert_eq!(put(&signed(b"", 4, "one"), None), Err(PutError::OldSequence(5)));
    assert_eq!(put(&signed(b"", 6, "six"), Some(4)), Err(PutError::CasMismatch(5)));
    assert_eq!(put(&signed(b"", 6, "six"), Some(5)), Ok(Taken::Stored));
    // Another salt is another item, and there is nothing yet that `cas` could compare with.
    assert_eq!(put(&signed(b"x", 1, "salt"), Some(99)), Ok(Taken::Stored));
    assert_eq!(store.len(), 2);
    let target = signed(b"", 0, "").target();
    assert_eq!(store.get(at(0), target), Some(&signed(b"", 6, "six")));
}

#[test]
fn forged_items_neither_enter_nor_replace_nor_refresh() {
    let mut store = store();
    let forge = |item: Item, text: &str| {
        let Item::Mutable { public_key, salt, seq, mut signature, .. } = item else { panic!() };
        signature[0] ^= 1;
        Item::Mutable { public_key, salt, seq, value: value(text), signature }
    };
    let good = signed(b"", 5, "good");
    let err = Err(PutError::Item(ItemError::Forged));
    assert_eq!(put(&mut store, at(0), &forge(good.clone(), "good"), None), err);
    assert_eq!(store.len(), 0);
    put(&mut store, at(0), &good, None).unwrap();
    assert_eq!(put(&mut store, at(7_000), &forge(signed(b"", 6, ""), "bad"), None), err);
    assert_eq!(put(&mut store, at(7_000), &forge(good.clone(), "good"), None), err);
    assert_eq!(store.get(at(7_100), good.target()), Some(&good));
    assert_eq!(store.get(at(7_200), good.target()), None);
}

#[test]
fn items_expire_after_two_hours_unless_put_again() {
    let mut store = store();
    put(&mut store, at(0), &immutable(1), None).unwrap();
    put(&mut store, at(0), &immutable(2), None).unwrap();
    assert_eq!(put(&mut store, at(3_600), &immutable(2), None), Ok(Taken::Refreshed));
    assert!(store.get(at(7_199), immutable(1).target()).is_some());
    assert!(store.get(at(7_200), immutable(1).target()).is_none());
    assert!(store.get(at(7_200), immutable(2).target()).is_some());
    store.sweep(at(10_800));
    assert_eq!(store.len(), 0);
    assert!(store.shares.iter().all(BTreeMap::is_empty));
}

#[test]
fn address_network_and_wide_network_have_their_shares() {
    let mut store = store();
    let mut n = 0;
    let mut fill = |ip: [u8; 4]| {
        (0..300)
            .filter(|_| {
                n += 1;
                store.put(at(0), &immutable(n).to_put(b"", None), IpAddr::from(ip)).is_ok()
            })
            .count()
    };
    assert_eq!(fill([9, 9, 9, 1]), 64);
    assert_eq!(fill([9, 9, 9, 2]), 64);
    assert_eq!(fill([9, 9, 9, 3]), 0);
    assert_eq!((fill([9, 9, 8, 1]), fill([9, 9, 8, 2])), (64, 64));
    assert_eq!(fill([9, 9, 7, 1]), 0);
    assert_eq!(fill([9, 8, 7, 1]), 64);
    // An IPv6 host is its /64.
    let v6 = |n: u16| IpAddr::from([0x2a00, 1, 2, 3, 0, 0, 0, n]);
    let stored = (0..300)
        .filter(|n| {
            let item = immutable(10_000 + usize::from(*n));
            store.put(at(0), &item.to_put(b"", None), v6(*n)).is_ok()
        })
        .count();
    assert_eq!(stored, 64);
}

#[test]
fn full_store_keeps_the_closest_items() {
    let mut store = store();
    let mut items: Vec<Item> = (0..4_000).map(immutable).collect();
    for (n, item) in items.iter().enumerate() {
        let _ = store.put(at(0), &item.to_put(b"", None), from(n));
        assert!(store.len() <= ITEMS_STORED_MAX);
    }
    assert_eq!(store.len(), ITEMS_STORED_MAX);
    // Our id is zero: the smallest targets are the closest.
    items.sort_by_key(Item::target);
    assert!(items[..ITEMS_STORED_MAX].iter().all(|i| store.get(at(1), i.target()).is_some()));
    let farthest = items.last().unwrap().to_put(b"", None);
    assert_eq!(store.put(at(1), &farthest, from(1)), Err(PutError::Full));
    let counted: u32 = store.shares[0].values().sum();
    assert_eq!(counted as usize, ITEMS_STORED_MAX);
}

#[test]
fn flood_from_one_wide_network_leaves_the_others_their_items() {
    let mut store = store();
    let honest: Vec<Item> = (0..200).map(immutable).collect();
    for (n, item) in honest.iter().enumerate() {
        store.put(at(0), &item.to_put(b"", None), from(n)).unwrap();
    }
    for n in 0..20_000 {
        let [_, _, c, d] = u32::try_from(n).unwrap().to_be_bytes();
        let flooder = IpAddr::from([200, 1, c, d]);
        let _ = store.put(at(1), &immutable(1_000 + n).to_put(b"", None), flooder);
    }
    assert_eq!(store.len(), 200 + 256);
    assert!(honest.iter().all(|item| store.get(at(2), item.target()).is_some()));
}

#[test]
fn new_id_moves_every_item() {
    let mut store = store();
    for n in 0..50 {
        put(&mut store, at(0), &immutable(n), None).unwrap();
    }
    store.set_own(NodeId::new([0xa5; 20]));
    assert!((0..50).all(|n| store.get(at(1), immutable(n).target()) == Some(&immutable(n))));
}
