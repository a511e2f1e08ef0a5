/* SPDX-License-Identifier: MIT
 *
 * procbench - what the process calls of a Linux-like system cost.
 *
 * One static C file, no dependencies but a libc.  It runs as an ordinary
 * program or as PID 1 (it powers the machine off at its end if it is PID 1).
 * It is meant to run unmodified on Linux and on anything that offers the Linux
 * x86-64 system call ABI, so that both are measured by the same instructions.
 *
 *   build:  musl-gcc -static -O2 -o procbench procbench.c
 *   use:    procbench [-l] [-r REPEATS] [-d DIVISOR] [-x SELF] [CASE...]
 *
 *   -l          list the cases
 *   -r REPEATS  run every case that often, one line each time (default 1)
 *   -d DIVISOR  divide the iteration counts (for slow systems)
 *   -x SELF     the path under which this program can be executed
 *   CASE        a case's name, or the beginning of several names ("fork");
 *               "-CASE" leaves those out; no CASE at all means all of them
 *
 * As PID 1 on Linux, words after "--" on the kernel command line are argv.
 *
 * Each case prints one line:  name iterations ns_per_op tsc_per_op
 * Lines that begin with '#' are notes.  Under qemu -icount shift=0 both
 * figures are the count of guest instructions (of all code: user, kernel,
 * interrupts), as long as the guest is never idle within a case.
 *
 * An "op" is what the comment at the case says.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_NOHUGEPAGE
#define MADV_NOHUGEPAGE 15
#endif

#define PAGE 4096ul
#define MIB (1024ul * 1024ul)

extern char **environ;

static char self_path[1024] = "/init";
static long divisor = 1;

/* ---- clocks ---------------------------------------------------------- */

struct mark {
    uint64_t ns, tsc;
};

static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return ((uint64_t)hi << 32) | lo;
}

/* A mark is a no-operation with a number in it.  It does nothing; an observer
   of the whole machine (bench/plugin in Mitosis) counts what is executed
   between MARK_BEGIN and MARK_END, and puts what it counted since the last
   MARK_REPORT down to one case. */
#if defined(__x86_64__)
#define MARK(number) \
    __asm__ volatile("nopl %c0(%%rax,%%rax,1)" : : "i"(0x4d540000 + (number)) : "memory")
#else
#define MARK(number) ((void)0)
#endif
#define MARK_BEGIN() MARK(1)
#define MARK_END() MARK(2)
#define MARK_REPORT() MARK(3)

