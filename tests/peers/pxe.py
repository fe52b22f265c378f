#!/usr/bin/env python3
"""A scripted network-boot client on an interface: DHCP, PXE, TFTP and HTTP boot as firmware does them, one JSON line per step.

    pxe.py VERB IFACE [options]                     root (or CAP_NET_RAW and CAP_NET_ADMIN); Linux; Python 3.11; nothing else

DHCP goes through AF_PACKET as whole Ethernet + IPv4 + UDP frames; the interface needs no address and keeps its own. Every line has
`step` and `t` (seconds since the start). Exit status: 0 the verb got what it is for, 1 it did not (said in the line `end`), 2 usage.

boot IFACE --as KIND    KIND: bios, uefi, uefi-http, ipxe-bios, ipxe-uefi, plain. Lines: `sent` (each packet, retransmissions too),
                        `offer` (each; `kind` is `address` or `proxy`), `choice`, `ack` or `nak`, `boot-server` (an answer from port
                        4011), `leased`, then `tftp` (one per block size and window: bytes, sha256, blocks, options accepted),
                        `tftp-size` (as UEFI asks first) or `http` (HEAD by uefi-http or with --head, GET by all), `end` (`result`
                        is booted, leased, no-offer, no-address, nak, no-ack, no-bootfile, fetch-failed, failed). A proxy offer
                        without a boot file, or (bios, uefi) with option 43 that does not say 6 = 8, is followed by a request to port
                        4011. --blocks 512,1468/4: TFTP block sizes and windows, one fetch each; 512 alone asks for no options. Names
                        of HTTP servers are resolved by the system. While it fetches, the interface has the leased address and the client's MAC (`ip addr`, `ip link`); both are taken back.
                        --no-fetch stops after the lease. ${mac}, ${mac:hexhyp}, ${uuid}, ${ip}, ${buildarch}, ${platform} in a
                        file name are filled in for ipxe-*. A script is printed whole, up to 4,000 characters, else the first octets.
port4011 IFACE --server A [--ciaddr B]      a REQUEST to UDP 4011 of A; without --ciaddr an address is leased first. `boot-server`. The
                        default is --as uefi, which asks from port 4011 (as OVMF does) and wants the answer there; the others from 68.
                        `wrong-port`: an answer that went elsewhere (in every verb).
discover IFACE          one DISCOVER, all OFFERs within --wait. request: selecting (--requested, --server; --xid of the discover)
init-reboot (--requested) renew (--ciaddr --server) rebind (--ciaddr) inform (--ciaddr) decline (--requested --server)
release (--ciaddr --server)                 each on its own: `sent`, `offer`/`ack`/`nak`/`answer`, `end`. renew and release are
                        unicast, the rest is broadcast; --unicast does it for inform (needs --server). Nothing is expected after
                        decline and release; an answer makes them fail.
                        --gateway A: the next hop where the server is on another network.
                        --payload FILE (hex of a BOOTP payload, as in golden/) sends that with its xid, chaddr and options
                        97 and 61 kept, unless --xid or --mac are given.
relay IFACE --giaddr A --server S           a relay agent with an ordinary socket on A:67 (A must be an address here, the route to S
                        too; the socket is bound to IFACE unless IFACE is `-`): DISCOVER, REQUEST with giaddr, --hops and option 82
                        (--circuit, --remote, --sub CODE=HEX). `offer`, `ack`: with `option82` echoed, missing or changed.
crowd IFACE --clients N --seconds S         N MACs from --mac on, all at once or within --spread S. Firmware's retransmissions. `end`:
                        got, duplicates, naks, retransmissions, offer_s/ack_s/lease_s (median, p99, longest; from the first DISCOVER,
                        from the first REQUEST, all in all). With --parked nobody stops: who has an address asks again after --again
                        seconds, who gave up begins anew (a rack that is left alone); `rounds` counts, and until S has passed.
listen IFACE            every packet on ports 67, 68, 4011, by whomever sent, `packet` each, until killed or --seconds. First line
                        `listening`: from then on nothing is missed (`end`: packets, dropped by the kernel).
foreign IFACE --address A --range B-C       a tiny DHCP server: OFFERs, ACKs, NAKs what is not its own at INIT-REBOOT. --nak refuses
                        every REQUEST, --offer-only never ACKs, --file/--next/--router/--lease/--delay/--vendor-class,
                        --proxy offers no address, only the file. Answers ARP for A unless the host has A. First line: `serving`.
odd IFACE               malformed packets, one `odd` line each (`name`, `answers`); before and after a sound DISCOVER, whose
                        `answered` says whether the server lives. Exit 0 if it does. --only NAME,NAME
build --as KIND [--type N]                  prints the payload in hex. decode FILE...  prints `packet` for hex payloads.

Common: --mac M (default: that of IFACE) --uuid U --arch N --client-id HEX --no-broadcast --broadcast --xid N --secs N --vendor-class T
--user-class T --option CODE=HEX (replaces or adds) --drop CODE --no-http (option 175 without HTTP) --timeout S (for the whole) --wait S
(how long OFFERs are collected after the first) --retry 4,8,16,32. --uuid is in the usual spelling; on the wire its first three fields
are little-endian, as QEMU's SMBIOS, OVMF and iPXE send them.

Every packet: src_mac, dst_mac, src_ip, dst_ip, sport, dport, cast (broadcast or unicast), length, op, hlen, hops, xid, secs, flags,
ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, type, options {code: {name, hex, value}}, order, checksums (good, bad, none,
unfinished: left to a network card that does not exist), problems (what is wrong with its form).
"""
import argparse
import hashlib
import heapq
import http.client
import json
import random
import re
import select
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
import urllib.parse
import uuid as uuids

SERVER, CLIENT, BINL, TFTP = 67, 68, 4011, 69  # RFC 2131 4.1; PXE 2.1 2.2 (4011); RFC 1350
COOKIE = bytes.fromhex('63825363')  # RFC 2131 3
SMALLEST = 300  # RFC 951 3, RFC 1542 2.1: a BOOTP message has at least 300 octets
RETRY = '4,8,16,32'  # RFC 2131 4.1, PXE 2.1 2.2.1
TYPES = {1: 'DISCOVER', 2: 'OFFER', 3: 'REQUEST', 4: 'DECLINE', 5: 'ACK', 6: 'NAK', 7: 'RELEASE', 8: 'INFORM'}  # RFC 2132 9.6
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
NAMES = {  # RFC 2132 unless said
    1: 'subnet-mask', 2: 'time-offset', 3: 'router', 6: 'dns', 7: 'log-server', 12: 'host-name', 15: 'domain-name', 17: 'root-path',
    26: 'mtu', 28: 'broadcast', 42: 'ntp', 43: 'vendor', 50: 'requested-address', 51: 'lease-time', 52: 'overload',
    53: 'message-type', 54: 'server-id', 55: 'parameters', 56: 'message', 57: 'max-size', 58: 't1', 59: 't2', 60: 'vendor-class',
    61: 'client-id', 66: 'tftp-server', 67: 'bootfile', 77: 'user-class', 80: 'rapid-commit', 81: 'fqdn', 82: 'relay-agent',
    93: 'client-arch', 94: 'client-ndi', 97: 'client-uuid', 118: 'subnet-selection', 119: 'domain-search', 121: 'routes',
    150: 'tftp-addresses', 175: 'ipxe', 203: 'reuse-lease',
}  # 77 RFC 3004, 80 RFC 4039, 81 RFC 4702, 82 RFC 3046, 93 94 97 RFC 4578, 119 RFC 3397, 121 RFC 3442, 150 RFC 5859, 175 iPXE
ADDRESS = {1, 28, 50, 54, 118} | {3, 6, 7, 42, 150}
TEXT = {12, 15, 17, 56, 60, 66, 67}
NUMBER = {2, 26, 51, 52, 57, 58, 59}
PXE_SUB = {6: 'discovery-control', 8: 'boot-servers', 9: 'menu', 10: 'prompt', 71: 'boot-item'}  # PXE 2.1 table 2-1; RFC 4578 3
RELAY_SUB = {1: 'circuit', 2: 'remote', 5: 'link-selection', 11: 'server-id-override'}  # RFC 3046, 3527, 5107
IPXE_SUB = {16: 'pxe-ext', 17: 'iscsi', 18: 'aoe', 19: 'http', 20: 'https', 21: 'tftp', 23: 'dns', 24: 'bzimage', 25: 'multiboot',
            33: 'pxe', 34: 'elf', 35: 'comboot', 36: 'efi', 38: 'vlan', 39: 'menu', 41: 'nfs', 176: 'no-pxedhcp', 177: 'bus-id',
            235: 'version'}
