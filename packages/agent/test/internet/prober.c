/*
 * What a program in a sandbox reaches, one attempt a line and in no order: "KIND ADDRESS PORT RESULT", where the result is
 * what was answered, or the error's name, or TIMEDOUT.
 *
 *   prober KIND ADDRESS PORT ...       KIND: tcp, udp, or raw (a socket that writes its own headers)
 *   prober flood ADDRESS PORT COUNT    opens connections and keeps them: "flood OPENED ERROR"
 *   prober serve PORT                  answers everybody, TCP and UDP, with the address that it sees them at
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WAIT_MILLIS = 1500, LISTENING = 64 };

static socklen_t parse(const char *text, const char *port, struct sockaddr_storage *to) {
  struct sockaddr_in *four = (struct sockaddr_in *)to;
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)to;
  memset(to, 0, sizeof *to);
  if (inet_pton(AF_INET, text, &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons(atoi(port));
    return sizeof *four;
  }
  six->sin6_family = AF_INET6;
  six->sin6_port = htons(atoi(port));
  /* Link-local ones are of the sandbox's only link, which has the same index everywhere. */
  if (strncmp(text, "fe80", 4) == 0) six->sin6_scope_id = 100;
  inet_pton(AF_INET6, text, &six->sin6_addr);
  return sizeof *six;
}

static int await(int fd, short events) {
  struct pollfd one = {fd, events, 0};
  return poll(&one, 1, WAIT_MILLIS);
}

/* 0 when it is connected; a negative one of these when nothing was heard; else the error. */
static int open_tcp(int fd, const struct sockaddr_storage *to, socklen_t length) {
  int error = 0;
  socklen_t size = sizeof error;
  if (connect(fd, (const struct sockaddr *)to, length) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  if (await(fd, POLLOUT) == 0) return -1;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error;
}

static const char *attempt(const char *kind, const char *address, const char *port) {
  static char answer[256];
  struct sockaddr_storage to;
  socklen_t length = parse(address, port, &to);
  int is_tcp = strcmp(kind, "tcp") == 0, is_raw = strcmp(kind, "raw") == 0, error;
  int fd = socket(to.ss_family, (is_raw ? SOCK_RAW : is_tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK,
                  is_raw ? IPPROTO_RAW : 0);
  if (fd < 0) return strerrorname_np(errno);
  error = open_tcp(fd, &to, length);
  if (error == 0 && send(fd, "?", 1, 0) < 0) error = errno;
  if (error != 0) {
    close(fd);
    return error < 0 ? "TIMEDOUT" : strerrorname_np(error);
  }
  ssize_t n = await(fd, POLLIN) == 0 ? -2 : recv(fd, answer, sizeof answer - 1, 0);
  error = errno;
  close(fd);
  if (n < 0) return n == -2 ? "TIMEDOUT" : strerrorname_np(error);
  answer[n] = 0;
  return n == 0 ? "NOTHING" : answer;
}

static void flood(const char *address, const char *port, int count) {
  struct sockaddr_storage to;
  socklen_t length = parse(address, port, &to);
  for (int opened = 0; opened < count; opened++) {
    int fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int error = fd < 0 ? errno : open_tcp(fd, &to, length);
    if (error != 0) {
      printf("flood %d %s\n", opened, error < 0 ? "TIMEDOUT" : strerrorname_np(error));
      fflush(stdout);
      pause();
    }
  }
  printf("flood %d NONE\n", count);
}

static void say(int fd, const struct sockaddr_in6 *who, int is_connection) {
  char text[INET6_ADDRSTRLEN];
  inet_ntop(AF_INET6, &who->sin6_addr, text, sizeof text);
  const char *plain = strncmp(text, "::ffff:", 7) == 0 ? text + 7 : text;
  if (is_connection) {
    send(fd, plain, strlen(plain), MSG_NOSIGNAL);
  } else {
    sendto(fd, plain, strlen(plain), 0, (const struct sockaddr *)who, sizeof *who);
  }
}

static void serve(const char *port) {
  struct sockaddr_in6 here = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(port))}, who;
  struct pollfd both[2] = {{socket(AF_INET6, SOCK_STREAM, 0), POLLIN, 0}, {socket(AF_INET6, SOCK_DGRAM, 0), POLLIN, 0}};
  for (int i = 0; i < 2; i++)
    if (bind(both[i].fd, (struct sockaddr *)&here, sizeof here) != 0) perror("bind");
  listen(both[0].fd, LISTENING);
  puts("serving");
  fflush(stdout);
  while (poll(both, 2, -1) > 0) {
    char ignored[64];
    socklen_t length = sizeof who;
    if (both[0].revents) {
      int fd = accept(both[0].fd, (struct sockaddr *)&who, &length);
      recv(fd, ignored, sizeof ignored, 0);
      say(fd, &who, 1);
      close(fd);
    }
    length = sizeof who;
    if (both[1].revents && recvfrom(both[1].fd, ignored, sizeof ignored, 0, (struct sockaddr *)&who, &length) >= 0)
      say(both[1].fd, &who, 0);
  }
}

int main(int count, char **arguments) {
  if (count == 3 && strcmp(arguments[1], "serve") == 0) serve(arguments[2]);
  if (count == 5 && strcmp(arguments[1], "flood") == 0) flood(arguments[2], arguments[3], atoi(arguments[4]));
  else
    for (int at = 1; at + 2 < count; at += 3)
      if (fork() == 0) {
        const char *result = attempt(arguments[at], arguments[at + 1], arguments[at + 2]);
        printf("%s %s %s %s\n", arguments[at], arguments[at + 1], arguments[at + 2], result);
        return 0;
      }
  while (wait(NULL) > 0) {
  }
  return 0;
}
