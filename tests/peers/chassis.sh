#!/bin/sh
# The machine behind a BMC: `chassis_control` of ipmi_sim, with QEMU as the machine.
#
#   chassis.sh SITE NAME get|set|check NAME [VALUE] ...
#
# SITE/NAME holds: `boot`, the boot device (kept over starts, unless `loses-boot` is there: then it lasts for one); `qemu`, which
# becomes the machine, told whether to boot from the `network` or from its `disk`; `qemu.pid` while it is on; `monitor.in`, where QEMU
# listens; `serial`, all it ever said. `deaf` makes it ignore the power button. Every change of any machine of the site is a line of
# SITE/changes, written under one lock with the power that followed. Once SITE/ended is there, nothing starts.
#
# ipmi_sim waits for this program, and answers nobody while it does: it has to end in well below a second.
S=$1 N=$2 op=$3; shift 3; D=$S/$N
alone() { exec 9>> "$S/lock"; flock 9; }
on() { read -r pid 2> /dev/null < "$D/qemu.pid" && [ -n "$pid" ] && [ -d "/proc/$pid" ]; }
power() { if on; then echo 1; else echo 0; fi; }
note() { echo "$(date +%s.%N) $N $* power:$(power)" >> "$S/changes"; }
monitor() { echo "$1" 1<> "$D/monitor.in"; } # <> does not wait for a reader

start() {
  if on || [ -e "$S/ended" ]; then return; fi
  way=disk; [ "$(cat "$D/boot")" = pxe ] && way=network
  [ -e "$D/loses-boot" ] && echo none > "$D/boot"
  # Without the lock, and without what the BMC has open: its socket would stay when it is gone.
  setsid /bin/sh "$0" "$S" "$N" run $way < /dev/null >> "$D/qemu.log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
  tries=0; until on || [ $tries -ge 25 ]; do sleep 0.02; tries=$((tries + 1)); done
}

stop() {
  if on; then
    kill -9 "$pid"
    tries=0; while on && [ $tries -lt 25 ]; do sleep 0.02; tries=$((tries + 1)); done
  fi
  rm -f "$D/qemu.pid"
}

# UEFI ends in its shell when nothing boots; boards begin again.
again() {
  seen=$(grep -ac 'Interactive Shell' "$D/serial")
  while sleep 1 && [ -d "/proc/$1" ]; do
    found=$(grep -ac 'Interactive Shell' "$D/serial")
    if [ "$found" -gt "$seen" ]; then seen=$found; monitor system_reset; fi
  done
}

case $op in
get)
  echo "get $*" >> "$D/gets"
  for name in "$@"; do case $name in power) echo "power:$(power)";; boot) echo "boot:$(cat "$D/boot")";; *) echo "$name:0";; esac; done;;
set)
  alone
  while [ $# -gt 1 ]; do
    case $1 in
    power) if [ "$2" = 1 ]; then start; else stop; fi;;
    reset) if on; then stop; start; fi;;
    shutdown) if on && [ ! -e "$D/deaf" ]; then monitor system_powerdown; fi;;
    boot) echo "$2" > "$D/boot";;
    esac
    note set "$1" "$2"; shift 2
  done;;
run)
  /bin/sh "$D/qemu" "$1" &
  mine=$!
  echo $mine > "$D/qemu.new"; mv "$D/qemu.new" "$D/qemu.pid"
  [ "$1" = network ] && again $mine &
  wait $mine
  alone
  if read -r pid 2> /dev/null < "$D/qemu.pid" && [ "$pid" = $mine ]; then rm "$D/qemu.pid"; note set went off; fi;;
esac
exit 0