static inline struct mark now(void)
{
    struct timespec ts;
    struct mark m;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    m.ns = (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
    m.tsc = rdtsc();
    return m;
}

/* the beginning and the end of a measured stretch */
static inline struct mark begin(void)
{
    struct mark m = now();
    MARK_BEGIN();
    return m;
}

static inline struct mark end(void)
{
    MARK_END();
    return now();
}

/* the sum of measured stretches and of the operations in them */
struct sum {
    uint64_t ns, tsc, ops;
};

static struct sum acc;

static void add(struct mark a, struct mark b, uint64_t ops)
{
    acc.ns += b.ns - a.ns;
    acc.tsc += b.tsc - a.tsc;
    acc.ops += ops;
}

static void put(const char *name, struct sum s)
{
    double n = s.ops ? (double)s.ops : 1;
    printf("%s %llu %.2f %.2f\n", name, (unsigned long long)s.ops,
           (double)s.ns / n, (double)s.tsc / n);
    fflush(stdout);
}

static long count(long n)
{
    n /= divisor;
    return n > 0 ? n : 1;
}

/* ---- helpers --------------------------------------------------------- */

/* A case returns 0, or -1 with errno set where the system lacks something. */

static int reap(pid_t p)
{
    int st;
    for (;;) {
        pid_t r = waitpid(p, &st, 0);
        if (r == p)
            return WIFEXITED(st) && WEXITSTATUS(st) == 0 ? 0 : (errno = ECHILD, -1);
        if (r < 0 && errno != EINTR)
            return -1;
    }
}

static int read_all(int fd, void *buf, size_t n)
{
    char *p = buf;
    while (n) {
        ssize_t r = read(fd, p, n);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return -1;
        p += r;
        n -= (size_t)r;
    }
    return 0;
}

static char *map_private(size_t bytes)
{
    char *m = mmap(0, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED)
        return 0;
    madvise(m, bytes, MADV_NOHUGEPAGE); /* may be missing: 4 KiB pages then */
    return m;
}

static void touch(char *m, size_t bytes, char v)
{
    volatile char *p = m;
    for (size_t i = 0; i < bytes; i += PAGE)
        p[i] = v;
}

/* ---- calibration, system call, pipe ---------------------------------- */

/* op: 1000 turns of a loop of two instructions, so 2000 instructions and a
   handful around them; shows what the clocks count */
static int c_calibrate(void)
{
    long n = count(2000);
    struct mark a = begin();
    for (long i = 0; i < n; i++)
        __asm__ volatile("mov $1000, %%ecx\n1: dec %%ecx\n\tjnz 1b"
                         :
                         :
                         : "ecx", "cc");
    add(a, end(), (uint64_t)n);
    return 0;
}

/* op: one system call that does nothing */
static int c_null(void)
{
    long n = count(200000);
    struct mark a = begin();
    for (long i = 0; i < n; i++)
        syscall(SYS_getppid);
    add(a, end(), (uint64_t)n);
    return 0;
}

/* op: one byte to another process and one byte back */
static int c_pipe_rtt(void)
{
    int to[2], back[2];
    char b = 0;
    long n = count(20000);
    if (pipe(to) || pipe(back))
        return -1;
    pid_t p = fork();
    if (p < 0)
        return -1;
    if (!p) {
        close(to[1]);
        close(back[0]);
        while (read(to[0], &b, 1) == 1)
            if (write(back[1], &b, 1) != 1)
                _exit(1);
        _exit(0);
    }
    close(to[0]);
    close(back[1]);
    int bad = 0;
    for (long i = 0; i < 100 && !bad; i++)
        bad = write(to[1], &b, 1) != 1 || read(back[0], &b, 1) != 1;
    struct mark a = begin();
    for (long i = 0; i < n && !bad; i++)
        bad = write(to[1], &b, 1) != 1 || read(back[0], &b, 1) != 1;
    add(a, end(), (uint64_t)n);
    close(to[1]);
    close(back[0]);
    return reap(p) || bad ? -1 : 0;
}

/* ---- processes ------------------------------------------------------- */

static int loop_fork(long n)
{
    for (long i = 0; i < n; i++) {
        pid_t p = fork();
        if (p < 0)
            return -1;
        if (!p)
            _exit(0);
        if (reap(p))
            return -1;
    }
    return 0;
}

/* op: fork, the child's _exit, waitpid */
static int c_fork_exit(void)
{
    long n = count(1000);
    if (loop_fork(10))
        return -1;
    struct mark a = begin();
    int r = loop_fork(n);
    add(a, end(), (uint64_t)n);
    return r;
}

static char *exec_args[] = {self_path, "x", 0};

/* its own frame: the child shares it until it exits or execs */
static __attribute__((noinline)) pid_t vfork_exit(void)
{
    pid_t p = vfork();
    if (!p)
        _exit(0);
    return p;
}

static __attribute__((noinline)) pid_t vfork_exec(void)
{
    pid_t p = vfork();
    if (!p) {
        execve(self_path, exec_args, environ);
        _exit(127);
    }
    return p;
}

static int loop_vfork(long n, pid_t (*start)(void))
{
    for (long i = 0; i < n; i++) {
        pid_t p = start();
        if (p < 0 || reap(p))
            return -1;
    }
    return 0;
}

/* op: vfork, the child's _exit, waitpid */
static int c_vfork_exit(void)
{
    long n = count(1000);
    if (loop_vfork(10, vfork_exit))
        return -1;
    struct mark a = begin();
    int r = loop_vfork(n, vfork_exit);
    add(a, end(), (uint64_t)n);
    return r;
}

/* op: vfork, execve of this program (which exits at once), waitpid */
static int c_vfork_exec(void)
{
    long n = count(300);
    if (loop_vfork(3, vfork_exec))
        return -1;
    struct mark a = begin();
    int r = loop_vfork(n, vfork_exec);
    add(a, end(), (uint64_t)n);
    return r;
}

static int loop_spawn(long n)
{
    for (long i = 0; i < n; i++) {
        pid_t p;
        int e = posix_spawn(&p, self_path, 0, 0, exec_args, environ);
        if (e)
            return errno = e, -1;
        if (reap(p))
            return -1;
    }
    return 0;
}

/* op: posix_spawn of this program (which exits at once), waitpid */
static int c_posix_spawn(void)
{
    long n = count(300);
    if (loop_spawn(3))
        return -1;
    struct mark a = begin();
    int r = loop_spawn(n);
    add(a, end(), (uint64_t)n);
    return r;
}

static int loop_fork_exec(long n)
{
    for (long i = 0; i < n; i++) {
        pid_t p = fork();
        if (p < 0)
            return -1;
        if (!p) {
            execve(self_path, exec_args, environ);
            _exit(127);
        }
        if (reap(p))
            return -1;
    }
    return 0;
}

/* op: fork, execve of this program (which exits at once), waitpid */
static int c_fork_exec(void)
{
    long n = count(300);
    if (loop_fork_exec(3))
        return -1;
    struct mark a = begin();
    int r = loop_fork_exec(n);
    add(a, end(), (uint64_t)n);
    return r;
}

/* ---- threads --------------------------------------------------------- */

static char raw_stack[16384] __attribute__((aligned(64)));
static volatile int raw_tid;

/* clone a thread that does nothing but exit; the kernel clears raw_tid */
static long raw_thread(void)
{
    register long r10 __asm__("r10") = (long)&raw_tid;
    register long r8 __asm__("r8") = 0;
    long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
                 CLONE_THREAD | CLONE_SYSVSEM | CLONE_PARENT_SETTID |
                 CLONE_CHILD_CLEARTID;
    long ret;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "mov %[nr_exit], %%eax\n\t"
                     "xor %%edi, %%edi\n\t"
                     "syscall\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(ret)
                     : "0"((long)SYS_clone), "D"(flags),
                       "S"(raw_stack + sizeof raw_stack), "d"(&raw_tid),
                       "r"(r10), "r"(r8), [nr_exit] "i"(SYS_exit)
                     : "rcx", "r11", "memory");
    return ret;
}

