/*
 * Where the one-file program unpacks itself, and how it becomes the program.
 *
 * PyInstaller's own way is a parent that unpacks, starts a child, forwards signals to it and cleans up. Here the process
 * that unpacks becomes the program by exec: there is one process, which gets every signal itself, and killing it leaves
 * nothing running. What a killed process does leave is its folder; the next start removes it.
 *
 * A folder belongs to a living process exactly as long as somebody holds a lock (flock) on it. The lock is taken here,
 * passes through exec, and is freed by the kernel however the process ends. systemd-tmpfiles, which removes old files
 * below /tmp, leaves a locked folder alone as well.
 */

/* For ST_NOEXEC. */
#define _GNU_SOURCE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "pyi_archive.h"
#include "pyi_main.h"
#include "pyi_utils.h"

#include "gateway_unpack.h"

#define PROGRAM "lightfile6-insights-gateway"
#define PREFIX PROGRAM "-unpacked-"
#define PID_DIGITS 8
#define RANDOM "XXXXXX"
#define NAME_LENGTH (sizeof(PREFIX) - 1 + PID_DIGITS + sizeof(RANDOM) - 1)

/* The exit codes of the program. */
#define FAILED 1
#define LEFT_DATA 3

/* A cleaner may take the lock between the making of a folder and our own lock; so often in a row it does not happen. */
#define TRIES 100

#define REASON_MAX (PYI_PATH_MAX + 200)

/* --- signals ---------------------------------------------------------------------------------------------------- */

static void
stop(int number)
{
    (void)number;
    /* Nothing was received yet; an earlier run may have left data in the spool. The folder goes at the next start. */
    _exit(LEFT_DATA);
}

static void
stop_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
}

void
gateway_settle(void)
{
    int number;

    for (number = STDIN_FILENO; number <= STDERR_FILENO; number++) {
        /* The lowest free number, which is what open gives, is this one: those below it are open. */
        if (fcntl(number, F_GETFD) < 0 && open("/dev/null", number == STDIN_FILENO ? O_RDONLY : O_WRONLY) < 0) {
            break;
        }
    }
    umask(077);
}

