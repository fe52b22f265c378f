#!/usr/bin/env python3
"""A writable switch behind net-snmp's snmpd: IF-MIB and Q-BRIDGE-MIB (RFC 2863, RFC 4188, RFC 4363) by pass_persist.

    qbridge.py PORTS STATE_DIR SUBTREE

SUBTREE is one of `bridge` (1.3.6.1.2.1.17), `if` (1.3.6.1.2.1.2.2) or `ifx` (1.3.6.1.2.1.31.1.1); snmpd starts one process for
each. Port P (1..PORTS, the base port) has ifIndex 100+P, ifName `portP`, ifDescr `Ethernet port P`; at first all are up and
untagged in VLAN 1. State is kept in memory and in STATE_DIR/SUBTREE.json, so that a restart keeps it (remove the file and restart:
a switch that forgot everything). Every SET that is accepted or refused here is a line of STATE_DIR/sets: OID, value, answer.
STATE_DIR/fdb.json, where it exists, is the forwarding table: [{"vlan": 1, "mac": "52:54:00:77:00:01", "port": 1}, ...], all
learned; it is read again whenever it changes.

Rules: untagged members are egress members after every single SET; the PVID's VLAN exists; a VLAN that is some port's PVID cannot
be destroyed; RowStatus 4 and 5 create, 6 destroys. snmpd hands over one varbind at a time, in the order of the PDU, without
atomicity, and refuses an instance for which an exact GET answers nothing: hence RowStatus of an unknown VLAN reads as 3
(notReady), and a VLAN is made by RowStatus alone first, its other columns afterwards.

Seen working with Debian's snmpd 5.9.3:

    # snmpd.conf
    agentaddress udp:127.0.0.1:16161
    rocommunity public
    rwcommunity private
    createUser admin SHA-256 authpass123 AES privpass123
    rwuser admin authpriv
    sysName lab-sw0
    pass_persist .1.3.6.1.2.1.17 /usr/bin/python3 /FULL/qbridge.py 8 /STATE bridge
    pass_persist .1.3.6.1.2.1.2.2 /usr/bin/python3 /FULL/qbridge.py 8 /STATE if
    pass_persist .1.3.6.1.2.1.31.1.1 /usr/bin/python3 /FULL/qbridge.py 8 /STATE ifx

    SNMP_PERSISTENT_DIR=/STATE SNMPCONFPATH=/STATE MIBS= \\
        snmpd -f -Lo -c /FULL/snmpd.conf -I -ifTable,-ifXTable,-smux -p /STATE/snmpd.pid

With SNMP_PERSISTENT_DIR the engine id lives in /STATE/snmpd.conf and is kept across restarts, and engineBoots grows. With `-C`
as well, that file is not read: every start has a new engine id (a switch that seems to have been exchanged). STATE_DIR must exist.
A kill of snmpd ends the three processes (end of their input).
"""
import bisect
import json
import os
import sys

