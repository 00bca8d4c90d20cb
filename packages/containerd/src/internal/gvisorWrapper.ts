/**
 * The OCI runtime for gVisor's sandboxes, a POSIX shell script that containerd's runc shim runs where it would run runc.
 *
 * runsc gives a sandbox the network namespace that the spec names, unless it takes that for the node's own, and newer
 * kernels show it in every namespace what it goes by (`/proc/sys/net/core/rmem_default`). So it is run where there is no
 * `/proc/sys/net`. The way in which it intercepts system calls is left to its release.
 */
import { quote } from "./shell.ts"

/** `binary` is runsc's absolute path. */
export const script = (binary: string): string =>
  `#!/bin/sh
exec unshare -m --propagation slave sh -c 'mount -t tmpfs -o ro none /proc/sys/net && exec "$0" "$@"' ${
    quote(binary)
  } "$@"
`
