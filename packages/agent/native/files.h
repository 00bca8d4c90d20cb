/*
 * The two halves of a copy: a tar archive into the file system, and the file system into a tar archive. Runs inside of
 * the sandbox's mount namespace (see inside.c), so paths need no protection from links: wherever they lead is the
 * sandbox's own.
 *
 * Formats: ustar, with pax records (path, linkpath, size, mtime, uid, gid) and GNU's long names when reading, with pax
 * records where a name is too long when writing.
 */
#pragma once
#include "inside.h"

enum {
  BLOCK = 512,
  PATH_BYTES = 4096,
  /* pax records and GNU's long names: a path, a link's target and some more. */
  EXTENDED_BYTES = 16384,
  /* Names of folders whose mode and time are set when all is in them, and of files with several names. Beyond it folders
     keep the time of their last entry, and further names become files of their own. */
  NAMES_BYTES = 8 << 20,
  MAX_FOLDERS = 1 << 17,
  LINK_SLOTS = 1 << 16,
  /* Each level holds a directory open. */
  MAX_DEPTH = 400,
  TEMPORARY_BYTES = 22
};

struct header {
  char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
  char magic[6], version[2], user[32], group[32], major[8], minor[8], prefix[155], padding[12];
};

struct entry {
  char path[PATH_BYTES], link[PATH_BYTES];
  u64 size;
  isize seconds;
  u32 nanos, mode, uid, gid;
  char type;
};

static u8 buffer[PIECE_BYTES];
static usize buffered, taken;
static char names[NAMES_BYTES];
static usize names_used;

static char *remember(const char *text) {
  usize n = length(text) + 1;
  if (names_used + n > NAMES_BYTES) return 0;
  memcpy(names + names_used, text, n);
  names_used += n;
  return names + names_used - n;
}

static void hex(char *to, u64 value, int digits) {
  for (int i = digits - 1; i >= 0; i--, value >>= 4) to[i] = "0123456789abcdef"[value & 15];
}

/* ------------------------------------------------------------------------------------------------------------------ */
/* put */

static int folder;              /* where the archive goes */
static const char *final_name;  /* of the topmost entry; 0: its own */
static int is_tree;             /* there is one topmost entry, and it appears as a whole */
static int keep_owner;
static u32 owner, group;
static char top[PATH_BYTES];    /* the archive's word for the topmost entry; "." for the folder itself */
static int knows_top;
static char hidden[TEMPORARY_BYTES + 1];  /* the name under which the topmost entry is built; "": it exists already */
static char shown[PATH_BYTES];  /* the name that it gets */
static char temporary[TEMPORARY_BYTES + 1];
static int temporary_folder = -1;
static u64 entries, content_bytes;

static struct {
  const char *path;
  isize seconds;
  u32 nanos, mode, uid, gid;
} folders[MAX_FOLDERS];
static usize folder_count;

/* `.fsb-0123456789abcdef.part`, which nobody else chooses. */
static void choose_name(char *to) {
  u64 random;
  if (call(SYS_getrandom, &random, sizeof random, 0, 0) != sizeof random) fail(EXIT_FAILED, "random", "not available");
  memcpy(to, ".fsb-", 5);
  hex(to + 5, random, 12);
  memcpy(to + 17, ".part", 6);
}

