#!/usr/bin/env bash
# What a new user does first, and what has to be true after each step; runs inside the machine that run.sh boots.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export HOME=/root NO_COLOR=1 PATH="$PWD/node_modules/.bin:$PATH"

# step WHAT PATTERN COMMAND...: its output, stdout and stderr, matches the pattern
step() {
  local what=$1 pattern=$2 output
  shift 2
  output=$(timeout 120 "$@" 2>&1)
  if grep -qzP "$pattern" <<<"$output"; then
    echo "ok $what"
  else
    printf 'not ok %s\n' "$what"
    sed 's/^/  /' <<<"$output" | tail -n 20
    exit 1
  fi
}

mounts='cut -d" " -f5 /proc/self/mountinfo | grep -c "^/sys"'
before=$(sh -c "$mounts")
# The console's last line may not have ended.
echo

step "cgroup v2 alone" '^cgroup2fs' stat -fc %T /sys/fs/cgroup
step "systemd" '^systemd' cat /proc/1/comm
step "an image" '' node infra/images/busybox.ts
step "up" 'fast-sandbox is up' bin/fsb-ctl up --detach
step "the image on the node" 'docker.io/library/busybox:latest' sh -c \
  'until bin/fsb-ctl image load dist/images/busybox.tar; do sleep 2; done'
step "doctor" 'cgroups +ok +v2' bin/fsb-ctl doctor
step "a program" 'hello\n0::/\n' bin/fsb-ctl run --rm -q --image busybox -- sh -c 'echo hello; cat /proc/self/cgroup'
step "another" '^again' bin/fsb-ctl run --rm -q --image busybox -- echo again
step "a server with limits" '^web' bin/fsb-ctl run -d -q web --image busybox --memory 32Mi --cpus 0.5 -- sleep 3000
step "its limit of memory" 'web +\S+ +\S+ / 33.6MB' bin/fsb-ctl stats --no-stream web
step "its cgroup" '\b33554432\n.*\b50000 100000\b' sh -c \
  'for d in /sys/fs/cgroup/fast-sandbox-*/pod*/*/; do cat "$d/memory.max" "$d/cpu.max" | paste -sd"\n"; done'
step "a look inside" '^0::/' bin/fsb-ctl exec web -- cat /proc/self/cgroup
step "what takes too much memory is killed" '^137\n' sh -c \
  'bin/fsb-ctl run -q greedy --image busybox --memory 24Mi -- sh -c "x=\$(head -c 60000000 /dev/zero | tr \"\\0\" x)" >/dev/null 2>&1; echo $?'
step "and says so" 'OOMKilled' bin/fsb-ctl get greedy
step "delete" 'greedy|web' bin/fsb-ctl delete web greedy
step "nothing listed" 'no sandboxes' bin/fsb-ctl list
step "/dev/null is root's" '^0:0 666' stat -c '%u:%g %a' /dev/null
step "no mount came up" "^$before\n" sh -c "$mounts"
step "down" 'fast-sandbox is down' bin/fsb-ctl down
step "no cgroup, namespace, link or shim is left" '^0\n' sh -c \
  '{ ls -d /sys/fs/cgroup/fast-sandbox*; ls /run/netns; ip -br link | grep fsb; pgrep containerd-shim; } 2>/dev/null | wc -l'
echo "ok all"
