//! `info`: magnet links and torrents, without a network.

use super::run;

const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

#[test]
fn info_shows_what_a_link_says() {
    let link = format!("magnet:?xt=urn:btih:{HASH}&dn=two%20words&x.pe=192.0.2.1:6881&so=0,3-5");
    let json = run(&["info", "--json", &link]).expect(0).json();
    assert_eq!(json["info_hash"], HASH);
    assert_eq!(json["name"], "two words");
    assert_eq!(json["peers"][0], "192.0.2.1:6881");
    assert_eq!(json["files"], "0,3-5");
    let table = run(&["info", &link]).expect(0).stdout;
    assert!(table.contains(HASH) && table.contains("two words"), "{table}");
}
