#!/bin/sh
# Makes a rescue system that is an initrd and nothing else: the drivers of network cards, busybox, an address by DHCP, a hello to embody, and a
# shell on the console (without a password: whoever has the console has the machine).
#
#   sh rescue-initrd.sh DIR             writes DIR/vmlinuz and DIR/initrd, of the kernel that runs here
#   KERNEL=6.1.0-18-amd64 sh rescue-initrd.sh DIR
#
# Debian or Ubuntu: apt-get install busybox-static cpio kmod. The persona of it: `root: { ram: {} }`, `agent: required`.
set -eu
dir=${1:?say where: sh rescue-initrd.sh DIR}
PATH=$PATH:/usr/sbin:/sbin
# The kernel that runs here; where its modules are not here (a container), the newest one that is whole.
whole() { [ -d "/lib/modules/$1" ] && [ -r "/boot/vmlinuz-$1" ]; }
version=${KERNEL:-$(uname -r)}
if [ -z "${KERNEL:-}" ] && ! whole "$version"; then
  for other in $(ls /boot | sed -n 's/^vmlinuz-//p' | sort -V); do whole "$other" && version=$other; done
fi
for program in busybox cpio gzip modprobe; do
  command -v "$program" >/dev/null || { echo "$program is missing: apt-get install busybox-static cpio gzip kmod" >&2; exit 1; }
done
if ldd "$(command -v busybox)" >/dev/null 2>&1; then
  echo "busybox is not static: apt-get install busybox-static" >&2; exit 1
fi
modules=/lib/modules/$version
[ -d "$modules" ] || { echo "there are no modules of the kernel $version in /lib/modules: KERNEL=VERSION names another one" >&2; exit 1; }
[ -r "/boot/vmlinuz-$version" ] || { echo "/boot/vmlinuz-$version does not read: KERNEL=VERSION names another one" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/etc" "$root/lib/modules/$version" "$root/run"
cp "$(command -v busybox)" "$root/bin/busybox"

# Drivers of network cards, of the power button and of consoles, with what they need.
{
  find "$modules/kernel/drivers/net/ethernet" "$modules/kernel/drivers/net/hyperv" -name '*.ko*' 2>/dev/null
  find "$modules/kernel/drivers" \( -name 'virtio_net.ko*' -o -name 'virtio_pci.ko*' -o -name 'vmxnet3.ko*' -o -name 'xen-netfront.ko*' \
    -o -name 'button.ko*' -o -name 'evdev.ko*' \) 2>/dev/null
} | sed 's|.*/||; s|\.ko.*||' | sort -u | while read -r module; do
  modprobe -S "$version" --show-depends "$module" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | sort -u | while read -r file; do
  # busybox reads no compressed module.
  name=$(basename "$file" | sed 's/\.ko.*/.ko/')
  to=$root/lib/modules/$version/$name
  case $file in
  *.xz) xz -dc "$file" >"$to";;
  *.zst) zstd -dcq "$file" >"$to";;
  *.gz) gzip -dc "$file" >"$to";;
  *) cp "$file" "$to";;
  esac
done
cp "$modules/modules.order" "$modules/modules.builtin" "$modules/modules.builtin.modinfo" "$root/lib/modules/$version/" 2>/dev/null || true
depmod -b "$root" "$version"

cat >"$root/etc/udhcpc" <<'SCRIPT'
#!/bin/busybox sh
case $1 in
deconfig) ip addr flush dev "$interface";;
bound | renew)
  ip addr replace "$ip/${mask:-24}" dev "$interface"
  for gateway in $router; do ip route replace default via "$gateway"; break; done
  : >/etc/resolv.conf
  for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done;;
esac
exit 0
SCRIPT

cat >"$root/init" <<'SCRIPT'
#!/bin/busybox sh
export PATH=/bin HOME=/
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/pts; mount -t devpts pts /dev/pts
for word in $(cat /proc/cmdline); do
  case $word in
  BOOTIF=*) mac=$(echo "${word#*=01-}" | tr 'A-F-' 'a-f:');;
  embody.run=*) run=${word#*=};;
  embody.hostname=*) hostname "${word#*=}";;
  esac
done
# Whatever the machine has: each device names the driver that it wants.
load() { find /sys/devices -name modalias -exec cat {} + 2>/dev/null | sort -u | while read -r alias; do modprobe -q "$alias" 2>/dev/null; done; }
load; load
modprobe -q button; modprobe -q evdev
for event in /sys/class/input/event*; do
  grep -q 'Power Button' "$event/device/name" 2>/dev/null || continue
  (dd "if=/dev/input/${event##*/}" bs=24 count=1 of=/dev/null 2>/dev/null; poweroff -f) &
done
post() { timeout 5 wget -q -O /dev/null --header 'Content-Type: application/json' --post-data "$2" "$run/$1"; }
tries=0
until nic=$(grep -l "$mac" /sys/class/net/*/address 2>/dev/null | head -n 1 | cut -d/ -f5) && [ -n "$nic" ]; do
  tries=$((tries + 1))
  [ $tries -ge 60 ] && { echo "no network card has the address $mac: its driver or its firmware is not in this initrd"; break; }
  sleep 0.5
done
if [ -n "$nic" ]; then
  ip link set lo up; ip link set "$nic" up
  udhcpc -i "$nic" -t 5 -T 2 -A 2 -s /etc/udhcpc >/dev/null 2>&1
  post stage/initrd ""
  until post hello "{\"mac\":\"$mac\"}"; do sleep 2; done &
fi
echo "rescue: $(hostname), $(ip -4 -o addr show dev "${nic:-lo}" | sed 's/.*inet \([^ ]*\).*/\1/')"
while :; do setsid cttyhack sh -l </dev/console >/dev/console 2>&1; sleep 1; done
SCRIPT
chmod 755 "$root/init" "$root/etc/udhcpc"

mkdir -p "$dir"
(cd "$root" && find . | cpio -o -H newc --quiet --owner=0:0 | gzip -6) >"$dir/initrd.new"
mv "$dir/initrd.new" "$dir/initrd"
cp "/boot/vmlinuz-$version" "$dir/vmlinuz"
chmod 644 "$dir/vmlinuz" "$dir/initrd"
echo "$dir/vmlinuz and $dir/initrd: kernel $version, $(find "$root/lib/modules" -name '*.ko' | wc -l) modules, $(du -h "$dir/initrd" | cut -f1)"