ANY, BCAST = '0.0.0.0', '255.255.255.255'
ALL_ONES = 'ff:ff:ff:ff:ff:ff'
T0 = time.monotonic()


def say(step, **fields):
    print(json.dumps({'step': step, 't': round(time.monotonic() - T0, 4), **fields}), flush=True)


def octets(mac):
    return bytes.fromhex(mac.replace(':', '').replace('-', ''))


def colons(b):
    return ':'.join('%02x' % o for o in b)


def dotted(b):
    return socket.inet_ntoa(b)


def packed(a):
    return socket.inet_aton(a)


def plain(b):
    return b.split(b'\0')[0].decode('latin-1')


# ---- the codec ---------------------------------------------------------------------------------------------------------

def options_of(area, where, into, order, problems):
    """RFC 2132 2; a code that comes again is joined to the first, RFC 3396."""
    i = 0
    while i < len(area):
        code = area[i]
        if code == 255:
            return True
        if code == 0:
            i += 1
            continue
        if i + 1 >= len(area):
            problems.append(f'{where}: option {code} without a length')
            return False
        n = area[i + 1]
        if i + 2 + n > len(area):
            problems.append(f'{where}: option {code} overruns by {i + 2 + n - len(area)}')
            return False
        if code in into:
            problems.append(f'{where}: option {code} again')
        into[code] = into.get(code, b'') + area[i + 2:i + 2 + n]
        order.append(code)
        i += 2 + n
    if where == 'options':
        problems.append('options: no end')
    return False


def subs(value, names):
    into, order = {}, []
    options_of(value, 'sub', into, order, [])
    return {names.get(c, str(c)): into[c].hex() for c in order}


def value_of(code, v):
    if code == 53 and len(v) == 1:
        return TYPES.get(v[0], v[0])
    if code in ADDRESS and v and len(v) % 4 == 0:
        all_ = [dotted(v[i:i + 4]) for i in range(0, len(v), 4)]
        return all_[0] if code in (1, 28, 50, 54, 118) else all_
    if code in NUMBER and len(v) in (1, 2, 4):
        return int.from_bytes(v)
    if code in TEXT:
        return v.rstrip(b'\0').decode('latin-1')
    if code == 55:
        return list(v)
    if code == 93 and v and len(v) % 2 == 0:
        return [int.from_bytes(v[i:i + 2]) for i in range(0, len(v), 2)]
    if code == 94 and len(v) == 3:
        return f'{v[0]}.{v[1]}.{v[2]}'
    if code == 97 and len(v) == 17:
        return str(uuids.UUID(bytes_le=v[1:]))
    if code == 77:  # RFC 3004 has a length before each; iPXE and others send the bare text
        out, i = [], 0
        while i < len(v) and v[i] and i + 1 + v[i] <= len(v):
            out.append(v[i + 1:i + 1 + v[i]].decode('latin-1'))
            i += 1 + v[i]
        return out if v and i == len(v) else v.decode('latin-1')
    if code in (43, 82, 175):
        return subs(v, {43: PXE_SUB, 82: RELAY_SUB, 175: IPXE_SUB}[code])
    return None


class Packet:
    """A BOOTP payload taken to pieces; never fails, but says what is wrong."""

    def __init__(self, raw, **frame):
        self.raw, self.frame, self.problems, self.opt, self.order = raw, frame, [], {}, []
        if len(raw) < 236:
            self.problems.append(f'{len(raw)} octets are no BOOTP message')
        b = raw.ljust(236, b'\0')
        self.op, self.htype, self.hlen, self.hops, self.xid, self.secs, self.flags = struct.unpack('!BBBBIHH', b[:12])
        self.ciaddr, self.yiaddr, self.siaddr, self.giaddr = (dotted(b[i:i + 4]) for i in (12, 16, 20, 24))
        self.chaddr, sname, file = b[28:44], b[44:108], b[108:236]
        self.sname, self.file = plain(sname), plain(file)
        if raw[236:240] == COOKIE:
            options_of(raw[240:], 'options', self.opt, self.order, self.problems)
            over = self.opt.get(52, b'\0')[:1] or b'\0'
            if over[0] & 1:  # RFC 2132 9.3
                self.file = ''
                options_of(file, 'file', self.opt, self.order, self.problems)
            if over[0] & 2:
                self.sname = ''
                options_of(sname, 'sname', self.opt, self.order, self.problems)
        elif len(raw) >= 236:
            self.problems.append('no magic cookie')
        if self.op == 2 and len(raw) < SMALLEST:
            self.problems.append(f'{len(raw)} octets, less than {SMALLEST}')
        t = self.opt.get(53, b'')
        self.type = t[0] if len(t) == 1 else 0
        self.mac = colons(self.chaddr[:6])
        self.server = dotted(self.opt[54]) if len(self.opt.get(54, b'')) == 4 else None
        self.bootfile = self.opt[67].rstrip(b'\0').decode('latin-1') if self.opt.get(67) else self.file
        self.kind = 'address' if self.yiaddr != ANY else 'proxy' if self.opt.get(60, b'')[:9] in (b'PXEClient', b'HTTPClien') else 'empty'

    def json(self):
        options = {str(c): {'name': NAMES.get(c, str(c)), 'hex': v.hex(), 'value': value_of(c, v)} for c, v in self.opt.items()}
        return {**self.frame, 'length': len(self.raw), 'op': self.op, 'htype': self.htype, 'hlen': self.hlen, 'hops': self.hops,
                'xid': '%08x' % self.xid, 'secs': self.secs, 'flags': '%04x' % self.flags, 'ciaddr': self.ciaddr,
                'yiaddr': self.yiaddr, 'siaddr': self.siaddr, 'giaddr': self.giaddr, 'chaddr': self.mac, 'sname': self.sname,
                'file': self.file, 'bootfile': self.bootfile, 'type': TYPES.get(self.type, self.type or 'BOOTP'),
                'order': self.order, 'options': options, 'problems': self.problems}


def bootp(op=1, htype=1, hlen=6, hops=0, xid=0, secs=0, flags=0, ciaddr=ANY, yiaddr=ANY, siaddr=ANY, giaddr=ANY, chaddr=b'', sname=b'',
          file=b'', options=(), cookie=COOKIE, end=b'\xff', least=SMALLEST):
    out = struct.pack('!BBBBIHH', op, htype, hlen, hops, xid, secs, flags) + packed(ciaddr) + packed(yiaddr) + packed(siaddr)
    out += packed(giaddr) + chaddr.ljust(16, b'\0') + sname.ljust(64, b'\0') + file.ljust(128, b'\0') + cookie
    for code, v in options:  # RFC 3396: more than 255 octets go into several
        for i in range(0, max(1, len(v)), 255):
            out += bytes([code, len(v[i:i + 255])]) + v[i:i + 255]
    return (out + end).ljust(least, b'\0')


