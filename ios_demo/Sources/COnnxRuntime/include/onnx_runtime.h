/* What EdgeFormerOnnx needs of ONNX Runtime, over the table of functions of its C API. Functions that can fail return a
   message for the caller to free, or NULL. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Element types, as ONNX Runtime numbers them. */
enum { ef_onnx_float32 = 1, ef_onnx_int32 = 6 };

typedef struct {
    const char *_Nonnull name;
    int32_t type;
    void *_Nonnull data;
    size_t bytes;
    const int64_t *_Nonnull shape;
    size_t rank;
} ef_onnx_tensor;

/* Finds ONNX Runtime, once per process: on Apple's systems the one that is linked, elsewhere the shared library `path`. */
char *_Nullable ef_onnx_load(const char *_Nonnull path);

/* "1.24.3", after ef_onnx_load. */
const char *_Nonnull ef_onnx_version(void);

/* Opens a model's file. `any_length`: inputs have a symbolic size, and no output has. */
char *_Nullable ef_onnx_open(
    const char *_Nonnull path, int32_t threads, void *_Nullable *_Nonnull session, int32_t *_Nonnull any_length);

/* Runs a session; outputs are written where they lie. */
char *_Nullable ef_onnx_run(
    void *_Nonnull session, const ef_onnx_tensor *_Nonnull inputs, size_t input_count,
    const ef_onnx_tensor *_Nonnull outputs, size_t output_count);

void ef_onnx_close(void *_Nonnull session);