static int loop_raw_thread(long n)
{
    for (long i = 0; i < n; i++) {
        raw_tid = -1;
        long t = raw_thread();
        if (t < 0)
            return errno = (int)-t, -1;
        int v;
        while ((v = raw_tid) != 0)
            syscall(SYS_futex, &raw_tid, 0 /* FUTEX_WAIT */, v, 0, 0, 0);
    }
    return 0;
}

/* op: clone(CLONE_VM|FS|FILES|SIGHAND|THREAD), the thread's exit, futex wait */
static int c_thread_clone(void)
{
    long n = count(2000);
    if (loop_raw_thread(10))
        return -1;
    struct mark a = begin();
    int r = loop_raw_thread(n);
    add(a, end(), (uint64_t)n);
    return r;
}

static void *nothing(void *p) { return p; }

static int loop_pthread(long n)
{
    for (long i = 0; i < n; i++) {
        pthread_t t;
        int e = pthread_create(&t, 0, nothing, 0);
        if (!e)
            e = pthread_join(t, 0);
        if (e)
            return errno = e, -1;
    }
    return 0;
}

/* op: pthread_create, pthread_join (with the libc's mmap of a stack) */
static int c_thread_pthread(void)
{
    long n = count(2000);
    if (loop_pthread(10))
        return -1;
    struct mark a = begin();
    int r = loop_pthread(n);
    add(a, end(), (uint64_t)n);
    return r;
}

/* ---- fork with memory ------------------------------------------------ */

static int fork_mem(size_t mib, long n)
{
    char *m = map_private(mib * MIB);
    if (!m)
        return -1;
    touch(m, mib * MIB, 1);
    int r = loop_fork(1);
    struct mark a = begin();
    if (!r)
        r = loop_fork(n);
    add(a, end(), (uint64_t)n);
    munmap(m, mib * MIB);
    return r;
}