def checksum(b):
    """RFC 1071."""
    n = sum(struct.unpack('!%dH' % ((len(b) + 1) // 2), b + b'\0' * (len(b) % 2)))
    while n >> 16:
        n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff


def frame_of(payload, src_mac, dst_mac, src, dst, sport, dport, ident=0):
    udp = struct.pack('!HHHH', sport, dport, 8 + len(payload), 0) + payload  # RFC 768
    sum_ = checksum(packed(src) + packed(dst) + struct.pack('!BBH', 0, 17, len(udp)) + udp) or 0xffff
    udp = udp[:6] + struct.pack('!H', sum_) + udp[8:]
    ip = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(udp), ident, 0, 64, 17, 0) + packed(src) + packed(dst)  # RFC 791
    ip = ip[:10] + struct.pack('!H', checksum(ip)) + ip[12:]
    return octets(dst_mac) + octets(src_mac) + b'\x08\0' + ip + udp


class Wire:
    """All frames of an interface, also those for other MACs (AF_PACKET, packet(7)). Answers ARP (RFC 826) for `own`."""

    def __init__(self, iface, outgoing=False):
        self.iface, self.own, self.arp = iface, {}, {}
        self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.s.setsockopt(263, 8, 1)  # SOL_PACKET PACKET_AUXDATA
        if not outgoing:
            self.s.setsockopt(263, 23, 1)  # PACKET_IGNORE_OUTGOING
        self.s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        index = socket.if_nametoindex(iface)
        self.s.setsockopt(263, 1, struct.pack('iHH8s', index, 1, 0, b''))  # PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC
        self.s.bind((iface, 3))  # ETH_P_ALL
        with open(f'/sys/class/net/{iface}/address') as f:
            self.mac = f.read().strip()

    def dropped(self):
        return struct.unpack('II', self.s.getsockopt(263, 6, 8))[1]  # PACKET_STATISTICS

    def send(self, payload, src_mac, dst_mac=ALL_ONES, src=ANY, dst=BCAST, sport=CLIENT, dport=SERVER):
        self.s.send(frame_of(payload, src_mac, dst_mac, src, dst, sport, dport, random.randrange(65536)))

    def recv(self, until, mine=None):
        """The next UDP packet of ports 67, 68, 4011, or None at `until`. `mine` may refuse a payload before it is taken apart."""
        while True:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.s], [], [], left)[0]:
                return None
            data, anc, _, addr = self.s.recvmsg(65536, 256)
            status, tci = 0, None
            for level, kind, v in anc:
                if (level, kind) == (263, 8) and len(v) >= 20:
                    status, _, _, _, _, vlan, _ = struct.unpack('IIIHHHH', v[:20])
                    tci = vlan & 4095 if status & 16 else None  # TP_STATUS_VLAN_VALID
            got = self.take(data, addr[2] == 4, status & 8, tci, mine)  # PACKET_OUTGOING, TP_STATUS_CSUMNOTREADY
            if got:
                return got

    def take(self, f, out, unfinished, vlan, mine):
        at, proto = 14, f[12:14]
        while proto in (b'\x81\0', b'\x88\xa8') and len(f) > at + 4:  # IEEE 802.1Q
            vlan, proto, at = int.from_bytes(f[at:at + 2]) & 4095, f[at + 2:at + 4], at + 4
        if proto == b'\x08\x06' and not out:
            self.hear_arp(f[at:])
        if proto != b'\x08\0' or len(f) < at + 28 or f[at] >> 4 != 4 or f[at + 9] != 17:
            return None
        head = (f[at] & 15) * 4
        ip, total, fragment = f[at:at + head], int.from_bytes(f[at + 2:at + 4]), int.from_bytes(f[at + 6:at + 8]) & 0x3fff
        udp = f[at + head:at + total]
        if len(udp) < 8:
            return None
        sport, dport, n, given = struct.unpack('!HHHH', udp[:8])
        if not {sport, dport} & {SERVER, CLIENT, BINL} or (mine and not mine(udp[8:])):
            return None
        src, dst = dotted(ip[12:16]), dotted(ip[16:20])
        sums = {'ip': 'bad' if checksum(ip) else 'good', 'udp': 'none'}
        if given:
            whole = checksum(ip[12:20] + struct.pack('!BBH', 0, 17, n) + udp[:n])
            sums['udp'] = 'good' if not whole else 'unfinished' if unfinished else 'bad'
        cast = 'broadcast' if dst == BCAST or f[:6] == b'\xff' * 6 else 'unicast'
        p = Packet(udp[8:n], src_mac=colons(f[6:12]), dst_mac=colons(f[:6]), src_ip=src, dst_ip=dst, sport=sport, dport=dport, cast=cast,
                   ttl=ip[8], vlan=vlan, checksums=sums, out=out)
        if fragment:
            p.problems.append('a fragment')
        return p

    def hear_arp(self, a):
        if len(a) < 28 or a[:6] != bytes.fromhex('000108000604'):
            return
        sender, target = dotted(a[14:18]), dotted(a[24:28])
        self.arp[sender] = colons(a[8:14])
        if a[6:8] == b'\0\1' and target in self.own:
            me = octets(self.own[target])
            self.s.send(a[8:14] + me + b'\x08\x06' + bytes.fromhex('0001080006040002') + me + a[24:28] + a[8:18])

    def resolve(self, ip, src, mac):
        """The MAC address that has `ip`, asked by ARP from `src` at `mac`."""
        for _ in range(3):
            if ip in self.arp:
                break
            self.s.send(b'\xff' * 6 + octets(mac) + bytes.fromhex('08060001080006040001') + octets(mac) + packed(src) + bytes(6) + packed(ip))
            until = time.monotonic() + 1
            while ip not in self.arp and time.monotonic() < until:
                self.recv(min(until, time.monotonic() + 0.02), lambda b: False)
        if ip not in self.arp:
            raise Fail(f'nobody has {ip} (ARP)')
        return self.arp[ip]


class Fail(Exception):
    pass


# ---- who asks ----------------------------------------------------------------------------------------------------------

UEFI_PARAMS = '0102030405060c0d0f111216171c28292a2b3233363a3b3c4243618081828384858687'
IPXE_PARAMS = '010306070c0f111a2b3c4243778081828384858687afcb'
IPXE_BIOS = 'b105011af41000eb03010000170101220101130101110101270101190101290101100102210101150101180101120101'
IPXE_EFI = 'b105011af41000eb03010000170101240101130101110101270101290101150101120101'
# All but bios are as captured from OVMF 2022.11, iPXE 1.0.0+git-20190125 and busybox 1.35.0; bios follows PXE 2.1 table 2-1, from
# no capture. arch: RFC 4578 2.1 and IANA's list (16: x64 HTTP). shape: the options of a DISCOVER in their order.
KINDS = {
    'bios': dict(arch=0, ndi='010201', word='PXEClient', max=1260, broadcast=True, secs=4, user=None, ipxe=None,
                 params='0102030506 0b0c0d0f1011122b363c438081828384858687', shape=(53, 55, 57, 97, 93, 94, 60)),
    'uefi': dict(arch=7, ndi='010300', word='PXEClient', max=1472, broadcast=True, secs=0, user=None, ipxe=None,
                 params=UEFI_PARAMS, shape=(53, 57, 55, 97, 94, 93, 60)),
    'uefi-http': dict(arch=16, ndi='010300', word='HTTPClient', max=1472, broadcast=True, secs=0, user=None, ipxe=None,
                      params='0102030405060c0d0f111216171c28292a2b3233363a3b3cf14361', shape=(53, 57, 55, 97, 94, 93, 60)),
    'ipxe-bios': dict(arch=0, ndi='010201', word='PXEClient', max=1472, broadcast=False, secs=4, user='iPXE', ipxe=IPXE_BIOS,
                      params=IPXE_PARAMS, shape=(53, 57, 93, 94, 60, 77, 55, 175, 61, 97)),
    'ipxe-uefi': dict(arch=7, ndi='01030a', word='PXEClient', max=1472, broadcast=False, secs=4, user='iPXE', ipxe=IPXE_EFI,
                      params=IPXE_PARAMS, shape=(53, 57, 93, 94, 60, 77, 55, 175, 61, 97)),
    'plain': dict(arch=None, ndi=None, word=None, max=576, broadcast=False, secs=0, user=None, ipxe=None,
                  params='0103060c0f1c2a', shape=(53, 57, 55, 60, 61)),
}


