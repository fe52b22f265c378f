#!/bin/busybox sh
# The first and only program of a guest: an address, a page, and word to whoever booted it.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
say() { echo "GUEST $(cut -d' ' -f1 /proc/uptime) $*"; }
say up
while read -r module; do insmod "/mod/$module" 2> /dev/null; done < /modlist
for word in $(cat /proc/cmdline); do
  case $word in
  BOOTIF=*) MAC=$(echo "${word#*=01-}" | tr 'A-F-' 'a-f:');;
  embody.run=*) RUN=${word#*=};;
  embody.hostname=*) hostname "${word#*=}";;
  esac
done

# The power button is an input device; whatever it says means off.
for event in /sys/class/input/event*; do
  grep -q 'Power Button' "$event/device/name" 2> /dev/null || continue
  (dd "if=/dev/input/${event##*/}" bs=24 count=1 of=/dev/null 2> /dev/null; say "power button"; poweroff -f) &
done

tries=0
until NIC=$(grep -l "$MAC" /sys/class/net/*/address 2> /dev/null | head -n 1) && [ -n "$NIC" ]; do
  [ $tries -ge 50 ] && { say "no NIC has the address $MAC"; break; }
  sleep 0.1; tries=$((tries + 1))
done
NIC=$(echo "$NIC" | cut -d/ -f5)
ifconfig lo 127.0.0.1 up; ifconfig "$NIC" up
say "link of $NIC $MAC up"
udhcpc -i "$NIC" -t 3 -T 1 -A 1 -s /etc/udhcpc -p /udhcpc.pid > /dev/null 2>&1 # tries until there is a lease, and keeps it
say "address $(cat /address)"

# busybox wget would wait 15 minutes for an answer, and its own -T makes it crash.
post() { timeout 5 wget -q -O /dev/null --header 'Content-Type: application/json' --post-data "$2" "$RUN/$1"; }
post stage/initrd "" || say "nobody took stage/initrd"
mkdir /www
echo "<p>$(hostname) $MAC</p>" > /www/index.html
httpd -h /www -p 80
until post hello "{\"mac\":\"$MAC\",\"address\":\"$(cat /address)\",\"bootId\":\"$(cat /proc/sys/kernel/random/boot_id)\",\"uptime\":$(cut -d' ' -f1 /proc/uptime)}"; do
  say "nobody took hello"; sleep 1
  # Its port was moved, and the network is another one: what other systems do when a link comes up.
  if [ -s /router ] && ! arping -q -c 2 -w 2 -I "$NIC" "$(cat /router)"; then
    say "its router is gone"; rm /router
    kill -USR2 "$(cat /udhcpc.pid)"; sleep 1; kill -USR1 "$(cat /udhcpc.pid)"
  fi
done
say hello
while :; do wait; sleep 60; done
