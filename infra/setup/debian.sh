#!/usr/bin/env bash
# Installs the Debian packages that Fast Sandbox needs and that are missing. Asks first, unless CI is set or -y given.
#   debian.sh [-y] run      what a sandbox needs
#   debian.sh [-y] build    also what a build needs
#   debian.sh [-y] test     also what the tests need
#   debian.sh [-y] machine  also what a virtual machine needs
#   debian.sh [-y] peers    also what the benchmark compares with
set -euo pipefail

yes=${CI:+y}
if [ "${1-}" = -y ]; then
  yes=y
  shift
fi

# command (or file) that proves the package : package
run=(node:nodejs npm:npm containerd:containerd runc:runc crun:crun /usr/sbin/nft:nftables)
build=("${run[@]}" cc:gcc make:make)
test=("${build[@]}" /usr/include/stdio.h:libc6-dev busybox:busybox-static unzip:unzip runsc:runsc ip:iproute2 tmux:tmux ps:procps git:git nix:nix-bin patchelf:patchelf perl:perl-base /usr/bin/python3:python3)
machine=("${build[@]}" debootstrap:debootstrap qemu-system-x86_64:qemu-system-x86 mke2fs:e2fsprogs)
peers=("${test[@]}" podman:podman dockerd:docker.io)

case ${1-run} in
  run) wanted=("${run[@]}") ;;
  build) wanted=("${build[@]}") ;;
  test) wanted=("${test[@]}") ;;
  machine) wanted=("${machine[@]}") ;;
  peers) wanted=("${peers[@]}") ;;
  *)
    echo "debian.sh: unknown set '$1': run, build, test, machine or peers" >&2
    exit 125
    ;;
esac

missing=()
for entry in "${wanted[@]}"; do
  command -v "${entry%%:*}" >/dev/null || [ -e "${entry%%:*}" ] || missing+=("${entry##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "Missing: ${missing[*]}. This is no Debian: install them with your system's package manager, then try again." >&2
  exit 125
fi
sudo=
if [ "$(id -u)" -ne 0 ]; then
  sudo=sudo
  command -v sudo >/dev/null || {
    echo "Missing: ${missing[*]}. Run as root: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 125
  }
fi
echo "Debian packages to install: ${missing[*]}" >&2
if [ -z "$yes" ]; then
  if [ ! -t 0 ]; then
    echo "Nobody is here to ask. Set CI=1 or run: infra/setup/debian.sh -y ${1-run}" >&2
    exit 125
  fi
  read -r -p "Install them now? [y/N] " answer
  case $answer in y | Y | yes) ;; *) exit 125 ;; esac
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { $sudo apt-get update && $sudo apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "apt-get failed; its last lines are above." >&2
  exit 125
fi