class Client:
    def __init__(self, a, wire, mac=None):
        self.a, self.wire, self.mac = a, wire, mac or a.mac or (wire and wire.mac) or '52:54:00:00:00:01'
        self.k, self.base = KINDS[a.kind], None
        if a.payload:
            with open(a.payload) as f:
                self.base = Packet(bytes.fromhex(''.join(f.read().split())))
            self.mac = a.mac or self.base.mac
        self.xid = a.xid if a.xid is not None else self.base.xid if self.base else random.getrandbits(32)
        self.ends = time.monotonic() + a.timeout
        self.heard = []

    def options(self, kind, binl=False):
        a, k = self.a, self.k
        if self.base:
            made = dict(self.base.opt) | {53: bytes([kind])}
            if a.mac and made.get(61, b'')[:1] == b'\1':
                made[61] = b'\1' + octets(a.mac)
            shape = list(self.base.order)
        else:
            arch = k['arch'] if a.arch is None else a.arch
            ndi = bytes.fromhex(k['ndi'] or '')
            klass = f'{k["word"]}:Arch:{arch:05d}:UNDI:{ndi[1]:03d}{ndi[2]:03d}' if k['word'] else 'udhcp 1.35.0'
            uuid = a.uuid or uuids.UUID(bytes=b'\0' * 10 + octets(self.mac))
            made = {53: bytes([kind]), 57: k['max'].to_bytes(2), 55: bytes.fromhex(k['params']), 60: klass.encode(),
                    61: b'\1' + octets(self.mac), 77: (k['user'] or '').encode(), 97: b'\0' + uuid.bytes_le, 94: ndi}
            if arch is not None:
                made[93] = arch.to_bytes(2)
            if k['ipxe']:
                v = k['ipxe'].replace('130101', '') if a.no_http else k['ipxe']
                made[175] = bytes.fromhex(v)
            shape = list(k['shape'])
            if binl and a.kind.startswith('uefi'):
                shape = [53, 55, 57, 60, 93, 94, 97]
            elif a.kind == 'uefi' and kind == REQUEST:
                made[57] = b'\xff\0'  # as OVMF really sends it
        for code, v in [(61, a.client_id), (60, a.vendor_class), (77, a.user_class)]:
            if v is not None:
                made[code] = v
                shape += [code] if code not in shape else []
        if kind in (DECLINE, RELEASE):
            shape = [c for c in shape if c in (53, 61, 97)]
        return made, shape

    def payload(self, kind, requested=None, server=None, giaddr=ANY, hops=0, ciaddr=ANY, secs=None, last=(), binl=False):
        a = self.a
        made, shape = self.options(kind, binl)
        extra = [(50, requested), (54, server)] if not a.kind.startswith('ipxe') else [(54, server), (50, requested)]
        extra = [(c, packed(v)) for c, v in extra if v]
        if a.kind == 'uefi' or a.kind == 'uefi-http':
            extra.reverse()
        at = len(shape) if a.kind.startswith('ipxe') else 1
        shape[at:at] = [c for c, _ in extra]
        made |= dict(extra)
        for code, v in a.option:
            made[code] = v
            shape += [code] if code not in shape else []
        shape = [c for c in shape if c not in a.drop]
        broadcast = self.base.flags >> 15 if self.base else self.k['broadcast']
        broadcast = broadcast and not (binl and a.kind.startswith('uefi'))
        broadcast = a.broadcast if a.broadcast is not None else broadcast
        self.broadcast = broadcast
        secs = a.secs if a.secs is not None else self.k['secs'] if secs is None else secs
        return bootp(xid=self.xid, secs=secs, flags=0x8000 if broadcast else 0, ciaddr=ciaddr, giaddr=giaddr, hops=hops,
                     chaddr=octets(self.mac), options=[(c, made[c]) for c in shape] + list(last))

    def mine(self, b):
        return len(b) >= 34 and b[0] == 2 and b[4:8] == struct.pack('!I', self.xid) and b[28:34] == octets(self.mac)

    def send(self, kind, to=None, src=ANY, sport=CLIENT, dport=SERVER, payload=None, **fields):
        payload = payload or self.payload(kind, **fields)
        where = dict(dst_mac=to[1], dst=to[0]) if to else {}
        self.wire.send(payload, self.mac, src=src, sport=sport, dport=dport, **where)
        say('sent', **Packet(payload, src_mac=self.mac, dst_mac=where.get('dst_mac', ALL_ONES), src_ip=src, dst_ip=where.get('dst', BCAST),
                             sport=sport, dport=dport, cast='unicast' if to else 'broadcast').json())

    def ask(self, kind, wanted, collect=0.0, ends=None, **how):
        """Sends and retransmits until one of the types in `wanted` came; then collects on. All that came, printed."""
        got, t = [], time.monotonic()
        ends = min(ends or self.ends, self.ends)
        began = t
        for pause in [*self.a.retry, None]:
            if pause is None or time.monotonic() >= ends:
                break
            self.send(kind, **({'secs': int(time.monotonic() - began)} if time.monotonic() - began >= 1 else {}), **how)
            sent = time.monotonic()
            until = min(ends, sent + pause)
            while p := self.wire.recv(until, self.mine):
                if p.frame['dport'] != how.get('sport', CLIENT):
                    say('wrong-port', wanted=how.get('sport', CLIENT), **p.json())
                    continue
                step = {OFFER: 'offer', ACK: 'ack', NAK: 'nak'}.get(p.type, 'answer')
                step = 'boot-server' if p.frame['sport'] == BINL else step
                extra = {'kind': p.kind} if step == 'offer' else {}
                if self.broadcast and p.frame['cast'] == 'unicast' and 'src' not in how:  # RFC 2131 4.1
                    extra['ignored_broadcast_flag'] = True
                say(step, after=round(time.monotonic() - sent, 4), **extra, **p.json())
                got.append(p)
                if p.type in wanted:
                    if not collect:
                        return got
                    if len([x for x in got if x.type in wanted]) == 1:
                        until = min(ends, time.monotonic() + collect)
            if any(p.type in wanted for p in got):
                break
        return got


def end(ok, result, **fields):
    say('end', ok=bool(ok), result=result, **fields)
    sys.exit(0 if ok else 1)


def lease(c):
    """DISCOVER to ACK: (ack, address offer, proxy offers); ends the program where there is none."""
    offers = [p for p in c.ask(DISCOVER, {OFFER}, collect=c.a.wait) if p.type == OFFER]
    addresses, proxies = [p for p in offers if p.kind == 'address'], [p for p in offers if p.kind == 'proxy']
    if not offers:
        end(False, 'no-offer')
    if not addresses:
        end(False, 'no-address', proxies=len(proxies))
    word = (c.k['word'] or '').encode()
    able = [p for p in addresses if p.bootfile and (c.a.kind != 'uefi-http' or p.opt.get(60, b'').startswith(word))]
    chosen = (able or addresses)[0]
    if c.a.server:
        chosen = next((p for p in addresses if p.server == c.a.server), chosen)
    proxies = [p for p in proxies if p.opt[60].startswith(word)] if word else []
    say('choice', server=chosen.server, yiaddr=chosen.yiaddr, bootfile=chosen.bootfile, addresses=[p.server for p in addresses],
        proxies=[p.server for p in proxies])
    got = c.ask(REQUEST, {ACK, NAK}, requested=chosen.yiaddr, server=chosen.server)
    if not got or got[-1].type not in (ACK, NAK):
        end(False, 'no-ack')
    if got[-1].type == NAK:
        end(False, 'nak')
    return got[-1], chosen, proxies


def ask_4011(c, server, ciaddr, gateway=None, proxy=None):
    """PXE 2.1 2.2.4, 2.2.7: a DHCPREQUEST to port 4011, which is answered from there with an ACK. [] where not. Captured forms: OVMF
    asks from port 4011 with a new xid; iPXE from 68, with option 54, or, where the proxy has a menu, with xid 0 and option 43."""
    c.wire.own[ciaddr], kept = c.mac, (c.xid, c.a.option, c.a.drop)
    how = dict(binl=True, src=ciaddr, dport=BINL, ciaddr=ciaddr, sport=BINL if c.a.kind.startswith('uefi') else CLIENT)
    if c.a.kind.startswith('uefi'):
        c.xid = random.getrandbits(32) if c.a.xid is None else c.xid
    else:
        menu = subs(proxy.opt.get(43, b''), PXE_SUB).get('menu', '') if proxy else ''
        if menu:  # the first of the menu, layer 0: PXE 2.1 table 2-1
            c.a.option = [*c.a.option, (43, bytes.fromhex(f'4704{menu[:4]}0000ff'))]
            if c.a.kind.startswith('ipxe'):
                c.xid, c.a.option = 0, [(60, b'PXEClient'), *c.a.option]
        else:
            how['server'] = server
        c.a.broadcast = True if c.a.broadcast is None else c.a.broadcast  # as captured
    try:
        got = c.ask(REQUEST, {ACK, NAK}, ends=time.monotonic() + 15, to=(server, c.wire.resolve(gateway or server, ciaddr, c.mac)), **how)
    except Fail as e:
        say('unreachable', why=str(e))
        got = []
    c.xid, c.a.option, c.a.drop = kept
    return [p for p in got if p.type == ACK]


def next_hop(ack, server):
    mask = struct.unpack('!I', ack.opt.get(1, b'\xff\xff\xff\0'))[0]
    a, b = (struct.unpack('!I', packed(x))[0] for x in (ack.yiaddr, server))
    return server if (a ^ b) & mask == 0 or len(ack.opt.get(3, b'')) < 4 else dotted(ack.opt[3][:4])


def boot(a):
    c = Client(a, Wire(a.iface))
    ack, offer, proxies = lease(c)
    plan, server, source = ack, ack.siaddr if ack.siaddr != ANY else ack.server, 'ack'
    if not ack.bootfile and offer.bootfile:
        plan, source = offer, 'offer'
    if not plan.bootfile and proxies:
        plan, source = next((p for p in proxies if p.bootfile), proxies[0]), 'proxy'
        control = subs(plan.opt.get(43, b''), PXE_SUB).get('discovery-control')
        skip = plan.bootfile and (a.kind.startswith('ipxe') or 43 not in plan.opt or (control and int(control, 16) & 8))
        if not skip:  # bit 3: the boot file of the offer is the one
            to = plan.siaddr if a.kind.startswith('ipxe') and plan.siaddr != ANY else plan.server or plan.frame['src_ip']
            got = ask_4011(c, to, ack.yiaddr, next_hop(ack, to), plan)
            plan, source = (got[0], 'boot-server') if got else (plan, source)
    if source != 'ack':
        server = plan.siaddr if plan.siaddr != ANY else plan.server or plan.frame['src_ip']
    name = fill(c, ack, plan.bootfile) if a.kind.startswith('ipxe') else plan.bootfile
    say('leased', address=ack.yiaddr, mask=dotted(ack.opt.get(1, b'\xff\xff\xff\0')), next_server=server, bootfile=name, boot_from=source)
    if a.no_fetch or a.kind == 'plain':
        end(True, 'leased', address=ack.yiaddr, bootfile=name)
    if not name:
        end(False, 'no-bootfile', address=ack.yiaddr)
    if a.kind == 'uefi-http' and not (plan.opt.get(60, b'').startswith(b'HTTPClient') and re.match('https?://', name)):
        end(False, 'no-bootfile', why='UEFI HTTP boot wants option 60 HTTPClient and a whole URI', bootfile=name)
    with Standing(a.iface, c.mac, ack):
        try:
            parts = urllib.parse.urlsplit(name)
            if parts.scheme in ('http', 'https'):
                fetched = fetch_http(a, ack.yiaddr, name)
            else:
                host, name = (parts.hostname, parts.path.lstrip('/')) if parts.scheme == 'tftp' else (server, name)
                fetched = fetch_tftp(a, ack.yiaddr, host, name)
        except (Fail, OSError, http.client.HTTPException) as e:
            say('failed', why=f'{type(e).__name__}: {e}')
            fetched = None
    end(fetched, 'booted' if fetched else 'fetch-failed', address=ack.yiaddr, bootfile=name, sha256=fetched)


