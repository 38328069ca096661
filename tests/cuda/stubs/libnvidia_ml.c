/* NVML of a machine that is not here. STUB_GPUS describes it: "count major minor GiB nvlink name". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_FOUND = 6 };
enum { P2P_OK = 0, P2P_NOT_SUPPORTED = 2, MOST = 16 };

static struct {
    int count, major, minor, gib, nvlink;
    char name[96];
} gpus;
static int places[MOST];

static int number_of(void *device) { return *(int *)device; }

static void copy(char *to, const char *from, unsigned size) { snprintf(to, size, "%s", from); }

static void write_uuid(char *to, unsigned size, int number) {
    snprintf(to, size, "GPU-%08x-0000-0000-0000-000000000000", number);
}

int nvmlInit_v2(void) {
    const char *text = getenv("STUB_GPUS");
    if (!text || sscanf(text, "%d %d %d %d %d %95[^\n]", &gpus.count, &gpus.major, &gpus.minor, &gpus.gib,
                        &gpus.nvlink, gpus.name) != 6)
        return NOT_FOUND;
    for (int number = 0; number < MOST; number++) places[number] = number;
    return SUCCESS;
}
int nvmlInit(void) { return nvmlInit_v2(); }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "a stub's error"; }

int nvmlSystemGetDriverVersion(char *to, unsigned size) { copy(to, "580.95.05", size); return SUCCESS; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = gpus.count; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned number, void **device) {
    if (number >= (unsigned)gpus.count) return INVALID_ARGUMENT;
    *device = &places[number];
    return SUCCESS;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    char own[96];
    for (int number = 0; number < gpus.count; number++) {
        write_uuid(own, sizeof own, number);
        if (strncmp(own, uuid, strlen(uuid)) == 0) {
            *device = &places[number];
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}
int nvmlDeviceGetIndex(void *device, unsigned *number) { *number = number_of(device); return SUCCESS; }
int nvmlDeviceGetUUID(void *device, char *to, unsigned size) {
    write_uuid(to, size, number_of(device));
    return SUCCESS;
}
int nvmlDeviceGetName(void *device, char *to, unsigned size) {
    (void)device;
    copy(to, gpus.name, size);
    return SUCCESS;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    (void)device;
    *major = gpus.major;
    *minor = gpus.minor;
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory) {
    (void)device;
    memory[0] = memory[1] = (unsigned long long)gpus.gib << 30; /* total, free, used */
    memory[2] = 0;
    return SUCCESS;
}
int nvmlDeviceGetP2PStatus(void *one, void *other, int kind, int *status) {
    (void)one, (void)other, (void)kind;
    *status = gpus.nvlink ? P2P_OK : P2P_NOT_SUPPORTED;
    return SUCCESS;
}
