# What a guest does with a root file system over NFS; each line that begins with CHECK is one result. PORT is set before.
# The modules are loaded, and busybox is at /bin.

check() { # name, what came, what was expected
    if [ "$2" = "$3" ]; then echo "CHECK ok $1"; else echo "CHECK FAILED $1: '$2', not '$3'"; fi
}
as() { user=$1; shift; su -s /bin/sh "$user" -c "$*" 2>&1; }

ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
i=0
until mount -i -t nfs -o "ro,vers=3,proto=tcp,port=$PORT,mountport=$PORT,mountproto=tcp,nolock,nocto,actimeo=3600,addr=10.0.2.2" "10.0.2.2:$SHARE" /lower; do
    i=$((i + 1)); [ $i -gt 20 ] && { dmesg | grep -i -e nfs -e rpc; echo "CHECK FAILED mount"; poweroff -f; }; sleep 1
done
echo "CHECK ok mount"
mount -t tmpfs tmpfs /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work overlay /new || echo "CHECK FAILED overlay"

for at in /lower /new; do
    check "$at: all 20,000 entries" "$(ls $at/many | sort -u | wc -l)" 20000
    check "$at: modes" "$(cd $at; stat -c %a:%u:%g:%F sudo tmp null log initctl secret | sort | tr '\n' ' ')" \
        "1777:0:0:directory 4755:0:0:regular empty file 600:0:0:fifo 640:33:33:regular file 666:0:0:character special file 666:0:0:socket "
    check "$at: a device" "$(stat -c %t,%T $at/null)" 1,3
    check "$at: a symbolic link" "$(readlink $at/link)" /etc/../etc/motd
    check "$at: its owner reads" "$(as www-data cat $at/secret)" secret
    check "$at: another one does not" "$(as other cat $at/secret)" "cat: can't open '$at/secret': Permission denied"
    check "$at: another one reads what all may" "$(as other cat $at/etc/motd)" hello
    check "$at: another one lists" "$(as other ls $at/etc | tr '\n' ' ')" "a b c motd "
    check "$at: another one looks" "$(as other stat -c %a $at/secret)" 640
    check "$at: another one runs what it may not read" "$(as other $at/busybox echo ran)" ran
    check "$at: a device is written to" "$(as other "echo x > $at/null" && echo written)" written
done
check "the tree is read-only" "$(touch /lower/x 2>&1)" "touch: /lower/x: Read-only file system"

echo more >> /new/secret
check "an append by root" "$(cat /new/secret | tr '\n' ' ')" "secret more "
check "its owner stays" "$(stat -c %a:%u:%g /new/secret)" 640:33:33
check "its owner reads it still" "$(as www-data cat /new/secret | wc -l)" 2
check "its owner appends" "$(as www-data 'echo own >> /new/secret'; wc -l < /new/secret)" 3
ln /new/etc/a /new/etc/a2
check "a hard link" "$(stat -c %h /new/etc/a2):$(cat /new/etc/a2)" 2:a
mv /new/etc/b /new/etc/b2
check "a rename" "$(ls /new/etc | tr '\n' ' ')" "a a2 b2 c motd "
chmod 4711 /new/etc/c && chown 33:33 /new/etc/c && chmod 4711 /new/etc/c
check "chmod and chown" "$(stat -c %a:%u /new/etc/c)" 4711:33
rm -r /new/gone
check "rm -r" "$(ls -d /new/gone 2>&1)" "ls: /new/gone: No such file or directory"
check "a temporary file of a user" "$(as other 'echo t > /new/tmp/t'; stat -c %u /new/tmp/t)" 1000
check "the sticky bit" "$(as www-data 'rm -f /new/tmp/t')" "rm: can't remove '/new/tmp/t': Operation not permitted"
check "what is for root alone" "$(as other 'cat /new/shadow')" "cat: can't open '/new/shadow': Permission denied"
check "set-user-id works" "$(as other '/new/suid/su -c "cat /new/shadow"')" "root only"

check "a file that takes the server long is waited for" "$(cat /new/slow 2>&1)" hello
check "a file that cannot be served is an error, and only that one" "$(cat /new/broken 2>&1; cat /new/etc/motd)" "cat: read error: Input/output error
hello"

echo "GUEST reads"
check "a large file, while the server is killed and comes back" "$(md5sum < /new/big)" "$SUM  -"
check "and again" "$(as other 'cat /new/etc/motd')" hello
dmesg | grep -i -e 'nfs:' -e overlayfs: | head -n 20
echo "GUEST end"