def fill(c, ack, name):
    uuid = str(c.a.uuid or uuids.UUID(bytes=b'\0' * 10 + octets(c.mac)))
    have = {'mac': c.mac, 'mac:hexhyp': c.mac.replace(':', '-'), 'uuid': uuid, 'ip': ack.yiaddr,
            'buildarch': 'x86_64' if c.a.kind.endswith('uefi') else 'i386', 'platform': 'efi' if c.a.kind.endswith('uefi') else 'pcbios'}
    return re.sub(r'\$\{(?:net\d+/)?([^}]*)\}', lambda m: have.get(m[1], ''), name)


# ---- what comes after the address ---------------------------------------------------------------------------------------

class Standing:
    """The interface has the leased address and the client's MAC; afterwards it has not."""

    def __init__(self, iface, mac, ack):
        self.iface, self.mac, self.undo = iface, mac, []
        bits = bin(int.from_bytes(ack.opt.get(1, b'\xff\xff\xff\0'))).count('1')
        self.address, self.router = f'{ack.yiaddr}/{bits}', dotted(ack.opt[3][:4]) if len(ack.opt.get(3, b'')) >= 4 else None

    def ip(self, *words):
        return subprocess.run(['ip', *words], stderr=subprocess.PIPE).returncode == 0

    def __enter__(self):
        with open(f'/sys/class/net/{self.iface}/address') as f:
            had = f.read().strip()
        if had != self.mac and self.ip('link', 'set', 'dev', self.iface, 'address', self.mac):
            self.undo.append(('link', 'set', 'dev', self.iface, 'address', had))
        if self.ip('addr', 'add', self.address, 'dev', self.iface):
            self.undo.append(('addr', 'del', self.address, 'dev', self.iface))
        if self.router:
            route = ('default', 'via', self.router, 'dev', self.iface, 'metric', '4011')
            if self.ip('route', 'add', *route):
                self.undo.append(('route', 'del', *route))

    def __exit__(self, *_):
        for words in reversed(self.undo):
            self.ip(*words)


def bound(kind, iface, address):
    s = socket.socket(socket.AF_INET, kind)
    s.setsockopt(socket.SOL_SOCKET, 25, iface.encode())  # SO_BINDTODEVICE
    s.bind((address, 0))
    return s


def shown(body):
    if body[:2] == b'#!':
        return {'script': body[:4000].decode('utf-8', 'replace')}
    return {'first': body[:16].hex()}


def fetch_http(a, address, url):
    parts = urllib.parse.urlsplit(url)
    agent = 'UefiHttpBoot/1.0' if a.kind == 'uefi-http' else 'iPXE/1.0.0+git-20190125.36a4c85-5.1'
    digest = None
    for method in ['HEAD', 'GET'] if a.kind == 'uefi-http' or a.head else ['GET']:
        began = time.monotonic()
        conn = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=15)
        conn.sock = bound(socket.SOCK_STREAM, a.iface, address)
        conn.sock.settimeout(15)
        conn.sock.connect((parts.hostname, parts.port or 80))
        path = (parts.path or '/') + ('?' + parts.query if parts.query else '')
        conn.request(method, path, headers={'User-Agent': agent, 'Accept': '*/*', 'Connection': 'keep-alive'})
        r = conn.getresponse()
        length, body = r.getheader('content-length'), r.read()
        conn.close()
        extra = {}
        if method == 'GET':
            digest = hashlib.sha256(body).hexdigest() if r.status == 200 else None
            extra = {'sha256': hashlib.sha256(body).hexdigest(), **shown(body)}
        say('http', method=method, url=url, status=r.status, bytes=len(body), content_length=length, headers=dict(r.getheaders()),
            seconds=round(time.monotonic() - began, 4), **extra)
        if method == 'HEAD' and r.status >= 400:
            return None
        if method == 'HEAD' and a.kind == 'uefi-http' and length is None:
            raise Fail('no content-length to HEAD, which UEFI HTTP boot wants')
    return digest


def fetch_tftp(a, address, server, name):
    """RFC 1350 with the options of RFC 2347, 2348 (blksize), 2349 (tsize), 7440 (windowsize)."""
    digests = set()
    if a.kind.startswith('uefi'):
        tftp(a, address, server, name, {'tsize': 0, 'blksize': 1468}, only_size=True)
    for size, window in a.blocks:
        asked = {} if size == 512 and window == 1 else {'tsize': 0, 'blksize': size} | ({'windowsize': window} if window > 1 else {})
        digests.add(tftp(a, address, server, name, asked))
    if len(digests) != 1:
        raise Fail('the block sizes brought different files')
    return digests.pop()


def tftp(a, address, server, name, asked, only_size=False):
    s, began = bound(socket.SOCK_DGRAM, a.iface, address), time.monotonic()
    words = [name, 'octet'] + [str(w) for kv in asked.items() for w in kv]
    packet, to, body, got, block, window, size, blocks, again = b'\0\1' + b''.join(w.encode() + b'\0' for w in words), (server, TFTP), [], {}, 0, 1, 512, 0, 0
    s.sendto(packet, to)
    in_window = tries = 0
    while True:
        s.settimeout(1 if tries else 2)
        try:
            data, peer = s.recvfrom(65536)
        except TimeoutError:
            tries += 1
            again += 1
            if tries > 5 or time.monotonic() - began > a.timeout:
                raise Fail(f'TFTP {name}: no answer from {server} after {block} blocks') from None
            s.sendto(packet, to)
            continue
        if to[1] == TFTP and peer[0] == server:
            to = peer  # the server's transfer identifier, RFC 1350 4
        if peer != to:
            s.sendto(b'\0\5\0\5unknown transfer\0', peer)
            continue
        tries, code = 0, int.from_bytes(data[:2])
        if code == 5:
            say('tftp', name=name, server=server, asked=asked, error=int.from_bytes(data[2:4]), message=plain(data[4:]))
            raise Fail(f'TFTP {name}: {plain(data[4:])}')
        if code == 6 and block == 0:
            w = data[2:].split(b'\0')
            got = {k.decode().lower(): v.decode() for k, v in zip(w[0::2], w[1::2])}
            if only_size:
                s.sendto(b'\0\5\0\x08User aborted the transfer\0', to)
                say('tftp-size', name=name, server=server, asked=asked, accepted=got)
                return None
            size, window = int(got.get('blksize', 512)), int(got.get('windowsize', 1))
            if set(got) - set(asked) or size > asked['blksize']:
                raise Fail(f'TFTP: accepted {got}, asked was {asked}')
            packet = b'\0\4\0\0'
            s.sendto(packet, to)
        elif code == 3:
            if only_size:
                s.sendto(b'\0\5\0\0no\0', to)
                say('tftp-size', name=name, server=server, asked=asked, accepted={})
                return None
            if int.from_bytes(data[2:4]) == (block + 1) & 0xffff:
                block, in_window, blocks = block + 1, in_window + 1, blocks + 1
                body.append(data[4:])
                packet = b'\0\4' + data[2:4]
                last = len(data) - 4 < size
                if last or in_window >= window:
                    s.sendto(packet, to)
                    in_window = 0
                if last:
                    break
            else:  # a hole in the window: RFC 7440 4, say what came last; doubles too
                again += 1
                in_window = 0
                s.sendto(packet, to)
    whole = b''.join(body)
    if 'tsize' in got and int(got['tsize']) != len(whole):
        raise Fail(f'TFTP: tsize said {got["tsize"]}, {len(whole)} came')
    digest = hashlib.sha256(whole).hexdigest()
    say('tftp', name=name, server=server, asked=asked, accepted=got, bytes=len(whole), blocks=blocks, again=again, sha256=digest,
        seconds=round(time.monotonic() - began, 4), **shown(whole))
    return digest


