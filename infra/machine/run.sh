#!/usr/bin/env bash
# Boots a Debian that nothing was ever done on, in a virtual machine without hardware support, and takes the first steps of
# the README in it (steps.sh). It has what the machine of a developer or a CI hides: systemd with its shared mounts, cgroup v2
# alone, and a kernel that loaded nothing yet. Five minutes and 4 GiB below TMPDIR; root, for debootstrap.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

packages=systemd-sysv,udev,kmod,iproute2,nftables,containerd,crun,runc,ca-certificates,procps,linux-image-cloud-amd64,busybox-static
disk_size=3500M
memory_mib=3072
boot_within=900

directory=$(mktemp -d -t fsb-machine-XXXXXX)
trap 'rm -rf "$directory"' EXIT
root=$directory/root

echo "Debian, from packages ..." >&2
debootstrap --variant=minbase --include="$packages" bookworm "$root" >"$directory/debootstrap.log" 2>&1 || {
  tail -n 20 "$directory/debootstrap.log" >&2
  exit 1
}

echo "This checkout, into it ..." >&2
mkdir -p "$root/opt/fast-sandbox"
cp -a bin dist infra packages node_modules package.json tsconfig.json "$root/opt/fast-sandbox/"
echo "/dev/vda / ext4 defaults 0 1" >"$root/etc/fstab"
# The serial line is ours, and the one-machine stack starts its own containerd.
for unit in serial-getty@ttyS0.service containerd.service apt-daily.timer apt-daily-upgrade.timer; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
cat >"$root/etc/systemd/system/first-steps.service" <<'END'
[Unit]
Description=The first steps of the README
After=multi-user.target
[Service]
ExecStart=/opt/fast-sandbox/infra/machine/steps.sh
StandardOutput=file:/dev/ttyS0
StandardError=file:/dev/ttyS0
ExecStopPost=systemctl poweroff --force
END
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -s ../first-steps.service "$root/etc/systemd/system/multi-user.target.wants/"
mke2fs -q -t ext4 -d "$root" "$directory/disk" "$disk_size"

echo "Its first boot ..." >&2
timeout "$boot_within" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m "$memory_mib" -nographic -no-reboot -nic none \
  -kernel "$root"/boot/vmlinuz-* -initrd "$root"/boot/initrd.img-* \
  -append "root=/dev/vda rw console=ttyS0 panic=-1 quiet systemd.show_status=0" \
  -drive "file=$directory/disk,format=raw,if=virtio,cache=unsafe" </dev/null |
  tee "$directory/console" | grep --line-buffered -aE '^(ok|not ok|  )' || true
grep -aq '^ok all' "$directory/console" || {
  echo "Its console ended so:" >&2
  tail -n 40 "$directory/console" >&2
  exit 1
}
