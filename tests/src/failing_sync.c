/* Preloaded into the server: while the file that FANFARE_FAILING_SYNC names is not empty,
 * every fsync and fdatasync fails the way a dying disk makes them fail. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

static int fails(void) {
    const char *control = getenv("FANFARE_FAILING_SYNC");
    struct stat file;
    return control && stat(control, &file) == 0 && file.st_size > 0;
}

static int sync_by(const char *name, int fd) {
    if (fails()) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fdatasync(int fd) { return sync_by("fdatasync", fd); }
int fsync(int fd) { return sync_by("fsync", fd); }