# ---- the other verbs ---------------------------------------------------------------------------------------------------

def one(a):
    """discover, request, init-reboot, renew, rebind, inform, decline, release."""
    c = Client(a, Wire(a.iface))
    kind = {'discover': DISCOVER, 'inform': INFORM, 'decline': DECLINE, 'release': RELEASE}.get(a.verb, REQUEST)
    wanted = {'discover': {OFFER}}.get(a.verb, {ACK, NAK})
    how = {}
    if a.verb in ('request', 'decline', 'init-reboot'):
        how['requested'] = a.requested
    if a.verb in ('request', 'decline', 'release'):  # RFC 2131 table 5
        how['server'] = a.server
    if a.verb in ('renew', 'rebind', 'inform', 'release'):
        if not a.ciaddr:
            sys.exit('--ciaddr is needed')
        how |= {'ciaddr': a.ciaddr, 'src': a.ciaddr}
        c.wire.own[a.ciaddr] = c.mac
    if a.verb in ('renew', 'release') or a.unicast:
        if not a.server:
            sys.exit('--server is needed')
        how['to'] = (a.server, c.wire.resolve(a.gateway or a.server, a.ciaddr or ANY, c.mac))
    if a.verb in ('decline', 'release'):
        c.a.retry = [a.wait]
        got = c.ask(kind, set(), **how)
        end(not got, 'answered' if got else 'silence')
    got = c.ask(kind, wanted, collect=a.wait if a.verb == 'discover' else 0, **how)
    got = [p for p in got if p.type in wanted]
    what = 'silence' if not got else TYPES[got[-1].type].lower()
    end(got and got[-1].type != NAK, what, address=got[-1].yiaddr if got else None, servers=sorted({p.server or '?' for p in got}))


def port4011(a):
    c = Client(a, Wire(a.iface))
    if not a.server:
        sys.exit('--server is needed')
    address, hop = a.ciaddr, a.gateway
    if not address:
        server, a.server = a.server, None
        ack, _, _ = lease(c)
        address, hop, a.server = ack.yiaddr, hop or next_hop(ack, server), server
    got = ask_4011(c, a.server, address, hop)
    end(got, 'boot-server' if got else 'silence', bootfile=got[0].bootfile if got else None)


def relay(a):
    """RFC 1542 4.1, RFC 2131 4.1: from giaddr to the server's port 67, answered to giaddr's port 67; RFC 3046."""
    c = Client(a, None)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if a.iface != '-':
        s.setsockopt(socket.SOL_SOCKET, 25, a.iface.encode())
    s.bind((a.giaddr, SERVER))
    given = [(1, a.circuit), (2, a.remote), *a.sub]
    agent = b''.join(bytes([n, len(v)]) + v for n, v in given if v is not None)

    def ask(kind, wanted, **how):
        got = []
        for pause in a.retry:
            payload = c.payload(kind, giaddr=a.giaddr, hops=a.hops, last=[(82, agent)] if agent else [], **how)
            s.sendto(payload, (a.server, SERVER))
            say('sent', **Packet(payload, src_ip=a.giaddr, dst_ip=a.server, sport=SERVER, dport=SERVER, cast='unicast').json())
            until = min(c.ends, time.monotonic() + pause)
            while (left := until - time.monotonic()) > 0 and select.select([s], [], [], left)[0]:
                data, peer = s.recvfrom(65536)
                p = Packet(data, src_ip=peer[0], sport=peer[1], dst_ip=a.giaddr, dport=SERVER, cast='unicast')
                if not c.mine(data):
                    say('stray', **p.json())
                    continue
                back = p.opt.get(82)
                echoed = 'none' if not agent and back is None else 'missing' if back is None else 'echoed' if back == agent else 'changed'
                say({OFFER: 'offer', ACK: 'ack', NAK: 'nak'}.get(p.type, 'answer'), option82=echoed, option82_last=p.order[-1:] == [82],
                    giaddr_kept=p.giaddr == a.giaddr, **p.json())
                got.append(p)
                if p.type in wanted:
                    until = min(until, time.monotonic() + (a.wait if kind == DISCOVER else 0))
            if got or time.monotonic() > c.ends:
                break
        return [p for p in got if p.type in wanted]

    offers = ask(DISCOVER, {OFFER})
    address = [p for p in offers if p.kind == 'address']
    if not address:
        end(False, 'no-address' if offers else 'no-offer')
    got = ask(REQUEST, {ACK, NAK}, requested=address[0].yiaddr, server=address[0].server)
    end(got and got[-1].type == ACK, TYPES[got[-1].type].lower() if got else 'no-ack', address=got[-1].yiaddr if got else None)


def spread(values):
    v = sorted(values)
    return {'count': len(v), 'median': round(statistics.median(v), 4), 'p99': round(v[min(len(v) - 1, int(len(v) * 0.99))], 4),
            'longest': round(v[-1], 4)} if v else {'count': 0}


def crowd(a):
    wire, first = Wire(a.iface), octets(a.mac or '52:54:00:c0:00:00')
    a.mac = None
    start = time.monotonic()
    until, todo, who = start + a.seconds, [], {}
    n = dict(sent=0, again=0, naks=0, gave_up=0, rounds=0, unasked=0)
    offer_s, ack_s, lease_s, have, doubles = [], [], [], {}, []
    for i in range(a.clients):
        c = Client(a, None, colons((int.from_bytes(first) + i).to_bytes(6)))
        c.state, c.tries = 'new', 0
        who[octets(c.mac)] = c
        c.due = start + a.spread * i / a.clients
        heapq.heappush(todo, (c.due, i, c))

    def send(c, now):
        kind = {'new': DISCOVER, 'selecting': DISCOVER, 'requesting': REQUEST}[c.state]
        if c.state == 'new':
            c.state, c.tries, c.xid, c.began, c.asked = 'selecting', 0, random.getrandbits(32), now, None
            n['rounds'] += 1
        how = dict(requested=c.wants, server=c.server) if kind == REQUEST else {}
        wire.send(c.payload(kind, secs=min(65535, int(now - c.began)), **how), c.mac)
        n['sent'] += 1
        n['again'] += c.tries > 0
        c.due = now + (a.retry[c.tries] if c.tries < len(a.retry) else 0)
        c.tries += 1
        heapq.heappush(todo, (c.due, random.random(), c))

    while (now := time.monotonic()) < until:
        while todo and todo[0][0] <= now:
            due, _, c = heapq.heappop(todo)
            if c.due == due and c.state in ('new', 'selecting', 'requesting'):
                if c.state != 'new' and c.tries >= len(a.retry):
                    n['gave_up'] += 1
                    c.state = 'new' if a.parked else 'gone'
                    if not a.parked:
                        continue
                send(c, time.monotonic())
        if not a.parked and not any(c.state in ('new', 'selecting', 'requesting') for c in who.values()):
            break
        p = wire.recv(min(until, todo[0][0] if todo else until), lambda b: len(b) > 240 and b[0] == 2 and b[28:34] in who)
        if not p:
            continue
        c, now = who[p.chaddr[:6]], time.monotonic()
        if p.xid != c.xid or c.state not in ('selecting', 'requesting'):
            n['unasked'] += p.xid != c.xid
        elif c.state == 'selecting' and p.type == OFFER and p.yiaddr != ANY:
            offer_s.append(now - c.began)
            c.state, c.tries, c.wants, c.server, c.asked = 'requesting', 0, p.yiaddr, p.server, now
            send(c, now)
        elif c.state == 'requesting' and p.type == NAK:
            n['naks'] += 1
            c.state = 'new'
            c.due = now + 1
            heapq.heappush(todo, (c.due, random.random(), c))
        elif c.state == 'requesting' and p.type == ACK:
            ack_s.append(now - c.asked)
            lease_s.append(now - c.began)
            if have.setdefault(p.yiaddr, c.mac) != c.mac:
                doubles.append({'address': p.yiaddr, 'macs': [have[p.yiaddr], c.mac]})
            c.state = 'bound'
            if a.parked:
                c.state = 'new'
                c.due = now + a.again
                heapq.heappush(todo, (c.due, random.random(), c))
    got = len(set(have.values()) | {m for d in doubles for m in d['macs']})
    end(got == a.clients and not doubles, 'all' if got == a.clients else 'some' if got else 'none', clients=a.clients, got=got,
        addresses=len(have), duplicates=doubles, offer_s=spread(offer_s), ack_s=spread(ack_s), lease_s=spread(lease_s),
        took=round(time.monotonic() - start, 3), dropped=wire.dropped(), **n)