/* op: fork, _exit, waitpid with so much touched private memory in 4 KiB pages */
static int c_fork_1m(void) { return fork_mem(1, count(400)); }
static int c_fork_16m(void) { return fork_mem(16, count(100)); }
static int c_fork_64m(void) { return fork_mem(64, count(40)); }
static int c_fork_256m(void) { return fork_mem(256, count(12)); }

/* op: as above, with 256 MiB mapped but never touched */
static int c_fork_256m_untouched(void)
{
    long n = count(400);
    char *m = map_private(256 * MIB);
    if (!m)
        return -1;
    int r = loop_fork(1);
    struct mark a = begin();
    if (!r)
        r = loop_fork(n);
    add(a, end(), (uint64_t)n);
    munmap(m, 256 * MIB);
    return r;
}

/* ---- page faults ------------------------------------------------------ */

#define COW_BYTES (4 * MIB)

/* op: one page written for the first time after fork.
   who: 0 the child (the page is copied), 1 the parent while the child lives
   (copied), 2 the parent after the child is gone (only made writable again) */
static int cow(int who)
{
    long rounds = count(8);
    char *m = map_private(COW_BYTES);
    int r = 0;
    if (!m)
        return -1;
    touch(m, COW_BYTES, 1);
    for (long i = 0; i < rounds && !r; i++) {
        int res[2], go[2];
        char b = 0;
        if (pipe(res) || pipe(go))
            return -1;
        pid_t p = fork();
        if (p < 0)
            return -1;
        if (!p) {
            close(go[1]);
            struct mark t[2];
            memset(t, 0, sizeof t);
            if (who == 0) {
                t[0] = begin();
                touch(m, COW_BYTES, 2);
                t[1] = end();
            }
            if (write(res[1], t, sizeof t) != sizeof t)
                _exit(1);
            if (who != 2)
                (void)!read(go[0], &b, 1); /* until the parent closes */
            _exit(0);
        }
        close(go[0]);
        struct mark t[2];
        r = read_all(res[0], t, sizeof t);
        if (who == 2)
            r |= reap(p);
        if (who != 0) {
            t[0] = begin();
            touch(m, COW_BYTES, 3);
            t[1] = end();
        }
        close(go[1]);
        close(res[0]);
        close(res[1]);
        if (who != 2)
            r |= reap(p);
        add(t[0], t[1], COW_BYTES / PAGE);
    }
    munmap(m, COW_BYTES);
    return r;
}

static int c_cow_child(void) { return cow(0); }
static int c_cow_parent(void) { return cow(1); }
static int c_cow_last_owner(void) { return cow(2); }

/* op: the first write to one page of fresh anonymous memory */
static int c_zero_fill(void)
{
    long rounds = count(8);
    for (long i = 0; i < rounds; i++) {
        char *m = map_private(COW_BYTES);
        if (!m)
            return -1;
        struct mark a = begin();
        touch(m, COW_BYTES, 1);
        add(a, end(), COW_BYTES / PAGE);
        munmap(m, COW_BYTES);
    }
    return 0;
}

