#!/usr/bin/python3
"""pyghmi's fakebmc, on the loopback alone: pyghmi_bmc.py PORT. virtualbmc is made of the same class. User admin, password `password`.
It says what is done to its machine."""
import sys

from pyghmi.cmd.fakebmc import FakeBmc


class Bmc(FakeBmc):
    def __init__(self, port):
        super(FakeBmc, self).__init__({'admin': 'password'}, port, address='::ffff:127.0.0.1')
        self.powerstate = 'off'
        self.bootdevice = 'default'


Bmc(int(sys.argv[1])).listen()