def listen(a):
    wire, n = Wire(a.iface, outgoing=True), 0
    say('listening', iface=a.iface)
    until = time.monotonic() + (a.seconds or 1e9)
    try:
        while p := wire.recv(until):
            n += 1
            say('packet', kind=p.kind if p.type == OFFER else None, **p.json())
    except (KeyboardInterrupt, Stop):
        pass
    end(True, 'stopped', packets=n, dropped=wire.dropped())


def foreign(a):
    wire, low = Wire(a.iface), a.range.split('-')[0]
    low, high = (struct.unpack('!I', packed(x))[0] for x in (low, a.range.split('-')[-1]))
    free, have = [dotted(struct.pack('!I', n)) for n in range(low, high + 1)], {}
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind((a.address, 0))
    except OSError:
        wire.own[a.address] = wire.mac
    say('serving', address=a.address, range=a.range)
    until = time.monotonic() + (a.seconds or 1e9)
    try:
        while p := wire.recv(until, lambda b: b[:1] == b'\1'):
            if p.frame['dport'] != SERVER or p.type not in (DISCOVER, REQUEST):
                continue
            asked = dotted(p.opt[50]) if len(p.opt.get(50, b'')) == 4 else p.ciaddr
            if p.mac not in have and free and not a.proxy:
                have[p.mac] = asked if asked in free else free[0]
                free.remove(have[p.mac])
            mine = have.get(p.mac, ANY)
            other = p.type == REQUEST and p.server and p.server != a.address
            kind = OFFER if p.type == DISCOVER else NAK if a.nak or (asked != mine and not a.proxy) else ACK
            if other or (p.type == REQUEST and (a.offer_only or a.proxy)) or (mine == ANY and not a.proxy):
                say('ignored', why='another server' if other else 'as told' if p.type == REQUEST else 'no address', **p.json())
                continue
            time.sleep(a.delay)
            options = [(53, bytes([kind])), (54, packed(a.address))]
            if kind != NAK:
                if not a.proxy:
                    options += [(51, a.lease.to_bytes(4)), (1, packed(a.mask))] + ([(3, packed(a.router))] if a.router else [])
                if a.vendor_class or a.proxy:
                    options.append((60, a.vendor_class or b'PXEClient'))
                options += [(97, p.opt[97])] if 97 in p.opt and (a.vendor_class or a.proxy) else []
                options += a.option
            out = bootp(op=2, xid=p.xid, flags=p.flags, yiaddr=mine if kind != NAK else ANY, giaddr=p.giaddr, chaddr=p.chaddr[:6],
                        siaddr=(a.next or a.address) if kind != NAK else ANY, file=a.file.encode() if kind != NAK else b'', options=options,
                        ciaddr=p.ciaddr if kind == ACK else ANY)
            uni = kind != NAK and p.ciaddr != ANY  # RFC 2131 4.1
            to = (p.ciaddr, p.frame['src_mac']) if uni else (mine, p.mac) if not p.flags >> 15 and kind != NAK and mine != ANY else (BCAST, ALL_ONES)
            wire.send(out, wire.mac, dst_mac=to[1], src=a.address, dst=to[0], sport=SERVER, dport=CLIENT)
            say('answered', to=p.mac, **Packet(out, src_ip=a.address, dst_ip=to[0], dst_mac=to[1]).json())
    except (KeyboardInterrupt, Stop):
        pass
    end(True, 'stopped', leases=have)


