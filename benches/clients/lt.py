"""libtorrent, driven from the command line by the benches.

    lt.py version
    lt.py seed DIR TORRENT... --at IP:PORT                  prints "seeding" when all are checked
    lt.py get MAGNET DIR --at IP:PORT [--peer IP:PORT]      ends when complete
    lt.py resolve FILE --at IP:PORT [--peer IP:PORT]        the links in it; ends when all are resolved
    lt.py create PATH FILE --piece BYTES
    lt.py check TORRENT DIR

`--bootstrap IP:PORT,...` turns the DHT on. Torrents run at once: added paused and auto-managed (the default) they wait
for a queue. Limits that would hold up many at once (30 connects and 8 kB of DHT queries a second) are raised, and
look-ups are forced, for a new torrent's comes one in four seconds.
"""
import argparse
import os
import sys
import time

import libtorrent as lt


def session(a):
    return lt.session({
        "listen_interfaces": a.at, "outgoing_interfaces": a.at.rsplit(":", 1)[0],
        "enable_dht": bool(a.bootstrap), "dht_bootstrap_nodes": a.bootstrap,
        "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        "enable_incoming_utp": False, "enable_outgoing_utp": False,
        # A private network is neither spread over prefixes nor numbered by BEP 42.
        "dht_restrict_routing_ips": False, "dht_restrict_search_ips": False,
        "dht_prefer_verified_node_ids": False, "dht_enforce_node_id": False, "dht_ignore_dark_internet": False,
        "allow_multiple_connections_per_ip": True, "min_reconnect_time": 1,
        "active_downloads": -1, "active_seeds": -1, "active_limit": -1, "active_dht_limit": -1, "active_checking": -1,
        "connection_speed": 2000, "connections_limit": 2000, "dht_upload_rate_limit": 2_000_000,
        "alert_mask": lt.alert.category_t.status_notification | lt.alert.category_t.error_notification
        | lt.alert.category_t.dht_notification,
    })


def alerts(ses, ms):
    ses.wait_for_alert(ms)
    for alert in ses.pop_alerts():
        if isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert, lt.listen_failed_alert)):
            print(alert.message(), file=sys.stderr, flush=True)
        yield alert


def wait_dht(ses, a):
    end = time.monotonic() + 2
    while a.bootstrap and time.monotonic() < end:
        if any(isinstance(alert, lt.dht_bootstrap_alert) for alert in alerts(ses, 20)):
            return


def add(ses, params, a, folder):
    params.save_path = folder
    params.flags &= ~(lt.torrent_flags.paused | lt.torrent_flags.auto_managed)
    if a.peer:
        host, port = a.peer.rsplit(":", 1)
        params.peers = [(host, int(port))]
    handle = ses.add_torrent(params)
    if a.bootstrap:
        handle.force_dht_announce()
    return handle


def seed(a, folder, *torrents):
    ses = session(a)
    wait_dht(ses, a)
    handles = [add(ses, lt.load_torrent_file(t), a, folder) for t in torrents]
    while not all(handle.status().is_seeding for handle in handles):
        list(alerts(ses, 50))
    print("seeding", flush=True)
    # A burst of look-ups loses some of them: round after round, spread out.
    for _ in range(4 if a.bootstrap else 0):
        for handle in handles:
            handle.force_dht_announce()
            list(alerts(ses, 20))
        time.sleep(1)
    while True:
        list(alerts(ses, 1000))


def get(a, magnet, folder):
    ses = session(a)
    wait_dht(ses, a)
    add(ses, lt.parse_magnet_uri(magnet), a, folder)
    while not any(isinstance(alert, lt.torrent_finished_alert) for alert in alerts(ses, 100)):
        pass
    ses.pause()


def resolve(a, links):
    ses = session(a)
    wait_dht(ses, a)
    left = {}
    for magnet in open(links).read().split():
        params = lt.parse_magnet_uri(magnet)
        params.flags |= lt.torrent_flags.upload_mode
        handle = add(ses, params, a, ".")
        left[str(handle.info_hash())] = handle
    again = time.monotonic() + 3
    while left:
        if a.bootstrap and time.monotonic() > again:
            again += 3
            for handle in left.values():
                handle.force_dht_announce()
        for alert in alerts(ses, 100):
            if isinstance(alert, lt.metadata_received_alert):
                left.pop(str(alert.handle.info_hash()), None)
                ses.remove_torrent(alert.handle)
    os._exit(0)  # The session's shutdown is not part of it.


def create(a, path, out):
    files = lt.file_storage()
    lt.add_files(files, path)
    made = lt.create_torrent(files, a.piece, lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, os.path.dirname(path))
    open(out, "wb").write(lt.bencode(made.generate()))


def check(a, torrent, folder):
    ses = session(a)
    params = lt.load_torrent_file(torrent)
    params.flags |= lt.torrent_flags.stop_when_ready
    handle = add(ses, params, a, folder)
    while not any(isinstance(alert, lt.torrent_checked_alert) for alert in alerts(ses, 20)):
        pass
    os._exit(0 if handle.status().num_pieces == handle.torrent_file().num_pieces() else 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("args", nargs="*")
    parser.add_argument("--at", default="127.0.0.1:0")
    parser.add_argument("--bootstrap", default="")
    parser.add_argument("--peer")
    parser.add_argument("--piece", type=int)
    a = parser.parse_intermixed_args()
    if a.verb == "version":
        print(lt.__version__)
    else:
        globals()[a.verb](a, *a.args)


main()
