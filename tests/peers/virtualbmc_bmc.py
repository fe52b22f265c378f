#!/usr/bin/python3
"""virtualbmc, on the loopback alone: virtualbmc_bmc.py PORT PACKAGES. Its machine is the one of libvirt's test driver, which lives in this process;
PACKAGES is where virtualbmc was installed. User admin, password `password`. It says what is done to its machine."""
import sys

import libvirt

sys.path.append(sys.argv[2])
from virtualbmc.vbmc import VirtualBMC  # noqa: E402

URI = 'test:///default'
# The machine is there as long as somebody is connected to it.
machine = libvirt.open(URI)


class Bmc(VirtualBMC):
    def power_on(self):
        print('powered on')
        return super().power_on()

    def power_off(self):
        print('powered off')
        return super().power_off()

    def power_shutdown(self):
        print('politely shut down the system')
        return super().power_shutdown()


machine.lookupByName('test').destroy()
Bmc('admin', 'password', int(sys.argv[1]), '::ffff:127.0.0.1', 'test', URI).listen()
