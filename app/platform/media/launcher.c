/* Starts one program under limits: carries out words of confinement.py in order, then becomes the program. The words are
 * explained in launcher.py, its twin for machines without a compiler; neither knows what is allowed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NOT_STARTED = 127, OWN_PID = 1, ADDRESS_LOW, ADDRESS_HIGH };
/* linux/landlock.h is younger than some systems' headers. */
enum { LANDLOCK_CREATE_RULESET = 444, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF, PATH_BENEATH = 1 };

static char *path; /* of the program, at an address that it does not know and cannot find out */
static int ruleset = -1;

/* How many bytes the hexadecimal text stands for, or -1. */
static long decode(const char *text, unsigned char *into, size_t room)
{
    static const char digits[] = "0123456789abcdef";
    size_t length = 0;
    for (; *text; text += 2, length++) {
        const char *high = strchr(digits, text[0]), *low = text[1] ? strchr(digits, text[1]) : NULL;
        if (!high || !low || length == room) return errno = EINVAL, -1;
        into[length] = (high - digits) << 4 | (low - digits);
    }
    return length;
}

static int place_path(const char *program)
{
    long page = sysconf(_SC_PAGESIZE);
    uint16_t offset;
    if (getrandom(&offset, sizeof offset, 0) != sizeof offset) return -1;
    path = mmap(NULL, page + strlen(program) + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (path == MAP_FAILED) return -1;
    path = strcpy(path + offset % page, program);
    return 0;
}

static int die_with_parent(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)) return -1;
    return getppid() == parent ? 0 : kill(getpid(), SIGKILL);
}

static int set_limit(const char *word)
{
    char *end;
    int kind = strtol(word, &end, 10);
    rlim_t value = strtoull(end + (*end == '='), NULL, 10);
    struct rlimit limit;
    if (getrlimit(kind, &limit)) return -1;
    if (limit.rlim_max == RLIM_INFINITY || value < limit.rlim_max) limit.rlim_max = value;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(kind, &limit);
}

static int keep_capabilities(unsigned mask)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct held[2];
    if (syscall(SYS_capget, &header, held)) return -1;
    held[0].effective = held[0].permitted &= mask;
    held[0].inheritable = 0;
    memset(&held[1], 0, sizeof held[1]);
    return syscall(SYS_capset, &header, held);
}

static int make_ruleset(const char *word)
{
    unsigned char attributes[256];
    long length = decode(word, attributes, sizeof attributes);
    if (length >= 0) ruleset = syscall(LANDLOCK_CREATE_RULESET, attributes, length, 0);
    return length < 0 || ruleset < 0 ? -1 : 0;
}

static int allow(const char *word)
{
    char *end;
    uint64_t directory = strtoull(word, &end, 16), file = strtoull(end + (*end == ':'), &end, 16);
    struct __attribute__((packed)) { uint64_t access; int32_t opened; } rule;
    struct stat status;
    if (*end != ':') return errno = EINVAL, -1;
    if (ruleset < 0 || (rule.opened = open(end + 1, O_PATH | O_CLOEXEC)) < 0) return 0;
    rule.access = !fstat(rule.opened, &status) && S_ISDIR(status.st_mode) ? directory : file;
    if (syscall(LANDLOCK_ADD_RULE, ruleset, PATH_BENEATH, &rule, 0)) return ruleset = -1;
    return close(rule.opened);
}

static int enforce(void)
{
    return ruleset < 0 ? 0 : syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0) || close(ruleset) ? -1 : 0;
}

static int filter(const char *word)
{
    static struct sock_filter steps[BPF_MAXINSNS];
    long length = decode(word, (unsigned char *)steps, sizeof steps);
    struct sock_fprog program = {length / sizeof *steps, steps};
    if (length < 0) return -1;
    for (int i = 0; i < program.len; i++) {
        switch (steps[i].code >> 8) {
        case OWN_PID: steps[i].k = getpid(); break;
        case ADDRESS_LOW: steps[i].k = (uint64_t)(uintptr_t)path; break;
        case ADDRESS_HIGH: steps[i].k = (uint64_t)(uintptr_t)path >> 32; break;
        }
        steps[i].code &= 0xff;
    }
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

static int carry_out(const char *word)
{
    switch (*word) {
    case 'p': return die_with_parent(atoi(word + 1));
    case 'l': return set_limit(word + 1);
    case 'n': return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    case 'c': return keep_capabilities(strtoul(word + 1, NULL, 16));
    case 'r': return make_ruleset(word + 1);
    case 'a': return allow(word + 1);
    case 'e': return enforce();
    case 'f': return filter(word + 1);
    }
    fprintf(stderr, "launcher: unknown word %s\n", word);
    exit(NOT_STARTED);
}

int main(int count, char **words)
{
    char **word = words + 1, **command = word;
    int required = 0;
    while (command < words + count && strcmp(*command, "--")) command++;
    if (++command >= words + count || place_path(*command)) return NOT_STARTED;
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    for (; strcmp(*word, "--"); word++) {
        if (!strcmp(*word, "required")) required = 1;
        else if (carry_out(*word) && (required || strchr("lp", **word))) break;
    }
    if (!strcmp(*word, "--")) {
        *word = "exec";
        execv(path, command);
    }
    fprintf(stderr, "launcher: %s: %s: %s\n", *command, *word, strerror(errno));
    return NOT_STARTED;
}
