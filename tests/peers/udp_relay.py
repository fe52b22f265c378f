"""Carries UDP from the loopback address of this namespace to that of another one, port by port: a management network between two hosts.

    udp_relay.py NETNS PORT...      as root; until killed
"""
import ctypes
import os
import select
import socket
import sys

LIBC = ctypes.CDLL(None, use_errno=True)


def enter(path):
    fd = os.open(path, os.O_RDONLY)
    if LIBC.setns(fd, 0x40000000):  # CLONE_NEWNET
        raise OSError(ctypes.get_errno(), path)
    os.close(fd)


def main(netns, ports):
    here, there = '/proc/self/ns/net', '/run/netns/' + netns
    here = '/proc/self/fd/%d' % os.open(here, os.O_RDONLY)
    listening = {}
    for port in ports:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(('127.0.0.1', port))
        listening[s] = port
    ways = {}  # (listener, client) -> the socket in the other namespace
    back = {}
    while True:
        for s in select.select(list(listening) + list(back), [], [])[0]:
            data, peer = s.recvfrom(65535)
            if s in back:
                listener, client = back[s]
                listener.sendto(data, client)
                continue
            if (s, peer) not in ways:
                enter(there)
                way = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                way.connect(('127.0.0.1', listening[s]))
                enter(here)
                ways[s, peer], back[way] = way, (s, peer)
            try:
                ways[s, peer].send(data)
            except ConnectionError:
                pass


main(sys.argv[1], [int(port) for port in sys.argv[2:]])
