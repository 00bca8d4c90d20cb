/*
 * What the programs have in common that stay beside the agent for as long as it lives and do for it, one request after the
 * other, what Node can't. They end with their standard input.
 *
 * A request on standard input:  u32 operation, u32 length of the name, u32 length of the body, name, body.
 * An answer on standard output: i32 error (an errno, 0: done), u32 value. In the machine's own byte order.
 */
#pragma once
#include "sys.h"

enum {
  NAME_BYTES = 4096,
  /* What one sandbox takes is below 1 KiB, or 4 KiB of an overlay's options; a crowd comes in several requests. */
  BODY_BYTES = 1 << 16,
  EIO = 5
};

struct request {
  u32 operation;
  u32 name_length;
  u32 body_length;
};

struct answer {
  int error;
  u32 value;
};

static struct request request;
static struct answer answer;
static char name[NAME_BYTES + 1];
static u8 body[BODY_BYTES + 1];

static int read_all(void *to, usize wanted) {
  u8 *at = to;
  while (wanted > 0) {
    isize n = call(SYS_read, 0, at, wanted, 0);
    if (n == -EINTR) continue;
    if (n <= 0) return 0;
    at += n;
    wanted -= (usize)n;
  }
  return 1;
}

/* False at the end. The name and the body end with a zero byte that is no part of them. */
static int next_request(void) {
  if (!read_all(&request, sizeof request)) return 0;
  if (request.name_length > NAME_BYTES || request.body_length > BODY_BYTES) leave(1);
  if (!read_all(name, request.name_length) || !read_all(body, request.body_length)) return 0;
  name[request.name_length] = 0;
  body[request.body_length] = 0;
  answer.error = 0;
  answer.value = 0;
  return 1;
}

static void give_answer(void) {
  const u8 *at = (const u8 *)&answer;
  for (usize left = sizeof answer; left > 0;) {
    isize n = call(SYS_write, 1, at, left, 0);
    if (n == -EINTR) continue;
    if (n <= 0) leave(0);
    at += n;
    left -= (usize)n;
  }
}

/* Notes why; false, for who passes it on. */
static int refuse(isize result) {
  answer.error = (int)-result;
  return 0;
}