static void remove_tree(int parent, const char *name, int depth) {
  if (call(SYS_unlinkat, parent, name, 0, 0) != -EISDIR || depth > MAX_DEPTH) return;
  int fd = (int)call(SYS_openat, parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
  if (fd < 0) return;
  u8 list[2048];
  /* Removing while reading may skip names, so it begins again until nothing is found. */
  for (int found = 1; found;) {
    found = 0;
    call(SYS_lseek, fd, 0, 0, 0);
    for (isize n; (n = call(SYS_getdents64, fd, list, sizeof list, 0)) > 0;)
      for (isize at = 0; at < n; at += *(unsigned short *)(list + at + 16)) {
        const char *child = (const char *)(list + at + 19);
        if (same(child, ".") || same(child, "..")) continue;
        remove_tree(fd, child, depth + 1);
        found = 1;
      }
    if (found && call(SYS_unlinkat, parent, name, AT_REMOVEDIR, 0) == 0) break;
  }
  call(SYS_close, fd, 0, 0, 0);
  call(SYS_unlinkat, parent, name, AT_REMOVEDIR, 0);
}

/* Nothing half-made stays. */
static void give_up(int code, const char *what, const char *why) {
  if (temporary_folder >= 0) call(SYS_unlinkat, temporary_folder, temporary, 0, 0);
  if (hidden[0]) remove_tree(folder, hidden, 0);
  fail(code, what, why);
}

/* At least one more byte is in the buffer, or the archive has ended. */
static int fill(void) {
  while (taken == buffered) {
    isize n = call(SYS_read, 0, buffer, sizeof buffer, 0);
    if (n == -EINTR) continue;
    if (n <= 0) return 0;
    taken = 0;
    buffered = (usize)n;
  }
  return 1;
}

static void take(void *to, usize n) {
  u8 *at = to;
  while (n > 0) {
    if (!fill()) give_up(EXIT_BAD_ARCHIVE, "the archive", "it ends in the middle");
    usize part = buffered - taken < n ? buffered - taken : n;
    if (to) {
      memcpy(at, buffer + taken, part);
      at += part;
    }
    taken += part;
    n -= part;
  }
}

static usize padding(u64 size) { return (usize)(-size & (BLOCK - 1)); }

static void skip(u64 n) {
  for (; n > 0; n -= n < PIECE_BYTES ? n : PIECE_BYTES) take(0, n < PIECE_BYTES ? (usize)n : PIECE_BYTES);
}

/* Octal digits, or, with the highest bit set, a binary number. */
static u64 field(const char *text, usize n) {
  u64 value = 0;
  if ((u8)text[0] & 0x80) {
    for (usize i = 1; i < n; i++) value = value << 8 | (u8)text[i];
    return value;
  }
  usize i = 0;
  while (i < n && text[i] == ' ') i++;
  for (; i < n && text[i] >= '0' && text[i] <= '7'; i++) value = value << 3 | (u64)(text[i] - '0');
  return value;
}

static u32 checksum(const struct header *h) {
  const u8 *bytes = (const u8 *)h;
  u32 sum = 0;
  for (usize i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? ' ' : bytes[i];
  return sum;
}

static void copy_text(char *to, const char *from, usize n) {
  if (n >= PATH_BYTES) give_up(EXIT_BAD_ARCHIVE, "the archive", "a name in it is too long");
  memcpy(to, from, n);
  to[n] = 0;
}

static usize bounded(const char *text, usize most) {
  usize n = 0;
  while (n < most && text[n]) n++;
  return n;
}

/* What the records before an entry say about it. */
static struct {
  int has_path, has_link, has_size, has_time, has_uid, has_gid;
  struct entry values;
} extended;

static void read_records(char *text, usize n) {
  for (usize at = 0; at < n;) {
    usize size = (usize)number(text + at), key = at;
    if (size == 0 || size > n - at || text[at + size - 1] != '\n')
      give_up(EXIT_BAD_ARCHIVE, "the archive", "a record in it is malformed");
    while (key < at + size && text[key] != ' ') key++;
    key++;
    usize value = key, end = at + size - 1;
    while (value < end && text[value] != '=') value++;
    text[value] = 0;
    text[end] = 0;
    const char *name = text + key;
    char *content = text + value + 1;
    usize bytes = value < end ? end - value - 1 : 0;
    struct entry *e = &extended.values;
    if (same(name, "path")) {
      copy_text(e->path, content, bytes), extended.has_path = 1;
    } else if (same(name, "linkpath")) {
      copy_text(e->link, content, bytes), extended.has_link = 1;
    } else if (same(name, "size")) {
      e->size = number(content), extended.has_size = 1;
    } else if (same(name, "uid")) {
      e->uid = (u32)number(content), extended.has_uid = 1;
    } else if (same(name, "gid")) {
      e->gid = (u32)number(content), extended.has_gid = 1;
    } else if (same(name, "mtime")) {
      int negative = *content == '-';
      if (negative) content++;
      e->seconds = (isize)number(content), e->nanos = 0, extended.has_time = 1;
      while (*content >= '0' && *content <= '9') content++;
      if (*content++ == '.')
        for (u32 unit = 100000000; unit && *content >= '0' && *content <= '9'; unit /= 10)
          e->nanos += unit * (u32)(*content++ - '0');
      if (negative) e->seconds = -e->seconds, e->nanos = 0;
    }
    at += size;
  }
}

/* The next entry; false at the archive's end. */
static int next(struct entry *e) {
  static struct header h;
  static char text[EXTENDED_BYTES + 1];
  memset(&extended, 0, sizeof extended);
  for (;;) {
    take(&h, BLOCK);
    int is_zero = 1;
    for (usize i = 0; i < BLOCK && is_zero; i++) is_zero = ((u8 *)&h)[i] == 0;
    if (is_zero) return 0;
    if (field(h.checksum, 8) != checksum(&h)) give_up(EXIT_BAD_ARCHIVE, "the archive", "it is no tar archive");
    u64 size = field(h.size, 12);
    if (h.type == 'x' || h.type == 'L' || h.type == 'K' || h.type == 'g') {
      if (h.type == 'g') {
        skip(size + padding(size));
        continue;
      }
      if (size > EXTENDED_BYTES) give_up(EXIT_BAD_ARCHIVE, "the archive", "a name in it is too long");
      take(text, (usize)size);
      skip(padding(size));
      text[size] = 0;
      if (h.type == 'x') {
        read_records(text, (usize)size);
      } else {
        usize n = bounded(text, (usize)size);
        if (h.type == 'L')
          copy_text(extended.values.path, text, n), extended.has_path = 1;
        else
          copy_text(extended.values.link, text, n), extended.has_link = 1;
      }
      continue;
    }
    const struct entry *x = &extended.values;
    e->type = h.type;
    e->size = extended.has_size ? x->size : size;
    e->seconds = extended.has_time ? x->seconds : (isize)field(h.mtime, 12);
    e->nanos = extended.has_time ? x->nanos : 0;
    e->mode = (u32)field(h.mode, 8) & 07777;
    e->uid = keep_owner ? extended.has_uid ? x->uid : (u32)field(h.uid, 8) : owner;
    e->gid = keep_owner ? extended.has_gid ? x->gid : (u32)field(h.gid, 8) : group;
    if (extended.has_path) {
      memcpy(e->path, x->path, PATH_BYTES);
    } else {
      usize n = bounded(h.name, 100), p = compare(h.magic, "ustar", 6) == 0 ? bounded(h.prefix, 155) : 0;
      memcpy(e->path, h.prefix, p);
      if (p) e->path[p++] = '/';
      copy_text(e->path + p, h.name, n);
    }
    if (extended.has_link)
      memcpy(e->link, x->link, PATH_BYTES);
    else
      copy_text(e->link, h.link, bounded(h.link, 100));
    return 1;
  }
}

/* Where a path of the archive is: without leading slashes and dots, below the topmost entry's name of now. */
static void locate(char *to, const char *path) {
  char clean[PATH_BYTES];
  usize n = 0;
  for (const char *at = path; *at;) {
    while (*at == '/') at++;
    const char *end = at;
    while (*end && *end != '/') end++;
    usize part = (usize)(end - at);
    if (part == 2 && at[0] == '.' && at[1] == '.') give_up(EXIT_BAD_ARCHIVE, path, "a name must not lead upwards");
    if (part > 0 && !(part == 1 && at[0] == '.')) {
      if (n) clean[n++] = '/';
      memcpy(clean + n, at, part);
      n += part;
    }
    at = end;
  }
  clean[n] = 0;
  if (!is_tree) {
    memcpy(to, n ? clean : ".", n ? n + 1 : 2);
    return;
  }
  usize first = 0;
  while (clean[first] && clean[first] != '/') first++;
  if (!knows_top) {
    knows_top = 1;
    memcpy(top, n ? clean : ".", n ? first : 1);
    top[n ? first : 1] = 0;
    const char *name = final_name ? final_name : top;
    copy_text(shown, name, length(name));
    struct statx info;
    isize there = call6(SYS_statx, folder, (isize)shown, AT_SYMLINK_NOFOLLOW, STATX_BASIC, (isize)&info, 0);
    if (there == -ENOENT) choose_name(hidden);
  }
  const char *rest = clean;
  if (!same(top, ".")) {
    if (first != length(top) || compare(clean, top, first) != 0)
      give_up(EXIT_BAD_ARCHIVE, path, "the archive must have one topmost entry");
    rest = clean + first + (clean[first] == '/');
  }
  const char *base = hidden[0] ? hidden : shown;
  usize b = length(base), r = length(rest);
  if (b + 1 + r >= PATH_BYTES) give_up(EXIT_BAD_ARCHIVE, path, "the name is too long");
  memcpy(to, base, b);
  if (r) to[b++] = '/';
  memcpy(to + b, rest, r + 1);
}

static isize own(int at, const char *name, u32 uid, u32 gid) {
  return call6(SYS_fchownat, at, (isize)name, uid, gid, AT_SYMLINK_NOFOLLOW, 0);
}

static void set_time(int at, const char *name, isize seconds, u32 nanos) {
  struct timespec times[2] = {{seconds, nanos}, {seconds, nanos}};
  call(SYS_utimensat, at, name, times, AT_SYMLINK_NOFOLLOW);
}

/* Opens the folder that holds `path`, made where the archive did not name it, and gives the last part of the path. */
static int open_parent(char *path, const char **name) {
  usize slash = length(path);
  while (slash > 0 && path[slash - 1] != '/') slash--;
  *name = path + slash;
  if (slash == 0) return (int)call(SYS_openat, folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  path[slash - 1] = 0;
  int fd = (int)call(SYS_openat, folder, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (fd == -ENOENT) {
    for (usize at = 1; at <= slash - 1; at++)
      if (path[at] == '/' || at == slash - 1) {
        char kept = path[at];
        path[at] = 0;
        if (call(SYS_mkdirat, folder, path, 0755, 0) == 0) own(folder, path, owner, group);
        path[at] = kept;
      }
    fd = (int)call(SYS_openat, folder, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  }
  if (fd < 0) give_up(EXIT_FAILED, path, reason(fd));
  path[slash - 1] = '/';
  return fd;
}

static void put_file(const struct entry *e, const char *path) {
  int fd = (int)call6(SYS_openat, temporary_folder, (isize)temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                      0600, 0, 0);
  if (fd < 0) give_up(EXIT_FAILED, path, reason(fd));
  for (u64 left = e->size; left > 0;) {
    if (!fill()) give_up(EXIT_BAD_ARCHIVE, "the archive", "it ends in the middle");
    usize part = buffered - taken < left ? buffered - taken : (usize)left;
    isize done = call(SYS_write, fd, buffer + taken, part, 0);
    if (done == -EINTR) continue;
    if (done <= 0) give_up(EXIT_FAILED, path, reason(done));
    taken += (usize)done;
    left -= (u64)done;
  }
  skip(padding(e->size));
  call(SYS_close, fd, 0, 0, 0);
  content_bytes += e->size;
}

static void put_folder(const struct entry *e, const char *path) {
  isize made = call(SYS_mkdirat, folder, path, 0700, 0);
  struct statx info;
  if (made == -EEXIST) {
    isize there = call6(SYS_statx, folder, (isize)path, 0, STATX_BASIC, (isize)&info, 0);
    if (there < 0 || (info.mode & S_IFMT) != S_IFDIR) give_up(EXIT_FAILED, path, "it exists and is no folder");
    /* The folder that everything goes into is not the archive's. */
    if (same(path, ".") || (same(top, ".") && same(path, shown))) return;
  } else if (made < 0) {
    give_up(EXIT_FAILED, path, reason(made));
  }
  const char *name = folder_count < MAX_FOLDERS ? remember(path) : 0;
  if (!name) {
    own(folder, path, e->uid, e->gid);
    call(SYS_fchmodat, folder, path, e->mode, 0);
    return;
  }
  folders[folder_count].path = name;
  folders[folder_count].mode = e->mode;
  folders[folder_count].uid = e->uid;
  folders[folder_count].gid = e->gid;
  folders[folder_count].seconds = e->seconds;
  folders[folder_count++].nanos = e->nanos;
}

static void put_entry(const struct entry *e) {
  static char path[PATH_BYTES], target[PATH_BYTES];
  locate(path, e->path);
  entries++;
  if (e->type == '5') {
    if (!same(path, ".")) {
      const char *name;
      call(SYS_close, open_parent(path, &name), 0, 0, 0);
    }
    put_folder(e, path);
    skip(e->size + padding(e->size));
    return;
  }
  if (same(path, ".")) give_up(EXIT_BAD_ARCHIVE, e->path, "an entry needs a name");
  const char *name;
  temporary_folder = open_parent(path, &name);
  choose_name(temporary);
  isize made = 0;
  switch (e->type) {
    case 0:
    case '0':
    case '7': put_file(e, path); break;
    case '1':
      locate(target, e->link);
      made = call6(SYS_linkat, folder, (isize)target, temporary_folder, (isize)temporary, 0, 0);
      break;
    case '2': made = call(SYS_symlinkat, e->link, temporary_folder, temporary, 0); break;
    case '6': made = call(SYS_mknodat, temporary_folder, temporary, S_IFIFO | 0600, 0); break;
    default: give_up(EXIT_BAD_ARCHIVE, e->path, "entries of this kind are not copied");
  }
  if (made < 0) give_up(EXIT_FAILED, path, reason(made));
  if (e->type != '1') {
    isize owned = own(temporary_folder, temporary, e->uid, e->gid);
    if (owned < 0) give_up(EXIT_FAILED, path, reason(owned));
    if (e->type != '2') call(SYS_fchmodat, temporary_folder, temporary, e->mode, 0);
    set_time(temporary_folder, temporary, e->seconds, e->nanos);
  }
  isize renamed = call6(SYS_renameat2, temporary_folder, (isize)temporary, temporary_folder, (isize)name, 0, 0);
  if (renamed < 0) give_up(EXIT_FAILED, path, reason(renamed));
  /* Renaming one name of a file to another name of the same file does nothing. */
  if (e->type == '1') call(SYS_unlinkat, temporary_folder, temporary, 0, 0);
  call(SYS_close, temporary_folder, 0, 0, 0);
  temporary_folder = -1;
}

static void finish_folders(void) {
  while (folder_count-- > 0) {
    own(folder, folders[folder_count].path, folders[folder_count].uid, folders[folder_count].gid);
    call(SYS_fchmodat, folder, folders[folder_count].path, folders[folder_count].mode, 0);
    set_time(folder, folders[folder_count].path, folders[folder_count].seconds, folders[folder_count].nanos);
  }
}

static usize decimal(char *to, u64 value) {
  char digits[20];
  usize n = 0;
  do digits[n++] = (char)('0' + value % 10);
  while ((value /= 10) > 0);
  for (usize i = 0; i < n; i++) to[i] = digits[n - 1 - i];
  return n;
}

static int has(const char *flags, char flag) {
  while (*flags)
    if (*flags++ == flag) return 1;
  return 0;
}

/* PATH UID GID FLAGS; d: PATH must be a folder, and many entries may go there; o: keep the archive's owners */
static void put(char **arguments, usize count) {
  static char path[PATH_BYTES];
  static struct entry e;
  if (count != 4 || length(arguments[0]) >= PATH_BYTES) fail(EXIT_USAGE, "put", "PATH UID GID FLAGS");
  memcpy(path, arguments[0], length(arguments[0]) + 1);
  owner = (u32)number(arguments[1]);
  group = (u32)number(arguments[2]);
  keep_owner = has(arguments[3], 'o');
  is_tree = !has(arguments[3], 'd');
  folder = (int)call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (folder < 0) {
    if (!is_tree) fail(folder == -ENOENT ? EXIT_NO_SUCH_PATH : EXIT_NO_FOLDER, path, reason(folder));
    usize n = length(path), slash = n;
    while (slash > 0 && path[slash - 1] != '/') slash--;
    if (slash == n || same(path + slash, ".") || same(path + slash, ".."))
      fail(folder == -ENOENT ? EXIT_NO_SUCH_PATH : EXIT_NO_FOLDER, path, "there is no such folder");
    final_name = path + slash;
    static char parent[PATH_BYTES];
    memcpy(parent, slash == 0 ? "." : path, slash == 0 ? 1 : slash);
    folder = (int)call(SYS_openat, AT_FDCWD, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (folder < 0) fail(EXIT_NO_SUCH_PATH, parent, "there is no such folder");
  }
  while (next(&e)) put_entry(&e);
  finish_folders();
  if (hidden[0]) {
    isize shown_now = call6(SYS_renameat2, folder, (isize)hidden, folder, (isize)shown, RENAME_NOREPLACE, 0);
    if (shown_now < 0) give_up(EXIT_FAILED, shown, reason(shown_now));
  }
  /* The sender's last blocks of padding. */
  while (taken = buffered, fill()) {}
  char line[48];
  usize n = decimal(line, entries);
  line[n++] = ' ';
  n += decimal(line + n, content_bytes);
  line[n++] = '\n';
  write_all(1, line, n);
}

/* ------------------------------------------------------------------------------------------------------------------ */
/* get */

static u8 out[PIECE_BYTES];
static usize out_used;

/* Files with several names that were written already. */
static struct {
  u64 inode;
  u32 major, minor;
  const char *path;
} links[LINK_SLOTS];

static void flush(void) {
  if (!write_all(1, out, out_used)) leave(EXIT_FAILED);
  out_used = 0;
}

static void give(const void *bytes, usize n) {
  const u8 *at = bytes;
  while (n > 0) {
    if (out_used == sizeof out) flush();
    usize part = sizeof out - out_used < n ? sizeof out - out_used : n;
    memcpy(out + out_used, at, part);
    out_used += part;
    at += part;
    n -= part;
  }
}

static const u8 zeros[BLOCK];

static void octal(char *to, u64 value, int digits) {
  if (digits < 21 && value >> (3 * digits)) {
    /* Too large for the digits: a binary number with the highest bit set. */
    for (int i = digits; i > 0; i--, value >>= 8) to[i] = (char)value;
    to[0] = (char)0x80;
    return;
  }
  for (int i = digits - 1; i >= 0; i--, value >>= 3) to[i] = (char)('0' + (value & 7));
  to[digits] = 0;
}

static void give_header(struct header *h) {
  memcpy(h->magic, "ustar", 6);
  memcpy(h->version, "00", 2);
  octal(h->checksum, checksum(h), 6);
  h->checksum[7] = ' ';
  give(h, BLOCK);
}

/* `LENGTH KEY=VALUE\n`, where the length counts its own digits. */
static usize put_record(char *to, const char *key, const char *value) {
  usize k = length(key), v = length(value), rest = k + v + 3, total = rest;
  char digits[20];
  for (usize n = 0; n != total;) {
    n = total;
    total = rest + decimal(digits, n);
  }
  usize at = decimal(to, total);
  to[at++] = ' ';
  memcpy(to + at, key, k);
  at += k;
  to[at++] = '=';
  memcpy(to + at, value, v);
  at += v;
  to[at++] = '\n';
  return at;
}

static void give_entry(const struct statx *info, const char *path, const char *link, char type, u64 size) {
  static char records[EXTENDED_BYTES];
  static struct header h;
  usize n = 0, path_length = length(path), link_length = length(link);
  if (path_length > 100) n += put_record(records + n, "path", path);
  if (link_length > 100) n += put_record(records + n, "linkpath", link);
  if (n > 0) {
    memset(&h, 0, sizeof h);
    memcpy(h.name, "PaxHeaders/x", 12);
    octal(h.mode, 0644, 7), octal(h.uid, 0, 7), octal(h.gid, 0, 7), octal(h.mtime, 0, 11);
    octal(h.size, n, 11);
    h.type = 'x';
    give_header(&h);
    give(records, n);
    give(zeros, padding(n));
  }
  memset(&h, 0, sizeof h);
  memcpy(h.name, path, path_length < 100 ? path_length : 100);
  memcpy(h.link, link, link_length < 100 ? link_length : 100);
  octal(h.mode, info->mode & 07777, 7);
  octal(h.uid, info->uid, 7);
  octal(h.gid, info->gid, 7);
  octal(h.size, size, 11);
  octal(h.mtime, info->modified.seconds < 0 ? 0 : (u64)info->modified.seconds, 11);
  h.type = type;
  give_header(&h);
}

/* The path under which the same file was written before; 0 when it is the first. */
static const char *earlier(const struct statx *info, const char *path) {
  usize at = (info->inode * 0x9e3779b97f4a7c15UL >> 32 ^ info->dev_minor) % LINK_SLOTS;
  for (usize tries = 0; tries < 64; tries++, at = (at + 1) % LINK_SLOTS) {
    if (!links[at].path) {
      links[at].path = remember(path);
      links[at].inode = info->inode;
      links[at].major = info->dev_major;
      links[at].minor = info->dev_minor;
      return 0;
    }
    if (links[at].inode == info->inode && links[at].major == info->dev_major && links[at].minor == info->dev_minor)
      return links[at].path;
  }
  return 0;
}

static void get_content(int fd, const struct statx *info, const char *path) {
  u64 left = info->size;
  while (left > 0) {
    if (out_used == sizeof out) flush();
    usize room = sizeof out - out_used;
    isize n = call(SYS_read, fd, out + out_used, left < room ? (usize)left : room, 0);
    if (n == -EINTR) continue;
    if (n < 0) fail(EXIT_FAILED, path, reason(n));
    if (n == 0) fail(EXIT_FAILED, path, "it became shorter while it was read");
    out_used += (usize)n;
    left -= (u64)n;
  }
  give(zeros, padding(info->size));
}

/* `path` has room for PATH_BYTES and holds `used` of them. */
static void get_entry(int parent, const char *name, char *path, usize used, int flags, int depth) {
  struct statx info;
  isize there = call6(SYS_statx, parent, (isize)name, flags, STATX_BASIC, (isize)&info, 0);
  if (there == -ENOENT && depth > 0) return;
  if (there < 0) fail(there == -ENOENT || there == -ENOTDIR ? EXIT_NO_SUCH_PATH : EXIT_FAILED, name, reason(there));
  int follow = flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0;
  u32 kind = info.mode & S_IFMT;
  if (kind == S_IFREG) {
    const char *before = info.links > 1 ? earlier(&info, path) : 0;
    if (before) {
      give_entry(&info, path, before, '1', 0);
      return;
    }
    int fd = (int)call(SYS_openat, parent, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC | follow, 0);
    if (fd == -ENOENT && depth > 0) return;
    if (fd < 0) fail(EXIT_FAILED, path, reason(fd));
    if (call6(SYS_statx, fd, (isize)"", 0x1000 /* AT_EMPTY_PATH */, STATX_BASIC, (isize)&info, 0) < 0 ||
        (info.mode & S_IFMT) != S_IFREG)
      fail(EXIT_FAILED, path, "it was replaced while it was read");
    give_entry(&info, path, "", '0', info.size);
    get_content(fd, &info, path);
    call(SYS_close, fd, 0, 0, 0);
  } else if (kind == S_IFLNK) {
    char target[PATH_BYTES];
    isize n = call(SYS_readlinkat, parent, name, target, sizeof target - 1);
    if (n < 0) fail(EXIT_FAILED, path, reason(n));
    target[n] = 0;
    give_entry(&info, path, target, '2', 0);
  } else if (kind == S_IFIFO) {
    give_entry(&info, path, "", '6', 0);
  } else if (kind == S_IFDIR) {
    if (depth > MAX_DEPTH) fail(EXIT_FAILED, path, "the folders are nested too deeply");
    int fd = (int)call(SYS_openat, parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | follow, 0);
    if (fd < 0) fail(EXIT_FAILED, path, reason(fd));
    path[used] = '/';
    path[used + 1] = 0;
    give_entry(&info, path, "", '5', 0);
    u8 list[2048];
    for (isize n; (n = call(SYS_getdents64, fd, list, sizeof list, 0)) > 0;)
      for (isize at = 0; at < n; at += *(unsigned short *)(list + at + 16)) {
        const char *child = (const char *)(list + at + 19);
        if (same(child, ".") || same(child, "..")) continue;
        usize m = length(child);
        if (used + 2 + m >= PATH_BYTES - 1) fail(EXIT_FAILED, path, "the name is too long");
        memcpy(path + used + 1, child, m + 1);
        get_entry(fd, child, path, used + 1 + m, AT_SYMLINK_NOFOLLOW, depth + 1);
      }
    path[used] = 0;
    call(SYS_close, fd, 0, 0, 0);
  }
  /* Sockets and devices mean nothing outside of the sandbox. */
}

/* PATH FLAGS; l: a link at PATH itself is followed */
static void get(char **arguments, usize count) {
  static char source[PATH_BYTES], path[PATH_BYTES];
  if (count != 2 || length(arguments[0]) >= PATH_BYTES) fail(EXIT_USAGE, "get", "PATH FLAGS");
  usize n = length(arguments[0]);
  memcpy(source, arguments[0], n + 1);
  int is_content = n >= 2 && source[n - 1] == '.' && source[n - 2] == '/';
  if (!is_content)
    while (n > 1 && source[n - 1] == '/') source[--n] = 0;
  usize slash = n;
  while (slash > 0 && source[slash - 1] != '/') slash--;
  const char *name = is_content || slash == n ? "." : source + slash;
  usize used = length(name);
  memcpy(path, name, used + 1);
  get_entry(AT_FDCWD, source, path, used, has(arguments[1], 'l') || is_content ? 0 : AT_SYMLINK_NOFOLLOW, 0);
  give(zeros, BLOCK);
  give(zeros, BLOCK);
  flush();
}
