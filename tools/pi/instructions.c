// Counts the instructions that a program executes in qemu, and prints the count whenever the program asks for it, by
// getpriority(77, ...), which fails: there is no such kind of process. Of qemu's interface for plugins it declares what
// it uses, as Debian has no header of it: https://www.qemu.org/docs/master/devel/tcg-plugins.html
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

enum { GETPRIORITY = 141, ASKED = 77, NO_REGISTERS = 0 };

typedef uint64_t Id;
struct Block;
typedef void (*OnBlock)(Id, struct Block *);
typedef void (*OnRun)(unsigned, void *);
typedef void (*OnCall)(Id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t);
void qemu_plugin_register_vcpu_tb_trans_cb(Id, OnBlock);
void qemu_plugin_register_vcpu_tb_exec_cb(struct Block *, OnRun, int, void *);
size_t qemu_plugin_tb_n_insns(const struct Block *);
void qemu_plugin_register_vcpu_syscall_cb(Id, OnCall);

int qemu_plugin_version = PLUGIN_VERSION;
static uint64_t executed;

static void ran(unsigned cpu, void *instructions) {
  (void)cpu;
  __atomic_fetch_add(&executed, (uintptr_t)instructions, __ATOMIC_RELAXED);
}

static void translated(Id id, struct Block *block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_cb(block, ran, NO_REGISTERS, (void *)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void called(Id id, unsigned cpu, int64_t number, uint64_t first, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                   uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)cpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number == GETPRIORITY && first == ASKED) {
    fprintf(stderr, "instructions: %" PRIu64 "\n", executed);
    fflush(stderr);
  }
}

int qemu_plugin_install(Id id, const void *info, int argc, char **argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