/* op: mmap and munmap of 1 MiB, untouched */
static int c_mmap_1m(void)
{
    long n = count(5000);
    struct mark a = begin();
    for (long i = 0; i < n; i++) {
        char *m = mmap(0, MIB, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (m == MAP_FAILED || munmap(m, MIB))
            return -1;
    }
    add(a, end(), (uint64_t)n);
    return 0;
}

/* op: mmap of 1 MiB, a write to each of its 256 pages, munmap */
static int c_mmap_1m_touched(void)
{
    long n = count(50);
    struct mark a = begin();
    for (long i = 0; i < n; i++) {
        char *m = map_private(MIB);
        if (!m)
            return -1;
        touch(m, MIB, 1);
        if (munmap(m, MIB))
            return -1;
    }
    add(a, end(), (uint64_t)n);
    return 0;
}

/* ---- many processes --------------------------------------------------- */

/* op: one of 1000 processes that all live at once, from fork to reaping */
static int alive(int part)
{
    enum { N = 1000 };
    static pid_t pids[N];
    long n = count(N);
    int go[2], r = 0;
    long made = 0;
    char b;
    if (pipe(go))
        return -1;
    struct mark a = part == 2 ? now() : begin();
    for (; made < n; made++) {
        pids[made] = fork();
        if (pids[made] < 0)
            break;
        if (!pids[made]) {
            close(go[1]);
            (void)!read(go[0], &b, 1); /* until the parent closes */
            _exit(0);
        }
    }
    int e = errno;
    sched_yield(); /* let each child reach its read */
    if (part == 1)
        MARK_END();
    struct mark mid = now();
    if (part == 2)
        MARK_BEGIN();
    close(go[1]);
    for (long i = 0; i < made; i++)
        r |= reap(pids[i]);
    struct mark last = part == 1 ? now() : end();
    close(go[0]);
    add(part == 2 ? mid : a, part == 1 ? mid : last, (uint64_t)made);
    if (made < n)
        return errno = e, -1;
    return r;
}

static int c_alive_1000(void) { return alive(0); }
static int c_alive_1000_make(void) { return alive(1); }
static int c_alive_1000_reap(void) { return alive(2); }

/* op: one link of a chain of processes, each the child of the one before,
   each waiting for the next */
static int c_chain_100(void)
{
    long rounds = count(10);
    enum { DEPTH = 100 };
    struct mark a = begin();
    for (long i = 0; i < rounds; i++) {
        pid_t p = fork();
        if (p < 0)
            return -1;
        if (!p) {
            for (int d = 1; d < DEPTH; d++) {
                pid_t q = fork();
                if (q < 0)
                    _exit(2);
                if (q)
                    _exit(reap(q) ? 1 : 0);
            }
            _exit(0);
        }
        if (reap(p))
            return -1;
    }
    add(a, end(), (uint64_t)rounds * DEPTH);
    return 0;
}

/* ---- signals ---------------------------------------------------------- */

static volatile sig_atomic_t got;

static void on_usr1(int s)
{
    (void)s;
    got = got + 1;
}

static int handle_usr1(sigset_t *without)
{
    struct sigaction sa;
    sigset_t set;
    memset(&sa, 0, sizeof sa);
    sa.sa_handler = on_usr1;
    sigemptyset(&sa.sa_mask);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    if (sigaction(SIGUSR1, &sa, 0))
        return -1;
    if (without && sigprocmask(SIG_BLOCK, &set, without))
        return -1;
    if (without)
        sigdelset(without, SIGUSR1);
    return 0;
}

/* op: kill(self, SIGUSR1), the handler, the return from it */
static int c_signal_self(void)
{
    long n = count(20000);
    pid_t me = getpid();
    if (handle_usr1(0))
        return -1;
    got = 0;
    struct mark a = begin();
    for (long i = 0; i < n; i++)
        if (kill(me, SIGUSR1))
            return -1;
    add(a, end(), (uint64_t)n);
    return got == n ? 0 : (errno = EIO, -1);
}

/* op: SIGUSR1 to another process and SIGUSR1 back, both in sigsuspend */
static int c_signal_rtt(void)
{
    long n = count(10000);
    sigset_t open_mask, old;
    int r = -1;
    sigprocmask(SIG_BLOCK, 0, &old);
    if (handle_usr1(&open_mask))
        return -1;
    got = 0;
    pid_t me = getpid();
    pid_t p = fork();
    if (p < 0)
        goto out;
    if (!p) {
        for (long i = 0; i < n; i++) {
            long before = got;
            while (got == before)
                sigsuspend(&open_mask);
            if (kill(me, SIGUSR1))
                _exit(1);
        }
        _exit(0);
    }
    struct mark a = begin();
    for (long i = 0; i < n; i++) {
        long before = got;
        if (kill(p, SIGUSR1))
            goto out;
        while (got == before)
            sigsuspend(&open_mask);
    }
    add(a, end(), (uint64_t)n);
    r = reap(p);
out:
    sigprocmask(SIG_SETMASK, &old, 0);
    return r;
}

/* ---- the table, main -------------------------------------------------- */

static const struct {
    const char *name;
    int (*run)(void);
} cases[] = {
    {"calibrate_2000", c_calibrate},
    {"null_getppid", c_null},
    {"pipe_rtt", c_pipe_rtt},
    {"fork_exit", c_fork_exit},
    {"vfork_exit", c_vfork_exit},
    {"vfork_exec", c_vfork_exec},
    {"posix_spawn", c_posix_spawn},
    {"fork_exec", c_fork_exec},
    {"thread_clone", c_thread_clone},
    {"thread_pthread", c_thread_pthread},
    {"fork_mem_1m", c_fork_1m},
    {"fork_mem_16m", c_fork_16m},
    {"fork_mem_64m", c_fork_64m},
    {"fork_mem_256m", c_fork_256m},
    {"fork_untouched_256m", c_fork_256m_untouched},
    {"cow_child_page", c_cow_child},
    {"cow_parent_page", c_cow_parent},
    {"cow_last_owner_page", c_cow_last_owner},
    {"zero_fill_page", c_zero_fill},
    {"mmap_munmap_1m", c_mmap_1m},
    {"mmap_touch_munmap_1m", c_mmap_1m_touched},
    {"alive_1000", c_alive_1000},
    {"alive_1000_make", c_alive_1000_make},
    {"alive_1000_reap", c_alive_1000_reap},
    {"chain_100", c_chain_100},
    {"signal_self", c_signal_self},
    {"signal_rtt", c_signal_rtt},
};

#define NCASES (sizeof cases / sizeof cases[0])

static int wanted(const char *name, int n, char **sel)
{
    int any = 0, yes = 0;
    for (int i = 0; i < n; i++) {
        const char *s = sel[i];
        if (s[0] == '-') {
            if (!strncmp(name, s + 1, strlen(s + 1)))
                return 0;
        } else {
            any = 1;
            yes |= !strncmp(name, s, strlen(s));
        }
    }
    return yes || !any;
}

int main(int argc, char **argv)
{
    long repeats = 1;
    char *sel[64];
    int nsel = 0, list = 0, failed = 0;

    if (argc > 1 && !strcmp(argv[1], "x"))
        _exit(0); /* the program that the exec cases run */

    if (argc > 0 && argv[0][0] == '/') {
        snprintf(self_path, sizeof self_path, "%s", argv[0]);
    } else {
        ssize_t k = readlink("/proc/self/exe", self_path, sizeof self_path - 1);
        if (k > 0)
            self_path[k] = 0;
        else if (argc > 0)
            snprintf(self_path, sizeof self_path, "%s", argv[0]);
    }
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-l"))
            list = 1;
        else if (!strcmp(argv[i], "-r") && i + 1 < argc)
            repeats = atol(argv[++i]);
        else if (!strcmp(argv[i], "-d") && i + 1 < argc)
            divisor = atol(argv[++i]);
        else if (!strcmp(argv[i], "-x") && i + 1 < argc)
            snprintf(self_path, sizeof self_path, "%s", argv[++i]);
        else if (nsel < 64)
            sel[nsel++] = argv[i];
    }
    if (divisor < 1)
        divisor = 1;
    if (list) {
        for (size_t i = 0; i < NCASES; i++)
            puts(cases[i].name);
        return 0;
    }
    struct rlimit many = {8192, 8192};
    setrlimit(RLIMIT_NPROC, &many); /* where it is less; may fail */

    printf("# procbench: name iterations ns_per_op tsc_per_op\n");
    fflush(stdout);
    for (long r = 0; r < repeats; r++)
        for (size_t i = 0; i < NCASES; i++) {
            if (!wanted(cases[i].name, nsel, sel))
                continue;
            memset(&acc, 0, sizeof acc);
            errno = 0;
            if (cases[i].run() == 0) {
                put(cases[i].name, acc);
            } else {
                printf("# %s failed: %s\n", cases[i].name, strerror(errno));
                fflush(stdout);
                failed = 1;
            }
            MARK_REPORT();
        }
    printf("# procbench: end\n");
    fflush(stdout);
    if (getpid() == 1) {
        sync();
        reboot(RB_POWER_OFF);
    }
    return failed;
}
