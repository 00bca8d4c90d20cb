/**
 * The shim "binary" of a group, a POSIX shell script. containerd runs it where it would run the stock shim:
 *
 *     shim [-debug] -namespace NS -address SOCKET -publish-binary BIN -id ID [-bundle DIR] start|delete
 *
 * with the bundle as working directory (and start's options on stdin).
 *
 * - `start` of the anchor runs the stock shim and keeps its answer beside the pid; of any other container it gives that
 *   answer again, so that containerd talks to the running shim and no 10 MB program is loaded. The answer is repeated as
 *   it was, because it is a plain address up to containerd 1.7 and JSON since 2.0. Where the stock shim leaves its
 *   address in the bundle (which is how containerd finds it again after a restart), so does this.
 * - `delete` is run after every task, for what a dead shim may have left; when the runtime's state is gone there is
 *   nothing, and the stock shim need not be loaded.
 *
 * The shim's pid is found by its command line, whose zero bytes a shell's `read` drops.
 *
 * Everything unexpected (no answer kept, shim dead, its pid taken by another program) falls through to the stock shim.
 * containerd takes stderr as part of the answer, so every redirection that can fail has its stderr redirected first.
 */
import { runtimeState } from "../ShimRuntime.ts"
import { quote } from "./shell.ts"

const stockShim = "containerd-shim-runc-v2"

/** Where the kernel cuts the name of a process. */
const commLength = 15

/** `addressFile` holds pid, answer and bundle address, a line each; anchors' ids begin with `anchorPrefix`. */
export const script = (options: { readonly addressFile: string; readonly anchorPrefix: string }): string =>
  `#!/bin/sh
file=${quote(options.addressFile)}
comm=${stockShim.slice(0, commLength)}
ns= id= action=
next=
for word; do
  case $next in
  ns) ns=$word ;;
  id) id=$word ;;
  esac
  next=
  case $word in
  -namespace) next=ns ;;
  -id) next=id ;;
  esac
  action=$word
done
case $action in
start)
  case $id in
  ${quote(options.anchorPrefix)}*)
    answer=$(${stockShim} "$@") || exit
    pid=0 address=
    for process in /proc/[0-9]*; do
      name= words=
      { read -r name; } 2>/dev/null <"$process/comm"
      [ "$name" = "$comm" ] || continue
      { read -r words; } 2>/dev/null <"$process/cmdline"
      case $words in
      *-id"$id"-address*) pid=\${process#/proc/} ;;
      esac
    done
    { read -r address; } 2>/dev/null <address
    printf '%s\\n' "$pid" "$answer" "$address" 2>/dev/null >"$file.new" && mv "$file.new" "$file" 2>/dev/null
    printf %s "$answer"
    exit 0 ;;
  esac
  pid= answer= address= name=
  { read -r pid; read -r answer; read -r address; } 2>/dev/null <"$file"
  { read -r name; } 2>/dev/null <"/proc/\${pid:-0}/comm"
  if [ "$name" = "$comm" ] && [ -n "$answer" ]; then
    [ -z "$address" ] || printf %s "$address" >address
    printf %s "$answer"
    exit 0
  fi ;;
delete)
  [ -e "${runtimeState}/$ns/$id" ] || exit 0 ;;
esac
exec ${stockShim} "$@"
`
