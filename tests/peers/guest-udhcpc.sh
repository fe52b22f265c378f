#!/bin/busybox sh
case $1 in
deconfig) /bin/busybox ifconfig "$interface" 0.0.0.0;;
bound | renew)
  /bin/busybox ifconfig "$interface" "$ip" netmask "$subnet" up
  [ -n "$router" ] && /bin/busybox route add default gw "$router" 2> /dev/null
  echo "$ip" > /address; echo "${router%% *}" > /router;;
esac
exit 0
