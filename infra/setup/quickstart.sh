#!/usr/bin/env bash
# Starts the one-machine stack and runs a first sandbox in it. Everything that it does, it says.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PWD/node_modules/.bin:$PATH"

say() { printf '\n\033[1m%s\033[0m\n' "$1"; }
# Shows a command as one would type it, and runs it.
try() {
  local typed='$' word
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=-]+$ ]] || word=${word@Q}
    typed+=" $word"
  done
  printf '%s\n' "$typed"
  "$@"
}

if [ "$(id -u)" -ne 0 ]; then
  echo "The one-machine stack drives containerd and needs root. Try: sudo make quickstart" >&2
  exit 125
fi

say "Starting everything on this machine"
if bin/fsb-ctl list >/dev/null 2>&1; then
  echo "It is up already."
else
  try bin/fsb-ctl up --detach
fi

say "An image from Debian's busybox"
command -v busybox >/dev/null || infra/setup/debian.sh test
node infra/images/busybox.ts
try bin/fsb-ctl image load dist/images/busybox.tar

say "A first sandbox: its output, its exit code, and where the time went"
try bin/fsb-ctl run --rm --trace --image busybox -- sh -c 'echo "Hello from process $$ of sandbox $(hostname)"'

say "One in the background"
name=hello-$RANDOM
try bin/fsb-ctl run -d --trace "$name" --image busybox -- sh -c 'echo "I am up"; sleep 300'
try bin/fsb-ctl logs "$name"
try bin/fsb-ctl list
try bin/fsb-ctl delete --no-wait "$name"

say "How to go on"
cat <<'END'
  bin/fsb-ctl run --image busybox -- echo hi     run a program, see its output, get its exit code
  bin/fsb-ctl --help                             all commands
  bin/fsb-ctl doctor                             what this machine could do better
  kubectl --kubeconfig /var/lib/fast-sandbox/kubeconfig get sandboxes,sandboxpools,pods    where there is a kubectl
  bin/fsb-ctl down                               stop everything (--wipe also removes the data)
END
