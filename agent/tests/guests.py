#!/usr/bin/env python3
"""Real kernels start with a real initrd, in QEMU, against a controller that only records: what the agent does is seen from outside.

Needs qemu-system-x86_64, mksquashfs, busybox (static), cpio, a kernel and an initrd of it; `tests/agent.rs` of embody makes these, and starts this:

    guests.py KERNEL INITRD [SCENARIO...]
    guests.py --system DIRECTORY          makes DIRECTORY/system, which a server of NFS can give as the root

Each scenario is a function below whose name begins with `test_`; its text says what is claimed. Nothing of the machine is changed, and what is started
is ended.
"""
import hashlib
import http.server
import os
import pathlib
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

MAC = "52:54:00:12:34:56"
BOOTIF = "BOOTIF=01-" + MAC.replace(":", "-")
MACHINE_ID = "0123456789abcdef0123456789abcdef"
HOST = "10.0.2.2"  # as QEMU's user network calls the machine that it runs on
# With EMBODY_TAP=tap0 guests are on that interface instead, which has the address HOST, and on which a DHCP server answers that is none of QEMU's.
TAP = os.environ.get("EMBODY_TAP")
NETWORK = f"tap,id=n,ifname={TAP},script=no,downscript=no" if TAP else "user,id=n"
KERNEL, INITRD = "", ""
REBOOT_AFTER = 30


class Controller(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Records what it is told, and gives one file, as badly as it is asked to."""

    daemon_threads = True

    def __init__(self, content=b"", statuses=None, break_after=None):
        super().__init__((HOST if TAP else "127.0.0.1", 0), Answer)
        self.content, self.statuses, self.break_after = content, statuses or {}, break_after
        self.told, self.ranges, self.begun = [], [], time.monotonic()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def base(self):
        return f"http://{HOST}:{self.server_port}"

    def words(self, what):
        return [body for (path, body, _) in self.told if path.endswith(what)]

    def when(self, what):
        return next((at for (path, _, at) in self.told if path.endswith(what)), None)


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        server = self.server
        server.told.append((self.path, body, time.monotonic() - server.begun))
        what = self.path.rsplit("/", 1)[1]
        statuses = server.statuses.get(what, [])
        status = statuses.pop(0) if statuses else 204
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        content, begin = self.server.content, 0
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        if self.path != "/root.squashfs":
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if asked:
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        end = len(content)
        if self.server.break_after:
            end = min(end, begin + self.server.break_after)
        self.wfile.write(content[begin:end])
        if end < len(content):
            self.close_connection = True


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
    for applet in ["sh", "cat", "echo", "stat", "grep", "cut", "tr", "ip", "touch", "sleep", "mount", "free"]:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "bin/su-like").write_text("")
    (root / "bin/su-like").chmod(0o4755)
    (root / "etc/hostname").write_text("image\n")
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
    others = []
    for n in range(3):
        others += ["-netdev", f"hubport,id=o{n},hubid={n}", "-device", f"virtio-net-pci,netdev=o{n},mac=52:54:00:00:00:0{n},romfile="]
    with Guest("several", line(controller, ram(controller)), card="vmxnet3", more=others) as guest:
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
