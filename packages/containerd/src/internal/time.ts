/** Instants as containerd sends them, to milliseconds since 1970. */
import type { Timestamp } from "@bufbuild/protobuf/wkt"

const millisPerSecond = 1000
const nanosPerMilli = 1_000_000

/** 0 when absent. */
export const toMillis = (timestamp: Timestamp | undefined): number =>
  timestamp === undefined
    ? 0
    : Number(timestamp.seconds) * millisPerSecond + Math.floor(timestamp.nanos / nanosPerMilli)
