#!/usr/bin/env python3
"""Real kernels start with a real initrd, in QEMU, against a controller that only records: what the agent does is seen from outside.

Needs qemu-system-x86_64, mksquashfs, busybox (static), cpio, openssl, a kernel and an initrd of it; `tests/agent.rs` of embody makes these, and starts this:

    guests.py KERNEL INITRD [SCENARIO...]
    guests.py --system DIRECTORY          makes DIRECTORY/system, which a server of NFS can give as the root

With EMBODY_DEBIAN=DIRECTORY, what `mmdebstrap --variant=minbase --include=systemd-sysv,udev,dbus,iproute2,kmod,ifupdown bookworm DIRECTORY` makes, links
are set up by a real system as well. Each scenario is a function below whose name begins with `test_`; its text says what is claimed. Nothing of the
machine is changed, and what is started is ended.
"""
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from controllers import HOST, MAC, TAP, Controller, Exchange, identity, links  # noqa: E402: it lies beside this file

BOOTIF = "BOOTIF=01-" + MAC.replace(":", "-")
MACHINE_ID = "0123456789abcdef0123456789abcdef"
NETWORK = f"tap,id=n,ifname={TAP},script=no,downscript=no" if TAP else "user,id=n"
KERNEL, INITRD = "", ""
REBOOT_AFTER = 30


