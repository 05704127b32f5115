#include "onnx_runtime.h"
#include <stdlib.h>
#include <string.h>
#ifndef __APPLE__
#include <dlfcn.h>
#endif

/* Places in the table of functions (`struct OrtApi` of onnxruntime_c_api.h), which only ever grows at its end. */
enum {
    get_error_message = 2,
    create_env = 3,
    disable_telemetry = 6,
    create_session = 7,
    run = 9,
    create_session_options = 10,
    set_log_level = 22,
    set_intra_threads = 24,
    set_inter_threads = 25,
    input_count = 30,
    output_count = 31,
    input_type = 33,
    output_type = 34,
    create_tensor = 49,
    cast_to_tensor = 55,
    dimension_count = 61,
    dimensions = 62,
    create_cpu_memory = 69,
    release_status = 93,
    release_session = 95,
    release_value = 96,
    release_type = 98,
    release_session_options = 100,
    add_config = 130
};
enum { api_version = 16, log_errors = 3, device_allocator = 0, default_memory = 0, most_tensors = 256 };

typedef struct {
    const void *const *(*get_api)(uint32_t);
    const char *(*version)(void);
} api_base;

static const void *const *api;
static const api_base *base;
static void *environment, *memory;

/* Each call by its place and its parameters, all of which return a status. */
#define CALL(place, parameters, ...) ((void *(*) parameters)api[place])(__VA_ARGS__)
#define RELEASE(place, object) ((void (*)(void *))api[place])(object)

static char *message(void *status) {
    if (!status) return NULL;
    char *text = strdup(((const char *(*)(void *))api[get_error_message])(status));
    RELEASE(release_status, status);
    return text;
}

#ifdef __APPLE__
extern const api_base *OrtGetApiBase(void);
#endif

char *ef_onnx_load(const char *path) {
    if (memory) return NULL;
#ifdef __APPLE__
    (void)path;
    base = OrtGetApiBase();
#else
    void *library = dlopen(path, RTLD_NOW);
    if (!library) return strdup(dlerror());
    const api_base *(*find)(void) = (const api_base *(*)(void))dlsym(library, "OrtGetApiBase");
    if (!find) return strdup(dlerror());
    base = find();
#endif
    api = base->get_api(api_version);
    if (!api) return strdup("this version of ONNX Runtime is too old: expected 1.16 or later");
    char *failed = message(CALL(create_env, (int, const char *, void **), log_errors, "edgeformer", &environment));
    if (!failed) failed = message(CALL(disable_telemetry, (const void *), environment));
    if (!failed) failed = message(CALL(create_cpu_memory, (int, int, void **), device_allocator, default_memory, &memory));
    return failed;
}

const char *ef_onnx_version(void) { return base->version(); }

/* How many of the inputs or outputs have a symbolic size. */
static char *symbols(void *session, int count_place, int type_place, size_t *found) {
    size_t count = 0;
    char *failed = message(CALL(count_place, (const void *, size_t *), session, &count));
    for (size_t index = 0; index < count && !failed; index++) {
        void *type = NULL;
        const void *tensor = NULL;
        size_t rank = 0;
        int64_t shape[16] = {0};
        failed = message(CALL(type_place, (const void *, size_t, void **), session, index, &type));
        if (!failed) failed = message(CALL(cast_to_tensor, (const void *, const void **), type, &tensor));
        if (!failed && tensor) failed = message(CALL(dimension_count, (const void *, size_t *), tensor, &rank));
        if (!failed && rank <= 16) failed = message(CALL(dimensions, (const void *, int64_t *, size_t), tensor, shape, rank));
        for (size_t axis = 0; axis < rank && axis < 16; axis++) {
            if (shape[axis] < 0) { *found += 1; break; }
        }
        if (type) RELEASE(release_type, type);
    }
    return failed;
}

char *ef_onnx_open(const char *path, int32_t threads, void **session, int32_t *any_length) {
    void *options = NULL;
    char *failed = message(CALL(create_session_options, (void **), &options));
    if (!failed) failed = message(CALL(set_intra_threads, (void *, int), options, threads));
    if (!failed) failed = message(CALL(set_inter_threads, (void *, int), options, 1));
    if (!failed) failed = message(CALL(set_log_level, (void *, int), options, log_errors));
    /* Without VNNI, x86's sums of 8-bit products end in 16 bits and saturate. */
    if (!failed) {
        failed = message(CALL(
            add_config, (void *, const char *, const char *), options, "session.x64quantprecision", "1"));
    }
    if (!failed) {
        failed = message(CALL(
            create_session, (const void *, const char *, const void *, void **), environment, path, options, session));
    }
    if (options) RELEASE(release_session_options, options);
    size_t inputs = 0, outputs = 0;
    if (!failed) failed = symbols(*session, input_count, input_type, &inputs);
    if (!failed) failed = symbols(*session, output_count, output_type, &outputs);
    *any_length = inputs > 0 && outputs == 0;
    return failed;
}

static char *wrap(const ef_onnx_tensor *tensor, void **value) {
    return message(CALL(
        create_tensor, (const void *, void *, size_t, const int64_t *, size_t, int, void **), memory, tensor->data,
        tensor->bytes, tensor->shape, tensor->rank, tensor->type, value));
}

char *ef_onnx_run(
    void *session, const ef_onnx_tensor *inputs, size_t input_count, const ef_onnx_tensor *outputs, size_t output_count) {
    if (input_count > most_tensors || output_count > most_tensors) return strdup("a program has too many tensors");
    const char *names[2][most_tensors];
    void *values[2][most_tensors] = {{0}};
    char *failed = NULL;
    for (size_t index = 0; index < input_count && !failed; index++) {
        names[0][index] = inputs[index].name;
        failed = wrap(&inputs[index], &values[0][index]);
    }
    for (size_t index = 0; index < output_count && !failed; index++) {
        names[1][index] = outputs[index].name;
        failed = wrap(&outputs[index], &values[1][index]);
    }
    if (!failed) {
        failed = message(CALL(
            run,
            (void *, const void *, const char *const *, void *const *, size_t, const char *const *, size_t, void **),
            session, NULL, names[0], values[0], input_count, names[1], output_count, values[1]));
    }
    for (size_t index = 0; index < input_count; index++) {
        if (values[0][index]) RELEASE(release_value, values[0][index]);
    }
    for (size_t index = 0; index < output_count; index++) {
        if (values[1][index]) RELEASE(release_value, values[1][index]);
    }
    return failed;
}

void ef_onnx_close(void *session) { RELEASE(release_session, session); }
