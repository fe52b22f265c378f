#!/bin/busybox sh
# The init of a small image: a page that says who this is, and a service that reads all of its root again and again.
export PATH=/bin
say() { echo "GUEST $(cut -d' ' -f1 /proc/uptime) $*" > /dev/console; }
say "init of $(cat /etc/version)"
mount -t devtmpfs dev /dev 2> /dev/null
# The power button is an input device; whatever it says means off.
for module in button evdev; do modprobe "$module" 2> /dev/null; done
for event in /sys/class/input/event*; do
  grep -q 'Power Button' "$event/device/name" 2> /dev/null || continue
  (dd "if=/dev/input/${event##*/}" bs=24 count=1 of=/dev/null 2> /dev/null; say "power button"; poweroff -f) &
done
mkdir -p /www
echo "name=$(hostname) machine=$(cat /etc/machine-id) version=$(cat /etc/version) host-key=$(md5sum < /etc/ssh/ssh_host_ed25519_key.pub | cut -c1-32) motd=$(cat /etc/motd) root=$(cut -d' ' -f1,2,3 /proc/mounts | grep ' / ' | tail -n 1)" > /www/index.html
# Who may do what: a file of another user, one above the image, and the modes of the image.
{
  su -s /bin/sh www-data -c 'cat /srv/secret' && echo "secret-read"
  echo appended >> /srv/secret && echo "appended"
  stat -c '%a %u %n' /bin/su-like /var/tmp /srv/secret
  ls /srv/many | wc -l
} > /www/files.txt 2>&1
httpd -h /www -p 80
say "page up"
# Every byte of the root, over and over: how long a round took, and what it said.
while :; do
  begun=$(cut -d' ' -f1 /proc/uptime)
  echo 3 > /proc/sys/vm/drop_caches
  sum=$(md5sum /srv/big | cut -d' ' -f1) || sum="failed"
  echo "$begun $(cut -d' ' -f1 /proc/uptime) $sum" >> /www/rounds.txt
  sleep 0.5
done