def odd_ones(x, m, o, top):
    """name: payload. x: xid, m: chaddr, o: the options of a sound DISCOVER as a dict, top: more keywords for all."""
    def b(options=None, add=(), without=(), **k):
        opts = [(c, v) for c, v in o.items() if c not in without] if options is None else options
        return bootp(**{**top, 'xid': x, 'chaddr': m, 'options': [*opts, *add], **k})
    bare, raw = b(options=[], end=b'', least=0), b(end=b'', least=0)
    yield 'empty', b''
    yield 'one-octet', b'\1'
    yield 'short-100', b()[:100]
    yield 'short-235', b()[:235]
    yield 'no-options-236', b()[:236]
    yield 'cookie-cut', b()[:239]
    yield 'cookie-only', bare
    yield 'cookie-wrong', b(cookie=bytes.fromhex('63825364'))
    yield 'zeros-300', bytes(300)
    yield 'ones-300', b'\xff' * 300
    yield 'no-end', raw
    yield 'unpadded', b(least=0)
    yield 'pads-only', bare.ljust(400, b'\0')
    yield 'option-overruns', raw + b'\x0c\xf0abc'
    yield 'option-without-length', raw + b'\x0c'
    yield 'first-option-overruns', bare + b'\x35\xff\1'
    yield 'message-type-missing', b(without=[53])
    yield 'message-type-empty', b(add=[(53, b'')], without=[53])
    yield 'message-type-two-octets', b(add=[(53, b'\1\1')], without=[53])
    for n in (0, 2, 5, 6, 9, 255):
        yield f'message-type-{n}', b([(c, bytes([n]) if c == 53 else v) for c, v in o.items()])
    yield 'message-type-twice', b(add=[(53, b'\3')])
    yield 'op-0', b(op=0)
    yield 'op-2', b(op=2)
    yield 'op-3', b(op=3)
    for n in (0, 1, 5, 7, 16, 17, 255):
        yield f'hlen-{n}', b(hlen=n)
    yield 'htype-0', b(htype=0)
    yield 'htype-6', b(htype=6)
    yield 'htype-32', b(htype=32, hlen=0)
    yield 'chaddr-zero', b(chaddr=bytes(6))
    yield 'chaddr-broadcast', b(chaddr=b'\xff' * 6)
    yield 'chaddr-multicast', b(chaddr=b'\1' + m[1:])
    yield 'hops-255', b(hops=255)
    yield 'secs-65535', b(secs=65535)
    yield 'flags-7fff', b(flags=0x7fff)
    yield 'ciaddr-broadcast', b(ciaddr=BCAST)
    yield 'giaddr-broadcast', b(giaddr=BCAST)
    yield 'giaddr-multicast', b(giaddr='224.0.0.1')
    for n in (0, 1, 16, 18, 255):
        yield f'uuid-{n}', b(add=[(97, bytes(n))], without=[97])
    yield 'uuid-17-type-1', b(add=[(97, b'\1' + bytes(range(16)))], without=[97])
    yield 'uuid-17', b()
    for n in (0, 1, 3, 4, 254):
        yield f'arch-{n}-octets', b(add=[(93, b'\0\x07' * (n // 2) + b'\0' * (n % 2))], without=[93])
    yield 'arch-65535', b(add=[(93, b'\xff\xff')], without=[93])
    for name, v in [('empty', b''), ('bare', b'PXEClient'), ('nul', b'PXEClient\0:Arch:00007'), ('newline', b'PXEClient\n\x1b[2J'),
                    ('not-utf8', b'PXEClient\xff\xfe\x80'), ('quotes', b'PXEClient"\'`$(x)<b>{{x}}'), ('255', b'PXEClient'.ljust(255, b'A')),
                    ('unlike', b'PXEClienT:Arch:00007:UNDI:003000')]:
        yield f'vendor-class-{name}', b(add=[(60, v)], without=[60])
    yield 'user-class-plain', b(add=[(77, b'iPXE')])
    yield 'user-class-rfc3004', b(add=[(77, b'\4iPXE')])
    yield 'user-class-rfc3004-two', b(add=[(77, b'\3abc\4iPXE')])
    yield 'user-class-overruns', b(add=[(77, b'\xffiPXE')])
    yield 'user-class-zero-length', b(add=[(77, b'\0iPXE')])
    yield 'user-class-empty', b(add=[(77, b'')])
    yield 'ipxe-overruns', b(add=[(175, b'\xb1\xff\1')])
    yield 'ipxe-empty', b(add=[(175, b'')])
    yield 'client-id-0', b(add=[(61, b'')], without=[61])
    yield 'client-id-1', b(add=[(61, b'\1')], without=[61])
    yield 'client-id-255', b(add=[(61, b'\0' + b'x' * 254)], without=[61])
    yield 'client-id-of-another', b(add=[(61, b'\1\x52\x54\0\xee\xee\xee')], without=[61])
    yield 'host-name-odd', b(add=[(12, b'a\0b\nc"\x1b[31m/../../x')])
    yield 'parameters-empty', b(add=[(55, b'')], without=[55])
    yield 'parameters-255', b(add=[(55, bytes(range(255)))], without=[55])
    yield 'max-size-0', b(add=[(57, b'\0\0')], without=[57])
    yield 'max-size-1-octet', b(add=[(57, b'\1')], without=[57])
    yield 'max-size-65535', b(add=[(57, b'\xff\xff')], without=[57])
    yield 'requested-3-octets', b(add=[(50, b'\x0a\0\0')])
    yield 'requested-broadcast', b(add=[(50, b'\xff' * 4)])
    yield 'server-id-3-octets', b(add=[(54, b'\x0a\0\0')])
    yield 'vendor-overruns', b(add=[(43, b'\x47\xff\0\0')])
    yield 'relay-agent-without-giaddr', b(add=[(82, b'\1\2ab')])
    yield 'relay-agent-overruns', b(add=[(82, b'\1\xffab')])
    yield 'duplicated-60', b(add=[(60, b':more')])
    yield 'duplicated-all', b(add=list(o.items()))
    yield 'options-of-300-kinds', b(add=[(128 + n % 96, b'x') for n in range(300)])
    yield 'overload-1', b([(53, b'\1'), (52, b'\1')], file=b''.join(bytes([c, len(v)]) + v for c, v in o.items() if c in (60, 93, 97)) + b'\xff')
    yield 'overload-2', b([(53, b'\1'), (52, b'\2')], sname=b''.join(bytes([c, len(v)]) + v for c, v in o.items() if c in (93, 97)) + b'\xff')
    yield 'overload-3-type-in-file', b([(52, b'\3')], file=b'\x35\1\1\xff', sname=b'\x0c\1a\xff')
    yield 'overload-overruns', b(add=[(52, b'\3')], file=b'\x3c\xff' + b'A' * 126, sname=b'\x3c\xff' + b'A' * 62)
    yield 'overload-again', b(add=[(52, b'\1')], file=b'\x34\1\3\xff')
    yield 'overload-7', b(add=[(52, b'\7')])
    yield 'overload-empty', b(add=[(52, b'')])
    yield 'octets-1400', b(add=[(224, b'x' * 255)] * 4, least=1400)
    yield 'octets-1472', b(least=1472)


def odd(a):
    wire = Wire(a.iface)
    base, n, only = octets(a.mac or '52:54:00:dd:00:00'), 0, set(filter(None, a.only.split(',')))
    a.mac = None

    def exchange(payload, m, name, step='odd', spoil=None, **where):
        f = frame_of(payload, colons(m), ALL_ONES, where.get('src', ANY), BCAST, where.get('sport', CLIENT), where.get('dport', SERVER))
        wire.s.send(spoil(f) if spoil else f)
        until, got = time.monotonic() + a.wait, []
        while p := wire.recv(until, lambda b: b[:1] == b'\2'):
            ours = p.raw[4:8] == x or p.raw[28:34] == m
            got.append({**p.json(), 'ours': ours})
            if ours and step != 'odd':
                break
        say(step, name=name, length=len(payload), payload=payload.hex(), answered=any(g['ours'] for g in got), answers=got)
        return any(g['ours'] for g in got)

    def fresh():
        nonlocal n, x
        n += 1
        m = (int.from_bytes(base) + n).to_bytes(6)
        c = Client(a, None, colons(m))
        x = struct.pack('!I', c.xid)
        made, shape = c.options(DISCOVER)
        return c, m, {k: made[k] for k in shape}

    x, count, answered = b'', 0, []
    c, m, o = fresh()
    before = exchange(c.payload(DISCOVER), m, 'sound', 'sound')
    flags = {'flags': 0x8000}
    for name, _ in list(odd_ones(0, bytes(6), o, flags)):
        if only and name not in only:
            continue
        c, m, o = fresh()
        count += 1
        if exchange(dict(odd_ones(c.xid, m, o, flags))[name], m, name):
            answered.append(name)
    spoilt = [('udp-checksum-wrong', lambda f: f[:40] + bytes([f[40] ^ 0x55]) + f[41:], {}), ('udp-checksum-none', lambda f: f[:40] + b'\0\0' + f[42:], {}),
              ('udp-length-too-long', lambda f: f[:38] + b'\x05\0\0\0' + f[42:], {}), ('udp-length-7', lambda f: f[:38] + b'\0\7\0\0' + f[42:], {}),
              ('source-port-67', None, {'sport': SERVER}), ('source-port-9', None, {'sport': 9}), ('source-address-broadcast', None, {'src': BCAST}),
              ('to-port-68', None, {'dport': CLIENT}), ('to-port-4011', None, {'dport': BINL})]
    for name, spoil, where in spoilt:
        if only and name not in only:
            continue
        c, m, o = fresh()
        count += 1
        if exchange(c.payload(DISCOVER), m, name, spoil=spoil, **where):
            answered.append(name)
    c, m, o = fresh()
    a.wait = max(a.wait, 4)
    after = exchange(c.payload(DISCOVER), m, 'sound', 'sound')
    end(after, 'alive' if after else 'dead', before=before, kinds=count, answered=answered)


class Stop(Exception):
    pass


def stop(*_):
    raise Stop


def main():
    verbs = {'boot': boot, 'port4011': port4011, 'relay': relay, 'crowd': crowd, 'listen': listen, 'foreign': foreign, 'odd': odd}
    verbs |= dict.fromkeys(['discover', 'request', 'renew', 'rebind', 'init-reboot', 'inform', 'decline', 'release'], one)

    def coded(text):
        code, _, v = text.partition('=')
        return int(code), bytes.fromhex(v)

    def blocks(text):
        return [(int(w.split('/')[0]), int((w + '/1').split('/')[1])) for w in text.split(',')]

    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('verb', choices=[*verbs, 'build', 'decode'])
    p.add_argument('iface', nargs='*', help='an interface (decode: files; build: nothing)')
    p.add_argument('--as', dest='kind', choices=KINDS, default=None)
    p.add_argument('--blocks', type=blocks, default='512,1024,1432,1468/4,8192/8', help='TFTP: BLKSIZE[/WINDOWSIZE],... ; 512 asks for no options')
    for name in ('mac', 'address', 'range', 'giaddr', 'server', 'requested', 'ciaddr', 'gateway', 'payload', 'router', 'next'):
        p.add_argument('--' + name)
    for name in ('no-http', 'head', 'no-fetch', 'unicast', 'parked', 'nak', 'offer-only', 'proxy'):
        p.add_argument('--' + name, action='store_true')
    for name, kind, default in [('uuid', uuids.UUID, None), ('arch', int, None), ('client-id', bytes.fromhex, None), ('vendor-class', str.encode, None),
                                ('user-class', str.encode, None), ('xid', lambda s: int(s, 0), None), ('secs', int, None), ('timeout', float, 70.0),
                                ('wait', float, None), ('retry', str, RETRY), ('circuit', bytes.fromhex, None), ('remote', bytes.fromhex, None),
                                ('hops', int, 1), ('clients', int, 50), ('seconds', float, None), ('spread', float, 0.0), ('again', float, 30.0),
                                ('lease', int, 600), ('mask', str, '255.255.255.0'), ('file', str, ''), ('delay', float, 0.0), ('only', str, ''),
                                ('type', int, DISCOVER)]:
        p.add_argument('--' + name, type=kind, default=default)
    p.add_argument('--option', type=coded, action='append', default=[])
    p.add_argument('--sub', type=coded, action='append', default=[])
    p.add_argument('--drop', type=int, action='append', default=[])
    p.add_argument('--no-broadcast', dest='broadcast', action='store_false', default=None)
    p.add_argument('--broadcast', dest='broadcast', action='store_true')
    a = p.parse_args()
    a.retry = [float(w) for w in a.retry.split(',')]
    a.kind = a.kind or ('uefi' if a.verb in ('odd', 'port4011') else 'plain')
    a.wait = a.wait if a.wait is not None else 0.3 if a.verb == 'odd' else 2.0
    a.mac = colons(octets(a.mac)) if a.mac else None
    signal.signal(signal.SIGTERM, stop)
    if a.verb == 'decode':
        for path in a.iface:
            with open(path) as f:
                say('packet', file_read=path, **Packet(bytes.fromhex(''.join(f.read().split()))).json())
    elif a.verb == 'build':
        print(Client(a, None).payload(a.type, requested=a.requested, server=a.server, ciaddr=a.ciaddr or ANY).hex())
    elif len(a.iface) != 1 or (a.verb == 'crowd' and not a.seconds) or (a.verb == 'foreign' and not (a.address and a.range)) or (
            a.verb == 'relay' and not (a.giaddr and a.server)):
        p.error('see the head of this file')
    else:
        a.iface = a.iface[0]
        try:
            verbs[a.verb](a)
        except Stop:
            end(False, 'stopped')
        except (Fail, OSError) as e:
            end(False, 'failed', why=f'{type(e).__name__}: {e}')


if __name__ == '__main__':
    main()