class Guest:
    def __init__(self, name, line, memory=512, card="virtio-net-pci", bios=None, network=NETWORK, initrd=None, more=()):
        self.log = pathlib.Path(tempfile.gettempdir()) / f"guest-{name}-{os.getpid()}.log"
        self.text = None
        self.begun = time.monotonic()
        command = ["qemu-system-x86_64", "-accel", "tcg", "-m", str(memory), "-display", "none", "-monitor", "none", "-no-reboot"]
        command += ["-serial", "stdio", "-kernel", KERNEL, "-initrd", str(initrd or INITRD), "-append", f"console=ttyS0 {line}"]
        if card:
            command += ["-netdev", network, "-device", f"{card},netdev=n,mac={MAC},romfile="]
        else:
            command += ["-nic", "none"]
        command += more
        if bios:
            command += ["-bios", bios]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log)

    def type(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def console(self):
        """What was said on the serial line, also after the end."""
        if self.text is not None:
            return self.text
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_for(self, what, within):
        until = time.monotonic() + within
        while time.monotonic() < until:
            found = what()
            if found:
                return found
            if self.process.poll() is not None:
                time.sleep(0.5)
                return what()
            time.sleep(0.2)
        return what()

    def reboots(self, within):
        """Seconds since its start, or None. QEMU ends where a machine would start anew."""
        try:
            self.process.wait(within)
            return time.monotonic() - self.begun
        except subprocess.TimeoutExpired:
            return None

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.stdin.close()
        self.process.wait()
        self.text = self.console()
        self.log.unlink(missing_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.end()
        if kind:
            print("\n".join(self.console().splitlines()[-40:]))


INIT = """#!/bin/sh
/bin/mount -t devpts devpts /dev/pts 2>/dev/null
echo "SYSTEM pid $$ name $(cat /proc/sys/kernel/hostname) file $(cat /etc/hostname)"
echo "SYSTEM machine-id $(cat /etc/machine-id) mode $(stat -c %a /etc/machine-id)"
echo "SYSTEM arguments $*"
echo "SYSTEM hosts $(grep 127.0.1.1 /etc/hosts)"
echo "SYSTEM resolv $(cat /etc/resolv.conf)"
echo "SYSTEM root $(stat -c '%a %u' /) $(grep ' / ' /proc/mounts)"
echo "SYSTEM mounts $(cut -d' ' -f2 /proc/mounts | tr '\\n' ' ')"
echo "SYSTEM address $(ip -4 -o addr show scope global) route $(ip route show default)"
echo "SYSTEM interfaces $(cat /etc/network/interfaces.d/embody)"
echo "SYSTEM agent.json $(stat -c %a /run/embody/agent.json) run $(stat -c %a /run)"
echo "SYSTEM time $(date +%s)"
echo "SYSTEM given $(stat -c '%a %u %g' /etc/app.conf) $(cat /etc/app.conf) ssh $(stat -c '%a %u' /home/w/.ssh)"
echo "SYSTEM setuid $(stat -c %a /bin/su-like) escape $(cat /etc/escape 2>&1)"
touch /written && echo "SYSTEM writes"
free -m
sleep 600
"""


def system(directory, init=INIT):
    """A system of busybox alone, as a directory."""
    root = pathlib.Path(directory) / "system"
    for path in ["bin", "sbin", "etc/network", "proc", "sys", "dev", "run", "usr", "var"]:
        (root / path).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    for applet in ["sh", "cat", "echo", "stat", "grep", "cut", "tr", "ip", "touch", "sleep", "mount", "free", "date"]:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "bin/su-like").write_text("")
    (root / "bin/su-like").chmod(0o4755)
    (root / "etc/hostname").write_text("image\n")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nadm:x:4:\n")
    (root / "etc/network/interfaces").write_text("source /etc/network/interfaces.d/*\n")
    # Links that lead out of the image, were they followed from outside of it.
    (root / "etc/machine-id").symlink_to("/init")
    (root / "etc/resolv.conf").symlink_to("../run/somewhere/resolv.conf")
    if init:
        (root / "sbin/init").write_text(init)
        (root / "sbin/init").chmod(0o755)
    return root


def squashfs(directory, **options):
    path = pathlib.Path(directory) / "root.squashfs"
    root = system(directory, **options)
    subprocess.run(["mksquashfs", root, path, "-all-root", "-comp", "zstd", "-quiet", "-no-progress"], check=True, stdout=subprocess.DEVNULL)
    return path.read_bytes()


def with_busybox(directory, first):
    """The initrd, and behind it an archive with a shell and a program that is run first (`rdinit=/first`)."""
    root = pathlib.Path(directory) / "more"
    (root / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    (root / "first").write_text(first)
    (root / "first").chmod(0o755)
    names = "\n".join(["bin", "bin/busybox", "bin/sh", "first"]).encode()
    more = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names, stdout=subprocess.PIPE, check=True).stdout
    path, first_part = pathlib.Path(directory) / "initrd", pathlib.Path(INITRD).read_bytes()
    path.write_bytes(first_part + bytes(-len(first_part) % 4) + more)
    return path


def ram(controller, digest=None, size=None, url="root.squashfs"):
    digest = digest or hashlib.sha256(controller.content).hexdigest()
    return f"embody.root=ram:{controller.base}/{url},sha256={digest},size={size or len(controller.content)}"


def line(controller, root, more=""):
    return f"embody.run={controller.base}/run/web-1/TOKEN {root} {BOOTIF} embody.hostname=web-1 embody.machine-id={MACHINE_ID} {more}"


def cards(count):
    """More cards, with no cable to anywhere. Those without a speed are no members of an aggregation by LACP."""
    more = []
    for n in range(count):
        card = f"virtio-net-pci,netdev=o{n},mac=52:54:00:00:00:0{n},speed=1000,duplex=full,romfile="
        more += ["-netdev", f"hubport,id=o{n},hubid={n}", "-device", card]
    return more


def is_in(text, *all_of):
    for part in all_of:
        assert part in text, f"expected {part!r} in …{text[-300:]!r}"


def comes_up(guest, controller, within=150):
    guest.wait_for(lambda: controller.words("/hello"), within)
    assert controller.words("/hello"), "no hello"
    guest.wait_for(lambda: "SYSTEM writes" in guest.console(), 60)
    told = [path.removeprefix("/run/web-1/TOKEN/") for (path, _, _) in controller.told]
    assert told == ["stage/initrd", "stage/root", "hello"], told
    times = ", ".join(f"{what} {controller.when(what):.1f} s" for what in ["stage/initrd", "stage/root", "hello"])
    print(f"    {times}")


def fails(guest, controller, *words, within=150, told=True):
    if told:
        guest.wait_for(lambda: controller.words("/failed"), within)
        assert controller.words("/failed"), "nothing was said of a failure"
        is_in(controller.words("/failed")[0], *words)
        print(f"    {controller.words('/failed')[0]}")
    else:
        guest.wait_for(lambda: "FAILED:" in guest.console(), within)
        is_in(guest.console(), *words)
    begun = time.monotonic()
    assert guest.reboots(REBOOT_AFTER + 60), "it did not start anew"
    waited = time.monotonic() - begun
    assert REBOOT_AFTER - 8 < waited, f"it started anew after {waited:.0f} s"
    print(f"    started anew {waited:.0f} s after it was told")
    assert "Kernel panic" not in guest.console()


def test_ram_root(directory, card="virtio-net-pci", bios=None):
    """A root in memory: everything that the system finds is as it was asked for."""
    with_content = Controller(squashfs(directory))
    with Guest(f"ram-{card}", line(with_content, ram(with_content), "rw single"), card=card, bios=bios) as guest:
        comes_up(guest, with_content)
        console = guest.console()
        is_in(console, "SYSTEM pid 1 name web-1 file web-1", f"SYSTEM machine-id {MACHINE_ID} mode 444", "SYSTEM hosts 127.0.1.1 web-1")
        is_in(console, "SYSTEM arguments single", "nameserver 10.0.2.3", "10.0.2.15/24", "route default via 10.0.2.2 dev eth0  metric 1024")
        is_in(console, "SYSTEM root 755 0", "overlay / overlay rw", "iface eth0 inet manual", "agent.json 600 run 755", "SYSTEM setuid 4755")
        mounts = next(text for text in console.splitlines() if "SYSTEM mounts" in text)
        assert "embody" not in mounts and "newroot" not in mounts, mounts
        is_in(with_content.words("/hello")[0], '"hostname":"web-1"', MACHINE_ID, '"boot_id"', MAC, "10.0.2.15")


def test_vmxnet3(directory):
    """Another card, whose driver nothing but its own alias finds."""
    test_ram_root(directory, card="vmxnet3")


def test_ovmf(directory):
    """UEFI firmware."""
    test_ram_root(directory, bios="/usr/share/ovmf/OVMF.fd")


def test_the_card_of_bootif(directory):
    """Of several cards, that which the firmware booted from; the others are not touched."""
    controller = Controller(squashfs(directory))
    with Guest("several", line(controller, ram(controller)), card="vmxnet3", more=cards(3)) as guest:
        comes_up(guest, controller)
        is_in(guest.console(), f"MAC {MAC} has a carrier")
        is_in(controller.words("/hello")[0], MAC)


def test_without_bootif(directory):
    """A machine with one card needs no BOOTIF."""
    controller = Controller(squashfs(directory))
    with Guest("no-bootif", line(controller, ram(controller)).replace(BOOTIF, "")) as guest:
        comes_up(guest, controller)


def test_broken_download(directory):
    """A server that breaks off again and again: the rest is asked for, and the whole is right."""
    controller = Controller(squashfs(directory), break_after=300_000)
    with Guest("broken", line(controller, ram(controller))) as guest:
        comes_up(guest, controller)
        assert len(controller.ranges) > 2 and controller.ranges[1] == "bytes=300000-", controller.ranges


def test_controller_says_later(directory):
    """503 is asked again; a controller that says 410 of a stage is told no more of it, and the system comes up all the same."""
    controller = Controller(squashfs(directory), statuses={"hello": [503, 503], "initrd": [503], "root": [410]})
    with Guest("later", line(controller, ram(controller))) as guest:
        guest.wait_for(lambda: len(controller.words("/hello")) == 3, 150)
        told = [path.removeprefix("/run/web-1/TOKEN/") for (path, _, _) in controller.told]
        assert told == ["stage/initrd"] * 2 + ["stage/root"] + ["hello"] * 3, told


def test_controller_away(directory):
    """A controller that cannot be reached holds a start up for some seconds, and does not end it."""
    files = Controller(squashfs(directory))
    with Guest("away", line(files, ram(files)).replace(f"embody.run={files.base}", f"embody.run=http://{HOST}:9")) as guest:
        guest.wait_for(lambda: "SYSTEM writes" in guest.console(), 90)
        is_in(guest.console(), "stage/root: the controller did not hear it", "SYSTEM writes", "hello: no connection to 10.0.2.2:9")
        print(f"    after {time.monotonic() - guest.begun:.0f} s")


def test_wrong_digest(directory):
    """What is not what was asked for is never mounted."""
    controller = Controller(squashfs(directory))
    with Guest("digest", line(controller, ram(controller, digest="ab" * 32))) as guest:
        fails(guest, controller, "its SHA-256 is " + hashlib.sha256(controller.content).hexdigest(), "expected abababab")


def test_wrong_size(directory):
    """A file of another size is not fetched."""
    controller = Controller(squashfs(directory))
    with Guest("size", line(controller, ram(controller, size=123_456), "embody.wait=5")) as guest:
        fails(guest, controller, "the root cannot be fetched", f"gives another file: Content-Length {len(controller.content)}, expected 123456")


def test_no_such_file(directory):
    """A file that is not there is said at once."""
    controller = Controller(squashfs(directory))
    with Guest("missing", line(controller, ram(controller, url="other"))) as guest:
        fails(guest, controller, "answered 404, expected 200 or 206")


def test_not_enough_memory(directory):
    """Said before anything is fetched."""
    controller = Controller(b"x")
    with Guest("memory", line(controller, ram(controller, size=2 << 30)), memory=384) as guest:
        fails(guest, controller, "the root of 2048 MiB does not fit into memory", "MiB are free")
        assert not controller.ranges


def test_no_init(directory):
    """An image without an init, or whose init cannot be run."""
    controller = Controller(squashfs(directory, init=None))
    with Guest("no-init", line(controller, ram(controller))) as guest:
        fails(guest, controller, "the root has no /sbin/init, /lib/systemd/systemd, /bin/init that can be run")


def test_init_cannot_be_run(directory):
    """What fails after the new root became the root is said as well, and nobody says hello."""
    controller = Controller(squashfs(directory, init="#!/nothing\n"))
    with Guest("init-fails", line(controller, ram(controller))) as guest:
        fails(guest, controller, "/sbin/init of the root cannot be run: No such file or directory")
        assert not controller.words("/hello"), "hello was said"


def test_no_root(directory):
    """A start without a root says so."""
    controller = Controller()
    with Guest("no-root", line(controller, "embody.root=iscsi:x")) as guest:
        fails(guest, controller, "embody.root of the command line is `iscsi:x`: expected nfs:ADDRESS")


def test_nfs_server_gone(directory):
    """A server that is not there is waited for, and then said."""
    controller = Controller()
    with Guest("nfs-gone", line(controller, f"embody.root=nfs:{HOST}:9:/p/x", "embody.wait=10")) as guest:
        fails(guest, controller, "the root nfs 10.0.2.2:/p/x cannot be mounted after", told=True)


def test_no_card(directory):
    """No driver, or no card: the controller cannot hear it; the console can."""
    controller = Controller()
    with Guest("no-card", line(controller, "embody.root=nfs:10.0.2.2:/x"), card=None) as guest:
        fails(guest, controller, f"no card has the MAC {MAC} of BOOTIF after 60 s", "no Ethernet cards at all", told=False)


def test_blacklisted_driver(directory):
    """A driver that is not to be loaded is not."""
    controller = Controller()
    with Guest("blacklist", line(controller, "embody.root=nfs:10.0.2.2:/x", "modprobe.blacklist=virtio_net")) as guest:
        fails(guest, controller, "no Ethernet cards at all", told=False)


def test_no_dhcp(directory):
    """Nobody gives an address."""
    controller = Controller()
    with Guest("no-dhcp", line(controller, "embody.root=nfs:10.0.2.2:/x"), network="hubport,id=n,hubid=7") as guest:
        fails(guest, controller, "no DHCP server gave eth0 with MAC", "nothing was offered", told=False, within=240)


def test_worker_dies(directory):
    """Where the work is killed (or aborts: the same to process 1), the machine still starts anew, and without a kernel panic."""
    first = """#!/bin/sh
busybox() { /bin/busybox "$@"; }
(busybox sleep 12; for p in /proc/[0-9]*; do busybox grep -q boot $p/cmdline && busybox kill -ABRT ${p#/proc/}; done) &
exec /init
"""
    controller = Controller()
    with Guest("killed", line(controller, "embody.root=nfs:10.0.2.2:9:/x", "rdinit=/first"), initrd=with_busybox(directory, first)) as guest:
        fails(guest, controller, "ended without saying why (signal: 6 (SIGABRT)")


def test_kernel_asks_for_modules(directory):
    """request_module() of the kernel finds what the initrd has."""
    first = """#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t squashfs /dev/null /tmp
/bin/busybox echo "ASKED $(/bin/busybox grep -c squashfs /proc/modules)"
/bin/busybox umount /proc
exec /init
"""
    controller = Controller()
    with Guest("asked", line(controller, "embody.root=none", "rdinit=/first"), initrd=with_busybox(directory, first)) as guest:
        guest.wait_for(lambda: "ASKED" in guest.console(), 60)
        is_in(guest.console(), "ASKED 1")


def test_debug_shell(directory):
    """embody.debug: a shell at failure, and a new start after it. Without the parameter there is none (every other failure here)."""
    controller = Controller()
    initrd = with_busybox(directory, "")
    with Guest("shell", line(controller, "embody.root=none", "embody.debug"), initrd=initrd) as guest:
        guest.wait_for(lambda: "a shell, if there is one" in guest.console(), 60)
        time.sleep(2)
        guest.type("echo in-the-$((40+2))-shell\n")
        guest.wait_for(lambda: "in-the-42-shell" in guest.console(), 20)
        is_in(guest.console(), "in-the-42-shell")
        guest.type("exit\n")
        assert guest.reboots(REBOOT_AFTER + 15)


def test_read_only_and_other_init(directory):
    """`ro` and `init=` are obeyed; what init is given after `--` arrives."""
    controller = Controller(squashfs(directory))
    with Guest("ro", line(controller, ram(controller), "ro init=/bin/sh -- -i")) as guest:
        guest.wait_for(lambda: "embody: /bin/sh is run" in guest.console(), 60)
        is_in(guest.console(), "embody: /bin/sh is run")
        guest.type("touch /x; grep ' / ' /proc/mounts\n")
        guest.wait_for(lambda: "overlay / overlay ro" in guest.console(), 20)
        is_in(guest.console(), "Read-only file system", "overlay / overlay ro")


def test_exchange(directory):
    """Who it is, it asks over TLS and before the root is mounted; hello and alive go the same way, until another start is the last one."""
    controller = Controller(squashfs(directory))
    exchange = Exchange(directory, identity(), statuses={"identity": [503, 503], "alive": [204, 410]})
    more = cards(2) + ["-rtc", "base=2010-01-01"]
    with Guest("exchange", line(controller, ram(controller), exchange.parameter()), more=more) as guest:
        guest.wait_for(lambda: exchange.words("/hello"), 150)
        guest.wait_for(lambda: "SYSTEM writes" in guest.console(), 60)
        console = guest.console()
        assert [path for (path, _, _) in controller.told] == ["/run/web-1/TOKEN/stage/initrd", "/run/web-1/TOKEN/stage/root"], controller.told
        questions, hello = exchange.said("/identity"), exchange.said("/hello")[0]
        secret = questions[0]["secret"]
        assert questions == [{"secret": secret, "mac": MAC}] * 3 and len(secret) == 32, questions
        assert (hello["secret"], hello["hostname"], hello["machine_id"]) == (secret, "web-9", "9" * 32), hello
        assert 0 < console.index("embody: this system is web-9") < console.index("the root is mounted"), "the name comes after the root"
        is_in(console, "SYSTEM pid 1 name web-9 file web-9", f"SYSTEM machine-id {'9' * 32} mode 444", "agent.json 600 run 755")
        is_in(console, "SYSTEM given 640 33 4 as-given ssh 700 33", "auto mac/52:54:00:00:00:00/1=card-front\niface card-front inet static")
        is_in(console, "auto san.40", "ip link add link eth0 name $IFACE type vlan id 40", "the clock is set")
        assert "card-none" not in console and secret not in console and "as-given" not in console.split("SYSTEM", 1)[0]
        told = int(console.split("SYSTEM time ")[1].split()[0])
        assert abs(told - time.time()) < 120, told
        guest.wait_for(lambda: "alive: the controller says that another start of this server is the last one" in guest.console(), 90)
        alive = exchange.said("/alive")
        assert len(alive) == 2 and alive[0]["secret"] == secret and 0 < alive[0]["written"] < alive[0]["written_most"], alive
        print(f"    alive: {alive[0]['written']} of {alive[0]['written_most']} octets written")


def test_exchange_refused(directory):
    """A controller that refuses a start is told so, the ordinary way."""
    controller, exchange = Controller(), Exchange(directory, {}, statuses={"identity": [403]})
    with Guest("refused", line(controller, "embody.root=nfs:10.0.2.2:/x", exchange.parameter())) as guest:
        fails(guest, controller, "does not say who this system is (403)")


def test_exchange_with_another(directory):
    """Whoever shows another key is told nothing."""
    controller, exchange = Controller(), Exchange(directory, {})
    with Guest("another", line(controller, "embody.root=nfs:10.0.2.2:/x", exchange.parameter("ab" * 32))) as guest:
        fails(guest, controller, f"is not whom the command line names: the SHA-256 of its public key is {exchange.sha256}, expected ababab")
        assert not exchange.told, exchange.told


REPORT = """#!/bin/sh
exec >/dev/console 2>&1
report() {
    echo "REPORT $1 begins"
    ip -br link; ip -br -4 address; ip route; cat /proc/net/bonding/up
    networkctl --no-pager list 2>/dev/null
    echo "REPORT $1 ends"
}
sleep 5
report start
for restart in $RESTARTS; do $(echo $restart | tr + ' '); sleep 5; report $restart; done
systemctl --no-pager list-units --failed --plain
systemctl show -p SubState embody-agent
echo "REPORT agent $(grep VmRSS /proc/$(systemctl show --value -p MainPID embody-agent)/status)"
echo "REPORT hostname $(hostname) at $(date +%s)"
systemctl poweroff
"""
REPORT_UNIT = """[Unit]
After=network.target embody-agent.service
[Service]
Type=simple
Environment="RESTARTS=%s"
ExecStart=/report
"""


def debian(directory, service, restarts):
    """A system with systemd of the tree that EMBODY_DEBIAN names, which starts this service for its links and tells of them on its console."""
    root = pathlib.Path(directory) / "debian"
    subprocess.run(["cp", "-a", os.environ["EMBODY_DEBIAN"], root], check=True)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (root / "report").write_text(REPORT)
    (root / "report").chmod(0o755)
    (root / "etc/systemd/system/report.service").write_text(REPORT_UNIT % restarts)
    (wants / "report.service").symlink_to("/etc/systemd/system/report.service")
    if service == "networkd":
        (wants / "systemd-networkd.service").symlink_to("/lib/systemd/system/systemd-networkd.service")
    release = pathlib.Path(KERNEL).name.removeprefix("vmlinuz-")
    for part in ["kernel/net/8021q", "kernel/net/802", "kernel/net/llc", "kernel/net/tls", "kernel/drivers/net/bonding"]:
        shutil.copytree(f"/lib/modules/{release}/{part}", root / "lib/modules" / release / part)
    for part in ["modules.builtin", "modules.order"]:
        shutil.copy(f"/lib/modules/{release}/{part}", root / "lib/modules" / release)
    subprocess.run(["depmod", "-b", root, release], check=True)
    path = pathlib.Path(directory) / "root.squashfs"
    make = ["mksquashfs", root, path, "-comp", "zstd", "-Xcompression-level", "3", "-no-xattrs", "-quiet", "-no-progress"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
    return path.read_bytes()


def sets_up_links(directory, service, restarts):
    if not os.environ.get("EMBODY_DEBIAN"):
        print("    left out: EMBODY_DEBIAN is not set")
        return
    controller = Controller(debian(directory, service, restarts))
    exchange = Exchange(directory, identity() | {"links": links(), "files": []})
    with Guest(service, line(controller, ram(controller), exchange.parameter()), memory=1024, more=cards(4)) as guest:
        guest.wait_for(lambda: "REPORT hostname" in guest.console(), 400)
        console = guest.console().replace("\r", "")
        for when in ["start", *restarts.split()]:
            report = console.split(f"REPORT {when} begins")[1].split("REPORT")[0]
            for address in ["10.0.2.15/24", "10.0.9.1/24", "10.1.40.21/24", "10.1.20.21/24", "10.1.30.21/24", "10.1.50.21/24", "10.1.5.21/24"]:
                assert report.count(address) == 1, f"{address} after {when}: {report}"
            for interface in ["san.40@eth0", "front.30@", "up.5@up"]:
                is_in(report, interface)
            is_in(report, "default via 10.1.20.1", "metric 50", "Bonding Mode: IEEE 802.3ad", "Hash Policy: layer3+4", "Interval (ms): 100")
            members = [text.split()[-1] for text in report.splitlines() if "Permanent HW addr" in text]
            assert sorted(members) == ["52:54:00:00:00:01", "52:54:00:00:00:02"], members
        is_in(console, "0 loaded units listed", "REPORT hostname web-9", "SubState=running")
        assert exchange.said("/hello")[0]["state"] == "running", exchange.said("/hello")
        print("    " + console.split("REPORT agent ")[1].splitlines()[0])
        begun = time.monotonic()
        assert guest.reboots(90), "it did not power off"
        print(f"    powered off after {time.monotonic() - begun:.0f} s; hello after {exchange.when('/hello'):.0f} s")


def test_networkd(directory):
    """systemd-networkd of EMBODY_DEBIAN sets up VLANs and a bond, and keeps them when it reads its files again and when it starts anew."""
    sets_up_links(directory, "networkd", "networkctl+reload systemctl+restart+systemd-networkd")


def test_ifupdown(directory):
    """So does ifupdown, with neither the package vlan nor ifenslave."""
    sets_up_links(directory, "ifupdown", "systemctl+restart+networking")


def test_nfs_root(directory):
    """A root over NFSv3, from the server that EMBODY_NFS names (PORT:/PATH of this machine); it has to be a system as `system` makes it."""
    server = os.environ.get("EMBODY_NFS")
    if not server:
        print("    left out: EMBODY_NFS is not set")
        return
    controller = Controller()
    with Guest("nfs", line(controller, f"embody.root=nfs:{HOST}:{server}")) as guest:
        comes_up(guest, controller)
        is_in(guest.console(), f"SYSTEM machine-id {MACHINE_ID} mode 444", "overlay / overlay rw", "SYSTEM setuid 4755")


def main():
    global KERNEL, INITRD
    if sys.argv[1] == "--system":
        system(sys.argv[2])
        return
    KERNEL, INITRD, *asked = sys.argv[1:]
    failed = []
    for name, test in [(name, test) for (name, test) in globals().items() if name.startswith("test_")]:
        if asked and name not in asked:
            continue
        print(f"{name}: {test.__doc__}", flush=True)
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            try:
                test(directory)
                print(f"    ok, {time.monotonic() - begun:.0f} s", flush=True)
            except AssertionError as error:
                failed.append(name)
                print(f"    FAILED: {error}", flush=True)
    print(f"failed: {failed}" if failed else "all as claimed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
