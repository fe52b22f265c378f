#!/usr/bin/env python3
"""Carries what `qbridge.py` was told to Open vSwitch, and what Open vSwitch learned back to `qbridge.py`.

    ovs.py PORTS STATE_DIR OVS_DIR      runs in the switch's network namespace until it is killed
    ovs.py plain INTERFACE...           switches checksum and segmentation offload off, and ends

STATE_DIR/bridge.json and STATE_DIR/if.json are looked at every 50 ms. Of each `portP`: the PVID's VLAN becomes the tag if that VLAN
has the port as untagged egress member, else the tag is 4094, where nobody else is; VLANs that have it as tagged egress member become
trunks; a port whose admin status is not up is a link that is down. STATE_DIR/fdb.json is written once a second if it changed: MAC
addresses behind ports that have a carrier. OVS_DIR holds `db.sock` and `vswitchd.ctl`. Every transaction is a line of STATE_DIR/carried.
"""
import array
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time

DEAD = 4094


def plain(interfaces):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for interface in interfaces:
        for command in (0x17, 0x1f, 0x24, 0x2c):  # ETHTOOL_STXCSUM, _STSO, _SGSO, _SGRO: off
            value = array.array('B', struct.pack('II', command, 0))
            request = struct.pack('16sP16x', interface.encode(), value.buffer_info()[0])
            try:
                fcntl.ioctl(s, 0x8946, request)  # SIOCETHTOOL
            except OSError as e:
                if command == 0x17:
                    sys.exit('%s: %s' % (interface, e))


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=10).stdout


def load(name, otherwise):
    try:
        with open(os.path.join(STATE, name)) as f:
            return json.load(f)
    except FileNotFoundError:
        return otherwise


def stamp():
    out = []
    for name in ('bridge.json', 'if.json'):
        try:
            s = os.stat(os.path.join(STATE, name))
            out.append((s.st_ino, s.st_mtime_ns))
        except FileNotFoundError:
            out.append(None)
    return out


def wanted():
    """Of each port: tag, trunks, up."""
    first = {'pvid': {str(p): 1 for p in PORTS}, 'vlans': {'1': {'egress': PORTS, 'untagged': PORTS}}}
    bridge, admin = load('bridge.json', first), load('if.json', {'admin': {}})['admin']
    out = {}
    for p in PORTS:
        pvid = bridge['pvid'][str(p)]
        vlan = bridge['vlans'].get(str(pvid), {'egress': [], 'untagged': []})
        tag = pvid if p in vlan['untagged'] and p in vlan['egress'] else DEAD
        trunks = sorted(int(v) for v, x in bridge['vlans'].items() if p in x['egress'] and p not in x['untagged'])
        out[p] = (tag, trunks, admin.get(str(p), 1) == 1)
    return out


def carry(was, now):
    words, links = [], []
    for p in PORTS:
        (tag, trunks, up), name = now[p], 'port%d' % p
        if was.get(p, (1, [], True))[:2] != (tag, trunks):
            if trunks:
                words += ['--', 'set', 'port', name, 'tag=%d' % tag, 'vlan_mode=native-untagged',
                          'trunks=%s' % ','.join(map(str, sorted(set(trunks + [tag]))))]
            else:
                words += ['--', 'set', 'port', name, 'tag=%d' % tag, 'vlan_mode=access', 'trunks=[]']
        if was.get(p, (1, [], True))[2] != up:
            links.append((name, 'up' if up else 'down'))
    if words:
        run('ovs-vsctl', '--db=unix:%s/db.sock' % OVS, '--timeout=5', *words[1:])
    for name, link in links:
        run('ip', 'link', 'set', 'dev', name, link)
    if words or links:
        with open(os.path.join(STATE, 'carried'), 'a') as f:
            f.write('%.3f %s %s\n' % (time.time(), ' '.join(words[1:]), ' '.join('%s:%s' % link for link in links)))


def has_carrier(p):
    try:
        with open('/sys/class/net/port%d/carrier' % p) as f:
            return f.read().strip() == '1'
    except OSError:
        return False  # a link that is down does not say


def learned():
    table = run('ovs-appctl', '-t', '%s/vswitchd.ctl' % OVS, 'fdb/show', 'sw0')
    rows = re.findall(r'^\s*(\d+)\s+(\d+)\s+([0-9a-f:]{17})\s+\S+\s*$', table, re.M)
    rows = [{'vlan': int(vlan), 'mac': mac, 'port': int(port)} for port, vlan, mac in rows if int(port) in PORTS]
    return sorted((r for r in rows if has_carrier(r['port'])), key=lambda r: (r['vlan'], r['mac']))


def serve():
    carried, seen, table, next_look = {}, None, None, 0
    while True:
        try:
            now = stamp()
            if now != seen:
                want = wanted()
                carry(carried, want)
                carried, seen = want, now
            if time.monotonic() >= next_look:
                next_look, rows = time.monotonic() + 1, learned()
                if rows != table:
                    with open(os.path.join(STATE, 'fdb.new'), 'w') as f:
                        json.dump(rows, f)
                    os.rename(os.path.join(STATE, 'fdb.new'), os.path.join(STATE, 'fdb.json'))
                    table = rows
        except (subprocess.SubprocessError, OSError, ValueError, KeyError) as e:
            print(e, getattr(e, 'stderr', ''), flush=True)
        time.sleep(0.05)


if sys.argv[1] == 'plain':
    plain(sys.argv[2:])
else:
    PORTS, STATE, OVS = list(range(1, int(sys.argv[1]) + 1)), sys.argv[2], sys.argv[3]
    serve()
