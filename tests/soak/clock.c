/* A wall clock that a test moves: preloaded, it adds the seconds in the file $CLOCK_OFFSET to CLOCK_REALTIME. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int (*real_gettime)(clockid_t, struct timespec *);
static volatile int64_t *offset;

__attribute__((constructor)) static void find(void) {
  const char *path = getenv("CLOCK_OFFSET");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  real_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  if (file < 0) return;
  void *found = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
  if (found != MAP_FAILED) offset = found;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  if (!real_gettime) find();
  int result = real_gettime(clock, now);
  if (!result && offset && clock == CLOCK_REALTIME) now->tv_sec += *offset;
  return result;
}
