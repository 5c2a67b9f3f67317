"""libtorrent, driven from the command line by the tests.

    lt.py version                                     prints it, if the module is there
    lt.py seed TORRENT DIR IP:PORT BOOTSTRAP,...      prints "seeding" when its check is done
    lt.py get MAGNET DIR IP:PORT BOOTSTRAP,...        exits with 0 when complete
    lt.py nodes IP:PORT,...                           DHT nodes that know each other; prints "up"
    lt.py items IP:PORT BOOTSTRAP,... REQUEST...      puts and gets items, one after another (BEP 44)

A request is JSON: {"put": TEXT}, {"get": TARGET}, {"put_signed": TEXT, "seed": HEX, "key": HEX, "salt": TEXT},
{"get_signed": KEY, "salt": TEXT}; each is answered by a line of JSON.

Torrents run at once: added paused and auto-managed (the default) they wait for a queue. The look-up
is forced: one made before the DHT is up is lost, and the next comes minutes later.
"""
import hashlib
import json
import sys
import time

import libtorrent as lt


def session(address, bootstrap):
    return lt.session({
        "listen_interfaces": address,
        "outgoing_interfaces": address.rsplit(":", 1)[0],
        "enable_dht": True,
        "dht_bootstrap_nodes": bootstrap,
        "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
        # A private network is neither spread over prefixes nor numbered by BEP 42.
        "dht_restrict_routing_ips": False, "dht_restrict_search_ips": False,
        "dht_prefer_verified_node_ids": False, "dht_enforce_node_id": False,
        "dht_ignore_dark_internet": False,
        "allow_multiple_connections_per_ip": True,
        "min_reconnect_time": 1,
        "alert_mask": lt.alert.category_t.all_categories,
    })


def wait_dht(ses, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ses.wait_for_alert(50)
        if any(isinstance(a, lt.dht_bootstrap_alert) for a in ses.pop_alerts()):
            return


def add(ses, params, folder):
    params.save_path = folder
    params.flags &= ~(lt.torrent_flags.paused | lt.torrent_flags.auto_managed)
    handle = ses.add_torrent(params)
    handle.force_dht_announce()
    return handle


def secret_key(seed):
    """The expanded key that libtorrent wants, from the 32 bytes that others call the key."""
    key = bytearray(hashlib.sha512(seed).digest())
    key[0] &= 248
    key[31] = key[31] & 63 | 64
    return bytes(key)


def found(alert):
    try:
        return alert.item["value"].decode()
    except RuntimeError:  # it has no type: nothing was found
        return None


def until(ses, kind, seconds=60, wanted=lambda alert: True):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ses.wait_for_alert(100)
        for alert in ses.pop_alerts():
            if isinstance(alert, kind) and wanted(alert):
                return alert
    sys.exit(f"no {kind.__name__} in time")


def item(ses, request):
    if "put" in request:
        target = ses.dht_put_immutable_item(request["put"])
        alert = until(ses, lt.dht_put_alert)
        return {"target": str(target), "stored": alert.num_success}
    if "get" in request:
        ses.dht_get_immutable_item(lt.sha1_hash(bytes.fromhex(request["get"])))
        return {"value": found(until(ses, lt.dht_immutable_item_alert))}
    salt = request["salt"]
    if "put_signed" in request:
        key = bytes.fromhex(request["key"])
        secret = secret_key(bytes.fromhex(request["seed"]))
        ses.dht_put_mutable_item(secret, key, request["put_signed"], salt)
        alert = until(ses, lt.dht_put_alert)
        return {"stored": alert.num_success, "seq": alert.seq}
    ses.dht_get_mutable_item(bytes.fromhex(request["get_signed"]), salt)
    alert = until(ses, lt.dht_mutable_item_alert, wanted=lambda alert: alert.authoritative)
    return {"value": found(alert), "seq": alert.seq}


def main(verb, *args):
    if verb == "version":
        print(lt.__version__)
        return
    if verb == "nodes":
        addresses = args[0].split(",")
        nodes = [session(address, addresses[n - 1]) for n, address in enumerate(addresses)]
        for node in nodes:
            wait_dht(node)
        print("up", flush=True)
        while True:
            time.sleep(1)
            for node in nodes:
                node.pop_alerts()
    if verb == "items":
        address, bootstrap, *requests = args
        ses = session(address, bootstrap)
        wait_dht(ses)
        for request in requests:
            print(json.dumps(item(ses, json.loads(request))), flush=True)
        return
    what, folder, address, bootstrap = args
    ses = session(address, bootstrap)
    wait_dht(ses)
    if verb == "seed":
        handle = add(ses, lt.load_torrent_file(what), folder)
    else:
        handle = add(ses, lt.parse_magnet_uri(what), folder)
    said, announce_at = False, time.monotonic() + 3
    while True:
        ses.wait_for_alert(100)
        for alert in ses.pop_alerts():
            if isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert,
                                  lt.listen_failed_alert)):
                print(alert.message(), file=sys.stderr, flush=True)
        status = handle.status()
        if verb == "seed" and status.is_seeding and not said:
            said = True
            print("seeding", flush=True)
        if verb == "get" and status.is_finished and status.has_metadata:
            ses.pause()
            return
        if time.monotonic() > announce_at:
            announce_at += 3
            handle.force_dht_announce()


main(*sys.argv[1:])
