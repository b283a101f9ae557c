/*
 * Loses the writes that a process has not synced, as a power failure does.
 *
 * Preloaded into a process (LD_PRELOAD), the shim watches files below SHIM_FOLDER whose name contains ".db". For each of them it keeps what is
 * certainly on the disk: a copy in SHIM_IMAGE, brought up to date by each fsync, and a journal of the writes since then. At random calls it stops
 * the process: it writes a byte to file descriptor 3, and waits for one on 4. In between another process looks at the image, applies some of
 * the journal, and opens the result: that is the disk after a power failure at this moment.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FDS 4096
static char *names[MAX_FDS]; /* the name of the file, for each watched descriptor */
static unsigned long countdown;
static unsigned int state;

static unsigned int next_random(void) {
  state = state * 1103515245u + 12345u;
  return (state >> 8) & 0xffff;
}

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static int (*real_fsync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_unlink)(const char *);

static void init(void) {
  if (real_pwrite) return;
  real_open = dlsym(RTLD_NEXT, "open");
  real_close = dlsym(RTLD_NEXT, "close");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite");
  const char *seed = getenv("SHIM_SEED");
  state = seed ? (unsigned int)atoi(seed) : 1;
  countdown = 200 + next_random() % 40;
}

static const char *name_of(const char *path) {
  const char *folder = getenv("SHIM_FOLDER");
  if (!folder || !path || strncmp(path, folder, strlen(folder)) != 0) return NULL;
  const char *name = strrchr(path, '/');
  return name && strstr(name, ".db") ? name + 1 : NULL;
}

static void image_path(char *out, size_t size, const char *name, const char *suffix) {
  snprintf(out, size, "%s/%s%s", getenv("SHIM_IMAGE"), name, suffix);
}

/* Lets the other process look at the image, every few calls. */
static void maybe_stop(void) {
  if (countdown-- > 0) return;
  countdown = 1 + next_random() % 40;
  char byte = 'x';
  if (write(3, &byte, 1) != 1 || read(4, &byte, 1) != 1) _exit(0);
}

static void append_journal(const char *name, const void *data, uint64_t length, int64_t offset, int is_truncate) {
  char path[1024];
  image_path(path, sizeof path, name, ".journal");
  int fd = real_open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
  int64_t head[3] = {is_truncate, offset, (int64_t)length};
  if (write(fd, head, sizeof head) < 0 || (length && write(fd, data, length) < 0)) abort();
  real_close(fd);
}

static void synced(int fd, const char *name) {
  char path[1024], buffer[65536];
  image_path(path, sizeof path, name, "");
  int out = real_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ssize_t length;
  for (off_t offset = 0; (length = pread(fd, buffer, sizeof buffer, offset)) > 0; offset += length)
    if (write(out, buffer, (size_t)length) != length) abort();
  real_close(out);
  image_path(path, sizeof path, name, ".journal");
  real_unlink(path);
}

static int opened(int fd, const char *path) {
  const char *name = name_of(path);
  if (fd >= 0 && fd < MAX_FDS) names[fd] = name ? strdup(name) : NULL;
  return fd;
}

#define OPEN(function)                                      \
  int function(const char *path, int flags, ...) {          \
    init();                                                 \
    va_list list;                                           \
    va_start(list, flags);                                  \
    mode_t mode = va_arg(list, mode_t);                     \
    va_end(list);                                           \
    return opened(real_open(path, flags, mode), path);      \
  }
OPEN(open)
OPEN(open64)

int close(int fd) {
  init();
  if (fd >= 0 && fd < MAX_FDS) names[fd] = NULL;
  return real_close(fd);
}

static ssize_t watched_pwrite(int fd, const void *data, size_t length, off_t offset) {
  init();
  char *name = fd >= 0 && fd < MAX_FDS ? names[fd] : NULL;
  if (name) {
    maybe_stop();
    append_journal(name, data, length, offset, 0);
  }
  return real_pwrite(fd, data, length, offset);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return watched_pwrite(fd, data, length, offset); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) { return watched_pwrite(fd, data, length, offset); }

static int watched_truncate(int fd, off_t length) {
  init();
  if (fd >= 0 && fd < MAX_FDS && names[fd]) append_journal(names[fd], NULL, 0, length, 1);
  return real_ftruncate(fd, length);
}
int ftruncate(int fd, off_t length) { return watched_truncate(fd, length); }
int ftruncate64(int fd, off_t length) { return watched_truncate(fd, length); }

static int watched_sync(int fd) {
  init();
  char *name = fd >= 0 && fd < MAX_FDS ? names[fd] : NULL;
  if (name) {
    maybe_stop();
    synced(fd, name);
    maybe_stop();
  }
  return name ? 0 : real_fsync(fd);
}
int fsync(int fd) { return watched_sync(fd); }
int fdatasync(int fd) { return watched_sync(fd); }

int unlink(const char *path) {
  init();
  const char *name = name_of(path);
  if (name) {
    char image[1024];
    image_path(image, sizeof image, name, "");
    real_unlink(image);
    image_path(image, sizeof image, name, ".journal");
    real_unlink(image);
  }
  return real_unlink(path);
}