void
gateway_stop_on_signals(void)
{
    sigset_t set;

    /* As the first process of a container, a signal without a handler would be ignored. */
    signal(SIGTERM, stop);
    signal(SIGINT, stop);
    stop_signals(&set);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

void
gateway_exec(struct PYI_CONTEXT *pyi_ctx)
{
    const char *filename = pyi_ctx->executable_filename;
    char *const *arguments = pyi_ctx->argv;
    sigset_t set;

    /* Started as `ld-linux.so ./program`: by the same way again. */
    if (pyi_ctx->dynamic_loader_filename[0] != 0) {
        filename = pyi_ctx->dynamic_loader_filename;
        arguments = pyi_prepend_dynamic_loader_to_argv(pyi_ctx->argc, pyi_ctx->argv, pyi_ctx->dynamic_loader_filename);
    }
    /* exec takes the handlers away; a blocked signal waits until the next main has set its own. */
    stop_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (arguments != NULL) {
        execvp(filename, arguments);
    }
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

int
gateway_exit_code(int returned)
{
    return returned < 0 ? FAILED : returned;
}

/* --- which place ------------------------------------------------------------------------------------------------ */

struct need {
    uint64_t bytes;
    uint64_t files;
};

/* What the archive takes unpacked, with half a block lost for each file. */
static struct need
need_of(const struct ARCHIVE *archive)
{
    struct need need = {0, 0};
    const struct TOC_ENTRY *entry;

    for (entry = archive->toc; entry < archive->toc_end; entry = pyi_archive_next_toc_entry(archive, entry)) {
        if (strchr("bxZn", entry->typecode) != NULL) {
            need.bytes += entry->uncompressed_length + 2048;
            need.files += 1;
        }
    }
    return need;
}

static unsigned
megabytes(uint64_t bytes)
{
    return (unsigned)(bytes / 1000000 + 1);
}

/* Writes why a place will not do; an empty text if it will. */
static void
fault_of(const char *place, struct need need, char *fault)
{
    struct stat status;
    struct statvfs system;
    uint64_t free_bytes;

    fault[0] = 0;
    if (stat(place, &status) < 0) {
        snprintf(fault, REASON_MAX, errno == ENOENT ? "does not exist" : "cannot be used (%s)", strerror(errno));
    } else if (!S_ISDIR(status.st_mode)) {
        snprintf(fault, REASON_MAX, "is no directory");
    } else if (statvfs(place, &system) < 0) {
        snprintf(fault, REASON_MAX, "cannot be used (%s)", strerror(errno));
    } else if (system.f_flag & ST_RDONLY) {
        snprintf(fault, REASON_MAX, "is on a read-only file system");
    } else if (system.f_flag & ST_NOEXEC) {
        snprintf(fault, REASON_MAX, "is mounted noexec");
    } else if (access(place, W_OK | X_OK) < 0) {
        snprintf(fault, REASON_MAX, "may not be written to by this user");
    } else {
        free_bytes = (uint64_t)system.f_frsize * (geteuid() == 0 ? system.f_bfree : system.f_bavail);
        /* A file system that counts no blocks or no files has no limit that it knows of. */
        if (system.f_blocks > 0 && free_bytes < need.bytes) {
            snprintf(fault, REASON_MAX, "has %u MB free", megabytes(free_bytes) - 1);
        } else if (system.f_files > 0 && system.f_ffree < need.files) {
            snprintf(fault, REASON_MAX, "has no room for %u more files", (unsigned)need.files);
        }
    }
}

static void
end_without_place(const char *what_is_wrong, struct need need)
{
    fprintf(
        stderr,
        PROGRAM ": it unpacks itself when it starts, and %s: set TMPDIR to a directory that this user may write to, "
        "that is not mounted noexec, and that has %u MB free\n",
        what_is_wrong, megabytes(need.bytes)
    );
    exit(FAILED);
}

/* --- folders ---------------------------------------------------------------------------------------------------- */

bool
gateway_is_folder_name(const char *name, unsigned int *pid)
{
    const char *digits = name + sizeof(PREFIX) - 1;

    /* To the letter, since what has such a name and no lock is removed with all that is in it. */
    return strlen(name) == NAME_LENGTH && strncmp(name, PREFIX, sizeof(PREFIX) - 1) == 0
        && strspn(digits, "0123456789abcdef") >= PID_DIGITS && sscanf(digits, "%08x", pid) == 1;
}

/* Takes the lock of a folder; -1 if another process has it, or the folder is not there any more. */
static int
lock_folder(const char *path, int how)
{
    struct stat status;
    /* Without O_CLOEXEC: the lock has to outlive exec. */
    int opened = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    int folder;

    if (opened < 0) {
        return -1;
    }
    /* Where standard streams are closed it would become one of them, and Python refuses to start with a directory there. */
    folder = fcntl(opened, F_DUPFD, STDERR_FILENO + 1);
    close(opened);
    if (folder < 0) {
        return -1;
    }
    if (flock(folder, how) < 0 || fstat(folder, &status) < 0 || status.st_nlink == 0) {
        close(folder);
        return -1;
    }
    return folder;
}

/* Removes the folders that killed processes of this user have left in a place. */
static void
remove_dead_folders(const char *place)
{
    char path[PYI_PATH_MAX];
    struct dirent *entry;
    struct stat status;
    unsigned int pid;
    int folder;
    DIR *listing = opendir(place);

    if (listing == NULL) {
        return;
    }
    while ((entry = readdir(listing)) != NULL) {
        if (!gateway_is_folder_name(entry->d_name, &pid)
            || snprintf(path, sizeof(path), "%s/%s", place, entry->d_name) >= (int)sizeof(path)
            || lstat(path, &status) < 0 || !S_ISDIR(status.st_mode) || status.st_uid != geteuid()) {
            continue;
        }
        folder = lock_folder(path, LOCK_EX | LOCK_NB);
        if (folder >= 0) {
            /* The lock is held to the end: a starting process that has just made this folder waits for it and then sees
             * that the folder is gone. */
            pyi_recursive_rmdir(path);
            close(folder);
        }
    }
    closedir(listing);
}

/* Makes a locked folder in a place, its path in `application_home_dir`; writes what went wrong, or an empty text. */
static void
make_folder_in(struct PYI_CONTEXT *pyi_ctx, const char *place, char *fault)
{
    int tries;
    int length;

    for (tries = 0; tries < TRIES; tries++) {
        length = snprintf(
            pyi_ctx->application_home_dir, PYI_PATH_MAX, "%s/" PREFIX "%08x" RANDOM, place, (unsigned int)getpid()
        );
        if (length >= PYI_PATH_MAX) {
            snprintf(fault, REASON_MAX, "has too long a path");
            return;
        }
        if (mkdtemp(pyi_ctx->application_home_dir) == NULL) {
            snprintf(fault, REASON_MAX, "takes no new directory (%s)", strerror(errno));
            return;
        }
        if (lock_folder(pyi_ctx->application_home_dir, LOCK_EX) >= 0) {
            fault[0] = 0;
            return;
        }
        /* Not locked because a cleaner was quicker, or because this file system knows no locks. */
        rmdir(pyi_ctx->application_home_dir);
    }
    snprintf(fault, REASON_MAX, "takes no lock on a directory");
}

static void
try_place(struct PYI_CONTEXT *pyi_ctx, const char *place, struct need need, char *fault)
{
    remove_dead_folders(place);
    fault_of(place, need, fault);
    if (fault[0] == 0) {
        make_folder_in(pyi_ctx, place, fault);
    }
}

int
gateway_make_folder(struct PYI_CONTEXT *pyi_ctx)
{
    static const char *const usual[] = {"/tmp", "/var/tmp"};
    struct need need = need_of(pyi_ctx->archive);
    char fault[REASON_MAX];
    char wrong[2 * REASON_MAX + 100] = "";
    char *told = pyi_getenv("TMPDIR");
    char place[PYI_PATH_MAX];
    size_t length = 0;
    unsigned i;

    if (told != NULL) {
        /* What was asked for is what is used: an operator who set it does not look for it elsewhere. The path may be a
         * relative one, and stands in the environment of a program that may change its directory. */
        if (realpath(told, place) == NULL) {
            snprintf(place, sizeof(place), "%s", told);
        }
        try_place(pyi_ctx, place, need, fault);
        if (fault[0] == 0) {
            free(told);
            return 0;
        }
        snprintf(wrong, sizeof(wrong), "TMPDIR=%s %s", told, fault);
        end_without_place(wrong, need);
    }
    for (i = 0; i < sizeof(usual) / sizeof(usual[0]); i++) {
        try_place(pyi_ctx, usual[i], need, fault);
        if (fault[0] == 0) {
            return 0;
        }
        length += snprintf(wrong + length, sizeof(wrong) - length, "%s%s %s", i > 0 ? ", " : "", usual[i], fault);
    }
    end_without_place(wrong, need);
    return -1;
}

void
gateway_fail_to_unpack(struct PYI_CONTEXT *pyi_ctx, int cause)
{
    char wrong[REASON_MAX];

    /* Room was there when it began: another writer, a quota, or the disk itself. */
    snprintf(wrong, sizeof(wrong), "could not write into %s (%s)", pyi_ctx->application_home_dir, strerror(cause));
    pyi_recursive_rmdir(pyi_ctx->application_home_dir);
    end_without_place(wrong, need_of(pyi_ctx->archive));
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

static char folder_of_process[PYI_PATH_MAX];
static pid_t process;

static void
remove_folder(void)
{
    /* A forked child that exits leaves the folder to the process that it came from. */
    if (getpid() == process) {
        pyi_recursive_rmdir(folder_of_process);
    }
}

void
gateway_remove_folder_at_exit(struct PYI_CONTEXT *pyi_ctx)
{
    snprintf(folder_of_process, sizeof(folder_of_process), "%s", pyi_ctx->application_home_dir);
    process = getpid();
    atexit(remove_folder);
}