PORTS, STATE, SUBTREE = int(sys.argv[1]), sys.argv[2], sys.argv[3]
FILE = os.path.join(STATE, SUBTREE + '.json')
WIDTH = max(4, (PORTS + 7) // 8)  # octets of a PortList
ALL = list(range(1, PORTS + 1))


class Refused(Exception):
    """The word that pass_persist wants after a SET that is refused."""


def first_state():
    if SUBTREE == 'bridge':
        return {'pvid': {str(p): 1 for p in ALL}, 'vlans': {'1': {'name': 'DEFAULT_VLAN', 'egress': ALL, 'untagged': ALL}}}
    return {'admin': {}} if SUBTREE == 'if' else {'alias': {}}


def load():
    try:
        with open(FILE) as f:
            return json.load(f)
    except FileNotFoundError:
        return first_state()


def save():
    with open(FILE + '.new', 'w') as f:
        json.dump(S, f)
    os.rename(FILE + '.new', FILE)


def port_list(ports):
    octets = bytearray(WIDTH)
    for p in ports:
        octets[(p - 1) // 8] |= 0x80 >> (p - 1) % 8
    return 'octet', ' '.join('%02x' % o for o in octets)


def ports_of(octets):
    ports = [8 * i + j + 1 for i, o in enumerate(octets) for j in range(8) if o & 0x80 >> j]
    if any(p > PORTS for p in ports):
        raise Refused('wrong-value')
    return ports


def octets_of(kind, text):
    """An OCTET STRING arrives as `string "ABC"` where every octet prints, else as `octet "e1 e3"`."""
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    if kind == 'string':
        return text.encode('latin-1')
    if kind == 'octet':
        return bytes.fromhex(text)
    raise Refused('wrong-type')


def number_of(kind, text, wanted):
    if kind not in wanted:
        raise Refused('wrong-type')
    return int(text)


# ---- the tree: {oid as a tuple: (type, value)} -------------------------------------------------------------------------

MIB2 = (1, 3, 6, 1, 2, 1)
BRIDGE, IF, IFX = MIB2 + (17,), MIB2 + (2, 2, 1), MIB2 + (31, 1, 1, 1)
STATIC = BRIDGE + (7, 1, 4, 3, 1)  # dot1qVlanStaticTable: 1 name, 2 egress, 3 forbidden, 4 untagged, 5 row status
CURRENT = BRIDGE + (7, 1, 4, 2, 1)  # dot1qVlanCurrentTable: 3 fdb id, 4 egress, 5 untagged, 6 status
PVID = BRIDGE + (7, 1, 4, 5, 1, 1)
FDB = BRIDGE + (7, 1, 2, 2, 1)  # dot1qTpFdbTable: 2 port, 3 status
LEARNED = os.path.join(STATE, 'fdb.json')


def bridge_tree():
    t = {BRIDGE + (1, 1, 0): ('octet', '02 00 00 00 00 01'), BRIDGE + (1, 2, 0): ('integer', PORTS), BRIDGE + (1, 3, 0): ('integer', 2)}
    for p in ALL:
        t[BRIDGE + (1, 4, 1, 1, p)] = ('integer', p)
        t[BRIDGE + (1, 4, 1, 2, p)] = ('integer', 100 + p)
        t[PVID + (p,)] = ('gauge', S['pvid'][str(p)])
    for arc, value in ((1, 1), (2, 4094), (3, 256), (4, len(S['vlans']))):
        t[BRIDGE + (7, 1, 1, arc, 0)] = ('gauge' if arc > 2 else 'integer', value)
    for vid, v in S['vlans'].items():
        n = int(vid)
        t[CURRENT + (3, 0, n)] = ('gauge', n)
        t[CURRENT + (4, 0, n)] = port_list(v['egress'])
        t[CURRENT + (5, 0, n)] = port_list(v['untagged'])
        t[CURRENT + (6, 0, n)] = ('integer', 2)
        t[STATIC + (1, n)] = ('string', v['name'])
        t[STATIC + (2, n)] = port_list(v['egress'])
        t[STATIC + (3, n)] = port_list([])
        t[STATIC + (4, n)] = port_list(v['untagged'])
        t[STATIC + (5, n)] = ('integer', 1)
    for entry in learned():
        at = (entry['vlan'],) + tuple(int(o, 16) for o in entry['mac'].split(':'))
        t[FDB + (2,) + at] = ('integer', entry['port'])
        t[FDB + (3,) + at] = ('integer', 3)
    return t


def learned():
    try:
        with open(LEARNED) as f:
            return json.load(f)
    except FileNotFoundError:
        return []


def learned_when():
    try:
        return os.stat(LEARNED).st_mtime_ns
    except FileNotFoundError:
        return None


def if_tree():
    t = {}
    for p in ALL:
        i, admin = 100 + p, S['admin'].get(str(p), 1)
        row = {1: ('integer', i), 2: ('string', 'Ethernet port %d' % p), 3: ('integer', 6), 4: ('integer', 1500), 5: ('gauge', 1000000000),
               6: ('octet', '02 00 00 00 01 %02x' % p), 7: ('integer', admin), 8: ('integer', admin), 9: ('timeticks', 0)}
        t.update({IF + (column, i): value for column, value in row.items()})
    return t


def ifx_tree():
    t = {}
    for p in ALL:
        row = {1: ('string', 'port%d' % p), 15: ('gauge', 1000), 17: ('integer', 1), 18: ('string', S['alias'].get(str(p), ''))}
        t.update({IFX + (column, 100 + p): value for column, value in row.items()})
    return t


# ---- SET ----------------------------------------------------------------------------------------------------------------

def set_static(column, vid, kind, text):
    v = S['vlans'].get(vid)
    if column == 5:
        status = number_of(kind, text, ('integer',))
        if status in (4, 5):
            if v or not 1 <= int(vid) <= 4094:
                raise Refused('inconsistent-value')
            S['vlans'][vid] = {'name': 'VLAN%s' % vid, 'egress': [], 'untagged': []}
        elif status == 6:
            if int(vid) in S['pvid'].values():
                raise Refused('inconsistent-value')
            S['vlans'].pop(vid, None)
        elif status != 1 or not v:
            raise Refused('wrong-value' if v else 'inconsistent-value')
        return
    if not v:
        raise Refused('no-creation')
    if column == 1:
        v['name'] = octets_of(kind, text).decode('latin-1')
    elif column in (2, 4):
        new = {**v, {2: 'egress', 4: 'untagged'}[column]: ports_of(octets_of(kind, text))}
        if not set(new['untagged']) <= set(new['egress']):
            raise Refused('inconsistent-value')
        S['vlans'][vid] = new
    else:
        raise Refused('not-writable')


def set_value(oid, kind, text):
    if SUBTREE == 'bridge' and oid[:-1] == PVID and 1 <= oid[-1] <= PORTS:
        vid = number_of(kind, text, ('gauge', 'unsigned'))
        if str(vid) not in S['vlans']:
            raise Refused('inconsistent-value')
        S['pvid'][str(oid[-1])] = vid
    elif SUBTREE == 'bridge' and oid[:len(STATIC)] == STATIC and len(oid) == len(STATIC) + 2:
        set_static(oid[-2], str(oid[-1]), kind, text)
    elif SUBTREE == 'if' and oid[:-1] == IF + (7,) and 1 <= oid[-1] - 100 <= PORTS:
        admin = number_of(kind, text, ('integer',))
        if admin not in (1, 2):
            raise Refused('wrong-value')
        S['admin'][str(oid[-1] - 100)] = admin
    elif SUBTREE == 'ifx' and oid[:-1] == IFX + (18,) and 1 <= oid[-1] - 100 <= PORTS:
        S['alias'][str(oid[-1] - 100)] = octets_of(kind, text).decode('latin-1')
    else:
        raise Refused('not-writable')


# ---- the protocol of pass_persist --------------------------------------------------------------------------------------

def tree():
    global TREE, ORDER, WHEN
    WHEN = learned_when()
    TREE = {'bridge': bridge_tree, 'if': if_tree, 'ifx': ifx_tree}[SUBTREE]()
    ORDER = sorted(TREE)


def get(oid):
    if oid in TREE:
        return oid
    if oid[:-1] == STATIC + (5,) and 1 <= oid[-1] <= 4094:
        TREE[oid] = ('integer', 3)  # not in ORDER: a walk does not see it
        return oid
    return None


def get_next(oid):
    at = bisect.bisect_right(ORDER, oid)
    return ORDER[at] if at < len(ORDER) else None


def parse(text):
    return tuple(int(arc) for arc in text.strip('.').split('.'))


def answer(oid):
    if oid is None:
        return 'NONE'
    kind, value = TREE[oid]
    return '.%s\n%s\n%s' % ('.'.join(map(str, oid)), kind, value)


def line():
    text = sys.stdin.readline()
    if not text:
        sys.exit(0)
    return text.strip()


def serve():
    while True:
        verb = line()
        if not verb:
            continue  # snmpd sends an empty line after the value of each `set`
        if verb == 'PING':
            reply = 'PONG'
        elif verb in ('get', 'getnext'):
            where = line()
            try:
                if SUBTREE == 'bridge' and WHEN != learned_when():
                    tree()
                reply = answer((get if verb == 'get' else get_next)(parse(where)))
            except Exception:
                reply = 'NONE'
        elif verb == 'set':
            where, (kind, _, value) = line(), line().partition(' ')
            try:
                set_value(parse(where), kind, value)
                tree()
                save()
                reply = 'DONE'
            except Refused as refused:
                reply = str(refused)
            except Exception:
                reply = 'not-writable'
            with open(os.path.join(STATE, 'sets'), 'a') as f:
                f.write('%s %s %s: %s\n' % (where, kind, value, reply))
        else:
            reply = 'NONE'
        print(reply, flush=True)


S = load()
tree()
serve()
