/**
 * How the launcher has the C library allocate while fsb-ctl starts: Node reads the snapshot into memory twice, and with
 * large pages, and with room taken in large pieces, the kernel has 5 thousand pages less to give: 8 ms of 50. All threads share
 * one arena, since each large page has to be cleared. Other C libraries do not know the variable, and a kernel without large
 * pages gives small ones.
 */

/** The value of the variable below. */
export const TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.top_pad=33554432:glibc.malloc.arena_max=1"

const VARIABLE = "GLIBC_TUNABLES"

/** Leaves it out of the environment of programs that are started from here; what the user said stays. */
export const forget = (): void => {
  if (process.env[VARIABLE] === TUNABLES) delete process.env[VARIABLE]
}
